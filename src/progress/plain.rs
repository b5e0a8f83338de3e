//! The plain view, for logs: one line after another, each with its step's number, as BuildKit's `plain` prints them.

use std::collections::BTreeMap;

use rbuild_solver::{Event, LogStream, Outcome, VertexId};

use super::lines::{Lines, seconds};
use super::log_file::LogFile;
use super::view::{State, View};
use crate::cli::report::{printable, story};

/// State of the plain view.
#[derive(Debug)]
pub(super) struct Plain {
    lines: BTreeMap<(VertexId, bool), Lines>,
    last: Option<VertexId>,
    pub(super) say: Say,
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Say {
    /// To people.
    Text(fn(&str)),
    /// To a file.
    File(LogFile),
}

impl Say {
    fn line(&self, text: &str) {
        match self {
            Self::Text(say) => say(text),
            Self::File(log) => log.say(text),
        }
    }
}

impl Plain {
    /// An empty view.
    pub(super) fn new() -> Self {
        Self { lines: BTreeMap::new(), last: None, say: Say::Text(story) }
    }

    /// An empty view that goes to a file.
    pub(super) fn into_file(log: LogFile) -> Self {
        Self { say: Say::File(log), ..Self::new() }
    }

    /// Shows an event that `view` has taken in.
    pub(super) fn show(&mut self, view: &View, event: &Event) {
        match event {
            Event::Started { vertex, .. } => self.heading(view, *vertex),
            Event::Cached { vertex, .. } => {
                self.heading(view, *vertex);
                self.line(view, *vertex, "CACHED");
            }
            Event::Log { vertex, stream, data, at } => {
                let key = (*vertex, *stream == LogStream::Stderr);
                let whole = self.lines.entry(key).or_default().take(data);
                let since = view.step(*vertex).map_or(0, |step| match step.state {
                    State::Running(since) => at.saturating_sub(since),
                    // The log of an earlier run counts from its own start.
                    State::Cached => *at,
                    _ => 0,
                });
                for text in whole {
                    self.log(view, *vertex, since, &text);
                }
            }
            Event::Waiting { vertex, reason, .. } => {
                self.line(view, *vertex, &format!("waiting for {}", printable(reason)))
            }
            Event::Warning { message, .. } => self.say.line(&format!("WARNING: {}\n", printable(message))),
            Event::Done { vertex, outcome, .. } => self.done(view, *vertex, outcome),
            Event::Export { step, done, .. } if *done => self.say.line(&format!("{step} done\n")),
            Event::Recalled { vertex, build, began } => {
                self.line(view, *vertex, &super::lines::recalled(build, *began));
            }
            Event::Planned { .. }
            | Event::Bytes { .. }
            | Event::Used { .. }
            | Event::Missed { .. }
            | Event::Export { .. } => {}
        }
    }

    /// Ends the view. All output has been shown already.
    pub(super) fn finish(self, _view: &View) {}

    fn done(&mut self, view: &View, vertex: VertexId, outcome: &Outcome) {
        for stderr in [false, true] {
            if let Some(text) = self.lines.remove(&(vertex, stderr)).and_then(|mut lines| lines.finish()) {
                self.log(view, vertex, 0, &text);
            }
        }
        let Some(step) = view.step(vertex) else { return };
        match (&step.state, outcome) {
            (State::Done(took), _) => self.line(view, vertex, &format!("DONE {}", seconds(*took))),
            (State::Failed(_), Outcome::Failed { failure }) => {
                self.line(view, vertex, &format!("ERROR: {}", printable(&failure.message)));
            }
            (State::Cancelled, _) => self.line(view, vertex, "CANCELED"),
            _ => {}
        }
    }

    fn heading(&mut self, view: &View, vertex: VertexId) {
        if self.last != Some(vertex) {
            if self.last.is_some() {
                self.say.line("\n");
            }
            self.last = Some(vertex);
            if let Some(step) = view.step(vertex) {
                self.say.line(&format!("#{} {}\n", step.number, printable(&step.name)));
            }
        }
    }

    fn log(&mut self, view: &View, vertex: VertexId, since: u64, text: &str) {
        self.line(view, vertex, &format!("{}.{:03} {text}", since / 1_000_000_000, since / 1_000_000 % 1000));
    }

    fn line(&mut self, view: &View, vertex: VertexId, text: &str) {
        self.heading(view, vertex);
        if let Some(step) = view.step(vertex) {
            self.say.line(&format!("#{} {text}\n", step.number));
        }
    }
}

/// Shows the output of steps that failed, for views that did not show it before.
pub(super) fn failed_output(view: &View) {
    for (_, step) in view.steps() {
        if !matches!(step.state, State::Failed(_)) || step.output.is_empty() {
            continue;
        }
        let mut text = format!("------\n > {}:\n", printable(&step.name));
        if step.dropped > 0 {
            text.push_str(&format!("[the first {} bytes of output are left out]\n", step.dropped));
        }
        let mut lines = Lines::default();
        let whole = lines.take(&step.output);
        for line in whole.into_iter().chain(lines.finish()) {
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str("------\n");
        story(&text);
    }
}
