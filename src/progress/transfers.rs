//! Progress of `pull`, `push` and the like: what moves is redrawn in place on a terminal, a line a finished blob elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Mode;
use super::tty::frame::{Line, Look, Size, fitting, moving};
use super::tty::live::Transfer;
use super::tty::painter::{FRAME_RATE, Painter};
use crate::cli::report::{printable, story};
use crate::cli::table::size as human;
use crate::config::Settings;

/// Shows transfers by item.
#[derive(Debug)]
pub struct Transfers {
    view: View,
    began: Instant,
    state: Mutex<Known>,
}

#[derive(Debug)]
enum View {
    Quiet,
    Lines,
    Live(Mutex<Painter>),
}

#[derive(Debug, Default)]
struct Known {
    /// What moves.
    moving: BTreeMap<String, Transfer>,
    /// What is whole.
    done: BTreeSet<String>,
    /// When a frame was drawn last.
    drawn: Option<Instant>,
}

impl Transfers {
    /// Starts a view.
    pub fn start(mode: Mode, settings: &Settings) -> Self {
        let capable = settings.stderr_is_terminal && settings.term.as_deref() != Some("dumb");
        let live = mode == Mode::Tty || (mode == Mode::Auto && capable);
        let view = match mode {
            Mode::Quiet => View::Quiet,
            _ if live => View::Live(Mutex::new(Painter::new(settings.colour, settings.reflow))),
            _ => View::Lines,
        };
        Self { view, began: Instant::now(), state: Mutex::default() }
    }

    /// Says something that is no transfer.
    pub fn say(&self, text: &str) {
        match &self.view {
            View::Quiet => {}
            View::Lines => story(&format!("{}\n", printable(text))),
            View::Live(painter) => {
                let mut painter = lock(painter);
                painter.say(&unbounded(&printable(text)));
                draw(&mut painter, &mut lock(&self.state));
            }
        }
    }

    /// Takes the state of one transfer.
    pub fn advance(&self, item: &str, current: u64, total: Option<u64>) {
        let ended = total.is_some_and(|total| current >= total);
        match &self.view {
            View::Quiet => {}
            View::Lines => {
                if ended && lock(&self.state).done.insert(item.to_owned()) {
                    story(&format!("{}: {current} bytes\n", printable(item)));
                }
            }
            View::Live(painter) => {
                let mut painter = lock(painter);
                let mut known = lock(&self.state);
                let at = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                Transfer::advance(&mut known.moving, item, current, total, at);
                if ended && known.done.insert(item.to_owned()) {
                    painter.say(&unbounded(&format!("{}: {}", printable(item), human(current))));
                }
                let pause = Duration::from_secs(1) / u32::from(FRAME_RATE);
                if known.drawn.is_none_or(|drawn| drawn.elapsed() >= pause) {
                    draw(&mut painter, &mut known);
                }
            }
        }
    }

    /// Ends the view.
    pub fn finish(self) {
        if let View::Live(painter) = self.view {
            painter.into_inner().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

fn draw(painter: &mut Painter, known: &mut Known) {
    let size = Painter::size();
    painter.draw(moving(&known.moving, size), size);
    known.drawn = Some(Instant::now());
}

/// A line that stays may be wider than the window.
fn unbounded(text: &str) -> Line {
    fitting(text, Look::Step, Size { columns: usize::MAX, rows: 0 })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
