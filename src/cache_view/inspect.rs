//! One cached step with everything that is known of it.

use jiff::Timestamp;
use rbuild_cache::{KeyKind, ListedRecord, RecordUsage, ResultId, SnapshotId, StepDescription, Store};
use serde::Serialize;

use crate::cli::report::Failure;

/// A cached step in full.
#[derive(Clone, Debug, Serialize)]
pub struct StepDetails {
    /// Its identity in the store.
    pub id: ResultId,
    /// The step as people know it.
    pub name: String,
    /// What it does and what it reads: the parts of its key, in their order. Notes, which are no part, have a `~`.
    pub parts: Vec<(String, String)>,
    /// Where it stands in which Dockerfiles.
    pub places: Vec<Place>,
    /// The keys that lead to it.
    pub keys: Vec<Key>,
    /// Its result: `None` is the empty tree.
    pub snapshot: Option<SnapshotId>,
    /// The snapshot below it.
    pub parent: Option<SnapshotId>,
    /// The cached steps below it, nearest first.
    pub parents: Vec<ResultId>,
    /// Bytes of its layer.
    pub size: u64,
    /// Whether an image or a container has its layer too.
    pub shared: bool,
    /// Whether a running process uses it.
    pub in_use: bool,
    /// When it was done.
    pub created: Timestamp,
    /// Which build did it.
    pub build: Option<String>,
    /// When it last was a hit.
    pub last_used: Timestamp,
    /// How often it was a hit.
    pub uses: u64,
    /// What a hit saves.
    pub saves_seconds: f64,
}

/// A place in a Dockerfile.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The Dockerfile.
    pub dockerfile: String,
    /// The stage.
    pub stage: String,
    /// The line.
    pub line: u32,
}

/// A key that leads to a step.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    /// `definition`, `content`, `rerun` or `step`.
    pub kind: &'static str,
    /// Its digest.
    pub key: String,
}

/// Finds the cached steps that a text means: an id, or the start of a key's digest.
pub fn inspect(store: &Store, wanted: &str) -> Result<StepDetails, Failure> {
    let usage = store.du()?.records;
    let start = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let by_id = usage.iter().position(|row| row.listed.record.result.to_string() == wanted);
    let has_key = |row: &RecordUsage| start.len() >= 7 && keys(row).any(|(_, key)| key.starts_with(start));
    let mut found: Vec<usize> = match by_id {
        Some(at) => vec![at],
        None => (0..usage.len()).filter(|at| has_key(&usage[*at])).collect(),
    };
    match found.len() {
        1 => details(store, &usage, found.swap_remove(0)),
        0 => Err(Failure::new(format!("no cached step is {wanted:?}")).with_help("see `rbuild cache ls`")),
        count => {
            Err(Failure::new(format!("{wanted:?} is the start of {count} steps' keys")).with_help("give more of it"))
        }
    }
}

fn keys(row: &RecordUsage) -> impl Iterator<Item = (KeyKind, String)> + '_ {
    row.listed.keys.iter().map(|key| (key.kind, key.key.digest().hex()))
}

fn details(store: &Store, usage: &[RecordUsage], at: usize) -> Result<StepDetails, Failure> {
    let row = &usage[at];
    let ListedRecord { record, keys, size, parent } = row.listed.clone();
    let descriptions = store.descriptions().of_result(record.result)?;
    let name_of = |kind| match kind {
        KeyKind::Definition => "definition",
        KeyKind::Content => "content",
        KeyKind::Rerun => "rerun",
        KeyKind::Step => "step",
    };
    Ok(StepDetails {
        id: record.result,
        name: record.subject,
        parts: descriptions.first().map(parts).unwrap_or_default(),
        places: descriptions.into_iter().map(place).collect(),
        keys: keys.iter().map(|key| Key { kind: name_of(key.kind), key: key.key.to_string() }).collect(),
        snapshot: record.snapshot,
        parent,
        parents: parents(usage, parent),
        size,
        shared: row.shared,
        in_use: row.in_use,
        created: record.created_at,
        build: record.build,
        last_used: record.used_at,
        uses: record.use_count,
        saves_seconds: record.duration.as_secs_f64(),
    })
}

fn place(description: StepDescription) -> Place {
    let place = description.place;
    Place { dockerfile: place.project, stage: place.stage, line: place.line }
}

fn parts(description: &StepDescription) -> Vec<(String, String)> {
    let split = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    description.text.lines().filter_map(split).collect()
}

/// The steps whose results are below, nearest first.
pub(super) fn parents(usage: &[RecordUsage], parent: Option<SnapshotId>) -> Vec<ResultId> {
    let mut found = Vec::new();
    let mut next = parent;
    while let Some(snapshot) = next {
        let Some(row) = usage.iter().find(|row| row.listed.record.snapshot == Some(snapshot)) else { break };
        if found.contains(&row.listed.record.result) {
            break;
        }
        found.push(row.listed.record.result);
        next = row.listed.parent;
    }
    found
}
