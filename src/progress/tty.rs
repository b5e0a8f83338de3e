//! The live view: running steps with their time and last output line, redrawn in place; finished steps scroll up.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rbuild_solver::{Event, VertexId};

use super::lines::{Lines, seconds};
use super::plain::failed_output;
use super::view::{State, Step, View};
use crate::cli::report::printable;

/// Characters of a step's name: it shares its line with times and output.
const LONGEST_TITLE: usize = 60;
/// Redraws per second, at most.
const FRAME_RATE: u8 = 10;

/// State of the live view.
#[derive(Debug)]
pub(super) struct Tty {
    bars: MultiProgress,
    steps: BTreeMap<VertexId, Running>,
    transfers: BTreeMap<String, ProgressBar>,
    total: usize,
    colour: bool,
}

/// What is drawn of a running step.
#[derive(Debug)]
struct Running {
    bar: ProgressBar,
    lines: Lines,
}

impl Tty {
    /// An empty view on standard error.
    pub(super) fn new(colour: bool) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAME_RATE));
        Self { bars, steps: BTreeMap::new(), transfers: BTreeMap::new(), total: 0, colour }
    }

    /// Shows an event that `view` has taken in.
    pub(super) fn show(&mut self, view: &View, event: &Event) {
        match event {
            Event::Planned { vertices } => self.total = vertices.len(),
            Event::Started { vertex, .. } => self.begin(view, *vertex),
            Event::Log { vertex, data, .. } => {
                if let Some(running) = self.steps.get_mut(vertex) {
                    if let Some(line) = running.lines.take(data).pop() {
                        running.bar.set_message(line);
                    }
                } else {
                    // An earlier run's: there is nothing to watch, only to read.
                    let mut lines = Lines::default();
                    let whole = lines.take(data);
                    whole.into_iter().chain(lines.finish()).for_each(|line| self.say(&format!("    {line}")));
                }
            }
            Event::Waiting { vertex, reason, .. } => {
                self.begin(view, *vertex);
                if let Some(running) = self.steps.get(vertex) {
                    running.bar.set_message(printable(reason));
                }
            }
            Event::Bytes { item, current, total, .. } => self.transfer(item, *current, *total),
            Event::Cached { vertex, .. } | Event::Done { vertex, .. } => self.end(view, *vertex),
            Event::Warning { message, .. } => self.say(&format!("WARNING: {}", printable(message))),
            Event::Export { step, done, .. } if *done => self.say(&format!(" => {}", printable(step))),
            Event::Recalled { vertex, build, began } => {
                if let Some(step) = view.step(*vertex) {
                    self.say(&format!("{}: {}", self.title(step), super::lines::recalled(build, *began)));
                }
            }
            Event::Export { .. } | Event::Used { .. } | Event::Missed { .. } => {}
        }
    }

    /// Ends the view: clears what is drawn, shows the output of failed steps.
    pub(super) fn finish(self, view: &View) {
        for (_, running) in self.steps {
            running.bar.finish_and_clear();
        }
        for (_, bar) in self.transfers {
            bar.finish_and_clear();
        }
        drop(self.bars);
        failed_output(view);
    }

    fn begin(&mut self, view: &View, vertex: VertexId) {
        let Some(step) = view.step(vertex) else { return };
        if self.steps.contains_key(&vertex) {
            return;
        }
        let template = if self.colour {
            "{prefix:.cyan} {elapsed:>5.dim} {wide_msg:.dim}"
        } else {
            "{prefix} {elapsed:>5} {wide_msg}"
        };
        let style = ProgressStyle::with_template(template).expect("the template is valid");
        let bar = self.bars.add(ProgressBar::new_spinner().with_style(style).with_prefix(self.title(step)));
        bar.enable_steady_tick(Duration::from_millis(200));
        self.steps.insert(vertex, Running { bar, lines: Lines::default() });
    }

    fn title(&self, step: &Step) -> String {
        format!(" => [{}/{}] {}", step.number, self.total, one_line(&step.name))
    }

    fn end(&mut self, view: &View, vertex: VertexId) {
        if let Some(running) = self.steps.remove(&vertex) {
            running.bar.finish_and_clear();
        }
        let Some(step) = view.step(vertex) else { return };
        let status = match step.state {
            State::Cached => "CACHED".to_owned(),
            State::Done(took) => seconds(took),
            State::Failed(took) => format!("ERROR {}", seconds(took)),
            State::Cancelled => "CANCELED".to_owned(),
            State::Waiting | State::Running(_) => return,
        };
        self.say(&format!("{} {status}", self.title(step)));
    }

    fn transfer(&mut self, item: &str, current: u64, total: Option<u64>) {
        if total.is_some_and(|total| current >= total) {
            if let Some(bar) = self.transfers.remove(item) {
                bar.finish_and_clear();
            }
            return;
        }
        let bars = &self.bars;
        let bar = self.transfers.entry(item.to_owned()).or_insert_with(|| {
            let template = " => => {prefix} {bytes:>10} / {total_bytes} {bytes_per_sec}";
            let style = ProgressStyle::with_template(template).expect("the template is valid");
            bars.add(ProgressBar::new(total.unwrap_or(0)).with_style(style).with_prefix(printable(item)))
        });
        bar.set_position(current);
    }

    fn say(&self, line: &str) {
        // Nothing can be done when the terminal is gone.
        let _gone = self.bars.println(line);
    }
}

fn one_line(text: &str) -> String {
    let shown: String = printable(&text.replace(['\n', '\t'], " ")).chars().take(LONGEST_TITLE).collect();
    shown
}
