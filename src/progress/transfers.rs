//! Progress of `pull`, `push` and the like: one bar a blob on a terminal, a line a finished blob elsewhere.

use std::collections::BTreeMap;
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Mode;
use crate::cli::report::{printable, story};
use crate::config::Settings;

/// Shows transfers by item.
#[derive(Debug)]
pub struct Transfers {
    view: View,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
}

#[derive(Debug)]
enum View {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

impl Transfers {
    /// Starts a view.
    pub fn start(mode: Mode, settings: &Settings) -> Self {
        let live = mode == Mode::Tty || (mode == Mode::Auto && settings.stderr_is_terminal);
        let view = match mode {
            Mode::Quiet => View::Quiet,
            _ if live => View::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10))),
            _ => View::Lines,
        };
        Self { view, bars: Mutex::default() }
    }

    /// Says something that is no transfer.
    pub fn say(&self, text: &str) {
        match &self.view {
            View::Quiet => {}
            View::Lines => story(&format!("{}\n", printable(text))),
            // Nothing can be done when the terminal is gone.
            View::Bars(bars) => drop(bars.println(printable(text))),
        }
    }

    /// Takes the state of one transfer.
    pub fn advance(&self, item: &str, current: u64, total: Option<u64>) {
        let done = total.is_some_and(|total| current >= total);
        let mut known = self.bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &self.view {
            View::Quiet => {}
            View::Lines => {
                if done && !known.contains_key(item) {
                    known.insert(item.to_owned(), ProgressBar::hidden());
                    story(&format!("{}: {current} bytes\n", printable(item)));
                }
            }
            View::Bars(bars) => {
                let bar = known.entry(item.to_owned()).or_insert_with(|| {
                    let template = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
                    let style = ProgressStyle::with_template(template).expect("the template is valid");
                    bars.add(ProgressBar::new(total.unwrap_or(0)).with_style(style).with_prefix(printable(item)))
                });
                bar.set_length(total.unwrap_or(current));
                bar.set_position(current);
                if done && !bar.is_finished() {
                    bar.finish();
                }
            }
        }
    }

    /// Ends the view.
    pub fn finish(self) {
        let bars = self.bars.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (_, bar) in bars {
            if !bar.is_finished() {
                bar.finish_and_clear();
            }
        }
    }
}
