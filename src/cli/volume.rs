//! `volume …`: volumes of the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Subcommand;
use rbuild_cache::SystemClock;
use rbuild_container::{
    Containers, Lifetime, NewVolume, PrunedVolumes, Volume, VolumeError, VolumeName, VolumeOwnership,
};
use serde_json::json;

use super::report::{self, Failure, printable};
use super::table::{Table, size};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// `rbuild volume …`.
#[derive(Debug, Subcommand)]
pub(super) enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show volumes' details as JSON
    Inspect(NamesArgs),
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
    /// Name [default: a random one]
    #[arg(value_name = "VOLUME")]
    name: Option<VolumeName>,
}

/// Arguments of `volume ls`.
#[derive(Debug, clap::Args)]
pub(super) struct LsArgs {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// One JSON object a line
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
}

/// Arguments of `volume inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct NamesArgs {
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
    /// Do not ask (rbuild never asks; for scripts written for Docker)
    #[arg(short, long)]
    force: bool,
}

/// Runs `rbuild volume …`.
pub(super) fn execute(command: VolumeCommand, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let containers = Containers::new(store.clone(), Arc::new(SystemClock));
    match command {
        VolumeCommand::Create(args) => create(args, &containers, engine),
        VolumeCommand::Ls(args) => list(&args, &containers),
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
    let new = NewVolume {
        ownership: if args.name.is_some() { VolumeOwnership::Named } else { VolumeOwnership::Anonymous },
        name: args.name.unwrap_or_else(VolumeName::random),
        labels: args.label.iter().map(label).collect::<BTreeMap<_, _>>(),
        lifetime: Lifetime::Kept,
    };
    let volume = containers.ensure_volume(&new, None, &engine.store()?.lease("volume create")?)?;
    report::answer(&format!("{}\n", volume.name))?;
    Ok(Exit::Success)
}

fn list(args: &LsArgs, containers: &Containers) -> Result<Exit, Failure> {
    let volumes = containers.volumes()?;
    let mut out = String::new();
    if args.quiet {
        volumes.iter().for_each(|volume| out.push_str(&format!("{}\n", volume.name)));
    } else if args.format.as_deref() == Some("json") {
        for volume in &volumes {
            out.push_str(&serde_json::to_string(&details(volume, containers))?);
            out.push('\n');
        }
    } else {
        let mut table = Table::new(["DRIVER", "VOLUME NAME"]);
        volumes.iter().for_each(|volume| table.row(["local".to_owned(), volume.name.to_string()]));
        out = table.render();
    }
    report::answer(&out)?;
    Ok(Exit::Success)
}

pub(super) fn details(volume: &Volume, containers: &Containers) -> serde_json::Value {
    json!({
        "CreatedAt": volume.created.to_string(),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": containers.volume_data(&volume.name).to_string_lossy(),
        "Name": volume.name.as_str(),
        "Options": null,
        "Scope": "local",
    })
}

fn inspect(args: &NamesArgs, containers: &Containers) -> Result<Exit, Failure> {
    let mut found = Vec::new();
    for name in &args.names {
        let volume = containers.volume(name)?.ok_or_else(|| VolumeError::NotFound { name: name.clone() })?;
        found.push(details(&volume, containers));
    }
    report::answer(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    Ok(Exit::Success)
}

fn remove(args: &RmArgs, containers: &Containers, engine: &Engine) -> Result<Exit, Failure> {
    let lease = engine.store()?.lease("volume rm")?;
    let mut exit = Exit::Success;
    for name in &args.names {
        match containers.remove_volume(name, &lease) {
            Err(VolumeError::NotFound { .. }) if args.force => {}
            Ok(()) => report::answer(&format!("{name}\n"))?,
            Err(error) => {
                report::story(&format!("error: {}\n", printable(Failure::from(error).message())));
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

fn prune(args: &PruneArgs, containers: &Containers, engine: &Engine) -> Result<Exit, Failure> {
    let which = if args.all { PrunedVolumes::All } else { PrunedVolumes::Anonymous };
    let removed = containers.prune_volumes(which, &engine.store()?.lease("volume prune")?)?;
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
