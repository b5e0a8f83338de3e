//! Containers that are there: `ps`, `rm`, `export`, `stop`, `restart`, `kill`, `wait`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use rbuild_container::{
    AnonymousVolumes, ContainerRecord, Containers, FindError, NetworkChoice, RemoveOptions, RunningContainer, Signal,
    Width,
};
use serde_json::json;

use super::attach::{AttachArgs, StartArgs, attach, start};
use super::connected::{self, Connection};
use super::logs::{LogsArgs, logs};
use super::ports::{PortArgs, port};
use super::{CreateArgs, RunArgs, containers_of};
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, ago, duration};
use crate::cli::volume::pruned;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PsArgs {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only the newest container, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Only this many of the newest containers, whatever their state
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// One JSON object a line
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
}

/// Runs `ps`.
pub(in crate::cli) fn list(args: &PsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    containers.remove_leftovers(&engine.store()?.lease("ps")?)?;
    let listing = containers.list()?;
    let newest = if args.latest { Some(1) } else { args.last };
    let shown = |record: &&ContainerRecord| args.all || newest.is_some() || record.state.status.is_live();
    let rows = listing.containers.iter().filter(shown).take(newest.unwrap_or(usize::MAX));
    let rows: Vec<&ContainerRecord> = rows.collect();
    report::answer(&rendered(args, &rows)?)?;
    for (id, error) in &listing.damaged {
        report::story(&format!("warning: container {}: {error}\n", id.short()));
    }
    Ok(Exit::Success)
}

fn rendered(args: &PsArgs, rows: &[&ContainerRecord]) -> Result<String, Failure> {
    let now = jiff::Timestamp::now();
    let id = |record: &ContainerRecord| {
        if args.no_trunc { record.id.to_string() } else { record.id.short().to_owned() }
    };
    let width = if args.no_trunc { Width::Whole } else { Width::Short };
    if args.quiet {
        return Ok(rows.iter().map(|record| format!("{}\n", id(record))).collect());
    }
    if args.format.as_deref() == Some("json") {
        let mut out = String::new();
        for record in rows {
            let object = json!({
                "ID": id(record),
                "Image": record.image.name,
                "Command": record.command_text(width),
                "CreatedAt": record.created.to_string(),
                "RunningFor": ago(Some(record.created), now),
                "State": record.state.status.name(),
                "Status": record.status_text(now, duration),
                "Ports": record.ports_text(),
                "Names": record.name.as_str(),
                "Labels": record.config.labels,
                "Networks": networks(record),
            });
            out.push_str(&serde_json::to_string(&object)?);
            out.push('\n');
        }
        return Ok(out);
    }
    let mut table = Table::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    for record in rows {
        table.row([
            id(record),
            printable(&record.image.name),
            printable(&record.command_text(width)),
            ago(Some(record.created), now),
            record.status_text(now, duration),
            record.ports_text(),
            record.name.to_string(),
        ]);
    }
    Ok(table.render())
}

/// Names of the networks of a container.
fn networks(record: &ContainerRecord) -> String {
    let endpoints = record.config.endpoints();
    if endpoints.is_empty() && !matches!(record.config.network, NetworkChoice::Named(_) | NetworkChoice::Default) {
        return record.config.network.to_string();
    }
    endpoints.into_iter().map(|one| one.network).collect::<Vec<_>>().join(",")
}

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
    for_each(&args.containers, engine, |containers, text| match containers.find(text) {
        Err(FindError::NotFound { .. }) if args.force => Ok(()),
        found => Ok(containers.remove(&found?.id, options, &lease)?),
    })
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
                report::story(&format!("error: {}\n", printable(failure.message())));
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
    /// Do not ask (rbuild never asks; for scripts written for Docker)
    #[arg(short, long)]
    force: bool,
}

fn prune(engine: &Engine) -> Result<Exit, Failure> {
    let removed = containers_of(engine)?.prune(&engine.store()?.lease("container prune")?)?;
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
        ContainerCommand::Ls(args) => list(&args, engine),
        ContainerCommand::Start(args) => start(&args, engine),
        ContainerCommand::Attach(args) => attach(&args, engine),
        ContainerCommand::Logs(args) => logs(&args, engine),
        ContainerCommand::Stop(args) => stop(&args, engine),
        ContainerCommand::Restart(args) => restart(&args, engine),
        ContainerCommand::Kill(args) => kill(&args, engine),
        ContainerCommand::Wait(args) => wait(&args, engine),
        ContainerCommand::Rm(args) => remove(&args, engine),
        ContainerCommand::Prune(_) => prune(engine),
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
    // Complete or not there at all: written beside its place, synced, renamed.
    let path = engine.settings().absolute(file);
    let directory = path.parent().unwrap_or(std::path::Path::new("/"));
    let name = path.file_name().ok_or_else(|| Failure::new(format!("{} is no file name", path.display())))?;
    let temporary = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = (|| -> Result<(), Failure> {
        let mut out = BufWriter::new(std::fs::File::create_new(&temporary)?);
        containers.export(&record, &mut out, &lease)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(std::fs::rename(&temporary, &path)?)
    })();
    if written.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    written.map_err(|failure| failure.within(&format!("cannot write {}", path.display())))?;
    Ok(Exit::Success)
}
