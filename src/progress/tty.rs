//! The live view: what runs, with its time, transfers and last lines, is redrawn in place; what has ended scrolls up.
//!
//! Events only change what is known; a thread of its own draws it, ten times a second at most and only while something
//! runs. A build that is answered from the cache draws nothing twice.

mod bar;
pub(super) mod frame;
pub(super) mod live;
pub(super) mod painter;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rbuild_solver::{Event, VertexId};

use super::lines::Lines;
use super::plain::failed_output;
use super::view::{State, View};
use crate::cli::report::printable;
use crate::config::Settings;
use frame::{Look, Size, ended, fitting};
use live::{Live, Running, Transfer};
use painter::{FRAME_RATE, Painter};

/// State of the live view.
#[derive(Debug)]
pub(super) struct Tty {
    shared: Arc<Shared>,
    drawing: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    screen: Mutex<Screen>,
    over: Condvar,
}

#[derive(Debug)]
struct Screen {
    live: Live,
    painter: Painter,
    over: bool,
}

impl Tty {
    /// An empty view on standard error; `began` is the zero of the build's clock.
    pub(super) fn new(settings: &Settings, began: Instant) -> Self {
        let painter = Painter::new(settings.colour, settings.reflow);
        let screen = Screen { live: Live::default(), painter, over: false };
        Self { shared: Arc::new(Shared { began, screen: Mutex::new(screen), over: Condvar::new() }), drawing: None }
    }

    /// Shows an event that `view` has taken in.
    pub(super) fn show(&mut self, view: &View, event: &Event) {
        let mut screen = self.shared.lock();
        match event {
            Event::Planned { vertices } => screen.live.total = vertices.len(),
            Event::Started { vertex, at } => screen.step(view, *vertex, *at, |step| step.waiting = None),
            Event::Waiting { vertex, reason, at } => {
                screen.step(view, *vertex, *at, |step| step.waiting = Some(one_line(&format!("waiting for {reason}"))));
            }
            Event::Log { vertex, data, .. } => match screen.live.steps.get_mut(vertex) {
                Some(step) => step.output(data),
                // An earlier run's: there is nothing to watch, only to read.
                None => screen.read(data),
            },
            Event::Bytes { vertex, item, current, total, at } => {
                let step = vertex.and_then(|vertex| screen.live.steps.get_mut(&vertex));
                match step {
                    Some(step) => {
                        step.waiting = None;
                        Transfer::advance(&mut step.transfers, item, *current, *total, *at);
                    }
                    None => Transfer::advance(&mut screen.live.exports, item, *current, *total, *at),
                }
            }
            Event::Cached { vertex, .. } | Event::Done { vertex, .. } => screen.end(view, *vertex),
            Event::Warning { message, .. } => screen.say(&format!("WARNING: {}", printable(message)), Look::Attention),
            Event::Export { step, done, .. } if *done => screen.say(&format!(" => {}", one_line(step)), Look::Step),
            Event::Recalled { vertex, build, began } => {
                if let Some(step) = view.step(*vertex) {
                    let heading = format!(" => {}: {}", one_line(&step.name), super::lines::recalled(build, *began));
                    screen.say(&heading, Look::Step);
                }
            }
            Event::Export { .. } | Event::Used { .. } | Event::Missed { .. } => {}
        }
        let moves = !screen.live.steps.is_empty() || !screen.live.exports.is_empty();
        drop(screen);
        if moves && self.drawing.is_none() {
            let shared = Arc::clone(&self.shared);
            // Without a thread the lines that stay are still shown, at the end.
            self.drawing = std::thread::Builder::new().name("progress".to_owned()).spawn(move || shared.draw()).ok();
        }
    }

    /// Ends the view: clears what is drawn, shows the output of failed steps.
    pub(super) fn finish(self, view: &View) {
        let mut screen = self.shared.lock();
        screen.over = true;
        screen.painter.clear();
        drop(screen);
        self.shared.over.notify_all();
        if let Some(drawing) = self.drawing {
            let _joined = drawing.join();
        }
        failed_output(view);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws until the build is over.
    fn draw(&self) {
        let pause = Duration::from_secs(1) / u32::from(FRAME_RATE);
        let mut screen = self.lock();
        while !screen.over {
            let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            screen.frame(now, Painter::size());
            screen = self.over.wait_timeout(screen, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Screen {
    fn frame(&mut self, now: u64, size: Size) {
        let lines = frame::frame(&self.live, now, size);
        self.painter.draw(lines, size);
    }

    /// Changes a step that runs; one that is heard of first begins.
    fn step(&mut self, view: &View, vertex: VertexId, at: u64, change: impl FnOnce(&mut Running)) {
        let Some(known) = view.step(vertex) else { return };
        change(self.live.steps.entry(vertex).or_insert_with(|| Running::new(one_line(&known.name), at)));
    }

    fn end(&mut self, view: &View, vertex: VertexId) {
        self.live.steps.remove(&vertex);
        let Some(step) = view.step(vertex) else { return };
        let (status, took, look) = match step.state {
            State::Cached => ("CACHED", 0, Look::Cached),
            State::Done(took) => ("", took, Look::Step),
            State::Failed(took) => ("ERROR", took, Look::Failed),
            State::Cancelled => ("CANCELED", step.took().unwrap_or(0), Look::Attention),
            State::Waiting | State::Running(_) => return,
        };
        self.live.ended += 1;
        self.live.cached += usize::from(step.state == State::Cached);
        self.painter.say(&ended(&one_line(&step.name), status, took, look, Painter::size()));
    }

    /// The log of an earlier run.
    fn read(&mut self, data: &[u8]) {
        let mut lines = Lines::default();
        let whole = lines.take(data);
        for line in whole.into_iter().chain(lines.finish()) {
            self.say(&format!("    {line}"), Look::Detail);
        }
    }

    fn say(&mut self, text: &str, look: Look) {
        // It stays, so it may be wider than the window.
        self.painter.say(&fitting(text, look, Size { columns: usize::MAX, rows: 0 }));
    }
}

fn one_line(text: &str) -> String {
    printable(&text.replace(['\n', '\t'], " "))
}
