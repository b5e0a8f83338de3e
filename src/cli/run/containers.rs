//! Containers that are there: `rm`, `export`, `stop`, `restart`, `kill`, `wait`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use rbuild_container::{
    AnonymousVolumes, ContainerRecord, Containers, EventKind, FindError, RemoveOptions, RunningContainer, Signal,
};

use super::attach::{AttachArgs, StartArgs, attach, start};
use super::connected::{self, Connection};
use super::copy::{CopyArgs, DiffArgs, copy, diff};
use super::listing::{PsArgs, list};
use super::live::{NamesArgs, RenameArgs, StatsArgs, TopArgs, UpdateArgs, pause, rename, stats, top, unpause, update};
use super::logs::{LogsArgs, logs};
use super::ports::{PortArgs, port};
use super::{CreateArgs, ExecArgs, RunArgs, containers_of};
use crate::cli::confirm::confirmed;
use crate::cli::inspect::{InspectContainerArgs, inspect_container};
use crate::cli::prune_filter::PruneFilter;
use crate::cli::report::{self, Failure, printable};
use crate::cli::volume::pruned;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::tell_of_prune;
use crate::output::{Readers, whole_file};

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Kill containers that run
    #[arg(short, long)]
    force: bool,
    /// Also remove the volumes that were made for the containers alone
    #[arg(short, long)]
    volumes: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `rm`.
pub(in crate::cli) fn remove(args: &RmArgs, engine: &Engine) -> Result<Exit, Failure> {
    let options = RemoveOptions {
        running: if args.force { RunningContainer::Kill } else { RunningContainer::Refuse },
        volumes: if args.volumes { AnonymousVolumes::Remove } else { AnonymousVolumes::Keep },
    };
    let lease = engine.store()?.lease("rm")?;
    let containers = containers_of(engine)?;
    let missing = |text: &&String| args.force && matches!(containers.find(text), Err(FindError::NotFound { .. }));
    let (missing, there): (Vec<&String>, Vec<&String>) = args.containers.iter().partition(missing);
    let there: Vec<String> = there.into_iter().cloned().collect();
    let exit = for_each(&there, engine, |containers, text| match containers.find(text) {
        // Somebody else was faster.
        Err(FindError::NotFound { .. }) if args.force => Ok(()),
        found => Ok(containers.remove(&found?.id, options, &lease)?),
    });
    for text in missing {
        report::story(&format!("no such container: {}\n", printable(text)));
    }
    exit
}

/// Arguments of `stop`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StopArgs {
    /// Seconds to wait before killing [default: the container's own, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `stop`.
pub(in crate::cli) fn stop(args: &StopArgs, engine: &Engine) -> Result<Exit, Failure> {
    let grace = args.time.map(Duration::from_secs);
    for_each(&args.containers, engine, |containers, text| Ok(containers.stop(&containers.find(text)?, grace)?))
}

/// Arguments of `restart`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RestartArgs {
    /// Seconds to wait before killing [default: the container's own, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `restart`.
pub(in crate::cli) fn restart(args: &RestartArgs, engine: &Engine) -> Result<Exit, Failure> {
    let grace = args.time.map(Duration::from_secs);
    for_each(&args.containers, engine, |containers, text| {
        let record = containers.find(text)?;
        if containers.restart_running(&record, grace)? {
            return Ok(());
        }
        connected::start(containers, &record, &Connection::detached(), None, engine).map(drop)
    })
}

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct KillArgs {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: Signal,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `kill`.
pub(in crate::cli) fn kill(args: &KillArgs, engine: &Engine) -> Result<Exit, Failure> {
    for_each(&args.containers, engine, |containers, text| Ok(containers.kill(&containers.find(text)?, args.signal)?))
}

/// Does something to each container named; prints the names it was done to, and goes on after a failure.
pub(super) fn for_each(
    names: &[String],
    engine: &Engine,
    act: impl Fn(&Containers, &str) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let mut exit = Exit::Success;
    for text in names {
        match act(&containers, text) {
            Ok(()) => report::answer(&format!("{text}\n"))?,
            Err(failure) => {
                report::failure(&failure, engine.settings());
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

/// Arguments of `wait`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct WaitArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `wait`.
pub(in crate::cli) fn wait(args: &WaitArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    for text in &args.containers {
        let code = containers.wait(&containers.find(text)?.id)?.unwrap_or(0);
        report::answer(&format!("{code}\n"))?;
    }
    Ok(Exit::Success)
}

/// Arguments of `container prune`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what matches: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

fn prune(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
    let filter = PruneFilter::parse(&args.filter, &["until", "label", "label!"], Timestamp::now())?;
    if !confirmed(args.force, &format!("WARNING! This will remove all stopped containers.{}", filter.described()))? {
        return Ok(Exit::Success);
    }
    let takes = |record: &ContainerRecord| filter.takes(&record.config.labels, record.created);
    let removed = containers_of(engine)?.prune(&takes, &engine.store()?.lease("container prune")?)?;
    tell_of_prune(engine.store()?, EventKind::Container, removed.iter().map(|(_, bytes)| bytes).sum());
    report::answer(&pruned("Containers", removed.iter().map(|(id, bytes)| (id.as_str(), *bytes))))?;
    Ok(Exit::Success)
}

/// `rbuild container …`: the same commands under Docker's newer spelling.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ContainerCommand {
    /// Run a command in a new container
    Run(Box<RunArgs>),
    /// Create a container without starting it
    Create(Box<CreateArgs>),
    /// Execute a command in a container that runs
    Exec(ExecArgs),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(PsArgs),
    /// Start stopped containers
    Start(StartArgs),
    /// Connect to a running container
    Attach(AttachArgs),
    /// Show what a container wrote
    Logs(LogsArgs),
    /// Stop running containers
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(RestartArgs),
    /// Send a signal to running containers
    Kill(KillArgs),
    /// Wait until containers have ended; print their exit codes
    Wait(WaitArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all containers that do not run
    Prune(PruneArgs),
    /// Show containers' details as JSON
    Inspect(InspectContainerArgs),
    /// Freeze all processes of containers
    Pause(NamesArgs),
    /// Let frozen containers go on
    Unpause(NamesArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Change limits and policy of containers
    Update(Box<UpdateArgs>),
    /// List the processes of a container
    Top(TopArgs),
    /// Show what containers use
    Stats(StatsArgs),
    /// Copy files into or out of a container
    Cp(CopyArgs),
    /// Show what a container has changed in its image
    Diff(DiffArgs),
    /// Write a container's file system as a tar archive
    Export(ExportArgs),
    /// List the ports of this machine that lead to a container
    Port(PortArgs),
}

/// Runs `rbuild container …`.
pub(in crate::cli) fn execute_container(command: ContainerCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        ContainerCommand::Run(args) => super::execute(*args, engine),
        ContainerCommand::Create(args) => super::create(*args, engine),
        ContainerCommand::Exec(args) => super::exec(&args, engine),
        ContainerCommand::Ls(args) => list(&args, engine),
        ContainerCommand::Start(args) => start(&args, engine),
        ContainerCommand::Attach(args) => attach(&args, engine),
        ContainerCommand::Logs(args) => logs(&args, engine),
        ContainerCommand::Stop(args) => stop(&args, engine),
        ContainerCommand::Restart(args) => restart(&args, engine),
        ContainerCommand::Kill(args) => kill(&args, engine),
        ContainerCommand::Wait(args) => wait(&args, engine),
        ContainerCommand::Rm(args) => remove(&args, engine),
        ContainerCommand::Prune(args) => prune(&args, engine),
        ContainerCommand::Inspect(args) => inspect_container(&args, engine),
        ContainerCommand::Pause(args) => pause(&args, engine),
        ContainerCommand::Unpause(args) => unpause(&args, engine),
        ContainerCommand::Rename(args) => rename(&args, engine),
        ContainerCommand::Update(args) => update(&args, engine),
        ContainerCommand::Top(args) => top(&args, engine),
        ContainerCommand::Stats(args) => stats(&args, engine),
        ContainerCommand::Cp(args) => copy(&args, engine),
        ContainerCommand::Diff(args) => diff(&args, engine),
        ContainerCommand::Export(args) => export(&args, engine),
        ContainerCommand::Port(args) => port(&args, engine),
    }
}

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArgs {
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `export`.
pub(in crate::cli) fn export(args: &ExportArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let record = containers.find(&args.container)?;
    let lease = engine.store()?.lease("export")?;
    let Some(file) = &args.output else {
        if engine.settings().stdout_is_terminal {
            return Err(Failure::new("refusing to write an archive to a terminal")
                .with_help("name a file with -o, or redirect the output"));
        }
        let mut out = BufWriter::new(std::io::stdout().lock());
        containers.export(&record, &mut out, &lease)?;
        out.flush()?;
        return Ok(Exit::Success);
    };
    whole_file(&engine.settings().absolute(file), Readers::Owner, |mut out| {
        Ok(containers.export(&record, &mut out, &lease)?)
    })?;
    Ok(Exit::Success)
}
