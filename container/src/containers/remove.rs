//! A container goes: its name, its changes, what it kept, its anonymous volumes.
//!
//! Repeatable at every instant: the state says *removing* before anything goes, and the directory, which holds
//! that state, goes last and at once.

use rbuild_cache::{DbError, Lease, PathError};

use super::create::{ROOT_PREFIX, root_name};
use super::stop::StopError;
use super::{Containers, LoadError, UpdateError};
use crate::config::{ContainerMountSource, VolumeOwnership};
use crate::document::disk_usage;
use crate::id::ContainerId;
use crate::record::ContainerRecord;
use crate::status::{Change, InvalidChange};
use crate::volumes::VolumeError;

/// How often a container that is being started is waited for.
const ATTEMPTS: usize = 5;

/// How a container is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// What happens to one that runs.
    pub running: RunningContainer,
    /// What happens to the volumes that were made for it alone.
    pub volumes: AnonymousVolumes,
}

/// What happens to a running container that is to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunningContainer {
    /// It is not removed.
    #[default]
    Refuse,
    /// It is killed first (`rm -f`).
    Kill,
}

/// What happens to the volumes that were made for a container alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymousVolumes {
    /// They stay.
    #[default]
    Keep,
    /// They go too (`rm -v`, `--rm`), unless another container has them as well.
    Remove,
}

/// A container that was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It runs.
    #[error("container {} ({name}) is {status}: stop it first, or remove it with --force", id.short())]
    Running {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: crate::name::ContainerName,
        /// Its state.
        status: crate::status::ContainerStatus,
    },
    /// It could not be killed.
    #[error(transparent)]
    Stop(#[from] Box<StopError>),
    /// Its state does not allow it.
    #[error(transparent)]
    State(#[from] InvalidChange),
    /// Its record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// One of its volumes cannot be removed.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The database said no.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] PathError),
}

impl Containers {
    /// Removes a container; one that is gone already is no error. Its files go with `lease`.
    pub fn remove(&self, id: &ContainerId, options: RemoveOptions, lease: &Lease) -> Result<(), RemoveError> {
        let Some(mut record) = self.load(id)? else { return Ok(()) };
        // Whoever is starting it at this moment is waited for; from here on nobody starts it any more.
        let mut held = None;
        for _ in 0..ATTEMPTS {
            if !record.state.status.can_remove() && options.running == RunningContainer::Kill {
                self.kill_and_wait(&record).map_err(Box::new)?;
                let Some(ended) = self.load(id)? else { return Ok(()) };
                record = ended;
            }
            if !record.state.status.can_remove() {
                break;
            }
            held = self.hold(id)?;
            if held.is_some() {
                break;
            }
            let Some(now) = self.load(id)? else { return Ok(()) };
            record = now;
        }
        let Some(_held) = held else {
            return Err(RemoveError::Running { id: record.id, name: record.name, status: record.state.status });
        };
        match self.update(id, |record| Ok(record.state.change(Change::BeginRemoval)?)) {
            Ok(_) => {}
            Err(UpdateError::Gone { .. }) => return Ok(()),
            Err(UpdateError::State(error)) => return Err(error.into()),
            Err(UpdateError::Load(error)) => return Err(error.into()),
        }
        self.discard(&record, options.volumes, lease)
    }

    /// Takes down what is left of a container that nobody runs.
    pub(super) fn discard(
        &self,
        record: &ContainerRecord,
        volumes: AnonymousVolumes,
        lease: &Lease,
    ) -> Result<(), RemoveError> {
        self.store().roots().release(&root_name(&record.id))?;
        self.withdraw(record, lease)?;
        if volumes == AnonymousVolumes::Remove {
            self.remove_anonymous_volumes(record, lease)?;
        }
        Ok(())
    }

    /// Removes the volumes that were made for a container alone, unless another one has them as well.
    pub(super) fn remove_anonymous_volumes(&self, record: &ContainerRecord, lease: &Lease) -> Result<(), RemoveError> {
        for mount in &record.config.mounts {
            let ContainerMountSource::Volume { name, ownership: VolumeOwnership::Anonymous, .. } = &mount.source else {
                continue;
            };
            match self.remove_volume(name, lease) {
                Ok(()) | Err(VolumeError::InUse { .. } | VolumeError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the containers of those that `takes` takes and that do not run; gives them with the sizes of their changes. Their
    /// anonymous volumes stay.
    pub fn prune(
        &self,
        takes: &dyn Fn(&ContainerRecord) -> bool,
        lease: &Lease,
    ) -> Result<Vec<(ContainerId, u64)>, RemoveError> {
        let mut removed = Vec::new();
        for record in self.list()?.containers {
            if !record.state.status.can_remove() || !takes(&record) {
                continue;
            }
            let size = disk_usage(&self.changes(&record))?;
            match self.remove(&record.id, RemoveOptions::default(), lease) {
                Ok(()) => removed.push((record.id, size)),
                // Started a moment ago.
                Err(RemoveError::Running { .. } | RemoveError::State(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Removes containers that should have gone with their process and did not, because it was killed.
    pub fn remove_leftovers(&self, lease: &Lease) -> Result<Vec<ContainerId>, super::CreateError> {
        let mut removed = Vec::new();
        for record in self.list()?.containers {
            if self.remove_leftover(&record.id, lease)? {
                removed.push(record.id);
            }
        }
        self.release_orphaned_roots()?;
        Ok(removed)
    }

    /// Releases what containers kept that never appeared, because their creation was killed.
    fn release_orphaned_roots(&self) -> Result<(), super::CreateError> {
        for owner in self.store().roots().list()?.into_keys() {
            let Some(id) = owner.strip_prefix(ROOT_PREFIX).and_then(|id| id.parse::<ContainerId>().ok()) else {
                continue;
            };
            if self.directory(&id).exists() {
                continue;
            }
            // Whoever makes it holds it; and once it is free, it has either appeared or never will.
            if self.hold_now(&id)?.is_some() && !self.directory(&id).exists() {
                self.store().roots().release(&owner)?;
            }
        }
        Ok(())
    }
}
