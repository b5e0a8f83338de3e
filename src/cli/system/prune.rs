//! `system prune`: everything that is not used, in Docker's order and words.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rbuild_cache::PruneControl;
use rbuild_container::{ContainerRecord, PrunedVolumes, Volume};

use crate::cache_view::{self, PruneRequest};
use crate::cli::confirm::confirmed;
use crate::cli::images;
use crate::cli::network;
use crate::cli::prune_filter::PruneFilter;
use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::cli::table::size;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, FilterUse, ImageFilter};

/// Arguments of `system prune`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneArgs {
    /// Also images with a name that no container uses, and every cached step
    #[arg(short, long)]
    all: bool,
    /// Also volumes that no container has and nobody named
    #[arg(long)]
    volumes: bool,
    /// Only what matches: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs `system prune`.
pub(super) fn prune(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let filter = PruneFilter::parse(&args.filter, &["until", "label", "label!"], now)?;
    if args.volumes && args.filter.iter().any(|text| text.starts_with("until=")) {
        return Err(Failure::new("the \"until\" filter is not supported with \"--volumes\""));
    }
    if !confirmed(args.force, &warning(args, &filter))? {
        return Ok(Exit::Success);
    }
    let containers = containers_of(engine)?;
    let lease = engine.store()?.lease("system prune")?;
    let mut total = 0;
    let takes = |record: &ContainerRecord| filter.takes(&record.config.labels, record.created);
    let removed = containers.prune(&takes, &lease)?;
    total += removed.iter().map(|(_, bytes)| bytes).sum::<u64>();
    section("Containers", removed.into_iter().map(|(id, _)| id.to_string()))?;
    section("Networks", network::prune_unused(&filter, engine)?.into_iter())?;
    if args.volumes {
        let takes = |volume: &Volume| filter.takes(&volume.labels, volume.created);
        let removed = containers.prune_volumes(PrunedVolumes::Anonymous, &takes, &lease)?;
        total += removed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        section("Volumes", removed.into_iter().map(|(name, _)| name.to_string()))?;
    }
    let of_images = ImageFilter::parse(engine.store()?, &args.filter, None, FilterUse::Prune, now)?;
    let removed = image_names::prune(engine.store()?, &containers, &of_images, args.all)?;
    report::answer(&images::listed(&removed))?;
    drop(lease);
    total += images::collect(engine)?;
    total += cache(args, &filter, engine, now)?;
    report::answer(&format!("Total reclaimed space: {}\n", size(total)))?;
    Ok(Exit::Success)
}

/// What the cache of builds gives back. Cached steps have no labels, so that with one they all stay.
fn cache(args: &PruneArgs, filter: &PruneFilter, engine: &Engine, now: Timestamp) -> Result<u64, Failure> {
    if filter.asks_for_labels() {
        return Ok(0);
    }
    let unused_for = filter.until().map(|until| now.duration_since(until).try_into().unwrap_or_default());
    let request = PruneRequest {
        all: args.all,
        unused_for,
        filters: Vec::new(),
        reserved: None,
        max_used: None,
        min_free: None,
        dry_run: false,
    };
    let cancelled = || engine.cancel().is_cancelled();
    let interrupt = || if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let on_wait = cache_view::waiting(&cancelled);
    let control = PruneControl { on_wait: &on_wait, interrupt: &interrupt };
    let pruned = cache_view::prune(engine.store()?, &containers_of(engine)?, &request, control)?;
    section("build cache objects", pruned.steps.iter().map(|step| step.id.to_string()).chain(pruned.mounts))?;
    Ok(pruned.bytes)
}

fn section(what: &str, removed: impl Iterator<Item = String>) -> Result<(), Failure> {
    let names: String = removed.map(|name| name + "\n").collect();
    if !names.is_empty() {
        report::answer(&format!("Deleted {what}:\n{names}\n"))?;
    }
    Ok(())
}

fn warning(args: &PruneArgs, filter: &PruneFilter) -> String {
    let mut items = vec!["all stopped containers", "all networks not used by at least one container"];
    if args.volumes {
        items.push("all anonymous volumes not used by at least one container");
    }
    if args.all {
        items.extend(["all images without at least one container associated to them", "all build cache"]);
    } else {
        items.extend(["all dangling images", "unused build cache"]);
    }
    let items: String = items.iter().map(|item| format!("  - {item}\n")).collect();
    format!("WARNING! This will remove:\n{items}{}", filter.described())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_goes() {
        let args = PruneArgs { all: true, volumes: true, filter: vec!["label=a".into()], force: false };
        let filter = PruneFilter::parse(&args.filter, &["label"], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            warning(&args, &filter),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n  \
             - all anonymous volumes not used by at least one container\n  - all images without at least one container \
             associated to them\n  - all build cache\n\n  Items to be pruned will be filtered with:\n  - label=a\n"
        );
    }
}
