//! `attach` and `start`.

use std::io::IsTerminal;

use rbuild_container::{Bond, ContainerRecord, ContainerStatus, Containers, DetachKeys};

use super::connected::{self, Connection};
use super::containers::for_each;
use super::containers_of;
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `attach`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AttachArgs {
    /// Keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Do not connect to its input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `attach`.
pub(in crate::cli) fn attach(args: &AttachArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let record = containers.find(&args.container)?;
    let refused = match record.state.status {
        ContainerStatus::Running => None,
        ContainerStatus::Paused => Some("You cannot attach to a paused container, unpause it first"),
        ContainerStatus::Restarting => Some("You cannot attach to a restarting container, wait until it is running"),
        _ => Some("You cannot attach to a stopped container, start it first"),
    };
    if let Some(refused) = refused {
        return Err(Failure::new(refused));
    }
    let connection = Connection {
        input: record.config.console.interactive && !args.no_stdin,
        output: true,
        error: true,
        bond: Bond::Loose,
        sig_proxy: args.sig_proxy,
        keys: connected::detach_keys(args.detach_keys.as_ref(), engine.settings())?,
    };
    needs_terminal(&record, &connection)?;
    let link = containers.connect_monitor(&record.id)?;
    let link = link.ok_or_else(|| Failure::new(format!("container {} has just ended", record.id.short())))?;
    let mut signals = connection.signals()?;
    connected::attach(&containers, &record, link, &connection, signals.as_mut())
}

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StartArgs {
    /// Connect to its output and wait for its end
    #[arg(short, long)]
    attach: bool,
    /// Connect to its input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `start`.
pub(in crate::cli) fn start(args: &StartArgs, engine: &Engine) -> Result<Exit, Failure> {
    if !args.attach && !args.interactive {
        return for_each(&args.containers, engine, |containers, text| {
            let record = containers.find(text)?;
            // As in Docker, to start what runs is no mistake.
            if record.state.status.can_stop() && record.state.status != ContainerStatus::Paused {
                return Ok(());
            }
            start_detached(containers, &record, engine)
        });
    }
    let [container] = args.containers.as_slice() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let containers = containers_of(engine)?;
    let record = containers.find(container)?;
    let connection = Connection {
        input: args.interactive && record.config.console.interactive,
        output: true,
        error: true,
        bond: Bond::Bound,
        sig_proxy: true,
        keys: connected::detach_keys(args.detach_keys.as_ref(), engine.settings())?,
    };
    needs_terminal(&record, &connection)?;
    let mut signals = connection.signals()?;
    if record.state.status == ContainerStatus::Running
        && let Some(link) = containers.connect_monitor(&record.id)?
    {
        let connection = Connection { bond: Bond::Loose, ..connection };
        return connected::attach(&containers, &record, link, &connection, signals.as_mut());
    }
    connected::start(&containers, &record, &connection, signals.as_mut(), engine)
}

/// Starts a container in the background.
pub(in crate::cli) fn start_detached(
    containers: &Containers,
    record: &ContainerRecord,
    engine: &Engine,
) -> Result<(), Failure> {
    connected::start(containers, record, &Connection::detached(), None, engine).map(drop)
}

/// Keys of a terminal in the container come from a terminal here.
fn needs_terminal(record: &ContainerRecord, connection: &Connection) -> Result<(), Failure> {
    if connection.input && record.config.console.terminal && !std::io::stdin().is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    Ok(())
}
