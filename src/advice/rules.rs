//! The rules: each looks at the steps of a build and at what they cost before.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Hint, History, Saves};
use crate::build_record::{RecordedStep, StepState};
use crate::cli::report::printable;

/// A step that takes less is not worth a word.
const WORTH_TIME: Duration = Duration::from_secs(2);
/// A layer that is smaller neither.
const WORTH_BYTES: u64 = 50_000_000;
/// A step that ran less often says nothing about what builds usually cost.
const OFTEN: u32 = 3;

/// Programs that fetch what a project depends on: what begins a command, and where they keep what they fetched.
const INSTALLERS: [(&str, &str); 16] = [
    ("npm ci", "/root/.npm"),
    ("npm install", "/root/.npm"),
    ("yarn install", "/usr/local/share/.cache/yarn"),
    ("pnpm install", "/root/.local/share/pnpm/store"),
    ("pip install", "/root/.cache/pip"),
    ("pip3 install", "/root/.cache/pip"),
    ("poetry install", "/root/.cache/pypoetry"),
    ("uv sync", "/root/.cache/uv"),
    ("bundle install", "/usr/local/bundle/cache"),
    ("composer install", "/root/.composer/cache"),
    ("go mod download", "/go/pkg/mod"),
    ("go build", "/root/.cache/go-build"),
    ("cargo build", "/usr/local/cargo/registry"),
    ("cargo fetch", "/usr/local/cargo/registry"),
    ("mvn ", "/root/.m2"),
    ("apt-get install", "/var/cache/apt"),
];

/// What a step does, without its place in the stage.
pub(super) fn instruction(step: &RecordedStep) -> &str {
    let name = step.name.as_str();
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, instruction)) => instruction,
        None => name,
    }
}

fn installer(step: &RecordedStep) -> Option<&'static (&'static str, &'static str)> {
    let command = instruction(step).strip_prefix("RUN ")?;
    INSTALLERS.iter().find(|(program, _)| command.contains(program))
}

pub(super) fn named(step: &RecordedStep) -> String {
    const LONGEST: usize = 60;
    let text = printable(&instruction(step).replace('\n', " "));
    let short: String = text.chars().take(LONGEST).collect();
    let cut = if short.len() < text.len() { "…" } else { "" };
    let line = if step.detail.line > 0 { format!("line {}: ", step.detail.line) } else { String::new() };
    format!("{line}{short}{cut}")
}

/// How long a step usually takes when it runs.
fn usual(step: &RecordedStep, history: &BTreeMap<String, History>) -> Option<Duration> {
    let known = history.get(&step.name)?;
    known.took.checked_div(known.ran)
}

/// The whole context is copied before dependencies are installed: every change of any file installs them again.
pub(super) fn context_before_dependencies(steps: &[RecordedStep], history: &BTreeMap<String, History>) -> Vec<Hint> {
    let mut hints = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let Some((program, _)) = installer(step) else { continue };
        let (Some(took), Some(known)) = (usual(step, history), history.get(&step.name)) else { continue };
        if took < WORTH_TIME || known.ran < 2 || *program == "apt-get install" {
            continue;
        }
        let copies_all = |step: &&RecordedStep| {
            let words: Vec<&str> =
                instruction(step).split_whitespace().filter(|word| !word.starts_with("--")).collect();
            matches!(words.as_slice(), ["COPY" | "ADD", "." | "./", _]) && !instruction(step).contains("--from=")
        };
        let before = steps[..at].iter().filter(|before| before.detail.stage == step.detail.stage);
        if let Some(copy) = before.rev().find(copies_all) {
            hints.push(Hint {
                step: step.detail.number,
                text: format!(
                    "{} runs again whenever any file of the context changes, because of {}: copy only the files that \
                     list the dependencies before it, and the rest after it",
                    named(step),
                    named(copy),
                ),
                saves: Saves::Time(took),
            });
        }
    }
    hints
}

/// Something is fetched again and again that a cache mount would keep.
pub(super) fn missing_cache_mount(steps: &[RecordedStep], history: &BTreeMap<String, History>) -> Vec<Hint> {
    let hint = |step: &RecordedStep| {
        let (_, directory) = installer(step).filter(|_| !instruction(step).contains("type=cache"))?;
        let took = usual(step, history).filter(|took| *took >= WORTH_TIME)?;
        (history.get(&step.name)?.ran >= 2).then(|| Hint {
            step: step.detail.number,
            text: format!(
                "{} fetches the same files whenever it runs: RUN --mount=type=cache,target={directory} keeps them \
                 between runs",
                named(step),
            ),
            // What is downloaded is usually the larger half of such a step; more would be promised too much.
            saves: Saves::Time(took / 2),
        })
    };
    steps.iter().filter_map(hint).collect()
}

/// A step that ran in most builds and took most of their time.
pub(super) fn costs_most(steps: &[RecordedStep], history: &BTreeMap<String, History>) -> Vec<Hint> {
    let all: Duration = steps.iter().filter_map(|step| history.get(&step.name)).map(|known| known.took).sum();
    let hint = |step: &RecordedStep| {
        let known = history.get(&step.name).filter(|known| known.ran >= OFTEN)?;
        let took = usual(step, history).filter(|took| *took >= WORTH_TIME)?;
        (known.took * 2 >= all && step.detail.line > 0).then(|| Hint {
            step: step.detail.number,
            text: format!(
                "{} ran in {} of {} builds and took more than half of their time: put what changes often after it, or \
                 split it; `rbuild cache why {}` says what made it run",
                named(step),
                known.ran,
                known.builds,
                step.detail.number,
            ),
            saves: Saves::Time(took),
        })
    };
    steps.iter().filter_map(hint).collect()
}

/// A layer that is larger than all others together, made by something that could clean up after itself.
pub(super) fn large_layer(steps: &[RecordedStep], _history: &BTreeMap<String, History>) -> Vec<Hint> {
    let mut hints = Vec::new();
    for step in steps.iter().filter(|step| matches!(step.state, StepState::Done | StepState::Cached)) {
        let Some(bytes) = step.detail.size.filter(|bytes| *bytes >= WORTH_BYTES) else { continue };
        let text = instruction(step);
        if text.contains("apt-get install") && !text.contains("/var/lib/apt/lists") && !text.contains("type=cache") {
            hints.push(Hint {
                step: step.detail.number,
                text: format!(
                    "{} leaves package lists in its layer: end it with `&& rm -rf /var/lib/apt/lists/*`, or mount a cache \
                     there",
                    named(step),
                ),
                // Debian's lists unpacked.
                saves: Saves::Bytes(bytes.min(40_000_000)),
            });
        }
    }
    hints
}
