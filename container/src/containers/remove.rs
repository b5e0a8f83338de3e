//! A container goes: its name, its changes, what it kept, its anonymous volumes.
//!
//! Repeatable at every instant: the state says *removing*, and what becomes of the volumes, before anything goes;
//! the directory, which holds that state, goes last and at once. Whoever lists containers takes up what was left half done.

use rbuild_cache::{DbError, Lease, PathError};
use serde::{Deserialize, Serialize};

use super::create::{ROOT_PREFIX, root_name};
use super::stop::StopError;
use super::{Containers, Listing, LoadError, UpdateError};
use crate::config::{ContainerMountSource, VolumeOwnership};
use crate::document::files_size;
use crate::id::ContainerId;
use crate::record::ContainerRecord;
use crate::request::Lifetime;
use crate::status::{ContainerStatus, InvalidChange};
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
        status: ContainerStatus,
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
        self.discard(id, options.volumes, lease)
    }

    /// Takes down a container that nobody runs; the caller has its run lock.
    pub(super) fn discard(
        &self,
        id: &ContainerId,
        volumes: AnonymousVolumes,
        lease: &Lease,
    ) -> Result<(), RemoveError> {
        let record = match self.update(id, |record| Ok(record.state.begin_removal(volumes)?)) {
            Ok(record) => record,
            Err(UpdateError::Gone { .. }) => return Ok(()),
            Err(UpdateError::State(error)) => return Err(error.into()),
            Err(UpdateError::Load(error)) => return Err(error.into()),
        };
        self.store().roots().release(&root_name(id))?;
        if record.state.removal == Some(AnonymousVolumes::Remove) {
            self.remove_anonymous_volumes(&record, lease)?;
        }
        Ok(self.withdraw(&record, lease)?)
    }

    /// Removes the volumes that were made for a container alone, unless another one has them as well.
    pub(super) fn remove_anonymous_volumes(&self, record: &ContainerRecord, lease: &Lease) -> Result<(), RemoveError> {
        for mount in &record.config.mounts {
            let ContainerMountSource::Volume { name, ownership: VolumeOwnership::Anonymous, .. } = &mount.source else {
                continue;
            };
            match self.remove_volume_of(Some(&record.id), name, lease) {
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
            let size = files_size(&self.changes(&record))?;
            match self.remove(&record.id, RemoveOptions::default(), lease) {
                Ok(()) => removed.push((record.id, size)),
                // Started a moment ago.
                Err(RemoveError::Running { .. } | RemoveError::State(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// All containers, less those that are gone but for somebody who was killed: they should have ended with their process
    /// (`--rm`), or their removal had begun. They go now.
    pub fn list_without_leftovers(&self, lease: &Lease) -> Result<Listing, RemoveError> {
        let mut listing = self.list()?;
        let (mut failed, before) = (None, listing.containers.len());
        listing.containers.retain(|record| match self.remove_if_left(record, lease) {
            Ok(removed) => !removed,
            Err(error) => {
                failed.get_or_insert(error);
                true
            }
        });
        listing.gone = before - listing.containers.len();
        self.release_orphaned_roots()?;
        failed.map_or(Ok(listing), Err)
    }

    /// Removes a container that somebody should have removed who was killed; whether it was one. Nobody is waited for: who has
    /// it in hand at this moment finishes by himself.
    fn remove_if_left(&self, record: &ContainerRecord, lease: &Lease) -> Result<bool, RemoveError> {
        if leftover(record).is_none() {
            return Ok(false);
        }
        let Some(_held) = self.hold_now(&record.id)? else { return Ok(false) };
        // Read again, now that nobody else changes what it is.
        let Some(volumes) = self.load(&record.id)?.map(|record| leftover(&record)) else { return Ok(true) };
        volumes.map_or(Ok(false), |volumes| self.discard(&record.id, volumes, lease).map(|()| true))
    }

    /// Removes a container that somebody should have removed who was killed, once it is free; whether it was one.
    pub(super) fn remove_leftover(&self, id: &ContainerId, lease: &Lease) -> Result<bool, RemoveError> {
        let Some(volumes) = self.load(id)?.and_then(|record| leftover(&record)) else { return Ok(false) };
        self.remove(id, RemoveOptions { volumes, ..RemoveOptions::default() }, lease)?;
        Ok(true)
    }

    /// Releases what containers kept that never appeared, because their creation was killed.
    fn release_orphaned_roots(&self) -> Result<(), RemoveError> {
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

/// What becomes of the volumes of a container that would be gone by now, had nobody been killed; `None` for any other one.
fn leftover(record: &ContainerRecord) -> Option<AnonymousVolumes> {
    let state = &record.state;
    if state.status == ContainerStatus::Removing {
        return Some(state.removal.unwrap_or_default());
    }
    let ended = !state.status.can_stop() && state.started.is_some();
    (record.config.lifetime == Lifetime::Process && ended).then_some(AnonymousVolumes::Remove)
}
