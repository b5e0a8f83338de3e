//! What `rbuild cache prune` does, as plain data.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_cache::{GcPolicy, PruneControl, PruneMode, PruneScope, Store, wait_silently};

use crate::cli::report::Failure;

/// What to prune.
#[derive(Clone, Copy, Debug)]
pub struct PruneRequest {
    /// Every cached step; otherwise only what no image or container shares.
    pub all: bool,
    /// Only what was not used for this long.
    pub unused_for: Option<Duration>,
    /// Keep this many bytes of the cache.
    pub keep_bytes: Option<u64>,
    /// Change nothing.
    pub dry_run: bool,
}

/// What was pruned.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// Steps that went.
    pub steps: Vec<String>,
    /// Bytes that were freed.
    pub bytes: u64,
}

/// Removes what nothing needs, and cached steps as asked. Images and containers keep their layers.
pub fn prune(store: &Store, request: &PruneRequest) -> Result<Pruned, Failure> {
    let (scope, rule) = if request.all { (PruneScope::All, "prune --all") } else { (PruneScope::Cache, "prune") };
    let mut policy = GcPolicy::new(rule, scope);
    policy.keep_bytes = request.keep_bytes;
    if let Some(unused) = request.unused_for {
        policy.unused_since = Timestamp::now().checked_sub(unused).ok();
    }
    let mode = if request.dry_run { PruneMode::DryRun } else { PruneMode::Apply };
    let report = store.prune(&policy, mode, control())?;
    let mounts = report.mounts.iter().map(|mount| format!("cache mount {}", mount.id));
    let steps = report.records.iter().map(|record| record.subject.clone()).chain(mounts).collect();
    Ok(Pruned { steps, bytes: report.freed })
}

/// Waits for as long as it takes, and is never interrupted.
pub(super) fn control() -> PruneControl<'static> {
    PruneControl { on_wait: &wait_silently, interrupt: &|| ControlFlow::Continue(()) }
}
