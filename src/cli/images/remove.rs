//! `rmi`, `image rm` and `image prune`.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rbuild_cache::{GcPolicy, PruneControl, PruneMode};
use rbuild_container::EventKind;

use crate::cache_view;
use crate::cli::confirm::confirmed;
use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::cli::table::size;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, FilterUse, ImageFilter, Removal, Removed};
use crate::interrupt::Interrupts;

/// Arguments of `rmi`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RemoveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Also when the image has several names, is used by stopped containers, or does not exist
    #[arg(short, long)]
    force: bool,
    /// Keep untagged parents (images have none here: nothing else ever goes)
    #[arg(long)]
    no_prune: bool,
}

/// Runs `rmi`: every image is tried; what failed is said at the end.
pub(in crate::cli) fn remove(args: &RemoveArgs, engine: &Engine) -> Result<Exit, Failure> {
    let removal = if args.force { Removal::Force } else { Removal::Careful };
    let (store, containers) = (engine.store()?, containers_of(engine)?);
    let mut failures: Vec<Failure> = Vec::new();
    for name in &args.images {
        match image_names::remove(store, &containers, name, removal) {
            Ok(removed) => {
                let mut out = String::new();
                removed.untagged.iter().for_each(|reference| out.push_str(&format!("Untagged: {reference}\n")));
                removed.deleted.iter().for_each(|id| out.push_str(&format!("Deleted: {id}\n")));
                report::answer(&out)?;
            }
            Err(failure) if args.force && failure.message().starts_with("No such image") => {
                report::story(&format!("{}\n", failure.message()));
            }
            Err(failure) => failures.push(failure),
        }
    }
    match failures.len() {
        0 => Ok(Exit::Success),
        1 => Err(failures.swap_remove(0)),
        _ => Err(Failure::new(failures.iter().map(Failure::message).collect::<Vec<_>>().join("\n"))),
    }
}

/// Arguments of `image prune`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Only what matches: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE], dangling=false (as --all)
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs `image prune`.
pub(in crate::cli) fn prune(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
    let filter = ImageFilter::parse(engine.store()?, &args.filter, None, FilterUse::Prune, Timestamp::now())?;
    let all = args.all || filter.dangling() == Some(false);
    let what =
        if all { "all images without at least one container associated to them." } else { "all dangling images." };
    if !confirmed(args.force, &format!("WARNING! This will remove {what}"))? {
        return Ok(Exit::Success);
    }
    let removed = image_names::prune(engine.store()?, &containers_of(engine)?, &filter, all)?;
    let freed = collect(engine)?;
    image_names::tell_of_prune(engine.store()?, EventKind::Image, freed);
    report::answer(&format!("{}Total reclaimed space: {}\n", listed(&removed), size(freed)))?;
    Ok(Exit::Success)
}

/// Frees what nothing has any more.
pub(in crate::cli) fn collect(engine: &Engine) -> Result<u64, Failure> {
    let _interrupts = Interrupts::cancelling(engine.cancel())?;
    let cancelled = || engine.cancel().is_cancelled();
    let interrupt = || if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let on_wait = cache_view::waiting(&cancelled);
    let control = PruneControl { on_wait: &on_wait, interrupt: &interrupt };
    Ok(engine.store()?.prune(&GcPolicy::garbage(), PruneMode::Apply, control)?.freed)
}

/// What a prune says of images.
pub(in crate::cli) fn listed(removed: &Removed) -> String {
    if removed.deleted.is_empty() {
        return String::new();
    }
    let mut out = "Deleted Images:\n".to_owned();
    removed.untagged.iter().for_each(|reference| out.push_str(&format!("untagged: {reference}\n")));
    removed.deleted.iter().for_each(|id| out.push_str(&format!("deleted: {id}\n")));
    out.push('\n');
    out
}
