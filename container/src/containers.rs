//! All containers of a store: their directories, their names, who may change them.
//!
//! - A container appears by one rename of its finished directory; its name is linked to it before, under the name's
//!   lock. It disappears by one rename into the scratch directory of whoever removes it.
//! - Changes of a record are read-modify-write under the record's lock, which is held for that moment only; the directory
//!   goes under it too. Of a name's and a record's lock, the name's is taken first.
//! - Whoever runs a container holds its *run lock* from before the start until the end is recorded. A record that says
//!   running while that lock is free tells of a process that was killed; the next reader sets it right.

mod attach;
mod attend;
mod boot;
mod connect;
mod copy;
mod create;
mod exec;
mod export;
mod health;
mod live;
mod particulars;
mod ports;
mod remove;
mod rename;
mod start;
mod stop;
mod supervise;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_cache::snapshot::Writable;
use rbuild_cache::{Clock, Lease, LockError, LockGuard, LockMode, LockName, PathError, Store, Waiting, wait_silently};

use rbuild_image::Digest;

use crate::document::{self, AtPath, Durability, if_present};
use crate::events::{self, Event, EventLog};
use crate::exit::ContainerExit;
use crate::id::ContainerId;
use crate::monitor::{LinkError, MonitorLink};
use crate::name::ContainerName;
use crate::record::{ContainerRecord, RecordError};
use crate::request::Lifetime;
use crate::status::{ContainerStatus, InvalidChange};

pub use attach::{AttachError, Attached};
pub use attend::Attendance;
pub use boot::{Boot, BootError};
pub use copy::{CopyError, Files, Links as CopyLinks, Owners as CopyOwners};
pub use create::{CreateError, NewContainer, WorkingDirError};
pub use exec::ExecError;
pub use export::ExportError;
pub use live::{ContainerChange, LiveError};
pub use remove::{AnonymousVolumes, RemoveError, RemoveOptions, RunningContainer};
pub use rename::RenameError;
pub use start::{Foreground, Outcome, StartError};
pub use stop::StopError;
pub use supervise::{Supervised, Supervision};

const RECORD: &str = "container.json";
const NAMES: &str = "names";
/// How long a start waits for somebody who only looks whether the container runs.
const PATIENCE: Duration = Duration::from_secs(2);

/// The containers of one store. Cheap to make; reads nothing by itself.
#[derive(Clone)]
pub struct Containers {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Containers").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A container's record that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It makes no sense.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] PathError),
    /// Its lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// No container, or no single one, by what was typed.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is none.
    #[error("no such container: {text}")]
    NotFound {
        /// What was typed.
        text: String,
    },
    /// The beginning of several identifiers.
    #[error("multiple containers found with provided prefix: {text}")]
    Ambiguous {
        /// What was typed.
        text: String,
    },
    /// The record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A change of a record that was not made.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The container was removed meanwhile.
    #[error("container {} is gone", id.short())]
    Gone {
        /// Which one.
        id: ContainerId,
    },
    /// Its state does not allow it.
    #[error(transparent)]
    State(#[from] InvalidChange),
    /// The record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// All containers, and the records that could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// The newest first.
    pub containers: Vec<ContainerRecord>,
    /// Directories whose records are damaged, with why.
    pub damaged: Vec<(ContainerId, LoadError)>,
    /// How many were removed since somebody who should have done so was killed.
    pub gone: usize,
}

impl Containers {
    /// The containers of `store`.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// The container that `text` names: its identifier, its name, or the beginning of its identifier, in this order.
    pub fn find(&self, text: &str) -> Result<ContainerRecord, FindError> {
        let not_found = || FindError::NotFound { text: text.to_owned() };
        if let Ok(id) = text.parse::<ContainerId>() {
            return self.load(&id)?.ok_or_else(not_found);
        }
        if let Ok(name) = text.parse::<ContainerName>()
            && let Some(record) = self.by_name(&name)?
        {
            return Ok(record);
        }
        let mut found = None;
        for id in self.ids().map_err(LoadError::from)? {
            if !text.is_empty() && id.as_str().starts_with(text) && found.replace(id).is_some() {
                return Err(FindError::Ambiguous { text: text.to_owned() });
            }
        }
        let id = found.ok_or_else(not_found)?;
        self.load(&id)?.ok_or_else(not_found)
    }

    /// The record of a container, set right if the process that ran it was killed; `None` when there is none.
    pub fn load(&self, id: &ContainerId) -> Result<Option<ContainerRecord>, LoadError> {
        let Some(record) = self.read(id)? else { return Ok(None) };
        if !record.state.status.can_stop() || self.is_held(id)? {
            return Ok(Some(record));
        }
        if record.state.status == ContainerStatus::Paused {
            live::thaw_to_end(id);
        }
        // The end is recorded before the lock is freed: look once more, now that it is known to be free.
        let repaired = self.update(id, |record| {
            if record.state.status.can_stop() && !self.is_held(id)? {
                record.state.end(ContainerExit::Lost, self.clock.now())?;
            }
            Ok(())
        });
        match repaired {
            Ok(record) => Ok(Some(record)),
            Err(UpdateError::Gone { .. }) => Ok(None),
            Err(UpdateError::Load(error)) => Err(error),
            Err(UpdateError::State(error)) => unreachable!("the state was asked before: {error}"),
        }
    }

    /// All containers.
    pub fn list(&self) -> Result<Listing, PathError> {
        let mut listing = Listing::default();
        for id in self.ids()? {
            match self.load(&id) {
                Ok(Some(record)) => listing.containers.push(record),
                Ok(None) => {}
                Err(error) => listing.damaged.push((id, error)),
            }
        }
        listing.containers.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        Ok(listing)
    }

    /// The containers that were made from an image.
    pub fn of_image(&self, image: &Digest) -> Result<Vec<ContainerRecord>, PathError> {
        let mut containers = self.list()?.containers;
        containers.retain(|record| record.image.id == *image);
        Ok(containers)
    }

    /// Where what happens is recorded.
    pub fn event_log(&self) -> EventLog {
        EventLog::of_store(self.store.layout().root())
    }

    /// Connects to the process that runs a container; `None` when it has no monitor.
    pub fn connect_monitor(&self, id: &ContainerId) -> Result<Option<MonitorLink>, LinkError> {
        MonitorLink::connect(&self.directory(id))
    }

    /// Where a container's own files are.
    pub fn directory_of(&self, id: &ContainerId) -> PathBuf {
        self.directory(id)
    }

    /// Bytes that a container has written into its image.
    pub fn written(&self, record: &ContainerRecord) -> Result<u64, PathError> {
        document::files_size(&self.changes(record))
    }

    /// The log of a container, whether there is one yet or not.
    pub fn log_file(&self, id: &ContainerId) -> PathBuf {
        crate::logs::log_file(&self.directory(id), id)
    }

    /// Changes a record. `change` sees the newest state; what it gives up with is given back, and nothing is written.
    pub(crate) fn update(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord) -> Result<(), UpdateError>,
    ) -> Result<ContainerRecord, UpdateError> {
        self.update_telling(id, change, Vec::new)
    }

    /// The same; tells what follows from the change, too, before anybody can see it.
    pub(crate) fn update_telling(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord) -> Result<(), UpdateError>,
        following: impl FnOnce() -> Vec<Event>,
    ) -> Result<ContainerRecord, UpdateError> {
        let lock = self.record_lock(id);
        let _guard = self.store.lock(&lock, LockMode::Exclusive, &wait_silently).map_err(LoadError::from)?;
        let mut record = self.read(id)?.ok_or_else(|| UpdateError::Gone { id: id.clone() })?;
        let before = record.clone();
        change(&mut record)?;
        if record != before {
            let durability = durability(record.config.lifetime);
            // Before anybody can see it, and tell what follows from it.
            let mut told = events::changes(&before, &record, self.now());
            told.extend(following());
            self.event_log().tell(&told);
            document::replace(&self.record_path(id), &record.to_json(), durability).map_err(LoadError::from)?;
        }
        Ok(record)
    }

    /// Tells that something was done with a container.
    pub fn tell(&self, record: &ContainerRecord, action: &str, more: &[(&str, &str)]) {
        self.event_log().tell(&[record.event(action, self.now(), more)]);
    }

    /// Makes a container appear: `directory` holds its files, and becomes its directory together with the record.
    ///
    /// A name that is taken gives the container that has it.
    pub(crate) fn publish(&self, record: &ContainerRecord, directory: &Path) -> Result<(), PublishError> {
        let durability = durability(record.config.lifetime);
        document::replace(&directory.join(RECORD), &record.to_json(), durability)?;
        let lock = self.name_lock(&record.name);
        let _guard = self.store.lock(&lock, LockMode::Exclusive, &wait_silently).map_err(LoadError::from)?;
        if let Some(owner) = self.by_name(&record.name)? {
            return Err(PublishError::NameTaken { name: record.name.clone(), owner: owner.id });
        }
        let link = self.name_link(&record.name);
        let names = self.names();
        if !names.exists() {
            fs::create_dir_all(&names).at("create", &names)?;
        }
        if_present(fs::remove_file(&link)).at("remove", &link)?;
        std::os::unix::fs::symlink(format!("../{}", record.id), &link).at("link", &link)?;
        let place = self.directory(&record.id);
        fs::rename(directory, &place).at("create", &place)?;
        if durability == Durability::Synced {
            document::sync_directory(&names)?;
            document::sync_directory(&self.store.layout().containers())?;
        }
        self.event_log().tell(&[record.event("create", record.created, &[])]);
        Ok(())
    }

    /// Makes a container disappear: its name is free, its directory belongs to `lease` and goes with it.
    pub(crate) fn withdraw(&self, record: &ContainerRecord, lease: &Lease) -> Result<(), LoadError> {
        let lock = self.name_lock(&record.name);
        let _guard = self.store.lock(&lock, LockMode::Exclusive, &wait_silently)?;
        let link = self.name_link(&record.name);
        if if_present(fs::read_link(&link)).at("read", &link)?.is_some_and(|to| to.ends_with(record.id.as_str())) {
            if_present(fs::remove_file(&link)).at("remove", &link)?;
        }
        // Whoever changes the record at this moment has read it here and will write it here.
        let lock = self.record_lock(&record.id);
        let _guard = self.store.lock(&lock, LockMode::Exclusive, &wait_silently)?;
        let place = self.directory(&record.id);
        let doomed = lease.scratch_name("removed")?;
        if if_present(fs::rename(&place, &doomed)).at("remove", &place)?.is_some() {
            self.event_log().tell(&[record.event("destroy", self.now(), &[])]);
        }
        Ok(())
    }

    /// Takes the run lock of a container: only its holder may start it, and it is live while the lock is held.
    /// `None` when somebody else runs it.
    pub(crate) fn hold(&self, id: &ContainerId) -> Result<Option<LockGuard>, LoadError> {
        // Lookers hold it shared for a moment; only somebody who holds it for long runs the container.
        let patience = |waiting: &Waiting<'_>| {
            if waiting.waited > PATIENCE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match self.store.lock(&self.run_lock(id), LockMode::Exclusive, &patience) {
            Ok(guard) => Ok(Some(guard)),
            Err(LockError::Stopped { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the run lock if it is free.
    fn hold_now(&self, id: &ContainerId) -> Result<Option<LockGuard>, PathError> {
        self.store.try_lock(&self.run_lock(id), LockMode::Exclusive)
    }

    /// Whether some process runs the container.
    fn is_held(&self, id: &ContainerId) -> Result<bool, LoadError> {
        Ok(self.store.try_lock(&self.run_lock(id), LockMode::Shared)?.is_none())
    }

    fn by_name(&self, name: &ContainerName) -> Result<Option<ContainerRecord>, LoadError> {
        let link = self.name_link(name);
        let Some(target) = if_present(fs::read_link(&link)).at("read", &link)? else { return Ok(None) };
        let id = target.file_name().and_then(|id| id.to_str()).and_then(|id| id.parse::<ContainerId>().ok());
        let Some(id) = id else { return Ok(None) };
        // A link is made before its container and may outlive it; the record decides.
        Ok(self.load(&id)?.filter(|record| record.name == *name))
    }

    /// Identifiers of all containers, sorted.
    fn ids(&self) -> Result<Vec<ContainerId>, PathError> {
        let root = self.store.layout().containers();
        let Some(entries) = if_present(fs::read_dir(&root)).at("list", &root)? else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.at("list", &root)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<ContainerId>().ok()));
        }
        ids.sort();
        Ok(ids)
    }

    fn read(&self, id: &ContainerId) -> Result<Option<ContainerRecord>, LoadError> {
        let path = self.record_path(id);
        let Some(text) = if_present(fs::read(&path)).at("read", &path)? else { return Ok(None) };
        let mut record = ContainerRecord::from_json(&text, &path)?;
        record.health = self.read_health(&record)?;
        Ok(Some(record))
    }

    /// The store that holds them.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The time, as the clock says that was passed in.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The directory that holds a container's changes.
    fn changes(&self, record: &ContainerRecord) -> PathBuf {
        self.directory(&record.id).join(create::CHANGES)
    }

    /// A container's files: its image with its changes.
    fn writable(&self, record: &ContainerRecord) -> Writable {
        self.store().snapshots().writable(record.snapshot, &self.changes(record))
    }

    /// The directory of a container.
    pub(crate) fn directory(&self, id: &ContainerId) -> PathBuf {
        self.store.layout().containers().join(id.as_str())
    }

    fn record_path(&self, id: &ContainerId) -> PathBuf {
        self.directory(id).join(RECORD)
    }

    fn names(&self) -> PathBuf {
        self.store.layout().containers().join(NAMES)
    }

    fn name_link(&self, name: &ContainerName) -> PathBuf {
        self.names().join(name.as_str())
    }

    fn name_lock(&self, name: &ContainerName) -> LockName {
        LockName::other("container-name", name.as_str())
    }

    fn record_lock(&self, id: &ContainerId) -> LockName {
        LockName::other("container-record", id.as_str())
    }

    fn run_lock(&self, id: &ContainerId) -> LockName {
        LockName::other("container", id.as_str())
    }
}

/// A container that could not be made to appear.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another one has the name.
    #[error("the container name \"{name}\" is already in use by container {}: remove or rename it, or choose another name", owner.short())]
    NameTaken {
        /// The name.
        name: ContainerName,
        /// Who has it.
        owner: ContainerId,
    },
    /// A record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] PathError),
}

/// What goes with its process need not survive a power cut.
fn durability(lifetime: Lifetime) -> Durability {
    match lifetime {
        Lifetime::Kept => Durability::Synced,
        Lifetime::Process => Durability::Volatile,
    }
}

#[cfg(test)]
mod tests;
