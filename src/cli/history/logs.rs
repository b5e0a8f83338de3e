//! `rbuild history logs`: a recorded build through the views that it had while it ran.

use std::time::Instant;

use rbuild_cache::BuildId;
use rbuild_solver::{Event, VertexId};

use crate::build_record::{self, BuildInfo, RecordedStep, Replay, StepState};
use crate::cli::report::{self, Failure, printable};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::progress::{Ending, Lines, Mode, Progress};

/// Arguments of `history logs`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LogsArgs {
    /// Build: an id or its beginning, ^0 for the newest one [default: the newest one]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
    /// Only what this step said, also when it was cached: its number, or a part of its name
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// How: plain, or rawjson (auto and tty are plain here)
    #[arg(long, value_name = "VIEW", default_value = "plain", value_parser = ["plain", "rawjson", "auto", "tty"])]
    progress: String,
}

pub(super) fn execute(args: &LogsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let build = build_record::find(store, args.build.as_deref().unwrap_or_default())?;
    if let Some(step) = &args.step {
        return one(&build, step, engine);
    }
    let Some(mut events) = build_record::replay(&store.builds().files(&build.id))? else {
        return Err(without_journal(&build));
    };
    let mode = if args.progress == "rawjson" { Mode::Rawjson } else { Mode::Plain };
    let progress = Progress::start_at(mode, engine.settings(), Instant::now(), build.started).answering();
    while let Some(event) = events.event()? {
        progress.show(&event);
    }
    progress.finish(Ending::Other);
    if let (Some(error), Mode::Plain) = (&build.error, mode) {
        report::answer(&format!("ERROR: {}\n", printable(error)))?;
    }
    Ok(Exit::Success)
}

fn without_journal(build: &BuildInfo) -> Failure {
    let failure = Failure::new(format!("build {} has no log", build.id));
    match &build.error {
        Some(error) => failure.with_help(format!("it ended before its first step: {error}")),
        None => failure,
    }
}

/// What one step said, as it said it.
fn one(build: &BuildInfo, wanted: &str, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let steps = build_record::open(store, build)?;
    let position = choose(&steps, wanted)?;
    let step = &steps[position];
    let (id, position): (BuildId, usize) = match (step.state, step.result) {
        (StepState::Cached, Some(result)) => store.builds().maker(result)?.ok_or_else(|| {
            Failure::new(format!("{} was cached, and the build that ran it is forgotten", printable(&step.name)))
        })?,
        _ => (build.id.clone(), position),
    };
    let Some(events) = build_record::replay(&store.builds().files(&id))? else { return Err(without_journal(build)) };
    print(events, position, engine.settings().stdout_is_terminal)?;
    Ok(Exit::Success)
}

fn print(mut events: Replay, position: usize, to_terminal: bool) -> Result<(), Failure> {
    let mut vertex: Option<VertexId> = None;
    let mut lines = Lines::default();
    while let Some(event) = events.event()? {
        match event {
            Event::Planned { vertices } => vertex = vertices.get(position).map(|planned| planned.vertex),
            Event::Log { vertex: of, data, .. } if Some(of) == vertex => match to_terminal {
                true => lines.take(&data).into_iter().try_for_each(|line| report::answer(&format!("{line}\n")))?,
                false => report::answer_bytes(&data)?,
            },
            _ => {}
        }
    }
    if let Some(rest) = lines.finish() {
        report::answer(&format!("{rest}\n"))?;
    }
    Ok(())
}

/// The position of the step that is meant.
fn choose(steps: &[RecordedStep], wanted: &str) -> Result<usize, Failure> {
    if let Ok(number) = wanted.trim_start_matches('#').parse::<usize>() {
        let found = steps.iter().position(|step| step.detail.number == number);
        return found.ok_or_else(|| {
            Failure::new(format!("the build has no step {number}")).with_help(format!("it has {}", steps.len()))
        });
    }
    let found: Vec<usize> = (0..steps.len()).filter(|at| steps[*at].name.contains(wanted)).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Failure::new(format!("no step of the build has {wanted:?} in its name"))
            .with_help("`rbuild history inspect` lists its steps")),
        several => {
            let names = several.iter().take(5).map(|at| format!("{} {}", steps[*at].detail.number, steps[*at].name));
            Err(Failure::new(format!("{} steps have {wanted:?} in their names", several.len()))
                .with_help(format!("give a number: {}", names.collect::<Vec<_>>().join("; "))))
        }
    }
}
