//! The state of a build as its events tell it: which steps exist, how they stand, their last output.

use std::collections::BTreeMap;

use rbuild_solver::{Event, Outcome, VertexId};

/// Bytes of output kept per step, for showing it again when the step fails.
const KEPT_OUTPUT: usize = 256 * 1024;

/// What is known of a build.
#[derive(Debug, Default)]
pub(super) struct View {
    steps: BTreeMap<VertexId, Step>,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    /// Display number, from 1, in the order of the plan.
    pub(super) number: usize,
    /// Display name.
    pub(super) name: String,
    /// How it stands.
    pub(super) state: State,
    /// The end of its output.
    pub(super) output: Vec<u8>,
    /// Bytes at the start that `output` no longer has.
    pub(super) dropped: usize,
}

/// How a step stands; times are nanoseconds since the build began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
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
    pub(super) fn fold(&mut self, event: &Event) {
        match event {
            Event::Planned { vertices } => {
                for (index, planned) in vertices.iter().enumerate() {
                    let step = Step {
                        number: index + 1,
                        name: planned.name.clone(),
                        state: State::Waiting,
                        output: Vec::new(),
                        dropped: 0,
                    };
                    self.steps.insert(planned.vertex, step);
                }
            }
            Event::Started { vertex, at } => self.set(*vertex, State::Running(*at)),
            Event::Cached { vertex, .. } => self.set(*vertex, State::Cached),
            Event::Done { vertex, outcome, at } => self.finish(*vertex, outcome, *at),
            Event::Log { vertex, data, .. } => self.keep(*vertex, data),
            Event::Bytes { .. } | Event::Waiting { .. } | Event::Warning { .. } | Event::Export { .. } => {}
        }
    }

    /// A step by its vertex.
    pub(super) fn step(&self, vertex: VertexId) -> Option<&Step> {
        self.steps.get(&vertex)
    }

    /// All steps, in the order of the plan.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&VertexId, &Step)> {
        self.steps.iter()
    }

    fn set(&mut self, vertex: VertexId, state: State) {
        if let Some(step) = self.steps.get_mut(&vertex) {
            step.state = state;
        }
    }

    fn finish(&mut self, vertex: VertexId, outcome: &Outcome, at: u64) {
        let Some(step) = self.steps.get_mut(&vertex) else { return };
        let took = match step.state {
            State::Running(since) => at.saturating_sub(since),
            State::Cached => return,
            _ => 0,
        };
        step.state = match outcome {
            Outcome::Completed => State::Done(took),
            Outcome::Failed { .. } => State::Failed(took),
            Outcome::Cancelled => State::Cancelled,
        };
    }

    fn keep(&mut self, vertex: VertexId, data: &[u8]) {
        let Some(step) = self.steps.get_mut(&vertex) else { return };
        step.output.extend_from_slice(data);
        if step.output.len() > 2 * KEPT_OUTPUT {
            let cut = step.output.len() - KEPT_OUTPUT;
            step.output.drain(..cut);
            step.dropped += cut;
        }
    }
}

/// Cuts a stream into whole lines with control characters escaped; a carriage return starts its line again.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

/// A line longer than this is cut into several.
const LONGEST_LINE: usize = 16 * 1024;

impl Lines {
    /// Takes bytes; gives the lines that are whole now.
    pub(super) fn take(&mut self, data: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in data {
            if *byte == b'\n' || self.rest.len() >= LONGEST_LINE {
                lines.push(line(&self.rest));
                self.rest.clear();
            }
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
        }
        lines
    }

    /// The last line, when it had no end.
    pub(super) fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| line(&rest))
    }
}

fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    let shown = text.rsplit('\r').next().unwrap_or(text);
    crate::cli::report::printable(&strip_colours(shown))
}

/// Drops SGR sequences (`ESC [ … m`), which only colour; every other sequence is left to be escaped.
fn strip_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let body = &rest[at + 2..];
        let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':')).unwrap_or(body.len());
        out.push_str(&rest[..at]);
        if body[end..].starts_with('m') {
            rest = &body[end + 1..];
        } else {
            out.push_str("\u{1b}[");
            rest = body;
        }
    }
    out.push_str(rest);
    out
}

/// A time as steps show it: `0.3s`, `12.0s`, `2m05s`.
pub(super) fn seconds(nanoseconds: u64) -> String {
    let whole = nanoseconds / 1_000_000_000;
    if whole >= 60 {
        return format!("{}m{:02}s", whole / 60, whole % 60);
    }
    format!("{whole}.{}s", nanoseconds / 100_000_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_harmless() {
        let mut lines = Lines::default();
        assert!(lines.take(b"one").is_empty());
        assert_eq!(lines.take(b" line\ntwo\r\n 10%\r 100%\nrest"), ["one line", "two", " 100%"]);
        assert_eq!(lines.take(b"\x1b[31mred\x1b[0m \x1b[2J\n"), ["restred \\u{1b}[2J"]);
        assert_eq!(lines.take(b"\xff\n"), ["\u{fffd}"]);
        lines.take(b"end");
        assert_eq!(lines.finish().as_deref(), Some("end"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn long_lines_are_cut() {
        let mut lines = Lines::default();
        let got = lines.take(&vec![b'x'; 40_000]);
        assert_eq!(got.len(), 2);
        assert!(got.iter().all(|line| line.len() <= LONGEST_LINE));
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(340_000_000), "0.3s");
        assert_eq!(seconds(12_000_000_000), "12.0s");
        assert_eq!(seconds(125_000_000_000), "2m05s");
    }
}
