//! What `rbuild cache prune` does, as plain data.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_cache::{GcPolicy, Loser, PruneControl, PruneFilter, PruneMode, PruneScope, ResultId, Space, Store};
use rbuild_container::Containers;
use serde::Serialize;

use crate::cli::report::Failure;

/// What to prune.
#[derive(Clone, Debug)]
pub struct PruneRequest {
    /// Every cached step; otherwise only what no image or container shares.
    pub all: bool,
    /// Only what was not used for this long.
    pub unused_for: Option<Duration>,
    /// Only what matches one of these.
    pub filters: Vec<PruneFilter>,
    /// Keep at least this much of the cache.
    pub reserved: Option<Space>,
    /// Keep at most this much of the cache.
    pub max_used: Option<Space>,
    /// Stop when the disk has this much free.
    pub min_free: Option<Space>,
    /// Change nothing.
    pub dry_run: bool,
}

/// What was pruned, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct Pruned {
    /// Cached steps, in the order in which they went.
    pub steps: Vec<PrunedStep>,
    /// Cache mounts, by their ids.
    pub mounts: Vec<String>,
    /// Containers that a killed process left.
    pub containers: usize,
    /// Bytes that were freed.
    pub bytes: u64,
    /// Bytes of the cache that stay.
    pub left: u64,
    /// Whose next build would do what again; only of a dry run.
    pub losses: Vec<LostSteps>,
    /// Whether it was interrupted; the rest goes next time.
    pub interrupted: bool,
}

/// A cached step that went.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedStep {
    /// Its identity in the store.
    pub id: ResultId,
    /// The step as people know it.
    pub name: String,
    /// Bytes of its layer.
    pub size: u64,
    /// How long it took: what a hit saved.
    pub duration_seconds: f64,
    /// When it last was a hit.
    pub last_used: Timestamp,
}

/// What somebody's next build would do again.
#[derive(Clone, Debug, Serialize)]
pub struct LostSteps {
    /// An image's name, or a build's Dockerfile and context.
    pub of: String,
    /// The steps.
    pub steps: Vec<String>,
    /// How long they took.
    pub seconds: f64,
}

impl PruneRequest {
    fn policy(&self) -> GcPolicy {
        let (scope, mut rule) = if self.all {
            (PruneScope::All, "prune --all".to_owned())
        } else {
            (PruneScope::Cache, "prune".to_owned())
        };
        let flags =
            [("reserved-space", self.reserved), ("max-used-space", self.max_used), ("min-free-space", self.min_free)];
        for (flag, space) in flags {
            rule.extend(space.map(|space| format!(" --{flag} {space}")));
        }
        rule.extend(self.filters.iter().map(|filter| format!(" --filter {filter}")));
        rule.extend(self.unused_for.map(|age| format!(" --filter until={}s", age.as_secs())));
        GcPolicy {
            unused_for: self.unused_for,
            filters: self.filters.clone(),
            reserved: self.reserved,
            max_used: self.max_used,
            min_free: self.min_free,
            ..GcPolicy::new(rule, scope)
        }
    }
}

/// Removes what nothing needs, and cached steps as asked. Images and containers keep their layers.
pub fn prune(
    store: &Store,
    containers: &Containers,
    request: &PruneRequest,
    control: PruneControl<'_>,
) -> Result<Pruned, Failure> {
    let policy = request.policy();
    if request.dry_run {
        let report = store.prune(&policy, PruneMode::DryRun, control)?;
        let losses = store.losses(&report)?.into_iter().map(|loss| {
            let records = loss.records.iter().map(|position| &report.records[*position]);
            LostSteps {
                of: describe(&loss.loser),
                steps: records.clone().map(|record| record.subject.clone()).collect(),
                seconds: records.map(|record| record.duration.as_secs_f64()).sum(),
            }
        });
        let losses = losses.collect();
        return Ok(Pruned { losses, ..pruned(&report, 0) });
    }
    let gone = containers.list_without_leftovers(&store.lease("prune")?)?.gone;
    let report = store.prune(&policy, PruneMode::Apply, control)?;
    Ok(pruned(&report, gone))
}

fn pruned(report: &rbuild_cache::PruneReport, containers: usize) -> Pruned {
    let step = |record: &rbuild_cache::PrunedRecord| PrunedStep {
        id: record.result,
        name: record.subject.clone(),
        size: record.size,
        duration_seconds: record.duration.as_secs_f64(),
        last_used: record.used_at,
    };
    Pruned {
        steps: report.records.iter().map(step).collect(),
        mounts: report.mounts.iter().map(|mount| mount.id.clone()).collect(),
        containers,
        bytes: report.freed,
        left: report.used,
        losses: Vec::new(),
        interrupted: report.interrupted,
    }
}

fn describe(loser: &Loser) -> String {
    match loser {
        Loser::Image(reference) => reference.to_string(),
        Loser::Build { context, dockerfile, target } => {
            let stage = target.as_ref().map_or_else(String::new, |target| format!(", stage {target}"));
            format!("{dockerfile} in {context}{stage}")
        }
    }
}

/// Tells once whom a command waits for, and gives up when `cancelled`.
pub(crate) fn waiting(
    cancelled: &(dyn Fn() -> bool + Sync),
) -> impl Fn(&rbuild_cache::Waiting<'_>) -> ControlFlow<()> + Sync {
    let told = std::sync::atomic::AtomicBool::new(false);
    move |waiting| {
        if !told.swap(true, std::sync::atomic::Ordering::Relaxed)
            && let Some(holder) = &waiting.holder
        {
            crate::cli::report::story(&format!("waiting for another collection, held by {holder}\n"));
        }
        if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
