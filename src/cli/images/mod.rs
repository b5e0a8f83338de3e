//! `images`, `image …`, `tag`, `rmi`, `history`.

mod commit;
mod diff;
mod history;
mod inspect;
mod list;
mod remove;
mod search;
mod shape;

use clap::Subcommand;

use super::report::Failure;
use super::{load_save, pull};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names;

pub(super) use commit::{CommitArgs, commit};
pub(super) use diff::{DiffArgs, diff};
pub(super) use history::{HistoryArgs, history};
pub(super) use inspect::{InspectArgs, details, inspect};
pub(super) use list::{ListArgs, list};
pub(super) use remove::{PruneArgs, RemoveArgs, collect, listed, prune, remove};
pub(super) use search::{SearchArgs, search};

/// `rbuild image …`: the same commands under Docker's newer spelling.
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show images' details as JSON
    Inspect(InspectArgs),
    /// Show how an image came to be
    History(HistoryArgs),
    /// Show the files that differ between two images
    Diff(DiffArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Remove images that nothing uses
    Prune(PruneArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Read images from an archive
    Load(load_save::LoadArgs),
    /// Write images to an archive
    Save(load_save::SaveArgs),
    /// Make an image from a root file system tar
    Import(load_save::ImportArgs),
    /// Fetch an image from a registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(pull::PushArgs),
    /// Copy an image between registries, archives and the store
    #[command(visible_alias = "cp")]
    Copy(pull::CopyArgs),
}

/// Runs `rbuild image …`.
pub(super) fn execute(command: ImageCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Ls(args) => list(&args, engine),
        ImageCommand::Inspect(args) => inspect(&args, engine),
        ImageCommand::History(args) => history(&args, engine),
        ImageCommand::Diff(args) => diff(&args, engine),
        ImageCommand::Rm(args) => remove(&args, engine),
        ImageCommand::Prune(args) => prune(&args, engine),
        ImageCommand::Tag(args) => tag(&args, engine),
        ImageCommand::Load(args) => load_save::load(&args, engine),
        ImageCommand::Save(args) => load_save::save(&args, engine),
        ImageCommand::Import(args) => load_save::import(&args, engine),
        ImageCommand::Pull(args) => pull::pull(&args, engine),
        ImageCommand::Push(args) => pull::push(&args, engine),
        ImageCommand::Copy(args) => pull::copy(&args, engine),
    }
}

/// Arguments of `tag`.
#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// Image to name
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The new name
    #[arg(value_name = "TARGET")]
    target: rbuild_image::ImageRef,
}

/// Runs `tag`.
pub(super) fn tag(args: &TagArgs, engine: &Engine) -> Result<Exit, Failure> {
    image_names::tag(engine.store()?, &args.source, &args.target.tag_or_latest())?;
    Ok(Exit::Success)
}
