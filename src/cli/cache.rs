//! `rbuild cache …`: what builds left for later ones.

mod du;
mod inspect;
mod ls;
mod mounts;
mod prune;
mod stats;
mod verify;
mod why;

use clap::Subcommand;

use super::report::Failure;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// `rbuild cache …`.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// List cached steps
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Show everything that is known of cached steps
    Inspect(inspect::InspectArgs),
    /// Say why a step of a build ran instead of being answered from the cache
    Why(why::WhyArgs),
    /// Show what takes how much space
    Du(du::DuArgs),
    /// Manage what RUN --mount=type=cache left
    #[command(subcommand, visible_alias = "mount")]
    Mounts(mounts::MountsCommand),
    /// Show what the cache has saved
    Stats(stats::StatsArgs),
    /// Remove what no image, container or running build needs
    Prune(prune::PruneArgs),
    /// Check that everything stored is whole
    Verify(verify::VerifyArgs),
}

/// Runs `rbuild cache …`.
pub(super) fn execute(command: &CacheCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        CacheCommand::Ls(args) => ls::execute(args, engine),
        CacheCommand::Inspect(args) => inspect::execute(args, engine),
        CacheCommand::Why(args) => why::execute(args, engine),
        CacheCommand::Du(args) => du::execute(args, engine),
        CacheCommand::Mounts(command) => mounts::execute(command, engine),
        CacheCommand::Stats(args) => stats::execute(args, engine),
        CacheCommand::Prune(args) => prune::execute(args, engine),
        CacheCommand::Verify(args) => verify::execute(args, engine),
    }
}

/// Docker's spellings: `rbuild builder …` and `rbuild buildx …`.
#[derive(Debug, Subcommand)]
pub(super) enum BuilderCommand {
    /// Show what takes how much space: `rbuild cache du`
    Du(du::DuArgs),
    /// Remove what no image, container or running build needs: `rbuild cache prune`
    Prune(prune::PruneArgs),
}

/// Runs `rbuild builder …` and `rbuild buildx …`.
pub(super) fn execute_builder(command: &BuilderCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        BuilderCommand::Du(args) => du::execute(args, engine),
        BuilderCommand::Prune(args) => prune::execute(args, engine),
    }
}
