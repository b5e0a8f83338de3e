//! Progress: folds the one event stream of a build into what people see. Views never look at anything else.
//!
//! Output is masked before anybody gets it (`mask`); the build's journal takes what the views take.

mod lines;
mod log_file;
mod mask;
pub(crate) mod misses;
mod plain;
mod rawjson;
mod summary;
mod transfers;
mod tty;
mod view;

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use rbuild_image::Digest;
use rbuild_solver::{Event, EventSink};

use crate::build_record::Journal;
use crate::cli::report::{Failure, answer, story};
use crate::config::Settings;

pub(crate) use lines::Lines;
pub(crate) use log_file::LogFile;
pub(crate) use mask::Mask;
pub(crate) use summary::{critical_path_of, time};
pub use transfers::Transfers;
#[cfg(test)]
pub(crate) use view::tests as view_tests;
pub(crate) use view::{State, Step, View};

/// Which view a build shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// `tty` on a terminal, `plain` elsewhere
    Auto,
    /// Live view that is redrawn in place
    Tty,
    /// One line after another, for logs
    Plain,
    /// One JSON object a line, as BuildKit's
    Rawjson,
    /// Nothing but errors, and the image id
    Quiet,
    /// Nothing but errors
    None,
}

impl Mode {
    /// The view for builds that name none: `BUILDKIT_PROGRESS`, else `auto`.
    pub fn from_settings(settings: &Settings) -> Result<Self, Failure> {
        settings.progress.as_deref().map_or(Ok(Self::Auto), str::parse)
    }
}

impl FromStr for Mode {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        clap::ValueEnum::from_str(text, true).map_err(|_| {
            Failure::usage(
                format!("BUILDKIT_PROGRESS={text}: no such view"),
                "known are auto, tty, plain, rawjson, quiet and none",
            )
        })
    }
}

/// Takes a build's events and shows them.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    began_at: Timestamp,
    mask: Mask,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: View,
    display: Display,
    masked: mask::Masked,
    journal: Option<Journal>,
    log: Option<(plain::Plain, LogFile)>,
}

#[derive(Debug)]
enum Display {
    Quiet,
    Plain(plain::Plain),
    Tty(tty::Tty),
    RawJson(rawjson::RawJson),
}

/// How what is shown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As asked for: a line sums it up, with the image's id and size where there is one.
    Built(Option<(Digest, u64)>),
    /// Otherwise: somebody says how.
    Other,
}

impl Progress {
    /// Starts a view; `began` is the zero of the build's clock.
    pub fn start(mode: Mode, settings: &Settings, began: Instant) -> Self {
        let since = jiff::SignedDuration::try_from(began.elapsed()).unwrap_or_default();
        let now = Timestamp::now();
        Self::start_at(mode, settings, began, now.checked_sub(since).unwrap_or(now))
    }

    /// Starts a view of a build that began at `wall_clock`.
    pub(crate) fn start_at(mode: Mode, settings: &Settings, began: Instant, wall_clock: Timestamp) -> Self {
        let tty = match mode {
            Mode::Tty => true,
            Mode::Auto => settings.stderr_is_terminal && settings.term.as_deref() != Some("dumb"),
            Mode::Plain | Mode::Quiet | Mode::None | Mode::Rawjson => false,
        };
        let display = match mode {
            Mode::Quiet | Mode::None => Display::Quiet,
            Mode::Rawjson => Display::RawJson(rawjson::RawJson::new(wall_clock)),
            _ if tty => Display::Tty(tty::Tty::new(settings, began)),
            _ => Display::Plain(plain::Plain::new()),
        };
        let inner = Inner { view: View::default(), display, masked: mask::Masked::default(), journal: None, log: None };
        Self { began, began_at: wall_clock, mask: Mask::default(), inner: Mutex::new(inner) }
    }

    /// Shows it on standard output: it is the answer, not the story.
    #[must_use]
    pub(crate) fn answering(self) -> Self {
        match &mut self.lock().display {
            Display::Plain(plain) => plain.say = plain::Say::Text(on_stdout),
            Display::RawJson(raw) => raw.say = on_stdout,
            Display::Quiet | Display::Tty(_) => {}
        }
        self
    }

    /// Keeps what `mask` knows from views and journal.
    #[must_use]
    pub(crate) fn masked(self, mask: &Mask) -> Self {
        Self { mask: mask.clone(), ..self }
    }

    /// Writes all events down as well.
    #[must_use]
    pub(crate) fn journaled(self, journal: Option<Journal>) -> Self {
        self.lock().journal = journal;
        self
    }

    /// Writes the plain view to a file as well.
    #[must_use]
    pub(crate) fn logged(self, log: Option<&LogFile>) -> Self {
        self.lock().log = log.map(|log| (plain::Plain::into_file(log.clone()), log.clone()));
        self
    }

    /// Shows an event without writing it down: it is in another build's journal already.
    pub(crate) fn show(&self, event: &Event) {
        let mut inner = self.lock();
        inner.view.fold(event);
        inner.display(event);
    }

    /// When the build began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The same by the clock.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }

    /// Tells that a step after the last vertex is done.
    pub fn export(&self, step: &str) {
        self.emit(Event::Export { step: step.to_owned(), done: true, at: self.now() });
    }

    /// Nanoseconds since the start: the clock of all events.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Ends the view: what is still drawn is cleared, failed steps' output is shown. Gives what is known of the build.
    pub(crate) fn finish(self, ending: Ending) -> (View, Option<Journal>) {
        let took = self.now();
        let Inner { view, display, journal, log, .. } = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let (Some((_, log)), Ending::Built(image)) = (&log, ending) {
            log.say(&summary::line(&view, took, image));
        }
        let shown = matches!(display, Display::Plain(_) | Display::Tty(_));
        match display {
            Display::Quiet => plain::failed_output(&view),
            Display::Plain(plain) => plain.finish(&view),
            Display::Tty(tty) => tty.finish(&view),
            Display::RawJson(raw) => raw.finish(&view),
        }
        if let (true, Ending::Built(image)) = (shown, ending) {
            story(&summary::line(&view, took, image));
        }
        (view, journal)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, event: &Event) {
        self.view.fold(event);
        self.display(event);
        if let Some(journal) = &mut self.journal {
            journal.append(event);
        }
    }

    fn display(&mut self, event: &Event) {
        if let Some((plain, _)) = &mut self.log {
            plain.show(&self.view, event);
        }
        match &mut self.display {
            Display::Quiet => {}
            Display::Plain(plain) => plain.show(&self.view, event),
            Display::Tty(tty) => tty.show(&self.view, event),
            Display::RawJson(raw) => raw.show(&self.view, event),
        }
    }
}

/// Nobody is told when standard output is gone: the reader has seen enough.
fn on_stdout(text: &str) {
    let _nobody_reads = answer(text);
}

impl EventSink for Progress {
    fn emit(&self, event: Event) {
        let mut inner = self.lock();
        match event {
            Event::Log { vertex, stream, data, at } => {
                let data = inner.masked.take(&self.mask, vertex, stream, data);
                if !data.is_empty() {
                    inner.take(&Event::Log { vertex, stream, data, at });
                }
            }
            Event::Done { vertex, outcome, at } => {
                for (stream, data) in inner.masked.end(&self.mask, vertex) {
                    inner.take(&Event::Log { vertex, stream, data, at });
                }
                inner.take(&Event::Done { vertex, outcome, at });
            }
            event => inner.take(&event),
        }
    }
}
