//! How each vertex of a build went, as rows of its record.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rbuild_cache::{BuildVertex, CacheKey, Store, VertexOutcome};
use rbuild_solver::{KeyKind, MissReason, Product, VertexId, VertexReport, VertexState};
use serde::{Deserialize, Serialize};

use crate::progress::{State, Step, View};

/// What a row's `detail` has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepDetail {
    /// Display number, from 1.
    pub number: usize,
    /// Positions of what it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<usize>,
    /// Stage name or number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// First line of the instruction; 0 where there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: u32,
    /// The kind of key that answered for it: `definition` or `content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit: Option<String>,
    /// Its content key, where it was needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_key: Option<String>,
    /// Why it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miss: Option<MissReason>,
    /// Exit code of its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes of the layer that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Processor time, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor_ns: Option<u64>,
    /// The most bytes of memory at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The most processes at once, where the host counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes read from disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_read: Option<u64>,
    /// Bytes written to disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_written: Option<u64>,
    /// Bytes of output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Bytes that were transferred for it, by item.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub transfers: BTreeMap<String, u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(line: &u32) -> bool {
    *line == 0
}

/// The rows of a build that began at `began`.
pub(super) fn rows(store: &Store, began: Timestamp, view: &View, reports: &[VertexReport]) -> Vec<BuildVertex> {
    let reports: BTreeMap<VertexId, &VertexReport> = reports.iter().map(|report| (report.vertex, report)).collect();
    let positions: BTreeMap<VertexId, usize> = view.steps().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let row = |(id, step): (&VertexId, &Step)| {
        let report = reports.get(id).copied();
        let at = |at: u64| {
            let since = SignedDuration::from_nanos(i64::try_from(at).unwrap_or(i64::MAX));
            began.checked_add(since).ok()
        };
        let detail = match serde_json::to_value(detail(store, step, report, &positions)) {
            Ok(serde_json::Value::Object(detail)) => detail,
            Ok(_) | Err(_) => serde_json::Map::new(),
        };
        BuildVertex {
            name: step.name.clone(),
            outcome: outcome(step, report),
            key: report.and_then(|report| report.definition).map(CacheKey::new),
            result: report.and_then(|report| report.result),
            started_at: step.started.and_then(at),
            duration: step.took().map(Duration::from_nanos),
            detail,
        }
    };
    view.steps().map(row).collect()
}

fn outcome(step: &Step, report: Option<&VertexReport>) -> VertexOutcome {
    match (report.map(|report| report.state), step.state) {
        (Some(VertexState::Completed), _) | (None, State::Done(_)) => VertexOutcome::Done,
        (Some(VertexState::Cached), _) | (None, State::Cached) => VertexOutcome::Cached,
        (Some(VertexState::Failed), _) | (None, State::Failed(_)) => VertexOutcome::Failed,
        _ => VertexOutcome::Cancelled,
    }
}

fn detail(
    store: &Store,
    step: &Step,
    report: Option<&VertexReport>,
    positions: &BTreeMap<VertexId, usize>,
) -> StepDetail {
    let some = |count: u64| (count > 0).then_some(count);
    let ran = matches!(step.state, State::Done(_));
    StepDetail {
        number: step.number,
        inputs: step.inputs.iter().filter_map(|input| positions.get(input).copied()).collect(),
        stage: step.stage.clone(),
        line: step.line,
        hit: report.and_then(|report| report.hit).map(kind),
        content_key: report.and_then(|report| report.content).map(|key| key.to_string()),
        miss: report.and_then(|report| report.miss.clone()),
        exit_code: match &step.failure {
            Some(failure) => failure.exit_code,
            None => (ran && step.used.is_some()).then_some(0),
        },
        error: step.failure.as_ref().map(|failure| failure.message.clone()),
        size: report.filter(|_| ran).and_then(|report| layer_size(store, report)),
        processor_ns: step.used.map(|used| used.processor),
        memory: step.used.map(|used| used.memory),
        processes: step.used.and_then(|used| used.processes),
        disk_read: step.used.map(|used| used.read),
        disk_written: step.used.map(|used| used.written),
        output_bytes: some(step.output_bytes),
        transfers: step.transfers.iter().map(|(item, (current, _))| (item.clone(), *current)).collect(),
    }
}

fn kind(kind: KeyKind) -> String {
    match kind {
        KeyKind::Definition => "definition",
        KeyKind::Content => "content",
        KeyKind::Rerun => "rerun",
        KeyKind::Step => "step",
    }
    .to_owned()
}

/// Bytes of the topmost layer of a product: what the step itself added.
fn layer_size(store: &Store, report: &VertexReport) -> Option<u64> {
    let Some(Product::Snapshot(Some(snapshot))) = &report.product else { return None };
    store.snapshots().layer_size(*snapshot).ok()
}
