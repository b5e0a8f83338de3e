//! Cached steps, with what they are attributed to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rbuild_cache::{PruneFilter, RecordKind, ResultId, SnapshotId, StepDescription, Store, Subject};
use serde::Serialize;

use super::inspect::parents;
use crate::cli::report::Failure;

/// A cached step.
#[derive(Clone, Debug, Serialize)]
pub struct CachedStep {
    /// Its identity in the store.
    pub id: ResultId,
    /// The step as people know it.
    pub name: String,
    /// The cached steps below it, nearest first.
    pub parents: Vec<ResultId>,
    /// BuildKit's name for what it is.
    #[serde(rename = "type", serialize_with = "kind_name")]
    pub kind: RecordKind,
    /// The snapshot below.
    #[serde(skip)]
    pub below: Option<SnapshotId>,
    /// Bytes of its layer.
    pub size: u64,
    /// Whether an image or a container has its layer too.
    pub shared: bool,
    /// Whether a running process uses it.
    pub in_use: bool,
    /// Images that have its layer.
    pub images: Vec<String>,
    /// The Dockerfile it was last recorded for.
    pub dockerfile: String,
    /// The stage there.
    pub stage: String,
    /// The line there; 0 where there is none.
    pub line: u32,
    /// How long it took: what a hit saves.
    pub duration_seconds: f64,
    /// When it was done.
    pub created: Timestamp,
    /// When it last was a hit.
    pub last_used: Timestamp,
    /// How often it was a hit.
    pub uses: u64,
}

/// Cached steps, the latest used first.
pub fn steps(store: &Store) -> Result<Vec<CachedStep>, Failure> {
    let usage = store.du()?;
    let mut images: BTreeMap<SnapshotId, Vec<String>> = BTreeMap::new();
    for image in &usage.images {
        let name = image.references.first().map_or_else(|| image.id.short(), ToString::to_string);
        for snapshot in &image.snapshots {
            images.entry(*snapshot).or_default().push(name.clone());
        }
    }
    let mut listed = Vec::new();
    for row in &usage.records {
        let record = &row.listed.record;
        let description = store.descriptions().of_result(record.result)?.into_iter().next();
        let place = description.as_ref().map(|description| &description.place);
        listed.push(CachedStep {
            id: record.result,
            name: record.subject.clone(),
            parents: parents(&usage.records, row.listed.parent),
            kind: kind(description.as_ref()),
            below: row.listed.parent,
            size: row.listed.size,
            shared: row.shared,
            in_use: row.in_use,
            images: record.snapshot.and_then(|snapshot| images.get(&snapshot).cloned()).unwrap_or_default(),
            dockerfile: place.map(|place| place.project.clone()).unwrap_or_default(),
            stage: place.map(|place| place.stage.clone()).unwrap_or_default(),
            line: place.map_or(0, |place| place.line),
            duration_seconds: record.duration.as_secs_f64(),
            created: record.created_at,
            last_used: record.used_at,
            uses: record.use_count,
        });
    }
    Ok(listed)
}

/// A checkout has a type of its own; everything else is a layer.
fn kind(description: Option<&StepDescription>) -> RecordKind {
    match description {
        Some(description) if description.place.op == "git" => RecordKind::GitCheckout,
        _ => RecordKind::Regular,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn kind_name<S: serde::Serializer>(kind: &RecordKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

impl CachedStep {
    /// Whether it is what a filter asks for.
    pub fn is(&self, filter: &PruneFilter) -> bool {
        filter.matches(&Subject {
            id: &self.id.to_string(),
            parent: &self.below.map(|id| id.to_string()).unwrap_or_default(),
            description: &self.name,
            kind: self.kind,
            shared: self.shared,
            in_use: self.in_use,
        })
    }
}
