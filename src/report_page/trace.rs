//! A build's timeline in Chrome's trace format, which Perfetto and `chrome://tracing` read: complete events, microseconds,
//! one lane per step that runs at the same time as others,
//! and a lane for the phases of rbuild itself (`crate::timings`).

use serde_json::{Value, json};

use super::data::Subject;
use crate::build_record::StepState;
use crate::timings::PhaseTime;

/// The trace as JSON.
pub(crate) fn trace(subject: &Subject) -> Value {
    let began = subject.build.started;
    let mut steps: Vec<(i64, i64, &crate::build_record::RecordedStep)> = subject
        .steps
        .iter()
        .filter(|step| step.state != StepState::Waiting)
        .filter_map(|step| {
            let from = i64::try_from(step.started?.duration_since(began).as_micros()).ok()?.max(0);
            let took = i64::try_from(step.duration.unwrap_or_default().as_micros()).ok()?;
            Some((from, took, step))
        })
        .collect();
    steps.sort_by_key(|(from, _, step)| (*from, step.detail.number));
    let mut lanes: Vec<i64> = Vec::new();
    let mut events: Vec<Value> = vec![json!({
        "ph": "M", "pid": 1, "tid": 0, "name": "process_name",
        "args": { "name": format!("build {} of {}", subject.build.id, subject.build.inputs.name) },
    })];
    if !subject.build.inputs.phases.is_empty() {
        events.push(json!({ "ph": "M", "pid": 1, "tid": 0, "name": "thread_name", "args": { "name": "rbuild" } }));
    }
    for PhaseTime { phase, at_ns, took_ns } in &subject.build.inputs.phases {
        events.push(json!({
            "ph": "X", "pid": 1, "tid": 0, "ts": at_ns / 1000, "dur": (took_ns / 1000).max(1),
            "name": phase.name(), "cat": "phase", "args": { "took_ns": took_ns },
        }));
    }
    for (from, took, step) in steps {
        let lane = lanes.iter().position(|free| *free <= from).unwrap_or(lanes.len());
        if lane == lanes.len() {
            lanes.push(0);
        }
        lanes[lane] = from + took.max(1);
        let state = serde_json::to_value(step.state).unwrap_or(Value::Null);
        events.push(json!({
            "ph": "X", "pid": 1, "tid": lane + 1, "ts": from, "dur": took.max(1),
            "name": step.name, "cat": state,
            "args": { "step": step.detail.number, "line": step.detail.line, "stage": step.detail.stage, "state": state,
                "processor_ns": step.detail.processor_ns, "memory": step.detail.memory, "size": step.detail.size },
        }));
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": events })
}
