//! `run` and `create`; in the files below, their flags and the commands for containers that are there.
//!
//! Each container is run by a monitor of its own, which this process starts and connects to (`monitor.rs`, `connected.rs`).

mod arguments;
mod attach;
mod connected;
mod containers;
mod copy;
mod details;
mod events;
mod exec;
mod health_arguments;
mod host_config;
mod listing;
mod live;
mod logs;
mod monitor;
mod network_arguments;
mod particular_arguments;
mod ports;
mod shape;
mod unserved;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use rbuild_cache::{ImageError, Lease, SnapshotId, SystemClock};
use rbuild_container::{
    AnonymousVolumes, ContainerRecord, Containers, HostFiles, HostResolver, ImageOrigin, NewContainer, RemoveOptions,
    RunRequest,
};
use rbuild_executor::Capabilities;
use rbuild_image::{ImageConfig, ImageRef, Platform};

use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names;
use crate::progress::{Mode, Transfers};
use crate::transfer;

use arguments::{ContainerArgs, PullPolicy};
pub(super) use attach::{AttachArgs, StartArgs, attach, start, start_detached};
use connected::ConnectionArgs;
pub(super) use containers::{
    ContainerCommand, ExportArgs, KillArgs, RestartArgs, RmArgs, StopArgs, WaitArgs, execute_container, export, kill,
    remove, restart, stop, wait,
};
pub(super) use copy::{CopyArgs, DiffArgs, copy, diff};
pub(super) use details::details;
pub(super) use events::{EventsArgs, events};
pub(super) use exec::{ExecArgs, execute as exec};
pub(super) use listing::{PsArgs, list, matches_name};
pub(super) use live::{
    NamesArgs, RenameArgs, StatsArgs, TopArgs, UpdateArgs, pause, rename, stats, top, unpause, update,
};
pub(super) use logs::{LogsArgs, logs};
pub(super) use monitor::{MonitorArgs, attend, execute as monitor};
pub(super) use ports::{PortArgs, port};
pub(super) use shape::CONTAINER as CONTAINER_SHAPE;
use unserved::UnservedArgs;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  rbuild run --rm hello:0.1                        what the image says, gone afterwards
  rbuild run -it debian:bookworm bash              a shell
  rbuild run --rm -v ./data:/data -w /data app ls  a directory of this machine inside
  echo words | rbuild run --rm -i debian wc -w     in a pipeline

The exit code is the container's; 125 says that it was not started, 126 that its program cannot be executed,
127 that it was not found."
)]
pub(super) struct RunArgs {
    /// Leave it running in the background, and print its id
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when its process has ended
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    unserved: UnservedArgs,
    /// Image, then the command and its arguments
    #[arg(value_name = "IMAGE [COMMAND] [ARG]", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

/// Arguments of `create`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct CreateArgs {
    /// Remove the container when its process has ended
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    unserved: UnservedArgs,
    /// Image, then the command and its arguments
    #[arg(value_name = "IMAGE [COMMAND] [ARG]", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

/// Runs `run`.
pub(super) fn execute(args: RunArgs, engine: &Engine) -> Result<Exit, Failure> {
    if args.container.wants_keyboard() && !args.detach && !std::io::stdin().is_terminal() {
        return Err(Failure::new("the input device is not a TTY").with_help("leave out -t when the input is a pipe"));
    }
    run(args, engine).map_err(|failure| failure.with_exit(Exit::Engine)).and_then(|ended| ended)
}

/// The outer failure is the engine's (125); the inner one has an exit code of its own.
fn run(args: RunArgs, engine: &Engine) -> Result<Result<Exit, Failure>, Failure> {
    args.unserved.refuse()?;
    let request = args.container.request(&args.words, args.rm, engine.settings())?;
    warn_of_flags(&args.container);
    let connection = args.connection.connection(args.detach, request.console, engine.settings())?;
    let request = RunRequest { input_once: request.console.interactive && !args.detach, ..request };
    let lease = engine.store()?.lease("run")?;
    let image = acquire(&args.words[0], &args.container, engine, &lease)?;
    // From here on Ctrl-C is the container's.
    let mut signals = connection.signals()?;
    let containers = containers_of(engine)?;
    let record = make(&containers, &image, &request, &lease)?;
    write_id(&containers, &record, args.container.cidfile.as_deref(), engine, &lease)?;
    let started = connected::start(&containers, &record, &connection, signals.as_mut(), engine);
    if args.detach {
        report::answer(&format!("{}\n", record.id))?;
    }
    Ok(started)
}

/// Runs `create`.
pub(super) fn create(args: CreateArgs, engine: &Engine) -> Result<Exit, Failure> {
    args.unserved.refuse()?;
    let request = args.container.request(&args.words, args.rm, engine.settings())?;
    warn_of_flags(&args.container);
    let request = RunRequest { input_once: request.console.interactive, ..request };
    let lease = engine.store()?.lease("create")?;
    let image = acquire(&args.words[0], &args.container, engine, &lease)?;
    let containers = containers_of(engine)?;
    let record = make(&containers, &image, &request, &lease)?;
    write_id(&containers, &record, args.container.cidfile.as_deref(), engine, &lease)?;
    report::answer(&format!("{}\n", record.id))?;
    Ok(Exit::Success)
}

fn warn_of_flags(args: &ContainerArgs) {
    if let Some(warning) = args.warning() {
        report::story(&format!("warning: {warning}\n"));
    }
}

/// The containers of the engine's store.
pub(super) fn containers_of(engine: &Engine) -> Result<Containers, Failure> {
    Ok(Containers::new(engine.store()?.clone(), Arc::new(SystemClock)))
}

/// An image that is ready to be run, kept by a lease.
struct Image {
    origin: ImageOrigin,
    config: ImageConfig,
    snapshot: Option<SnapshotId>,
}

/// Finds the image, fetches it if it is not there, unpacks it if only its blobs are.
fn acquire(name: &str, args: &ContainerArgs, engine: &Engine, lease: &Lease) -> Result<Image, Failure> {
    let store = engine.store()?;
    let platform = args.platform.as_ref();
    let found = store.images().acquire(name, platform, lease);
    let image = match (found, args.pull) {
        (Ok(image), PullPolicy::Missing | PullPolicy::Never) => image,
        (Err(error @ ImageError::NotFound { .. }), PullPolicy::Never) => {
            return Err(image_names::explain(error));
        }
        (Err(error), _) if !matches!(error, ImageError::NotFound { .. }) => {
            return Err(image_names::explain(error));
        }
        (found, _) => {
            let reference: ImageRef = name.parse()?;
            if found.is_err() && !args.quiet {
                report::story(&format!("Unable to find image '{}' locally\n", report::printable(name)));
            }
            pull(&reference.tag_or_latest(), platform, args.quiet, engine)?;
            store.images().acquire(name, platform, lease).map_err(image_names::explain)?
        }
    };
    let config = image_names::config(store, &image.record.id)?;
    let host = Platform::host();
    if !config.os.is_empty() && config.os != host.os {
        return Err(Failure::new(format!("image {name} is for {}: this machine runs {host}", config.platform()))
            .with_help("choose another image, or a platform of this one with --platform"));
    }
    let snapshot = transfer::ensure_unpacked(store, lease, &image, &|| engine.cancel().is_cancelled())?;
    Ok(Image { origin: ImageOrigin { name: name.to_owned(), id: image.record.id }, config, snapshot })
}

fn pull(reference: &ImageRef, platform: Option<&Platform>, quiet: bool, engine: &Engine) -> Result<(), Failure> {
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let transfers = Transfers::start(if quiet { Mode::Quiet } else { Mode::Auto }, engine.settings());
    let pulled = transfer::pull(engine, reference, &platform, &transfers);
    transfers.finish();
    pulled.map(drop)
}

fn make(
    containers: &Containers,
    image: &Image,
    request: &RunRequest,
    lease: &Lease,
) -> Result<ContainerRecord, Failure> {
    let host = HostFiles { hosts: fs::read("/etc/hosts").ok(), resolver: HostResolver::read() };
    let new = NewContainer {
        image: image.origin.clone(),
        config: &image.config.config,
        snapshot: image.snapshot,
        request,
        host: &host,
        bounding_capabilities: Capabilities::caller_bounding(),
    };
    Ok(containers.create(&new, lease)?)
}

/// Writes the id to `--cidfile`; where that fails the container goes again.
fn write_id(
    containers: &Containers,
    record: &ContainerRecord,
    file: Option<&Path>,
    engine: &Engine,
    lease: &Lease,
) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let path = engine.settings().absolute(file);
    let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(record.id.as_str().as_bytes()));
    let Err(error) = written else { return Ok(()) };
    let volumes = AnonymousVolumes::Remove;
    containers.remove(&record.id, RemoveOptions { volumes, ..RemoveOptions::default() }, lease)?;
    Err(Failure::from_error(&format!("cannot create the container ID file {}", path.display()), &error))
}
