//! How an image came to be, step by step: its config's history, with the layers in the store and, where it was built
//! here, the line of the Dockerfile and how long the step took.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_cache::{ListedRecord, ResultId, SnapshotId, Store};

use crate::build_record::{self, RecordedStep};
use crate::cli::report::Failure;

/// One line of `history`, the newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// The image; only of the newest line.
    pub id: Option<String>,
    /// When.
    pub created: Option<Timestamp>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of its layer; none for an instruction without one, `None` where the layer is not unpacked.
    pub size: Option<u64>,
    /// Which tool.
    pub comment: String,
    /// The line of the Dockerfile.
    pub line: Option<u32>,
    /// How long it took.
    pub took: Option<Duration>,
}

/// The history of an image.
pub fn history(store: &Store, text: &str) -> Result<Vec<HistoryRow>, Failure> {
    let image = super::find(store, text, None)?;
    let config = super::config(store, &image.record.id)?;
    let layers = match image.record.snapshot {
        Some(top) => store.snapshots().layers(top)?,
        None => Vec::new(),
    };
    let origins = Origins::of(store, &image.record.id, layers.iter().map(|layer| layer.snapshot).collect())?;
    let mut layers = layers.into_iter();
    let unpacked = image.record.snapshot.is_some();
    let mut rows = Vec::new();
    for entry in &config.history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let origin = layer.as_ref().and_then(|layer| origins.by_snapshot.get(&layer.snapshot));
        rows.push(HistoryRow {
            id: None,
            created: entry.created.as_deref().and_then(|time| time.parse().ok()),
            created_by: entry.created_by.clone(),
            size: match layer {
                Some(layer) => Some(layer.size),
                None if entry.empty_layer || unpacked => Some(0),
                None => None,
            },
            comment: entry.comment.clone(),
            line: origin.and_then(|origin| origin.line),
            took: origin.map(|origin| origin.took),
        });
    }
    // Layers that the config says nothing about.
    for layer in layers {
        rows.push(HistoryRow {
            id: None,
            created: None,
            created_by: String::new(),
            size: Some(layer.size),
            comment: String::new(),
            line: None,
            took: None,
        });
    }
    rows.reverse();
    if let Some(newest) = rows.first_mut() {
        newest.id = Some(image.record.id.to_string());
    }
    Ok(rows)
}

/// Where a layer comes from.
#[derive(Clone, Copy, Debug)]
struct Origin {
    line: Option<u32>,
    took: Duration,
}

/// Where the layers come from that were made here.
struct Origins {
    by_snapshot: BTreeMap<SnapshotId, Origin>,
}

impl Origins {
    fn of(store: &Store, image: &rbuild_image::Digest, snapshots: Vec<SnapshotId>) -> Result<Self, Failure> {
        let mut by_snapshot = BTreeMap::new();
        if snapshots.is_empty() {
            return Ok(Self { by_snapshot });
        }
        let records: BTreeMap<SnapshotId, ListedRecord> =
            store.records().list()?.into_iter().filter_map(|record| Some((record.record.snapshot?, record))).collect();
        // The newest build that made this very image knows the lines as they are now.
        let builds = build_record::list(store, usize::MAX)?;
        let maker = builds.iter().find(|build| build.image.as_ref() == Some(image));
        let steps: BTreeMap<ResultId, RecordedStep> = match maker {
            Some(build) => {
                build_record::open(store, build)?.into_iter().filter_map(|step| Some((step.result?, step))).collect()
            }
            None => BTreeMap::new(),
        };
        for snapshot in snapshots {
            let Some(ListedRecord { record, .. }) = records.get(&snapshot) else { continue };
            let line = match steps.get(&record.result) {
                Some(step) => Some(step.detail.line),
                None => first_line(store, record.result)?,
            };
            by_snapshot.insert(snapshot, Origin { line: line.filter(|line| *line > 0), took: record.duration });
        }
        Ok(Self { by_snapshot })
    }
}

/// The line of the step in the build that did it first.
fn first_line(store: &Store, result: ResultId) -> Result<Option<u32>, Failure> {
    let Some((build, position)) = store.builds().maker(result)? else { return Ok(None) };
    let build = build_record::find(store, build.as_str())?;
    Ok(build_record::open(store, &build)?.get(position).map(|step| step.detail.line))
}
