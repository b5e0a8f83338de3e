//! What would make a project's builds faster or its image smaller, from what was measured; the largest gain first.
//!
//! Pure but for reading the history: rules look at the steps of the last builds of the same project and say what each
//! costs. A rule that cannot say how much it would save says nothing.

mod rules;
mod wasted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rbuild_cache::{BuildId, Store};
use serde_json::json;

use crate::build_record::{self, BuildInfo, RecordedStep, StepState};
use crate::cli::report::Failure;
use crate::cli::table::size;
use crate::progress::time;

/// Builds of the project that are looked at, the newest ones.
const BUILDS: usize = 20;
/// Builds of all projects among which they are looked for.
const AMONG: usize = 100;
/// Hints that are given at once.
const MOST: usize = 5;

/// Something to do, and what it would save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Display number of the step that it is about.
    pub(crate) step: usize,
    /// What is the case, and what to do.
    pub(crate) text: String,
    /// What that would save.
    pub(crate) saves: Saves,
}

/// What a hint would save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saves {
    /// Time of a build in which the step runs.
    Time(Duration),
    /// Bytes of the image.
    Bytes(u64),
}

impl Saves {
    /// Something to sort by: a second is worth as much as ten megabytes, which is what a usual network moves in one.
    fn worth(self) -> u128 {
        match self {
            Self::Time(time) => time.as_nanos(),
            Self::Bytes(bytes) => u128::from(bytes) * 100,
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let saves = match self.saves {
            Saves::Time(spared) => time(u64::try_from(spared.as_nanos()).unwrap_or(u64::MAX)),
            Saves::Bytes(bytes) => size(bytes),
        };
        write!(f, "{} (about {saves})", self.text)
    }
}

/// What a step was like in the last builds of its project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct History {
    /// How often it was part of a build.
    builds: u32,
    /// How often it ran.
    ran: u32,
    /// How long all of these took together.
    took: Duration,
}

/// What the history says about a build.
pub(crate) fn of_build(store: &Store, build: &BuildInfo, steps: &[RecordedStep]) -> Result<Vec<Hint>, Failure> {
    let mut history: BTreeMap<String, History> = BTreeMap::new();
    let mut seen = 0;
    for earlier in build_record::list(store, AMONG)? {
        let same =
            earlier.inputs.context == build.inputs.context && earlier.inputs.dockerfile == build.inputs.dockerfile;
        if !same || earlier.started > build.started || seen == BUILDS {
            continue;
        }
        seen += 1;
        let earlier_steps;
        let steps = if earlier.id == build.id {
            steps
        } else {
            earlier_steps = build_record::open(store, &earlier)?;
            &earlier_steps
        };
        for step in steps {
            let known = history.entry(step.name.clone()).or_default();
            known.builds += 1;
            if step.state == StepState::Done {
                known.ran += 1;
                known.took += step.duration.unwrap_or_default();
            }
        }
    }
    let mut hints = advise(steps, &history);
    hints.extend(wasted::hidden_files(store, build, steps)?);
    Ok(ranked(hints))
}

/// Hints that follow a build.
const AFTER: usize = 3;

/// What is worth saying at the end of a build: about steps that ran in it, so that nothing is said twice without need.
pub(crate) fn after(store: &Store, build: &BuildId) -> Result<Vec<Hint>, Failure> {
    let build = build_record::find(store, build.as_str())?;
    let steps = build_record::open(store, &build)?;
    let ran = |hint: &Hint| steps.iter().any(|step| step.detail.number == hint.step && step.state == StepState::Done);
    if !steps.iter().any(|step| step.state == StepState::Done) {
        return Ok(Vec::new());
    }
    let mut hints = of_build(store, &build, &steps)?;
    hints.retain(ran);
    hints.truncate(AFTER);
    Ok(hints)
}

/// Lines for people; nothing where there is nothing to say.
pub(crate) fn as_text(hints: &[Hint]) -> String {
    hints.iter().map(|hint| format!("HINT: {hint}\n")).collect()
}

/// A line for programs, as `--progress=rawjson` ends with where hints were asked for.
pub(crate) fn as_json(hints: &[Hint]) -> String {
    let one = |hint: &Hint| match hint.saves {
        Saves::Time(time) => json!({"step": hint.step, "text": hint.text, "saves_seconds": time.as_secs_f64()}),
        Saves::Bytes(bytes) => json!({"step": hint.step, "text": hint.text, "saves_bytes": bytes}),
    };
    match hints {
        [] => String::new(),
        hints => format!("{}\n", json!({"hints": hints.iter().map(one).collect::<Vec<_>>()})),
    }
}

fn advise(steps: &[RecordedStep], history: &BTreeMap<String, History>) -> Vec<Hint> {
    let mut hints: Vec<Hint> = [rules::context_before_dependencies, rules::missing_cache_mount, rules::large_layer]
        .iter()
        .flat_map(|rule| rule(steps, history))
        .collect();
    // That a step costs much is worth saying where nothing better can be said.
    let known: BTreeSet<usize> = hints.iter().map(|hint| hint.step).collect();
    hints.extend(rules::costs_most(steps, history).into_iter().filter(|hint| !known.contains(&hint.step)));
    ranked(hints)
}

/// The largest gain first.
fn ranked(mut hints: Vec<Hint>) -> Vec<Hint> {
    hints.sort_by(|a, b| b.saves.worth().cmp(&a.saves.worth()).then_with(|| a.text.cmp(&b.text)));
    hints.truncate(MOST);
    hints
}

#[cfg(test)]
mod tests;
