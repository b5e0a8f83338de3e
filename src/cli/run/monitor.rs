//! The process that runs a container, from both sides: how it is started, and what it does.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rbuild_cache::{Lease, WAITING};
use rbuild_container::{
    Attendance, ContainerId, NetworkId, Networks, SignalInbox, StartError, StartFailure, Supervised, Supervision,
    UplinkError,
};
use rbuild_executor::{SpawnError, begin_session};

use super::containers_of;
use crate::background;
use crate::cli::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::failure_help;

/// Arguments of the monitor.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MonitorArgs {
    /// The container
    #[arg(value_name = "ID")]
    id: ContainerId,
}

/// Starts a monitor; it speaks over `connection`, and outlives this process.
pub(super) fn start(id: &ContainerId, connection: OwnedFd, engine: &Engine) -> Result<(), Failure> {
    spawn("container-monitor", id, connection, engine)
}

/// Starts a process that runs a command in a container; it speaks over `connection`, and may outlive this process.
pub(super) fn start_attendant(id: &ContainerId, connection: OwnedFd, engine: &Engine) -> Result<(), Failure> {
    spawn("container-exec", id, connection, engine)
}

fn spawn(word: &str, id: &ContainerId, connection: OwnedFd, engine: &Engine) -> Result<(), Failure> {
    background::start(word, id.as_str(), connection, engine.settings())
        .map_err(|error| Failure::from_error("cannot start the process that runs the container", &error))
}

/// Is the monitor.
pub(in crate::cli) fn execute(args: &MonitorArgs, engine: &Engine) -> Result<Exit, Failure> {
    let first = begin_session()?;
    let mut signals = SignalInbox::open()?;
    let spare = first.try_clone()?;
    match supervise(args, engine, first, &mut signals) {
        Ok((supervised, lease)) => {
            // Whoever waits for the end may remove the whole store then.
            let remaining = supervised.leaves_networks().then(|| Remaining::new(engine)).transpose();
            let warm = supervised.announce();
            // Nobody waits for this process any more.
            if let Some(remaining) = remaining? {
                remaining.outlast(&warm, lease)?;
            }
        }
        Err(failure) => {
            let help = failure.help().map(str::to_owned);
            let told = StartFailure { message: failure.message().to_owned(), help, code: 125 };
            drop(Supervised::refused(spare, told).announce());
        }
    }
    Ok(Exit::Success)
}

/// Is the process that runs a command.
pub(in crate::cli) fn attend(args: &MonitorArgs, engine: &Engine) -> Result<Exit, Failure> {
    let caller = begin_session()?;
    let mut signals = SignalInbox::open()?;
    let spawner = engine.spawner()?;
    let with = Attendance { spawner: &spawner, signals: &mut signals, caller, explain: &super::exec::explain };
    drop(containers_of(engine)?.attend(&args.id, with)?.announce());
    Ok(Exit::Success)
}

/// What is needed to take down the networks that a container leaves.
struct Remaining {
    all: Networks,
    lease: Lease,
    linger: Duration,
}

impl Remaining {
    fn new(engine: &Engine) -> Result<Self, Failure> {
        let store = engine.store()?;
        Ok(Self { all: Networks::new(store)?, lease: store.lease(WAITING)?, linger: engine.network_linger()? })
    }

    /// Takes them down, unless others take them up. What else the container's lease held is free before.
    fn outlast(self, networks: &[NetworkId], lease: Lease) -> Result<(), Failure> {
        // A store that is gone holds nothing, and what it had on this host goes all the same.
        let held: Vec<_> = networks.iter().map(|id| self.all.hold(id, &self.lease)).collect();
        drop(lease);
        let tidied: Vec<_> = networks.iter().map(|id| self.all.outlast(id, self.linger)).collect();
        held.into_iter().collect::<Result<(), _>>()?;
        Ok(tidied.into_iter().collect::<Result<(), _>>()?)
    }
}

/// When this returns nothing of the container is left but its record, its files, and the bridges that the lease holds.
fn supervise(
    args: &MonitorArgs,
    engine: &Engine,
    first: OwnedFd,
    signals: &mut SignalInbox,
) -> Result<(Supervised, Lease), Failure> {
    // What is wrong with it is told before anything runs.
    engine.network_linger()?;
    let lease = engine.store()?.lease("container")?;
    let spawner = engine.spawner()?;
    let with = Supervision { spawner: &spawner, signals, first, explain: &explain };
    let supervised = containers_of(engine)?.supervise(&args.id, with, &lease)?;
    Ok((supervised, lease))
}

/// A failed start in words.
fn explain(error: &StartError) -> StartFailure {
    let mut message = error.to_string();
    report::append_causes(&mut message, error);
    // An error that only passes another one on hides its type.
    let cause: &(dyn std::error::Error + 'static) = match error {
        StartError::Network(cause) => cause,
        other => other,
    };
    let help = hint(error).map(str::to_owned).or_else(|| failure_help::of_error(cause));
    StartFailure { message, help, code: error.exit().code() }
}

/// What to do about a container that was not started.
fn hint(error: &StartError) -> Option<&'static str> {
    match error {
        StartError::BindSource { .. } => Some("create it, or use -v, which makes a directory"),
        StartError::User(_) => Some("--user takes a name of the image's /etc/passwd, or a number"),
        StartError::Uplink(UplinkError::Neither { .. }) => {
            Some("choose --network=none if it needs none; --network=host gives it this machine's own network")
        }
        StartError::Spawn(SpawnError::NotFound { .. }) => {
            Some("the first word behind the image is the program; flags of `run` stand before the image")
        }
        _ => None,
    }
}
