//! Reading the history: builds by reference, and their steps.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rbuild_cache::{BuildId, BuildRecord, BuildStatus, BuildVertex, ResultId, Store, VertexOutcome};
use rbuild_image::Digest;

use super::inputs::BuildInputs;
use super::journal::replay;
use super::vertices::StepDetail;
use crate::cli::report::Failure;
use crate::progress::{State, Step, View};

/// A build of the history.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Its identity.
    pub id: BuildId,
    /// How it stands.
    pub status: BuildStatus,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// What was asked for.
    pub inputs: BuildInputs,
    /// The command line, secrets left out.
    pub arguments: Vec<String>,
    /// The image it made; of the first platform.
    pub image: Option<Digest>,
    /// What went wrong.
    pub error: Option<String>,
    /// How many steps it has, as far as it said so.
    pub steps: usize,
    /// How many of them came from the cache.
    pub cached: usize,
    /// How many of them have a product.
    pub completed: usize,
}

impl BuildInfo {
    fn of(record: BuildRecord) -> Self {
        let mut inputs = BuildInputs::from_detail(&record.build.detail);
        if inputs.context.is_empty() && inputs.dockerfile.is_empty() {
            inputs.context = record.build.context;
            inputs.dockerfile = record.build.dockerfile;
            inputs.target = record.build.target;
        }
        Self {
            id: record.build.id,
            status: record.status,
            started: record.started_at,
            finished: record.finished_at,
            inputs,
            arguments: record.build.arguments,
            image: record.image,
            error: record.error,
            steps: record.vertices,
            cached: record.cached,
            completed: record.completed,
        }
    }

    /// How long it took, or takes until `now`. Of one that died, nobody knows.
    pub fn duration(&self, now: Timestamp) -> Option<Duration> {
        let end = match (self.finished, self.status) {
            (Some(finished), _) => finished,
            (None, BuildStatus::Running) => now,
            (None, _) => return None,
        };
        Some(Duration::try_from(end.duration_since(self.started)).unwrap_or_default())
    }
}

/// The latest builds, newest first.
pub fn list(store: &Store, limit: usize) -> Result<Vec<BuildInfo>, Failure> {
    Ok(store.builds().list(limit)?.into_iter().map(BuildInfo::of).collect())
}

/// The build that a reference means: an id or its beginning, `latest` or nothing for the newest one, `^1` for the one
/// before that.
pub fn find(store: &Store, reference: &str) -> Result<BuildInfo, Failure> {
    let none = |text: String| Failure::new(text).with_help("see `rbuild history ls`");
    let offset = match reference {
        "" | "latest" => Some(0),
        _ => reference.strip_prefix('^').map(|digits| digits.parse::<usize>()).transpose().map_err(|_| {
            Failure::usage(format!("{reference:?} is not a build"), "^0 is the newest one, ^1 the one before it")
        })?,
    };
    if let Some(offset) = offset {
        let mut builds = list(store, offset.saturating_add(1))?;
        return match builds.len() > offset {
            true => Ok(builds.swap_remove(offset)),
            false if builds.is_empty() => Err(none("no build is recorded".to_owned())),
            false => Err(none(format!("only {} builds are recorded", builds.len()))),
        };
    }
    let mut found = store.builds().find(reference)?;
    match found.len() {
        0 => Err(none(format!("no build is recorded as {reference:?}"))),
        1 => Ok(BuildInfo::of(found.swap_remove(0))),
        count => Err(Failure::new(format!("{count} builds begin with {reference:?}")).with_help("give more digits")),
    }
}

/// A step of a recorded build.
#[derive(Clone, Debug)]
pub struct RecordedStep {
    /// The step as people know it.
    pub name: String,
    /// How it went.
    pub state: StepState,
    /// When it began.
    pub started: Option<Timestamp>,
    /// How long it took.
    pub duration: Option<Duration>,
    /// Its definition key.
    pub key: Option<String>,
    /// What is recorded of it in the cache.
    pub result: Option<ResultId>,
    /// The rest.
    pub detail: StepDetail,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It came from the cache.
    Cached,
    /// It ran.
    Done,
    /// It failed.
    Failed,
    /// It was stopped, or never began.
    Cancelled,
    /// It runs, or ran when the build died.
    Running,
    /// It has not begun.
    Waiting,
}

/// The steps of a build, in the order of its plan. Those of a build that has not said how it ended are read from its
/// journal.
pub fn open(store: &Store, build: &BuildInfo) -> Result<Vec<RecordedStep>, Failure> {
    let rows = store.builds().vertices(&build.id)?;
    if !rows.is_empty() {
        return Ok(rows.into_iter().map(of_row).collect());
    }
    let Some(mut events) = replay(&store.builds().files(&build.id))? else { return Ok(Vec::new()) };
    let mut view = View::default();
    while let Some(event) = events.event()? {
        view.fold(&event);
    }
    Ok(of_view(&view, build.started))
}

fn of_row(row: BuildVertex) -> RecordedStep {
    RecordedStep {
        name: row.name,
        state: match row.outcome {
            VertexOutcome::Cached => StepState::Cached,
            VertexOutcome::Done => StepState::Done,
            VertexOutcome::Failed => StepState::Failed,
            VertexOutcome::Cancelled => StepState::Cancelled,
        },
        started: row.started_at,
        duration: row.duration,
        key: row.key.map(|key| key.to_string()),
        result: row.result,
        detail: serde_json::from_value(serde_json::Value::Object(row.detail)).unwrap_or_default(),
    }
}

fn of_view(view: &View, began: Timestamp) -> Vec<RecordedStep> {
    let positions: BTreeMap<_, _> = view.steps().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let step = |(_, step): (_, &Step)| RecordedStep {
        name: step.name.clone(),
        state: match step.state {
            State::Waiting => StepState::Waiting,
            State::Running(_) => StepState::Running,
            State::Cached => StepState::Cached,
            State::Done(_) => StepState::Done,
            State::Failed(_) => StepState::Failed,
            State::Cancelled => StepState::Cancelled,
        },
        started: step
            .started
            .and_then(|at| began.checked_add(SignedDuration::from_nanos(i64::try_from(at).unwrap_or(i64::MAX))).ok()),
        duration: step.took().map(Duration::from_nanos),
        key: None,
        result: None,
        detail: StepDetail {
            number: step.number,
            inputs: step.inputs.iter().filter_map(|input| positions.get(input).copied()).collect(),
            stage: step.stage.clone(),
            line: step.line,
            ..StepDetail::default()
        },
    };
    view.steps().map(step).collect()
}
