//! `rbuild history …`: the builds that were done here. Names, columns and flags are `docker buildx history`'s.

use clap::Subcommand;
use rbuild_cache::BuildStatus;

use super::report::{self, Failure};
use crate::build_record;
use crate::engine::Engine;
use crate::exit_code::Exit;

mod archive;
mod filter;
mod inspect;
mod logs;
mod ls;
pub(super) mod page;

/// `rbuild history …`.
#[derive(Debug, Subcommand)]
pub(super) enum HistoryCommand {
    /// List builds, the newest first
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Show what a build was asked for and how it went
    Inspect(inspect::InspectArgs),
    /// Show the log of a build, or of one of its steps
    Logs(logs::LogsArgs),
    /// Open the report of a build in a browser
    Open(page::OpenArgs),
    /// Forget builds
    Rm(RmArgs),
    /// Write builds with their logs to a tar archive
    Export(archive::ExportArgs),
}

/// Runs `rbuild history …`.
pub(super) fn execute(command: &HistoryCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        HistoryCommand::Ls(args) => ls::execute(args, engine),
        HistoryCommand::Inspect(args) => inspect::execute(args, engine),
        HistoryCommand::Logs(args) => logs::execute(args, engine),
        HistoryCommand::Open(args) => page::open(args, engine),
        HistoryCommand::Rm(args) => rm(args, engine),
        HistoryCommand::Export(args) => archive::execute(args, engine),
    }
}

/// Arguments of `history rm`.
#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {
    /// Builds: ids or their beginnings, ^0 for the newest one
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    builds: Vec<String>,
    /// All builds that do not run
    #[arg(long, conflicts_with = "builds")]
    all: bool,
}

fn rm(args: &RmArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let builds = match args.all {
        true => {
            let all = build_record::list(store, usize::MAX)?;
            all.into_iter().filter(|build| build.status != BuildStatus::Running).collect()
        }
        // All are found before one is removed: ^1 means what it meant when it was typed.
        false => args.builds.iter().map(|build| build_record::find(store, build)).collect::<Result<Vec<_>, _>>()?,
    };
    for build in builds {
        if build.status == BuildStatus::Running {
            return Err(Failure::new(format!("build {} is running", build.id)).with_help("stop it first"));
        }
        store.builds().remove(&build.id)?;
        if !args.all {
            report::answer(&format!("{}\n", build.id))?;
        }
    }
    Ok(Exit::Success)
}

/// A status in the words of `history ls`.
fn status_word(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Running => "Running",
        BuildStatus::Succeeded => "Completed",
        BuildStatus::Failed => "Error",
        BuildStatus::Cancelled => "Canceled",
        BuildStatus::Aborted => "Aborted",
    }
}

/// A time that a build took: `0.3s`, `2m  5s`.
fn took(time: std::time::Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        seconds => format!("{}m {:2}s", seconds / 60, seconds % 60),
    }
}
