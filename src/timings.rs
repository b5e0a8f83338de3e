//! What rbuild itself spends a build's time with: phases one after the other, always measured (two readings of the clock
//! each), kept in the build's record, shown by `--timings`, `history inspect` and the trace.
//!
//! Steps are measured by the solver; here they are one phase, [`Phase::Solve`]. [`Phase::Resolve`] happens within
//! [`Phase::Plan`], any other phase after the one before it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cli::table::Table;

/// What rbuild does between being asked and having answered, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opening the store, writing that a build begins.
    Open,
    /// Agents, the context's directory or download, the ignore file.
    Context,
    /// The Dockerfile's text to instructions.
    Parse,
    /// Base images, repositories and URLs: names to digests.
    Resolve,
    /// Instructions to a graph of steps.
    Plan,
    /// Emulators, rights to push, workers, caches elsewhere.
    Prepare,
    /// Keys, look-ups and all steps.
    Solve,
    /// Configs of images.
    Assemble,
    /// Images, archives, files, pushes.
    Export,
    /// Caches elsewhere are written.
    CacheExport,
    /// The record of the build.
    Record,
    /// What is no longer needed.
    Clean,
}

impl Phase {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open the store",
            Self::Context => "load the context",
            Self::Parse => "parse the Dockerfile",
            Self::Resolve => "resolve sources",
            Self::Plan => "plan the steps",
            Self::Prepare => "prepare",
            Self::Solve => "run the steps",
            Self::Assemble => "assemble the image",
            Self::Export => "export",
            Self::CacheExport => "export the cache",
            Self::Record => "record the build",
            Self::Clean => "clean up",
        }
    }

    /// Its name in a list, a phase within another one indented.
    pub(crate) fn label(self) -> String {
        let within = if self == Self::Resolve { "  " } else { "" };
        format!("{within}{}", self.name())
    }
}

/// A phase that is over, or a part of one that came several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// When it began, in nanoseconds since the build began.
    pub at_ns: u64,
    /// How long it took in nanoseconds, with what happened within it.
    pub took_ns: u64,
}

/// Measures the phases of one build.
#[derive(Debug)]
pub(crate) struct Timings {
    began: Instant,
    done: Mutex<Vec<PhaseTime>>,
}

/// A phase that goes on until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Running<'a> {
    timings: &'a Timings,
    phase: Phase,
    from: Instant,
}

impl Timings {
    /// For a build that began then.
    pub(crate) fn since(began: Instant) -> Self {
        Self { began, done: Mutex::default() }
    }

    /// Begins a phase.
    pub(crate) fn start(&self, phase: Phase) -> Running<'_> {
        Running { timings: self, phase, from: Instant::now() }
    }

    /// Measures what `work` does.
    pub(crate) fn measure<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let running = self.start(phase);
        let result = work();
        drop(running);
        result
    }

    /// What is over so far, in the order of its beginning.
    pub(crate) fn phases(&self) -> Vec<PhaseTime> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        done.sort_by_key(|phase| (phase.at_ns, phase.phase));
        done
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at_ns = nanoseconds(self.from.saturating_duration_since(self.timings.began));
        let over = PhaseTime { phase: self.phase, at_ns, took_ns: nanoseconds(self.from.elapsed()) };
        self.timings.done.lock().unwrap_or_else(PoisonError::into_inner).push(over);
    }
}

/// Phases that came several times as one each: when it first began, and how long all took together.
fn joined(phases: &[PhaseTime]) -> Vec<PhaseTime> {
    let mut all: Vec<PhaseTime> = Vec::new();
    for part in phases {
        match all.iter_mut().find(|known| known.phase == part.phase) {
            Some(known) => known.took_ns = known.took_ns.saturating_add(part.took_ns),
            None => all.push(*part),
        }
    }
    all
}

/// The phases in a line: `open the store 1.5 ms, …`.
pub(crate) fn line(phases: &[PhaseTime]) -> String {
    let one = |phase: &PhaseTime| format!("{} {:.1} ms", phase.phase.name(), phase.took_ns as f64 / 1e6);
    joined(phases).iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The phases as a table: when each began, how long it took.
pub(crate) fn table(phases: &[PhaseTime]) -> String {
    let milliseconds = |nanoseconds: u64| format!("{:.2} ms", nanoseconds as f64 / 1e6);
    let mut table = Table::new(["PHASE", "BEGAN", "TOOK"]);
    for PhaseTime { phase, at_ns, took_ns } in joined(phases) {
        table.row([phase.label(), milliseconds(at_ns), milliseconds(took_ns)]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_comes_again_is_one_line() {
        let timings = Timings::since(Instant::now());
        let wait = || std::thread::sleep(Duration::from_millis(2));
        timings.measure(Phase::Plan, || {
            timings.measure(Phase::Resolve, wait);
            timings.measure(Phase::Resolve, wait);
        });
        let phases = timings.phases();
        let names: Vec<Phase> = phases.iter().map(|phase| phase.phase).collect();
        assert_eq!(names, [Phase::Plan, Phase::Resolve, Phase::Resolve]);
        let [plan, resolve] = joined(&phases)[..] else { panic!("two phases") };
        assert!(resolve.took_ns >= 4_000_000 && plan.took_ns >= resolve.took_ns, "{phases:?}");
    }

    #[test]
    fn phases_are_shown_as_a_table() {
        let at = |phase, at_ns, took_ns| PhaseTime { phase, at_ns, took_ns };
        let phases = [
            at(Phase::Open, 0, 1_500_000),
            at(Phase::Plan, 1_500_000, 500_000),
            at(Phase::Resolve, 1_600_000, 200_000),
            at(Phase::Resolve, 1_900_000, 40_000),
            at(Phase::CacheExport, 2_000_000, 12_340_000),
        ];
        let shown = "open the store 1.5 ms, plan the steps 0.5 ms, resolve sources 0.2 ms, export the cache 12.3 ms";
        assert_eq!(line(&phases), shown);
        insta::assert_snapshot!(table(&phases), @r"
        PHASE               BEGAN     TOOK
        open the store      0.00 ms   1.50 ms
        plan the steps      1.50 ms   0.50 ms
          resolve sources   1.60 ms   0.24 ms
        export the cache    2.00 ms   12.34 ms
        ");
    }
}
