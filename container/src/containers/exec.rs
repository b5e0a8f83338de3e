//! A command is executed in a container that another process runs.
//!
//! The container's first process is taken hold of by a descriptor that is known to be of that very process; from there on its
//! end is noticed, whoever gets its number next.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rbuild_cache::snapshot::SnapshotError;
use rbuild_executor::users::UserError;
use rbuild_executor::{Capabilities, ExecSpec, SpawnError, Spawner};

use super::start::{Connection, ENDING, LookUpError, exit_of, follow, look_up_user};
use super::{Containers, Foreground, LoadError, Outcome, RECORD};
use crate::events::Executed;
use crate::exec::{ExecFacts, ExecRequest, exec_spec};
use crate::exit::ContainerExit;
use crate::id::ContainerId;
use crate::process_id::ProcessId;
use crate::record::ContainerRecord;
use crate::signal::Signal;
use crate::status::ContainerStatus;

/// A command that was not executed, or could not be followed to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container does not run.
    #[error("container {id} is not running")]
    NotRunning {
        /// Which.
        id: ContainerId,
    },
    /// It is frozen.
    #[error("container {id} is paused, unpause the container before exec")]
    Paused {
        /// Which.
        id: ContainerId,
    },
    /// Its process ended and will be started again.
    #[error("container {id} is restarting, wait until the container is running")]
    Restarting {
        /// Which.
        id: ContainerId,
    },
    /// The working directory is relative.
    #[error("the working directory '{path}' is invalid, it needs to be an absolute path")]
    WorkingDir {
        /// What was given.
        path: String,
    },
    /// The user or group is not in the container's files.
    #[error(transparent)]
    User(#[from] UserError),
    /// A signal that was meant to end it came before it ran.
    #[error("interrupted by {signal} before the command ran")]
    Interrupted {
        /// Which.
        signal: Signal,
    },
    /// It did not start.
    #[error(transparent)]
    Spawn(SpawnError),
    /// The container's files cannot be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The container's record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The container's process cannot be reached.
    #[error("cannot reach the process of container {}", id.short())]
    Reach {
        /// Which.
        id: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The streams cannot be connected.
    #[error("cannot connect the command's streams")]
    Streams(#[source] io::Error),
    /// The process cannot be followed.
    #[error("cannot follow the command's process")]
    Follow(#[source] io::Error),
}

impl ExecError {
    /// What the failed command counts as, where that is the command's own doing.
    pub fn exit(&self) -> Option<ContainerExit> {
        match self {
            Self::Spawn(error) => Some(match error.exit_code() {
                127 => ContainerExit::NotFound,
                126 => ContainerExit::NotExecutable,
                _ => ContainerExit::Failed,
            }),
            Self::User(_) | Self::WorkingDir { .. } => Some(ContainerExit::NotExecutable),
            Self::Interrupted { signal } => Some(ContainerExit::Signal(*signal)),
            _ => None,
        }
    }
}

impl Containers {
    /// Executes a command in a container that runs, connects it to the caller, and returns when it has ended. It ends with the
    /// container, and with this process.
    pub fn exec(
        &self,
        record: &ContainerRecord,
        request: &ExecRequest,
        spawner: &Spawner,
        foreground: Foreground<'_>,
    ) -> Result<Outcome, ExecError> {
        let (process, spec) = self.way_in(record, request)?;
        if let Some(signal) = foreground.signals.take().into_iter().find(|signal| ENDING.contains(signal)) {
            return Err(ExecError::Interrupted { signal });
        }
        let mut connection = Connection::new(request.console, foreground.streams).map_err(ExecError::Streams)?;
        let window = connection.window();
        let told = Executed::begin(self.event_log(), record, &request.command, self.now());
        let started = spawner.exec(process.as_fd(), &spec, connection.take_inner(), window);
        let mut process = started.map_err(|error| not_started(record, error))?;
        process.warnings().iter().for_each(foreground.warn);
        let relays = connection.relay(&mut process).map_err(ExecError::Streams)?;
        let status = follow(&mut process, &relays, foreground.signals).map_err(ExecError::Follow)?;
        let lost_output = relays.finish().err();
        let exit = exit_of(status);
        told.end(exit.code(), self.now());
        Ok(Outcome { exit, lost_output })
    }

    /// The container's first process, and what is to become of the new one.
    pub(super) fn way_in(
        &self,
        record: &ContainerRecord,
        request: &ExecRequest,
    ) -> Result<(OwnedFd, ExecSpec), ExecError> {
        let id = || record.id.clone();
        match record.state.status {
            ContainerStatus::Paused => return Err(ExecError::Paused { id: id() }),
            ContainerStatus::Restarting => return Err(ExecError::Restarting { id: id() }),
            _ => {}
        }
        let process = record.state.process.map_or(Ok(None), ProcessId::open);
        let process = process.map_err(|source| ExecError::Reach { id: id(), source })?;
        let process = process.ok_or_else(|| ExecError::NotRunning { id: id() })?;
        let found = look_up_user(request.user(&record.config), &record.config, &self.writable(record));
        let (user, groups) = found.map_err(|error| match error {
            LookUpError::User(error) => ExecError::User(error),
            LookUpError::Snapshot(error) => ExecError::Snapshot(error),
        })?;
        let facts = ExecFacts { user, groups, bounding: Capabilities::caller_bounding() };
        let spec = exec_spec(&record.id, &record.config, request, facts);
        Ok((process, spec.map_err(|path| ExecError::WorkingDir { path })?))
    }

    /// The first process of the container that `text` names, by a look at the records of a store that is not opened: for
    /// whoever has to enter the container's user namespace before he may open it.
    pub fn peek_process(store: &Path, text: &str) -> Option<OwnedFd> {
        let containers = store.join("containers");
        let read = |name: &str| {
            let path = containers.join(name).join(RECORD);
            ContainerRecord::from_json(&std::fs::read(&path).ok()?, &path).ok()
        };
        let named = || text.parse::<crate::name::ContainerName>().ok().and_then(|name| read(&format!("names/{name}")));
        let by_prefix = || {
            let entries = std::fs::read_dir(&containers).ok()?.flatten();
            let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<ContainerId>().ok());
            let mut found = ids.filter(|id| !text.is_empty() && id.as_str().starts_with(text));
            found.next().filter(|_| found.next().is_none()).and_then(|id| read(id.as_str()))
        };
        named().or_else(by_prefix)?.state.process?.open().ok()?
    }
}

pub(super) fn not_started(record: &ContainerRecord, error: SpawnError) -> ExecError {
    match error {
        SpawnError::SandboxGone => ExecError::NotRunning { id: record.id.clone() },
        error => ExecError::Spawn(error),
    }
}
