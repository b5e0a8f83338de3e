//! What `rbuild cache …` shows and does, as plain data.

mod inspect;
mod list;
mod prune;
mod stats;
mod verify;
mod why;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rbuild_cache::Store;
use serde::Serialize;

use crate::cli::report::Failure;

pub use inspect::{StepDetails, inspect};
pub use list::{CachedStep, steps};
pub(crate) use prune::waiting;
pub use prune::{LostSteps, PruneRequest, Pruned, PrunedStep, prune};
pub use stats::{Stats, stats};
pub use verify::{Rebuilt, Verified, rebuild, verify};
pub use why::{Cause, ExplainedStep, StepName, why};

/// What takes how much space.
#[derive(Clone, Debug, Serialize)]
pub struct UsageSummary {
    /// By kind.
    pub rows: Vec<UsageRow>,
    /// Bytes of cached steps that an image or container has too.
    pub shared: u64,
    /// Bytes of cached steps that nothing else has.
    pub private: u64,
    /// Bytes that pruning everything may free.
    pub reclaimable: u64,
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
    let bytes = |shared: bool| -> u64 {
        let rows = usage.records.iter().filter(|record| record.shared == shared);
        rows.map(|record| (record.listed.record.snapshot, record.listed.size))
            .collect::<BTreeMap<_, _>>()
            .values()
            .sum()
    };
    let (shared, private) = (bytes(true), bytes(false));
    let steps = usage.records.iter().map(|record| record.listed.size).sum();
    let steps_free =
        usage.records.iter().filter(|record| free(record.shared, record.in_use)).map(|record| record.listed.size).sum();
    let mounts = usage.mounts.iter().map(|mount| mount.size).sum();
    let mounts_free = usage.mounts.iter().filter(|mount| !mount.in_use).map(|mount| mount.size).sum();
    let forms = usage.forms.iter().map(|form| form.size).sum();
    let forms_free = usage.forms.iter().filter(|form| !form.in_use).map(|form| form.size).sum();
    let row = |kind, count, bytes, reclaimable| UsageRow { kind, count, bytes, reclaimable };
    let rows = vec![
        row("images (own bytes)", Some(usage.images.len()), images, 0),
        row("cached steps", Some(usage.records.len()), steps, steps_free),
        row("cache mounts", Some(usage.mounts.len()), mounts, mounts_free),
        row("kept for pushes", Some(usage.forms.len()), forms, forms_free),
        row("layers in all", None, usage.layers, 0),
        row("blobs in all", Some(store.blobs().list()?.len()), usage.blobs, 0),
        row("partial downloads", None, usage.partials, usage.partials),
    ];
    let oldest = usage.records.iter().map(|record| record.listed.record.created_at).min();
    Ok(UsageSummary { rows, shared, private, reclaimable: usage.reclaimable, total: usage.total(), oldest })
}
