//! What `rbuild cache …` shows and does, as plain data.

mod prune;
mod verify;

use jiff::Timestamp;
use rbuild_cache::{ResultId, Store};
use serde::Serialize;

use crate::cli::report::Failure;

pub(crate) use prune::waiting;
pub use prune::{LostSteps, PruneRequest, Pruned, PrunedStep, prune};
pub use verify::{Rebuilt, Verified, rebuild, verify};

/// A cached step.
#[derive(Clone, Debug, Serialize)]
pub struct CachedStep {
    /// Its identity in the store.
    pub id: ResultId,
    /// The step as people know it.
    pub name: String,
    /// Bytes of its layer.
    pub size: u64,
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
    let listed = store.records().list()?;
    Ok(listed
        .into_iter()
        .map(|listed| CachedStep {
            id: listed.record.result,
            name: listed.record.subject,
            size: listed.size,
            duration_seconds: listed.record.duration.as_secs_f64(),
            created: listed.record.created_at,
            last_used: listed.record.used_at,
            uses: listed.record.use_count,
        })
        .collect())
}

/// What takes how much space.
#[derive(Clone, Debug, Serialize)]
pub struct UsageSummary {
    /// By kind.
    pub rows: Vec<UsageRow>,
    /// All bytes.
    pub total: u64,
    /// When the oldest cached step was done.
    pub oldest: Option<Timestamp>,
}

/// One kind of thing.
#[derive(Clone, Debug, Serialize)]
pub struct UsageRow {
    /// `images`, `cached steps`, `layers`, …
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// How many, where that is known without counting files.
    pub count: Option<usize>,
    /// Bytes.
    pub bytes: u64,
    /// Bytes that pruning may free.
    pub reclaimable: u64,
}

/// Sums up the store. Layers are shared between images and cached steps, so the rows do not add up.
pub fn usage(store: &Store) -> Result<UsageSummary, Failure> {
    let usage = store.du()?;
    let images = usage.images.iter().map(|image| image.size.saturating_sub(image.shared)).sum();
    let free = |shared: bool, in_use: bool| !shared && !in_use;
    let steps = usage.records.iter().map(|record| record.listed.size).sum();
    let steps_free =
        usage.records.iter().filter(|record| free(record.shared, record.in_use)).map(|record| record.listed.size).sum();
    let mounts = usage.mounts.iter().map(|mount| mount.size).sum();
    let mounts_free = usage.mounts.iter().filter(|mount| !mount.in_use).map(|mount| mount.size).sum();
    let row = |kind, count, bytes, reclaimable| UsageRow { kind, count, bytes, reclaimable };
    let rows = vec![
        row("images (own bytes)", Some(usage.images.len()), images, 0),
        row("cached steps", Some(usage.records.len()), steps, steps_free),
        row("cache mounts", Some(usage.mounts.len()), mounts, mounts_free),
        row("layers in all", None, usage.layers, 0),
        row("blobs in all", Some(store.blobs().list()?.len()), usage.blobs, 0),
        row("partial downloads", None, usage.partials, usage.partials),
    ];
    let oldest = usage.records.iter().map(|record| record.listed.record.created_at).min();
    Ok(UsageSummary { rows, total: usage.total(), oldest })
}
