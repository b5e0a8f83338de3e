//! `volume …`: volumes of the store.

mod list;

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Subcommand;
use jiff::Timestamp;
use rbuild_cache::SystemClock;
use rbuild_container::{
    Containers, EventKind, InvalidVolumeOptions, Lifetime, NewVolume, PrunedVolumes, Volume, VolumeError, VolumeName,
    VolumeOptions, VolumeOwnership,
};
use serde_json::json;

use super::confirm::confirmed;
use super::inspect;
use super::prune_filter::PruneFilter;
use super::report::{self, Failure};
use super::table::size;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::tell_of_prune;

/// `rbuild volume …`.
#[derive(Debug, Subcommand)]
pub(super) enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(list::LsArgs),
    /// Show volumes' details as JSON
    Inspect(InspectArgs),
    /// Remove volumes that no container has
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all volumes that no container has and nobody named
    Prune(PruneArgs),
}

/// Arguments of `volume create`.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Driver: local
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Option of the driver: type=none, o=bind[,ro] and device=DIRECTORY make a directory of this machine a volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Name [default: a random one]
    #[arg(value_name = "VOLUME")]
    name: Option<VolumeName>,
}

/// Arguments of `volume inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// json, or what a Go template makes of each: '{{.Mountpoint}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<VolumeName>,
}

/// Arguments of `volume rm`.
#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {
    /// A missing volume is no failure
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<VolumeName>,
}

/// Arguments of `volume prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Also volumes that somebody named
    #[arg(short, long)]
    all: bool,
    /// Only what matches: label=KEY[=VALUE], label!=KEY[=VALUE], all=1 (as --all)
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs `rbuild volume …`.
pub(super) fn execute(command: VolumeCommand, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let containers = Containers::new(store.clone(), Arc::new(SystemClock));
    match command {
        VolumeCommand::Create(args) => create(args, &containers, engine),
        VolumeCommand::Ls(args) => list::list(&args, &containers),
        VolumeCommand::Inspect(args) => inspect(&args, &containers),
        VolumeCommand::Rm(args) => remove(&args, &containers, engine),
        VolumeCommand::Prune(args) => prune(&args, &containers, engine),
    }
}

fn create(args: CreateArgs, containers: &Containers, engine: &Engine) -> Result<Exit, Failure> {
    let label = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    let typed: BTreeMap<String, String> = args.opt.iter().map(label).collect();
    let options = VolumeOptions::try_from(typed).map_err(|error| {
        let failure = Failure::new(error.to_string());
        match error {
            InvalidVolumeOptions::Type { .. } => failure.with_help(
                "for memory use --tmpfs; mount anything else on this machine first, and make a volume of the directory",
            ),
            _ => failure,
        }
    })?;
    let new = NewVolume {
        options,
        ownership: if args.name.is_some() { VolumeOwnership::Named } else { VolumeOwnership::Anonymous },
        name: args.name.unwrap_or_else(VolumeName::random),
        labels: args.label.iter().map(label).collect::<BTreeMap<_, _>>(),
        lifetime: Lifetime::Kept,
    };
    let volume = containers.ensure_volume(&new, None, &engine.store()?.lease("volume create")?)?;
    report::answer(&format!("{}\n", volume.name))?;
    Ok(Exit::Success)
}

pub(super) fn details(volume: &Volume, containers: &Containers) -> serde_json::Value {
    let options = Some(volume.options.typed()).filter(|options| !options.is_empty());
    json!({
        "CreatedAt": volume.created.to_string(),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": containers.volume_data(&volume.name).to_string_lossy(),
        "Name": volume.name.as_str(),
        "Options": options,
        "Scope": "local",
    })
}

fn inspect(args: &InspectArgs, containers: &Containers) -> Result<Exit, Failure> {
    let names: Vec<String> = args.names.iter().map(ToString::to_string).collect();
    inspect::show(&names, args.format.as_deref(), |text| {
        let name: VolumeName = text.parse()?;
        let volume = containers.volume(&name)?.ok_or(VolumeError::NotFound { name })?;
        Ok((details(&volume, containers), None))
    })
}

fn remove(args: &RmArgs, containers: &Containers, engine: &Engine) -> Result<Exit, Failure> {
    let lease = engine.store()?.lease("volume rm")?;
    let mut exit = Exit::Success;
    for name in &args.names {
        match containers.remove_volume(name, &lease) {
            Err(VolumeError::NotFound { .. }) if args.force => report::answer(&format!("{name}\n"))?,
            Ok(()) => report::answer(&format!("{name}\n"))?,
            Err(error) => {
                report::failure(&Failure::from(error), engine.settings());
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

fn prune(args: &PruneArgs, containers: &Containers, engine: &Engine) -> Result<Exit, Failure> {
    let filter = PruneFilter::parse(&args.filter, &["label", "label!", "all"], Timestamp::now())?;
    let all = args.all || args.filter.iter().any(|text| matches!(text.as_str(), "all=1" | "all=true"));
    let which = if all { PrunedVolumes::All } else { PrunedVolumes::Anonymous };
    let what = if all { "all local volumes" } else { "anonymous local volumes" };
    let warning = format!("WARNING! This will remove {what} not used by at least one container.{}", filter.described());
    if !confirmed(args.force, &warning)? {
        return Ok(Exit::Success);
    }
    let takes = |volume: &Volume| filter.takes(&volume.labels, volume.created);
    let removed = containers.prune_volumes(which, &takes, &engine.store()?.lease("volume prune")?)?;
    tell_of_prune(engine.store()?, EventKind::Volume, removed.iter().map(|(_, bytes)| bytes).sum());
    let names = removed.iter().map(|(name, bytes)| (name.as_str(), *bytes));
    report::answer(&pruned("Volumes", names))?;
    Ok(Exit::Success)
}

/// What a `prune` removed, in Docker's words.
pub(super) fn pruned<'a>(what: &str, removed: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let (mut names, mut total) = (String::new(), 0);
    for (name, bytes) in removed {
        names.push_str(&format!("{name}\n"));
        total += bytes;
    }
    let names = if names.is_empty() { names } else { format!("Deleted {what}:\n{names}\n") };
    format!("{names}Total reclaimed space: {}\n", size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_says_what_went() {
        assert_eq!(pruned("Volumes", []), "Total reclaimed space: 0B\n");
        assert_eq!(
            pruned("Volumes", [("a", 1500), ("b", 500)]),
            "Deleted Volumes:\na\nb\n\nTotal reclaimed space: 2kB\n"
        );
    }
}
