//! Containers that run are looked into and changed: frozen, measured, listed by process, limited.

use std::io;

use rbuild_executor::{DiskLimits, LiveSandbox, LiveUsage, Resources, SpawnError, thaw_leftover};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Containers, LoadError, UpdateError};
use crate::create::{InvalidLimit, check_limits};
use crate::id::ContainerId;
use crate::process_id::ProcessId;
use crate::record::ContainerRecord;
use crate::request::Lifetime;
use crate::restart::RestartPolicy;
use crate::status::{Change, ContainerStatus};

/// What could not be done to a running container.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It does not run.
    #[error("container {} is not running", id.short())]
    NotRunning {
        /// Which.
        id: ContainerId,
    },
    /// It is frozen already.
    #[error("container {} is already paused", id.short())]
    AlreadyPaused {
        /// Which.
        id: ContainerId,
    },
    /// It is not frozen.
    #[error("container {} is not paused", id.short())]
    NotPaused {
        /// Which.
        id: ContainerId,
    },
    /// It goes with its end: nothing starts it again.
    #[error("restart policy cannot be updated because --rm removes container {} when it ends", id.short())]
    Removed {
        /// Which.
        id: ContainerId,
    },
    /// Its control groups cannot be used.
    #[error("cannot reach the control groups of container {}", id.short())]
    Groups {
        /// Which.
        id: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A limit makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidLimit),
    /// A limit cannot be set.
    #[error(transparent)]
    Limit(#[from] SpawnError),
    /// The record was not changed.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl LiveError {
    /// Control groups that are gone, or going while they are used, are those of a container that ended meanwhile, unless it
    /// runs: then they are out of this process's sight.
    fn unreachable(record: &ContainerRecord, source: io::Error) -> Self {
        let id = record.id.clone();
        let gone = source.kind() == io::ErrorKind::NotFound || Errno::from_io_error(&source) == Some(Errno::NODEV);
        match (gone, gone && runs(record)) {
            (false, _) => Self::Groups { id, source },
            (true, false) => Self::NotRunning { id },
            (true, true) => Self::Groups { id, source: io::Error::other("they are not below /sys/fs/cgroup") },
        }
    }
}

/// What is to change of a container that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerChange {
    /// Limits; those that are not given stay.
    pub resources: Resources,
    /// The policy.
    pub restart: Option<RestartPolicy>,
}

impl Containers {
    /// Freezes all processes of a container.
    pub fn pause(&self, record: &ContainerRecord) -> Result<(), LiveError> {
        match record.state.status {
            ContainerStatus::Running => {}
            ContainerStatus::Paused => return Err(LiveError::AlreadyPaused { id: record.id.clone() }),
            _ => return Err(LiveError::NotRunning { id: record.id.clone() }),
        }
        let live = self.live(record)?;
        live.freeze().map_err(|source| LiveError::unreachable(record, source))?;
        let paused = self.update(&record.id, |record| Ok(record.state.change(Change::Pause)?));
        if paused.is_err() {
            // It ended, or somebody else was faster.
            thaw(record, &live)?;
        }
        paused.map(drop).map_err(LiveError::from)
    }

    /// Lets a frozen container go on.
    pub fn unpause(&self, record: &ContainerRecord) -> Result<(), LiveError> {
        if record.state.status != ContainerStatus::Paused {
            return Err(LiveError::NotPaused { id: record.id.clone() });
        }
        thaw(record, &self.live(record)?)?;
        self.update(&record.id, |record| Ok(record.state.change(Change::Unpause)?))?;
        Ok(())
    }

    /// Processes of a container, as the host numbers them.
    pub fn processes(&self, record: &ContainerRecord) -> Result<Vec<u32>, LiveError> {
        self.live(record)?.processes().map_err(|source| LiveError::unreachable(record, source))
    }

    /// What a container uses; all zero for one that does not run.
    pub fn usage(&self, record: &ContainerRecord) -> Result<LiveUsage, LiveError> {
        let used =
            self.live(record).and_then(|live| live.usage().map_err(|source| LiveError::unreachable(record, source)));
        match used {
            Err(LiveError::NotRunning { .. }) => Ok(LiveUsage::default()),
            other => other,
        }
    }

    /// Changes the limits and the policy of a container, at once where it runs.
    pub fn change(&self, record: &ContainerRecord, change: &ContainerChange) -> Result<(), LiveError> {
        let removed = record.config.lifetime == Lifetime::Process;
        if removed && change.restart.is_some_and(|policy| policy != RestartPolicy::No) {
            return Err(LiveError::Removed { id: record.id.clone() });
        }
        let merged = merged(&record.config.resources, &change.resources);
        let merged = check_limits(&merged)?;
        if record.state.status.is_live() && change.resources != Resources::default() {
            let changes = Resources {
                // What follows from other limits changes with them.
                memory_swap: if change.resources.memory.is_some() {
                    merged.memory_swap
                } else {
                    change.resources.memory_swap
                },
                ..change.resources.clone()
            };
            self.live(record)?.limit(&changes)?;
        }
        self.update(&record.id, |record| {
            record.config.resources = merged;
            if let Some(restart) = change.restart {
                record.config.restart = restart;
            }
            Ok(())
        })?;
        self.tell(record, "update", &[]);
        Ok(())
    }

    fn live(&self, record: &ContainerRecord) -> Result<LiveSandbox, LiveError> {
        let not_running = || LiveError::NotRunning { id: record.id.clone() };
        let process = record.state.process.filter(|_| record.state.status.is_live()).ok_or_else(not_running)?;
        let failed = |source| LiveError::unreachable(record, source);
        // Held while the groups are read, so that the number cannot pass to another process.
        let _held = process.open().map_err(failed)?.ok_or_else(not_running)?;
        LiveSandbox::of(process.pid, record.id.as_str()).map_err(failed)
    }
}

/// Whether a container's first process is there and has not ended.
fn runs(record: &ContainerRecord) -> bool {
    let Some(Ok(Some(process))) = record.state.process.map(ProcessId::open) else { return false };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    matches!(poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

fn thaw(record: &ContainerRecord, live: &LiveSandbox) -> Result<(), LiveError> {
    live.thaw().map_err(|source| LiveError::unreachable(record, source))
}

/// Lets what is left of a frozen container go on, so that it can end. What cannot be reached is not frozen by us.
pub(super) fn thaw_to_end(id: &ContainerId) {
    if let Err(error) = thaw_leftover(id.as_str()) {
        tracing::warn!(%id, %error, "a frozen container is left");
    }
}

/// Limits, with others in place of those that are given.
fn merged(old: &Resources, new: &Resources) -> Resources {
    Resources {
        memory: new.memory.or(old.memory),
        memory_swap: new.memory_swap.or(old.memory_swap),
        cpu_millis: new.cpu_millis.or(old.cpu_millis),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpuset_cpus: new.cpuset_cpus.clone().or_else(|| old.cpuset_cpus.clone()),
        cpuset_mems: new.cpuset_mems.clone().or_else(|| old.cpuset_mems.clone()),
        memory_reservation: new.memory_reservation.or(old.memory_reservation),
        memory_swappiness: new.memory_swappiness.or(old.memory_swappiness),
        oom_kill_disable: new.oom_kill_disable || old.oom_kill_disable,
        disks: DiskLimits { weight: new.disks.weight.or(old.disks.weight), ..old.disks.clone() },
        pids: new.pids.or(old.pids),
        cgroup_parent: old.cgroup_parent.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;

    #[test]
    fn groups_that_are_gone_are_of_a_container_that_ended() {
        let mut record = sample("web");
        let short = record.id.short().to_owned();
        let said = |record: &ContainerRecord, errno: Errno| LiveError::unreachable(record, errno.into()).to_string();
        for gone in [Errno::NOENT, Errno::NODEV] {
            assert_eq!(said(&record, gone), format!("container {short} is not running"));
        }
        assert_eq!(said(&record, Errno::ACCESS), format!("cannot reach the control groups of container {short}"));
        // This process runs: its groups are hidden, not gone.
        record.state.process = ProcessId::of(std::process::id()).unwrap();
        assert_eq!(said(&record, Errno::NOENT), format!("cannot reach the control groups of container {short}"));
    }
}
