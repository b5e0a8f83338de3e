//! `images`, `image …`, `tag`, `rmi`, `inspect`.

mod inspect;
mod shape;

use clap::Subcommand;

use super::report::{self, Failure};
use super::table::{Table, ago, size};
use super::{load_save, pull};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, ListFilter, Removal};

pub(super) use inspect::{InspectAnyArgs, InspectArgs, inspect, inspect_any};

/// `rbuild image …`: the same commands under Docker's newer spelling.
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show images' details as JSON
    Inspect(InspectArgs),
    /// Remove images
    Rm(RemoveArgs),
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
}

/// Runs `rbuild image …`.
pub(super) fn execute(command: ImageCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Ls(args) => list(&args, engine),
        ImageCommand::Inspect(args) => inspect(&args, engine),
        ImageCommand::Rm(args) => remove(&args, engine),
        ImageCommand::Tag(args) => tag(&args, engine),
        ImageCommand::Load(args) => load_save::load(&args, engine),
        ImageCommand::Save(args) => load_save::save(&args, engine),
        ImageCommand::Import(args) => load_save::import(&args, engine),
        ImageCommand::Pull(args) => pull::pull(&args, engine),
        ImageCommand::Push(args) => pull::push(&args, engine),
    }
}

/// Arguments of `images`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only images of this name, or name:tag
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Also show the digests that images were pulled by
    #[arg(long)]
    digests: bool,
    /// One JSON object a line
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
    /// Also images without a name (they are always shown)
    #[arg(short, long)]
    all: bool,
}

/// Runs `images`.
pub(super) fn list(args: &ListArgs, engine: &Engine) -> Result<Exit, Failure> {
    let filter = args.name.as_deref().map(ListFilter::parse).transpose()?;
    let rows = image_names::list(engine.store()?, filter.as_ref())?;
    let now = jiff::Timestamp::now();
    let id = |row: &image_names::Row| if args.no_trunc { row.id.to_string() } else { row.id.short() };
    let mut out = String::new();
    if args.quiet {
        for row in &rows {
            out.push_str(&id(row));
            out.push('\n');
        }
    } else if args.format.as_deref() == Some("json") {
        for row in &rows {
            let object = serde_json::json!({
                "Repository": row.repository, "Tag": row.tag, "Digest": row.digest_text(), "ID": id(row),
                "CreatedAt": row.created.map(|time| time.to_string()), "CreatedSince": ago(row.created, now),
                "Platform": row.platform.to_string(), "Size": size(row.size),
            });
            out.push_str(&object.to_string());
            out.push('\n');
        }
    } else if args.digests {
        let mut table = Table::new(["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]);
        for row in &rows {
            let digest = row.digest_text();
            table.row([
                row.repository.clone(),
                row.tag.clone(),
                digest,
                id(row),
                ago(row.created, now),
                size(row.size),
            ]);
        }
        out = table.render();
    } else {
        let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
        for row in &rows {
            table.row([row.repository.clone(), row.tag.clone(), id(row), ago(row.created, now), size(row.size)]);
        }
        out = table.render();
    }
    report::answer(&out)?;
    Ok(Exit::Success)
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

/// Arguments of `rmi`.
#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Also when the image has several names, or does not exist
    #[arg(short, long)]
    force: bool,
}

/// Runs `rmi`: every image is tried; the first failure is shown last.
pub(super) fn remove(args: &RemoveArgs, engine: &Engine) -> Result<Exit, Failure> {
    let removal = if args.force { Removal::Force } else { Removal::Careful };
    let mut failed = None;
    for name in &args.images {
        match image_names::remove(engine.store()?, name, removal) {
            Ok(removed) => {
                for reference in &removed.untagged {
                    report::answer(&format!("Untagged: {reference}\n"))?;
                }
                for id in &removed.deleted {
                    report::answer(&format!("Deleted: {id}\n"))?;
                }
            }
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    failed.map_or(Ok(Exit::Success), Err)
}
