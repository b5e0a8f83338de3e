//! `system start-containers` and `system stop-containers`: what a machine does with its containers when it comes up and goes
//! down. The unit of `system service` runs them.

use std::time::Duration;

use rbuild_container::{Boot, ContainerRecord};

use crate::cli::report::{self, Failure, printable};
use crate::cli::run::{containers_of, start_detached};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `system start-containers`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StartArgs {
    /// Also when it was done since the machine came up
    #[arg(long)]
    again: bool,
}

/// Arguments of `system stop-containers`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StopArgs {
    /// Seconds until those that do not end are killed [default: each container's own, else 10]
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u64>,
}

/// Runs `system start-containers`.
pub(super) fn start(args: &StartArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let boot = boot_id()?;
    if args.again {
        containers.note_boot("")?;
    }
    let wanted = match containers.begin_boot(&boot)? {
        Boot::New(wanted) => wanted,
        Boot::Known => {
            report::story("The containers of this boot were started before; --again does it once more.\n");
            return Ok(Exit::Success);
        }
    };
    let mut exit = Exit::Success;
    for record in wanted {
        match start_detached(&containers, &record, engine) {
            Ok(()) => report::answer(&format!("{}\n", record.name))?,
            Err(failure) => {
                report::story(&format!("error: {}: {}\n", record.name, printable(failure.message())));
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

/// Runs `system stop-containers`: all at once, since the machine waits for the slowest one.
pub(super) fn stop(args: &StopArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let running: Vec<ContainerRecord> =
        containers.list()?.containers.into_iter().filter(|record| record.state.status.can_stop()).collect();
    let grace = args.time.map(Duration::from_secs);
    let stopped: Vec<_> = std::thread::scope(|scope| {
        let stopping: Vec<_> =
            running.iter().map(|record| scope.spawn(|| containers.stop_for_now(record, grace))).collect();
        stopping.into_iter().map(|one| one.join().expect("stopping does not panic")).collect()
    });
    let mut exit = Exit::Success;
    for (record, stopped) in running.iter().zip(stopped) {
        match stopped {
            Ok(()) => report::answer(&format!("{}\n", record.name))?,
            Err(error) => {
                let failure = Failure::from(error);
                report::story(&format!("error: {}: {}\n", record.name, printable(failure.message())));
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

/// What the kernel calls this boot.
pub(super) fn boot_id() -> Result<String, Failure> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::from_error(&format!("cannot read {path}"), &error))?;
    Ok(text.trim().to_owned())
}
