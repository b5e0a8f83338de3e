//! Volumes of a store: directories that outlive containers.
//!
//! ```text
//! volumes/NAME/volume.json   who made it, and when
//!              _data/        what containers see, unless it is a directory of the machine
//! ```
//!
//! A volume appears by one rename, with the image's files already in it. It is in use while any container, running or
//! not, has it among its mounts; such a volume is not removed.

mod options;
mod populate;
mod unborn;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rbuild_cache::view::View;
use rbuild_cache::{Lease, LockError, LockMode, LockName, PathError, wait_silently};
use rbuild_executor::Access;
use rbuild_image::ContainerPath;
use serde::{Deserialize, Serialize};

use crate::config::{ContainerMount, ContainerMountSource, VolumeOwnership};
use crate::containers::Containers;
use crate::document::{self, AtPath, Durability, if_present};
use crate::events::{Event, EventKind};
use crate::id::ContainerId;
use crate::record::ContainerRecord;
use crate::request::Lifetime;
use crate::volume::VolumeName;

pub use options::{InvalidVolumeOptions, VolumeOptions};
pub use populate::PopulateError;
pub(crate) use unborn::hold_unborn;
pub use unborn::{UNBORN_VOLUME_KIND, remove_unborn_volume};

const RECORD: &str = "volume.json";
const DATA: &str = "_data";
const FORMAT: u32 = 1;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Version of this document.
    format: u32,
    /// Its name.
    pub name: VolumeName,
    /// When it was made.
    pub created: Timestamp,
    /// Whether somebody named it.
    pub ownership: VolumeOwnership,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What its maker chose of the driver.
    #[serde(default, skip_serializing_if = "VolumeOptions::is_empty")]
    pub options: VolumeOptions,
}

/// What a new volume is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name.
    pub name: VolumeName,
    /// Whether somebody named it.
    pub ownership: VolumeOwnership,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What its maker chose of the driver.
    pub options: VolumeOptions,
    /// Whether an anonymous one goes with its container's process; such a volume need not survive a power cut.
    pub lifetime: Lifetime,
}

/// Which unused volumes are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrunedVolumes {
    /// Those that nobody named.
    Anonymous,
    /// All.
    All,
}

/// Where an empty volume takes its first files from.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The container's files.
    pub view: Arc<View>,
    /// The mount point.
    pub path: ContainerPath,
}

/// A volume that cannot be had, or not be removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none.
    #[error("no such volume: {name}")]
    NotFound {
        /// Which.
        name: VolumeName,
    },
    /// Containers have it.
    #[error("remove {name}: volume is in use - [{}]", users.iter().map(ContainerId::as_str).collect::<Vec<_>>().join(", "))]
    InUse {
        /// Which.
        name: VolumeName,
        /// By whom.
        users: Vec<ContainerId>,
    },
    /// Its record makes no sense.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Its directory of the machine is not there.
    #[error("failed to mount local volume {name}: {} is no directory", device.display())]
    Device {
        /// Which.
        name: VolumeName,
        /// Where it should be.
        device: PathBuf,
    },
    /// The image's files cannot be taken over.
    #[error("volume {name} cannot take over the image's files")]
    Populate {
        /// Which.
        name: VolumeName,
        /// Why.
        #[source]
        source: PopulateError,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] PathError),
    /// Its lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl Containers {
    /// The volume of that name, made if it does not exist, and filled from `seed` if it is empty.
    pub fn ensure_volume(&self, new: &NewVolume, seed: Option<&Seed>, lease: &Lease) -> Result<Volume, VolumeError> {
        let populate = |source| VolumeError::Populate { name: new.name.clone(), source };
        let lock = LockName::other("volume", new.name.as_str());
        let _guard = self.store().lock(&lock, LockMode::Exclusive, &wait_silently)?;
        if let Some(volume) = self.volume(&new.name)? {
            if let Some(seed) = seed {
                let data = self.volume_directory(&volume)?;
                if fs::read_dir(&data).at("list", &data)?.next().is_none() {
                    populate::fill(seed, &data).map_err(populate)?;
                }
            }
            return Ok(volume);
        }
        let volume = Volume {
            format: FORMAT,
            name: new.name.clone(),
            created: self.now(),
            ownership: new.ownership,
            labels: new.labels.clone(),
            options: new.options.clone(),
        };
        let scratch = lease.scratch_name("volume")?;
        fs::DirBuilder::new().mode(0o700).create(&scratch).at("create", &scratch)?;
        let data = scratch.join(DATA);
        fs::create_dir(&data).at("create", &data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).at("set mode of", &data)?;
        if let Some(seed) = seed {
            populate::fill(seed, &data).map_err(populate)?;
        }
        let durability = match (new.ownership, new.lifetime) {
            (VolumeOwnership::Anonymous, Lifetime::Process) => Durability::Volatile,
            _ => Durability::Synced,
        };
        if seed.is_some() && durability == Durability::Synced {
            document::sync_file_system(&data)?;
        }
        let text = serde_json::to_vec_pretty(&volume).expect("a volume is plain data with text keys");
        document::replace(&scratch.join(RECORD), &text, durability)?;
        let place = self.volume_place(&new.name);
        if let Some(parent) = place.parent()
            && !parent.exists()
        {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        fs::rename(&scratch, &place).at("create", &place)?;
        if durability == Durability::Synced
            && let Some(parent) = place.parent()
        {
            document::sync_directory(parent)?;
        }
        self.tell_of_volume("create", &new.name);
        Ok(volume)
    }

    /// The volume of that name, if there is one.
    pub fn volume(&self, name: &VolumeName) -> Result<Option<Volume>, VolumeError> {
        let path = self.volume_place(name).join(RECORD);
        let Some(text) = if_present(fs::read(&path)).at("read", &path)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|source| VolumeError::Damaged { path, source })
    }

    /// Whether there is a volume of that name.
    pub(crate) fn has_volume(&self, name: &VolumeName) -> bool {
        self.volume_place(name).join(RECORD).exists()
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>, VolumeError> {
        let root = self.store().layout().volumes();
        let Some(entries) = if_present(fs::read_dir(&root)).at("list", &root)? else { return Ok(Vec::new()) };
        let mut volumes = Vec::new();
        for entry in entries {
            let name = entry.at("list", &root)?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.parse().ok()) {
                volumes.extend(self.volume(&name)?);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// The containers that have a volume among their mounts.
    pub fn volume_users(&self, name: &VolumeName) -> Result<Vec<ContainerId>, PathError> {
        let uses =
            |source: &ContainerMountSource| matches!(source, ContainerMountSource::Volume { name: n, .. } if n == name);
        let containers = self.list()?.containers;
        let users = containers.into_iter().filter(|c| c.config.mounts.iter().any(|mount| uses(&mount.source)));
        Ok(users.map(|container| container.id).collect())
    }

    /// Removes a volume that no container has; its files go with `lease`.
    pub fn remove_volume(&self, name: &VolumeName, lease: &Lease) -> Result<(), VolumeError> {
        self.remove_volume_of(None, name, lease)
    }

    /// Removes a volume that no container has but one that is being removed itself.
    pub(crate) fn remove_volume_of(
        &self,
        leaving: Option<&ContainerId>,
        name: &VolumeName,
        lease: &Lease,
    ) -> Result<(), VolumeError> {
        let lock = LockName::other("volume", name.as_str());
        let _guard = self.store().lock(&lock, LockMode::Exclusive, &wait_silently)?;
        let mut users = self.volume_users(name)?;
        users.retain(|user| Some(user) != leaving);
        if !users.is_empty() {
            return Err(VolumeError::InUse { name: name.clone(), users });
        }
        let place = self.volume_place(name);
        match if_present(fs::rename(&place, lease.scratch_name("volume")?)).at("remove", &place)? {
            Some(()) => {
                self.tell_of_volume("destroy", name);
                Ok(())
            }
            None => Err(VolumeError::NotFound { name: name.clone() }),
        }
    }

    /// Removes the volumes of those that `takes` takes and no container has, named ones only if `which` says so; gives them
    /// with their sizes.
    pub fn prune_volumes(
        &self,
        which: PrunedVolumes,
        takes: &dyn Fn(&Volume) -> bool,
        lease: &Lease,
    ) -> Result<Vec<(VolumeName, u64)>, VolumeError> {
        let mut removed = Vec::new();
        for volume in self.volumes()? {
            let spared = volume.ownership == VolumeOwnership::Named && which == PrunedVolumes::Anonymous;
            if spared || !takes(&volume) {
                continue;
            }
            let size = self.volume_size(&volume.name)?;
            match self.remove_volume(&volume.name, lease) {
                Ok(()) => removed.push((volume.name, size)),
                // Another process has just made a container with it, or removed it.
                Err(VolumeError::InUse { .. } | VolumeError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    fn tell_of_volume(&self, action: &str, name: &VolumeName) {
        self.event_log().tell(&[self.volume_event(action, name, &[])]);
    }

    /// Tells that a container has its volumes.
    pub(crate) fn tell_of_mounted(&self, record: &ContainerRecord) {
        let told = |mount: &ContainerMount| {
            let writable = if mount.access == Access::ReadWrite { "true" } else { "false" };
            let destination = mount.target.to_string();
            let more = [("destination", destination.as_str()), ("propagation", ""), ("read/write", writable)];
            self.of_mount("mount", record, mount, &more)
        };
        self.event_log().tell(&record.config.mounts.iter().filter_map(told).collect::<Vec<_>>());
    }

    /// What tells that a container has them no more.
    pub(crate) fn unmounted(&self, record: &ContainerRecord) -> Vec<Event> {
        let told = |mount| self.of_mount("unmount", record, mount, &[]);
        record.config.mounts.iter().filter_map(told).collect()
    }

    fn of_mount(
        &self,
        action: &str,
        record: &ContainerRecord,
        mount: &ContainerMount,
        more: &[(&str, &str)],
    ) -> Option<Event> {
        let ContainerMountSource::Volume { name, .. } = &mount.source else { return None };
        let own = [("container", record.id.as_str())];
        Some(self.volume_event(action, name, &[&own[..], more].concat()))
    }

    fn volume_event(&self, action: &str, name: &VolumeName, more: &[(&str, &str)]) -> Event {
        let all = [&[("driver", "local")][..], more].concat();
        Event {
            time: self.now(),
            kind: EventKind::Volume,
            action: action.to_owned(),
            id: name.to_string(),
            attributes: all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    /// Bytes of the files in a volume.
    pub fn volume_size(&self, name: &VolumeName) -> Result<u64, PathError> {
        document::files_size(&self.volume_data(name))
    }

    /// The directory that containers see.
    pub fn volume_data(&self, name: &VolumeName) -> PathBuf {
        self.volume_place(name).join(DATA)
    }

    /// What containers that have the volume see of it.
    pub(crate) fn volume_source(&self, name: &VolumeName) -> Result<PathBuf, VolumeError> {
        let volume = self.volume(name)?.ok_or_else(|| VolumeError::NotFound { name: name.clone() })?;
        self.volume_directory(&volume)
    }

    fn volume_directory(&self, volume: &Volume) -> Result<PathBuf, VolumeError> {
        match volume.options.device() {
            None => Ok(self.volume_data(&volume.name)),
            Some(device) if device.is_dir() => Ok(device.to_owned()),
            Some(device) => Err(VolumeError::Device { name: volume.name.clone(), device: device.to_owned() }),
        }
    }

    fn volume_place(&self, name: &VolumeName) -> PathBuf {
        self.store().layout().volumes().join(name.as_str())
    }
}

#[cfg(test)]
mod tests;
