//! Progress: folds the one event stream of a build into what people see. Views never look at anything else.

mod plain;
mod transfers;
mod tty;
mod view;

use std::str::FromStr;
use std::sync::Mutex;
use std::time::Instant;

use rbuild_solver::{Event, EventSink};

use crate::cli::report::Failure;
use crate::config::Settings;

pub use transfers::Transfers;

/// Which view a build shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// `tty` on a terminal, `plain` elsewhere
    Auto,
    /// Live view that is redrawn in place
    Tty,
    /// One line after another, for logs
    Plain,
    /// Nothing but errors
    #[value(alias = "none")]
    Quiet,
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
            Failure::usage(format!("BUILDKIT_PROGRESS={text}: no such view"), "known are auto, tty, plain and quiet")
        })
    }
}

/// Takes a build's events and shows them.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    renderer: Mutex<Renderer>,
}

#[derive(Debug)]
enum Renderer {
    Quiet(view::View),
    Plain(view::View, plain::Plain),
    Tty(view::View, tty::Tty),
}

impl Progress {
    /// Starts a view; `began` is the zero of the build's clock.
    pub fn start(mode: Mode, settings: &Settings, began: Instant) -> Self {
        let tty = match mode {
            Mode::Tty => true,
            Mode::Auto => settings.stderr_is_terminal && settings.term.as_deref() != Some("dumb"),
            Mode::Plain | Mode::Quiet => false,
        };
        let view = view::View::default();
        let renderer = match mode {
            Mode::Quiet => Renderer::Quiet(view),
            _ if tty => Renderer::Tty(view, tty::Tty::new(settings.colour)),
            _ => Renderer::Plain(view, plain::Plain::new()),
        };
        Self { began, renderer: Mutex::new(renderer) }
    }

    /// When the build began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Tells that a step after the last vertex is done.
    pub fn export(&self, step: &str) {
        self.emit(Event::Export { step: step.to_owned(), done: true, at: self.now() });
    }

    /// Nanoseconds since the start: the clock of all events.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Ends the view: what is still drawn is cleared, failed steps' output is shown.
    pub fn finish(self) {
        let renderer = self.renderer.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match renderer {
            Renderer::Quiet(view) => plain::failed_output(&view),
            Renderer::Plain(view, plain) => plain.finish(&view),
            Renderer::Tty(view, tty) => tty.finish(&view),
        }
    }
}

impl EventSink for Progress {
    fn emit(&self, event: Event) {
        let mut renderer = self.renderer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut *renderer {
            Renderer::Quiet(view) => view.fold(&event),
            Renderer::Plain(view, plain) => {
                view.fold(&event);
                plain.show(view, &event);
            }
            Renderer::Tty(view, tty) => {
                view.fold(&event);
                tty.show(view, &event);
            }
        }
    }
}
