//! Containers that another process runs are told to end: `stop`, `kill`, `restart`, and waiting for that.
//!
//! A signal goes to the container's first process through a descriptor that is known to be of that very process. Its
//! end, and with it the end of everything in its process namespace, is recorded by whoever runs it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rbuild_executor::Signaller;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Containers, LoadError, UpdateError};
use crate::id::ContainerId;
use crate::monitor::MonitorLink;
use crate::record::{ContainerRecord, Wanted};
use crate::signal::Signal;
use crate::status::ContainerStatus;

/// How long whoever runs a container gets to record its end.
const RECORDING: Duration = Duration::from_secs(10);
/// How often the record is read meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// A container that was not told to end, or did not.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It does not run.
    #[error("container {} is not running: it is {status}", id.short())]
    NotRunning {
        /// Which.
        id: ContainerId,
        /// Its state.
        status: ContainerStatus,
    },
    /// Its process cannot be reached.
    #[error("cannot signal container {}", id.short())]
    Signal {
        /// Which.
        id: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was killed, and nobody recorded its end.
    #[error("container {} was killed, but the process that runs it does not finish", id.short())]
    NotRecorded {
        /// Which.
        id: ContainerId,
    },
    /// Its record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Containers {
    /// Sends a signal to a container's first process. One that is meant to end it keeps its policy from starting it again.
    pub fn kill(&self, record: &ContainerRecord, signal: Signal) -> Result<(), StopError> {
        if !record.state.status.can_signal() {
            return Err(StopError::NotRunning { id: record.id.clone(), status: record.state.status });
        }
        if signal == Signal::KILL || signal == record.config.stop_signal {
            self.want(&record.id, Wanted::Stopped)?;
        }
        if let Some(process) = process(record)? {
            self.send_and_tell(record, &process, signal)?;
        }
        if signal == Signal::KILL {
            self.thaw_to_end(record);
            return self.wait_for_end(&record.id);
        }
        Ok(())
    }

    fn send_and_tell(&self, record: &ContainerRecord, process: &OwnedFd, signal: Signal) -> Result<(), StopError> {
        send(record, process, signal)?;
        self.tell(record, "kill", &[("signal", &signal.number().to_string())]);
        Ok(())
    }

    /// The frozen do not end: where control groups are of the first kind, not even by SIGKILL.
    fn thaw_to_end(&self, record: &ContainerRecord) {
        if record.state.status == ContainerStatus::Paused
            && let Err(error) = self.unpause(record)
        {
            tracing::warn!(id = %record.id, %error, "a container stays frozen");
        }
    }

    /// Asks a container to end with its stop signal, and ends it when `grace` has passed; one that does not run is left
    /// alone. Returns once its end is recorded.
    pub fn stop(&self, record: &ContainerRecord, grace: Option<Duration>) -> Result<(), StopError> {
        self.stop_as(record, Wanted::Stopped, grace)
    }

    pub(super) fn stop_as(
        &self,
        record: &ContainerRecord,
        wanted: Wanted,
        grace: Option<Duration>,
    ) -> Result<(), StopError> {
        if !record.state.status.can_stop() {
            return Ok(());
        }
        self.want(&record.id, wanted)?;
        // One that waits for its restart may have been started meanwhile.
        let Some(record) = self.load(&record.id)? else { return Ok(()) };
        self.end_process(&record, grace)?;
        self.wait_for_end(&record.id)?;
        self.event_log().tell(&[record.event("stop", self.now(), &[])]);
        Ok(())
    }

    /// Ends a container that runs as [`Containers::stop`] does; its monitor starts it again. `false` when it did not run.
    pub fn restart_running(&self, record: &ContainerRecord, grace: Option<Duration>) -> Result<bool, StopError> {
        if !record.state.status.can_stop() || !self.want(&record.id, Wanted::Restarted)? {
            return Ok(false);
        }
        let Some(record) = self.load(&record.id)? else { return Ok(false) };
        let before = record.state.started;
        self.end_process(&record, grace)?;
        let start = Instant::now();
        loop {
            match self.load(&record.id)? {
                Some(now) if now.state.status.is_live() && now.state.started != before => {
                    self.event_log().tell(&[record.event("restart", self.now(), &[])]);
                    return Ok(true);
                }
                // It ended for good before its monitor read what is wanted.
                Some(now) if !now.state.status.can_stop() => return Ok(false),
                None => return Ok(false),
                Some(_) if start.elapsed() > RECORDING => {
                    return Err(StopError::NotRecorded { id: record.id.clone() });
                }
                Some(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Ends the process of a container; its monitor, which has read by then what is wanted, goes on from there.
    fn end_process(&self, record: &ContainerRecord, grace: Option<Duration>) -> Result<(), StopError> {
        let grace = grace.unwrap_or_else(|| Duration::from_secs(record.config.stop_timeout.into()));
        self.thaw_to_end(record);
        match process(record)? {
            Some(process) => {
                self.send_and_tell(record, &process, record.config.stop_signal)?;
                if !ends_within(record, &process, grace)? {
                    self.send_and_tell(record, &process, Signal::KILL)?;
                }
                Ok(())
            }
            None => self.wake(&record.id),
        }
    }

    /// Notes what is to become of a container; whether it is one that a monitor will still look at.
    fn want(&self, id: &ContainerId, wanted: Wanted) -> Result<bool, StopError> {
        let noted = self.update(id, |record| {
            if record.state.status.can_stop() {
                record.state.wanted = Some(wanted);
            }
            Ok(())
        });
        match noted {
            Ok(record) => Ok(record.state.status.can_stop()),
            Err(UpdateError::Gone { .. }) => Ok(false),
            Err(UpdateError::Load(error)) => Err(error.into()),
            Err(UpdateError::State(error)) => unreachable!("no state is changed: {error}"),
        }
    }

    /// Tells a container's monitor, if it has one, that its record has changed.
    fn wake(&self, id: &ContainerId) -> Result<(), StopError> {
        let woken = MonitorLink::connect(&self.directory(id)).and_then(|link| link.map_or(Ok(()), |link| link.wake()));
        woken.map_err(|error| StopError::Signal { id: id.clone(), source: io::Error::other(error) })
    }

    /// Waits until a container does not run (any more); gives its exit code, 0 for one that never ran. `None` when it was
    /// removed meanwhile.
    pub fn wait(&self, id: &ContainerId) -> Result<Option<u8>, StopError> {
        loop {
            let Some(record) = self.load(id)? else { return Ok(None) };
            if !record.state.status.can_stop() {
                return Ok(Some(record.state.exit.map_or(0, |exit| exit.code())));
            }
            if let Some(process) = process(&record)? {
                ends_within(&record, &process, Duration::MAX)?;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Ends a container at once.
    pub(super) fn kill_and_wait(&self, record: &ContainerRecord) -> Result<(), StopError> {
        if !record.state.status.can_stop() {
            return Ok(());
        }
        self.want(&record.id, Wanted::Stopped)?;
        // One that waits for its restart may have been started meanwhile.
        let Some(record) = self.load(&record.id)? else { return Ok(()) };
        self.thaw_to_end(&record);
        match process(&record)? {
            Some(process) => self.send_and_tell(&record, &process, Signal::KILL)?,
            None => self.wake(&record.id)?,
        }
        self.wait_for_end(&record.id)
    }

    /// Waits until the end of a container, which is known to come, is recorded.
    fn wait_for_end(&self, id: &ContainerId) -> Result<(), StopError> {
        let start = Instant::now();
        while self.load(id)?.is_some_and(|record| record.state.status.can_stop()) {
            if start.elapsed() > RECORDING {
                return Err(StopError::NotRecorded { id: id.clone() });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn process(record: &ContainerRecord) -> Result<Option<OwnedFd>, StopError> {
    let Some(process) = record.state.process else { return Ok(None) };
    process.open().map_err(|source| StopError::Signal { id: record.id.clone(), source })
}

fn send(record: &ContainerRecord, process: &OwnedFd, signal: Signal) -> Result<(), StopError> {
    let sent = process.try_clone().and_then(|process| Signaller::new(process).signal(signal.number()));
    sent.map_err(|source| StopError::Signal { id: record.id.clone(), source })
}

/// Waits for the end of a process, at most for `grace`.
fn ends_within(record: &ContainerRecord, process: &OwnedFd, grace: Duration) -> Result<bool, StopError> {
    let start = Instant::now();
    loop {
        let left = grace.saturating_sub(start.elapsed());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(StopError::Signal { id: record.id.clone(), source: error.into() }),
        }
    }
}
