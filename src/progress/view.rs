//! The state of a build as its events tell it: which steps exist, how they stand, what they used, their last output.
//!
//! Every view renders this fold, the build's record is written from it, and `rbuild graph` draws it.

use std::collections::BTreeMap;

use rbuild_solver::{Event, Outcome, VertexFailure, VertexId};

/// Bytes of output kept per step, for showing it again when the step fails.
const KEPT_OUTPUT: usize = 256 * 1024;

/// What is known of a build.
#[derive(Debug, Default)]
pub(crate) struct View {
    steps: BTreeMap<VertexId, Step>,
    /// Warnings, in order.
    pub(crate) warnings: Vec<String>,
    /// Time of the last event that had one.
    pub(crate) last: u64,
}

/// What a step's process used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// Processor time, in nanoseconds.
    pub(crate) processor: u64,
    /// The most bytes of memory at once.
    pub(crate) memory: u64,
    /// The most processes at once, where the host counts them.
    pub(crate) processes: Option<u64>,
    /// Bytes read from disks.
    pub(crate) read: u64,
    /// Bytes written to disks.
    pub(crate) written: u64,
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    /// Display number, from 1, in the order of the plan.
    pub(crate) number: usize,
    /// Display name.
    pub(crate) name: String,
    /// Stage name, or its number where it has none.
    pub(crate) stage: String,
    /// First line of the instruction in the Dockerfile; 0 where there is none.
    pub(crate) line: u32,
    /// What it reads.
    pub(crate) inputs: Vec<VertexId>,
    /// How it stands.
    pub(crate) state: State,
    /// When it began to run, or was answered.
    pub(crate) started: Option<u64>,
    /// When it ended.
    pub(crate) ended: Option<u64>,
    /// Why it failed.
    pub(crate) failure: Option<VertexFailure>,
    /// Processor time in nanoseconds, and the most bytes of memory at once.
    pub(crate) used: Option<Used>,
    /// Transfers by item: bytes moved, bytes in all where known.
    pub(crate) transfers: BTreeMap<String, (u64, Option<u64>)>,
    /// Bytes of output in all.
    pub(crate) output_bytes: u64,
    /// The end of its output.
    pub(crate) output: Vec<u8>,
    /// Bytes at the start that `output` no longer has.
    pub(crate) dropped: usize,
}

/// How a step stands; times are nanoseconds since the build began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not begun.
    Waiting,
    /// Running since.
    Running(u64),
    /// Answered from the cache.
    Cached,
    /// Done, after so long.
    Done(u64),
    /// Failed, after so long.
    Failed(u64),
    /// Stopped.
    Cancelled,
}

impl View {
    /// Takes an event in.
    pub(crate) fn fold(&mut self, event: &Event) {
        if let Some(at) = event.at() {
            self.last = self.last.max(at);
        }
        match event {
            Event::Planned { vertices } => {
                for (index, planned) in vertices.iter().enumerate() {
                    let step = Step {
                        number: index + 1,
                        name: planned.name.clone(),
                        stage: planned.origin.stage.clone(),
                        line: planned.origin.line,
                        inputs: planned.inputs.clone(),
                        state: State::Waiting,
                        started: None,
                        ended: None,
                        failure: None,
                        used: None,
                        transfers: BTreeMap::new(),
                        output_bytes: 0,
                        output: Vec::new(),
                        dropped: 0,
                    };
                    self.steps.insert(planned.vertex, step);
                }
            }
            Event::Started { vertex, at } => {
                if let Some(step) = self.steps.get_mut(vertex) {
                    step.state = State::Running(*at);
                    step.started = Some(*at);
                }
            }
            Event::Cached { vertex, at } => {
                if let Some(step) = self.steps.get_mut(vertex) {
                    step.state = State::Cached;
                    step.started.get_or_insert(*at);
                    step.ended = Some(*at);
                }
            }
            Event::Done { vertex, outcome, at } => self.finish(*vertex, outcome, *at),
            Event::Log { vertex, data, .. } => self.keep(*vertex, data),
            Event::Used { vertex, processor, memory, processes, read, written, at: _ } => {
                if let Some(step) = self.steps.get_mut(vertex) {
                    let (processor, memory, processes) = (*processor, *memory, *processes);
                    step.used = Some(Used { processor, memory, processes, read: *read, written: *written });
                }
            }
            Event::Bytes { vertex: Some(vertex), item, current, total, .. } => {
                if let Some(step) = self.steps.get_mut(vertex) {
                    step.transfers.insert(item.clone(), (*current, *total));
                }
            }
            Event::Warning { message, .. } => self.warnings.push(message.clone()),
            Event::Bytes { vertex: None, .. }
            | Event::Waiting { .. }
            | Event::Recalled { .. }
            | Event::Missed { .. }
            | Event::Export { .. } => {}
        }
    }

    /// A step by its vertex.
    pub(crate) fn step(&self, vertex: VertexId) -> Option<&Step> {
        self.steps.get(&vertex)
    }

    /// All steps, in the order of the plan.
    pub(crate) fn steps(&self) -> impl DoubleEndedIterator<Item = (&VertexId, &Step)> {
        self.steps.iter()
    }

    fn finish(&mut self, vertex: VertexId, outcome: &Outcome, at: u64) {
        let Some(step) = self.steps.get_mut(&vertex) else { return };
        let took = match step.state {
            State::Running(since) => at.saturating_sub(since),
            State::Cached => return,
            _ => 0,
        };
        step.ended = Some(at);
        step.state = match outcome {
            Outcome::Completed => State::Done(took),
            Outcome::Failed { failure } => {
                step.failure = Some(failure.clone());
                State::Failed(took)
            }
            Outcome::Cancelled => State::Cancelled,
        };
    }

    fn keep(&mut self, vertex: VertexId, data: &[u8]) {
        let Some(step) = self.steps.get_mut(&vertex) else { return };
        step.output_bytes += data.len() as u64;
        step.output.extend_from_slice(data);
        if step.output.len() > 2 * KEPT_OUTPUT {
            let cut = step.output.len() - KEPT_OUTPUT;
            step.output.drain(..cut);
            step.dropped += cut;
        }
    }
}

impl Step {
    /// How long it ran; `None` where it did not.
    pub(crate) fn took(&self) -> Option<u64> {
        match self.state {
            State::Done(took) | State::Failed(took) => Some(took),
            State::Cancelled => Some(self.ended?.saturating_sub(self.started?)),
            State::Waiting | State::Running(_) | State::Cached => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rbuild_solver::{Origin, PlannedVertex};

    use super::*;

    /// An id by its number.
    pub(crate) fn vertex(number: usize) -> VertexId {
        serde_json::from_value(serde_json::json!(number)).unwrap()
    }

    /// The plan of a build, from names and what they read; with the ids of its steps.
    pub(crate) fn planned(steps: &[(&str, &[usize])]) -> (Event, Vec<VertexId>) {
        let ids: Vec<VertexId> = (0..steps.len()).map(vertex).collect();
        let vertices = steps.iter().enumerate().map(|(at, (name, inputs))| {
            let stage = name.trim_start_matches('[').split([' ', ']']).next().unwrap_or_default().to_owned();
            PlannedVertex {
                vertex: ids[at],
                name: (*name).to_owned(),
                origin: Origin { span: None, line: at as u32 + 1, stage, text: (*name).to_owned() },
                inputs: inputs.iter().map(|input| ids[*input]).collect(),
            }
        });
        (Event::Planned { vertices: vertices.collect() }, ids)
    }

    #[test]
    fn a_step_knows_when_it_ran_and_what_it_used() {
        let (plan, ids) = planned(&[("[1/1] RUN x", &[])]);
        let mut view = View::default();
        view.fold(&plan);
        view.fold(&Event::Started { vertex: ids[0], at: 5 });
        let (processes, read, written) = (Some(3), 11, 13);
        view.fold(&Event::Used { vertex: ids[0], processor: 7, memory: 9, processes, read, written, at: 8 });
        view.fold(&Event::Done { vertex: ids[0], outcome: Outcome::Cancelled, at: 12 });
        let step = view.step(ids[0]).unwrap();
        assert_eq!((step.started, step.ended, step.took()), (Some(5), Some(12), Some(7)));
        assert_eq!(step.used, Some(Used { processor: 7, memory: 9, processes, read, written }));
        assert_eq!(view.last, 12);
    }
}
