//! A container comes into being: its writable place, its files, its volumes, its name.
//!
//! Everything is made in the lease's private place and appears by one rename; whatever fails before leaves nothing.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rbuild_cache::snapshot::{LayerWriteError, Metadata, SnapshotError, Writable};
use rbuild_cache::view::{FileKind, LastLink};
use rbuild_cache::{DbError, Hold, Kept, Lease, PathError, SnapshotId};
use rbuild_executor::{Access, Capabilities};
use rbuild_image::{ContainerPath, RuntimeConfig};

use super::{Containers, FindError, LoadError, PublishError, RemoveError, durability};
use crate::config::{ContainerConfig, ContainerMount, ContainerMountSource, VolumeOwnership};
use crate::create::{InvalidRequest, Surroundings, merge};
use crate::document::{self, AtPath};
use crate::etc_files::{self, HostFiles};
use crate::id::ContainerId;
use crate::name::ContainerName;
use crate::network::{NetworkChoice, Reachable};
use crate::particulars::{self, UtsChoice};
use crate::record::{ContainerRecord, ContainerState, FORMAT, ImageOrigin};
use crate::request::RunRequest;
use crate::status::ContainerStatus;
use crate::volume::VolumeName;
use crate::volumes::{self, NewVolume, Seed, VolumeError, VolumeOptions};

/// What a container is made from.
#[derive(Debug)]
pub struct NewContainer<'a> {
    /// The image.
    pub image: ImageOrigin,
    /// The image's configuration.
    pub config: &'a RuntimeConfig,
    /// The image's files; `None` is the empty tree.
    pub snapshot: Option<SnapshotId>,
    /// What the user asks.
    pub request: &'a RunRequest,
    /// The host's own files.
    pub host: &'a HostFiles,
    /// The capabilities the caller may hand out.
    pub bounding_capabilities: Capabilities,
}

/// A container that was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The request makes no sense for this image.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// The name is taken, or the container cannot be recorded.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A volume cannot be had.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The image's files cannot be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The working directory cannot be made.
    #[error("cannot create the working directory {path}")]
    WorkingDir {
        /// Which.
        path: ContainerPath,
        /// Why.
        #[source]
        source: WorkingDirError,
    },
    /// A container whose volumes are wanted is not there.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A leftover of the name cannot be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// The database said no.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] PathError),
}

/// Why a working directory cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum WorkingDirError {
    /// Something else is there.
    #[error("it exists and is no directory")]
    NotADirectory,
    /// The image cannot be read.
    #[error(transparent)]
    Read(std::io::Error),
    /// The container cannot be written.
    #[error(transparent)]
    Write(#[from] LayerWriteError),
}

/// Where the names of a container's own files are below `/etc`, and in its directory.
pub(crate) const ETC_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];
/// How often a drawn name is drawn again when it is taken.
const NAME_ATTEMPTS: usize = 20;
/// The writable place in a container's directory.
pub(super) const CHANGES: &str = "changes";

impl Containers {
    /// Creates a container that stays until it is removed or, with `--rm`, until its process has ended.
    pub fn create(&self, new: &NewContainer<'_>, lease: &Lease) -> Result<ContainerRecord, CreateError> {
        if let Some(snapshot) = new.snapshot {
            lease.hold(Hold::Snapshot(snapshot))?;
        }
        let id = ContainerId::random();
        let surroundings = Surroundings {
            id: &id,
            bounding_capabilities: new.bounding_capabilities,
            volume_name: &mut VolumeName::random,
        };
        let mut config = merge(new.config, new.request, surroundings)?;
        self.inherit_mounts(&mut config, new.request)?;
        if config.particulars.uts == UtsChoice::Host {
            config.hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        let directory = lease.scratch_name("container")?;
        fs::DirBuilder::new().mode(0o700).create(&directory).at("create", &directory)?;
        let writable = self.store().snapshots().make_writable(new.snapshot, &directory.join(CHANGES))?;
        make_working_dir(&config.working_dir, &writable)?;
        write_etc_files(&config, new.host, &directory)?;
        let mut record = ContainerRecord {
            format: FORMAT,
            name: ContainerName::random(0),
            created: self.now(),
            image: new.image.clone(),
            snapshot: new.snapshot,
            config,
            state: ContainerState::created(),
            health: None,
            id,
        };
        let finished = self.finish(&mut record, new, &directory, lease);
        if finished.is_err() {
            self.store().roots().release(&root_name(&record.id))?;
            self.remove_anonymous_volumes(&record, lease)?;
        }
        finished.map(|()| record)
    }

    /// Makes what lies outside the container's directory, and lets the container appear.
    fn finish(
        &self,
        record: &mut ContainerRecord,
        new: &NewContainer<'_>,
        directory: &Path,
        lease: &Lease,
    ) -> Result<(), CreateError> {
        // Tells a collector of leftovers that this one is being made.
        let _held = self.hold(&record.id)?;
        // Over as soon as the container has them: from then on they go when it goes.
        let unborn = self.keep_track_of_volumes(record)?;
        self.make_volumes(&record.config, new.snapshot, Volumes::All, lease)?;
        self.restrict_volumes(&mut record.config)?;
        if let Some(snapshot) = new.snapshot {
            self.store().roots().set(&root_name(&record.id), &[Kept::Snapshot(snapshot)])?;
        }
        self.publish_under(record, new.request.name.as_ref(), directory, lease)?;
        drop(unborn);
        // Whoever removed one of them a moment ago did not see this container yet.
        self.make_volumes(&record.config, new.snapshot, Volumes::Missing, lease)
    }

    /// A lease that lets the next invocation remove the anonymous volumes if this one is killed before the container is there.
    fn keep_track_of_volumes(&self, record: &ContainerRecord) -> Result<Option<Lease>, CreateError> {
        let mut holds = Vec::new();
        for mount in &record.config.mounts {
            if let ContainerMountSource::Volume { name, ownership: VolumeOwnership::Anonymous, .. } = &mount.source {
                holds.push(volumes::hold_unborn(&record.id, name));
            }
        }
        if holds.is_empty() {
            return Ok(None);
        }
        let lease = self.store().lease("volumes")?;
        lease.hold_all(holds)?;
        Ok(Some(lease))
    }

    /// Publishes under the name asked for, or under one that is free.
    fn publish_under(
        &self,
        record: &mut ContainerRecord,
        asked: Option<&ContainerName>,
        directory: &Path,
        lease: &Lease,
    ) -> Result<(), CreateError> {
        for attempt in 0.. {
            record.name = asked.cloned().unwrap_or_else(|| ContainerName::random(attempt));
            match self.publish(record, directory) {
                // A name asked for is tried twice: it may belong to a container that should have gone with its process.
                Err(PublishError::NameTaken { owner, .. }) if asked.is_some() && attempt == 0 => {
                    if !self.remove_leftover(&owner, lease)? {
                        return Ok(self.publish(record, directory)?);
                    }
                }
                Err(PublishError::NameTaken { .. }) if asked.is_none() && attempt < NAME_ATTEMPTS => {}
                other => return Ok(other?),
            }
        }
        unreachable!("the loop has no end but its returns")
    }

    /// What other containers have mounted (`--volumes-from`).
    fn inherit_mounts(&self, config: &mut ContainerConfig, request: &RunRequest) -> Result<(), CreateError> {
        let mut inherited = Vec::new();
        for from in &config.particulars.volumes_from {
            let owner = self.find(&from.container)?;
            if owner.state.status == ContainerStatus::Removing {
                return Err(FindError::NotFound { text: from.container.clone() }.into());
            }
            for mount in from.of(&owner.config.mounts) {
                inherited.retain(|other: &ContainerMount| other.target != mount.target);
                inherited.push(mount);
            }
        }
        let asked: Vec<ContainerPath> = request.mounts.iter().map(|mount| mount.target.clone()).collect();
        particulars::inherit(&mut config.mounts, &asked, inherited);
        Ok(())
    }

    /// A volume that is read-only for everybody is so for this one.
    fn restrict_volumes(&self, config: &mut ContainerConfig) -> Result<(), CreateError> {
        for mount in &mut config.mounts {
            if let ContainerMountSource::Volume { name, ownership: VolumeOwnership::Named, .. } = &mount.source
                && let Some(volume) = self.volume(name)?
                && volume.options.access() == Access::ReadOnly
            {
                mount.access = Access::ReadOnly;
            }
        }
        Ok(())
    }

    fn make_volumes(
        &self,
        config: &ContainerConfig,
        snapshot: Option<SnapshotId>,
        which: Volumes,
        lease: &Lease,
    ) -> Result<(), CreateError> {
        let mut view = None;
        for mount in &config.mounts {
            let ContainerMountSource::Volume { name, ownership, copy, labels } = &mount.source else { continue };
            if which == Volumes::Missing && self.has_volume(name) {
                continue;
            }
            let seed = match copy {
                crate::mounts::CopyUp::Nothing => None,
                crate::mounts::CopyUp::Content => {
                    let view = match &view {
                        Some(view) => Arc::clone(view),
                        None => Arc::clone(view.insert(Arc::new(self.store().snapshots().view(snapshot)?))),
                    };
                    Some(Seed { view, path: mount.target.clone() })
                }
            };
            let lifetime = config.lifetime;
            let new = NewVolume {
                name: name.clone(),
                ownership: *ownership,
                labels: labels.clone(),
                options: VolumeOptions::default(),
                lifetime,
            };
            self.ensure_volume(&new, seed.as_ref(), lease)?;
        }
        Ok(())
    }
}

/// Which volumes of a container are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Volumes {
    /// All: those that are empty are filled.
    All,
    /// Those that are not there.
    Missing,
}

/// What the names of all roots of containers begin with.
pub(super) const ROOT_PREFIX: &str = "container/";

/// Who keeps a container's snapshot in the database.
pub(super) fn root_name(id: &ContainerId) -> String {
    format!("{ROOT_PREFIX}{id}")
}

/// Makes the working directory and its missing parents, symlinks of the image followed inside it (S-15).
fn make_working_dir(path: &ContainerPath, writable: &Writable) -> Result<(), CreateError> {
    let failed = |source| CreateError::WorkingDir { path: path.clone(), source };
    let mut writer = writable.writer()?;
    let resolved =
        writer.resolve(path.as_bytes(), LastLink::Follow).map_err(|error| failed(WorkingDirError::Read(error)))?;
    match resolved.kind {
        Some(FileKind::Directory) => return Ok(()),
        Some(_) => return Err(failed(WorkingDirError::NotADirectory)),
        None => {}
    }
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    let made = writer.make_directories(&resolved.path, &metadata).and_then(|_| writer.finish());
    made.map(drop).map_err(|error| failed(error.into()))
}

/// Writes the container's own `/etc/hosts` and the like; readable by everybody inside.
fn write_etc_files(config: &ContainerConfig, host: &HostFiles, directory: &Path) -> Result<(), PathError> {
    let durability = durability(config.lifetime);
    let reachable = if config.network == NetworkChoice::Host { Reachable::All } else { Reachable::NotLoopback };
    for name in ETC_FILES {
        let content = match name {
            "hosts" => {
                let here = (config.network == NetworkChoice::Host).then_some(Ipv4Addr::LOCALHOST.into());
                etc_files::hosts(&config.network, host, &config.extra_hosts, here)
            }
            "hostname" => etc_files::hostname(&config.hostname),
            _ => etc_files::resolv_conf(&host.resolver, reachable, &config.dns),
        };
        document::write(&directory.join(name), &content, 0o644, durability)?;
    }
    Ok(())
}

impl From<LoadError> for CreateError {
    fn from(error: LoadError) -> Self {
        Self::Publish(error.into())
    }
}
