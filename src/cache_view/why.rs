//! Why a step of a recorded build ran: what `rbuild cache why` tells.
//!
//! The explanation was found out when the step ran and lies in the build's record, so it is the same however often and
//! however late one asks, and whatever was evicted since.

use rbuild_cache::{BuildRecord, BuildVertex, Store, VertexOutcome};
use rbuild_solver::{Change, MissReason};
use serde::{Deserialize, Serialize};

use crate::cli::report::Failure;

/// How many causes are followed from step to step.
const DEEPEST: usize = 64;

/// Which step people mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepName {
    /// Its number in the build, from 1.
    Number(usize),
    /// The instruction on a line of the Dockerfile: `L12`.
    Line(u32),
    /// A step of a stage, by the number that progress shows: `[build 2/5]` is `build:2`.
    InStage(String, usize),
    /// The start of its definition key.
    Key(String),
}

impl std::str::FromStr for StepName {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(
                format!("{text:?} names no step"),
                "give a number, L12 for a line, STAGE:2, or a key's start",
            )
        };
        if let Some((stage, number)) = text.rsplit_once(':').filter(|(stage, _)| *stage != "sha256") {
            return Ok(Self::InStage(stage.to_owned(), number.parse().map_err(|_| wrong())?));
        }
        if let Some(line) = text.strip_prefix(['L', 'l']).and_then(|line| line.parse().ok()) {
            return Ok(Self::Line(line));
        }
        let digits = text.strip_prefix('#').unwrap_or(text);
        // A short row of digits is a number, a long one the start of a digest.
        if digits.len() < 7
            && let Ok(number) = digits.parse()
        {
            return Ok(Self::Number(number));
        }
        let key = text.strip_prefix("sha256:").unwrap_or(text);
        let is_key = key.len() >= 4 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_key { Ok(Self::Key(key.to_owned())) } else { Err(wrong()) }
    }
}

/// What a row's detail says that counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    number: usize,
    stage: String,
    line: u32,
    miss: Option<MissReason>,
    hit: Option<String>,
}

/// One step of a build and why it ran.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedStep {
    /// The build.
    pub build: String,
    /// The step's number there.
    pub number: usize,
    /// The step as people know it.
    pub step: String,
    /// Its stage.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// Its line in the Dockerfile; 0 where there is none.
    pub line: u32,
    /// `cached`, `ran`, `failed` or `cancelled`.
    pub outcome: &'static str,
    /// What kind of key answered, when one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit: Option<String>,
    /// Its definition key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miss: Option<MissReason>,
    /// Where it all began: the steps that this one waited for because they ran again, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

/// A step that made another one run.
#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    /// Its number.
    pub number: usize,
    /// The step as people know it.
    pub step: String,
    /// Why it ran.
    pub miss: MissReason,
}

/// The build that a reference means, the latest one where none is given.
fn find_build(store: &Store, reference: Option<&str>) -> Result<BuildRecord, Failure> {
    let help = "see `rbuild history ls`";
    let none = |text: String| Failure::new(text).with_help(help);
    let back = match reference {
        None | Some("" | "latest") => Some(0),
        Some(text) => text.strip_prefix('^').and_then(|number| number.parse::<usize>().ok()),
    };
    if let Some(back) = back {
        let mut builds = store.builds().list(back.saturating_add(1))?;
        let found = (builds.len() > back).then(|| builds.swap_remove(back));
        return found.ok_or_else(|| none("there is no such build in the history".to_owned()));
    }
    let reference = reference.unwrap_or_default();
    let mut builds = store.builds().find(reference)?;
    match builds.len() {
        1 => Ok(builds.swap_remove(0)),
        0 => Err(none(format!("no build's id begins with {reference:?}"))),
        count => Err(none(format!("{count} builds' ids begin with {reference:?}"))),
    }
}

/// Why a step ran, or steps: those of a line may be several, and without a name it is all that ran.
pub fn why(store: &Store, build: Option<&str>, wanted: Option<&StepName>) -> Result<Vec<ExplainedStep>, Failure> {
    let build = find_build(store, build)?;
    let rows = store.builds().vertices(&build.build.id)?;
    if rows.is_empty() {
        return Err(Failure::new(format!("build {} has recorded no steps", build.build.id))
            .with_help("it still runs, or it ended before it had a plan"));
    }
    let details: Vec<Detail> = rows.iter().map(detail).collect();
    let numbers: Vec<usize> =
        details.iter().enumerate().map(|(at, detail)| if detail.number > 0 { detail.number } else { at + 1 }).collect();
    let chosen: Vec<usize> = match wanted {
        None => (0..rows.len()).filter(|at| is_told(&rows[*at], &details[*at])).collect(),
        Some(wanted) => choose(wanted, &rows, &details, &numbers),
    };
    if let (true, Some(wanted)) = (chosen.is_empty(), wanted) {
        return Err(Failure::new(format!("build {} has no step {}", build.build.id, shown(wanted)))
            .with_help(format!("it has {} steps; lines count from 1 and are written L12", rows.len())));
    }
    let explained = chosen.into_iter().map(|at| {
        let (row, detail) = (&rows[at], &details[at]);
        ExplainedStep {
            build: build.build.id.to_string(),
            number: numbers[at],
            step: row.name.clone(),
            stage: detail.stage.clone(),
            line: detail.line,
            outcome: match row.outcome {
                VertexOutcome::Cached => "cached",
                VertexOutcome::Done => "ran",
                VertexOutcome::Failed => "failed",
                VertexOutcome::Cancelled => "cancelled",
            },
            hit: detail.hit.clone(),
            key: row.key.map(|key| key.to_string()),
            miss: detail.miss.clone(),
            causes: causes(at, &rows, &details, &numbers),
        }
    });
    Ok(explained.collect())
}

fn detail(row: &BuildVertex) -> Detail {
    serde_json::from_value(serde_json::Value::Object(row.detail.clone())).unwrap_or_default()
}

fn is_told(row: &BuildVertex, detail: &Detail) -> bool {
    row.outcome != VertexOutcome::Cached && detail.miss.as_ref().is_some_and(|miss| *miss != MissReason::ImageStore)
}

fn choose(wanted: &StepName, rows: &[BuildVertex], details: &[Detail], numbers: &[usize]) -> Vec<usize> {
    let all = 0..rows.len();
    match wanted {
        StepName::Number(number) => all.filter(|at| numbers[*at] == *number).collect(),
        StepName::Line(line) => all.filter(|at| details[*at].line == *line).collect(),
        StepName::InStage(stage, number) => {
            let is_it = |at: &usize| {
                let Some((shown, position)) = place(&rows[*at].name) else { return false };
                // The only stage of a file is not named.
                position == *number && (shown.is_empty() || shown == *stage || details[*at].stage == *stage)
            };
            all.filter(is_it).collect()
        }
        StepName::Key(start) => {
            let starts = |row: &BuildVertex| row.key.is_some_and(|key| key.digest().hex().starts_with(start.as_str()));
            all.filter(|at| starts(&rows[*at])).collect()
        }
    }
}

/// The stage and the position in it that a step's name begins with: `[build 2/5]`, `[2/5]`.
fn place(name: &str) -> Option<(&str, usize)> {
    let (inside, _) = name.strip_prefix('[')?.split_once(']')?;
    let (stage, fraction) = inside.rsplit_once(' ').unwrap_or(("", inside));
    Some((stage, fraction.split_once('/')?.0.parse().ok()?))
}

/// Follows inputs that ran again to what made them run.
fn causes(at: usize, rows: &[BuildVertex], details: &[Detail], numbers: &[usize]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut now = at;
    while causes.len() < DEEPEST {
        let Some(miss) = &details[now].miss else { break };
        let ran = miss.changes().iter().find_map(|change| match change {
            Change::Input { ran: Some(_), after: Some(name), .. } => rows.iter().position(|row| row.name == *name),
            _ => None,
        });
        let Some(next) = ran.filter(|next| *next != now) else { break };
        let Some(miss) = details[next].miss.clone() else { break };
        causes.push(Cause { number: numbers[next], step: rows[next].name.clone(), miss });
        now = next;
    }
    causes
}

fn shown(wanted: &StepName) -> String {
    match wanted {
        StepName::Number(number) => number.to_string(),
        StepName::Line(line) => format!("on line {line}"),
        StepName::InStage(stage, number) => format!("{number} in stage {stage}"),
        StepName::Key(start) => format!("with a key that begins with {start}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_many_names() {
        for (text, name) in [
            ("5", StepName::Number(5)),
            ("#5", StepName::Number(5)),
            ("L12", StepName::Line(12)),
            ("build:2", StepName::InStage("build".into(), 2)),
            ("0:1", StepName::InStage("0".into(), 1)),
            ("sha256:0123abcd", StepName::Key("0123abcd".into())),
            ("deadbeef", StepName::Key("deadbeef".into())),
            ("1234567", StepName::Key("1234567".into())),
        ] {
            assert_eq!(text.parse::<StepName>().unwrap(), name, "{text}");
        }
        for wrong in ["", "RUN make", "build:x", "xyz"] {
            assert!(wrong.parse::<StepName>().is_err(), "{wrong:?}");
        }
    }
}
