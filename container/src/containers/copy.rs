//! Files go into a container and come out of it, as tars.
//!
//! Every path is opened through descriptors that the kernel confines to the container's root: a symlink that the container
//! changes meanwhile leads nowhere else (the class of CVE-2018-15664). A container that runs is entered through its first
//! process's root, with all its mounts; one that does not run is mounted for the moment with its volumes, its bind mounts
//! and its own files of `/etc`, at no place that anybody else sees.

mod archive;
mod extract;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use rbuild_cache::snapshot::SnapshotError;
use rbuild_cache::{Hold, Lease, LockGuard, PathError};
use rbuild_executor::{Access, FileKind, RootAtRest, RootDir, Stat};
use rbuild_image::ContainerPath;
use rbuild_image::layer::{TarError, TarWriteError};

use super::start::StartError;
use super::{Containers, LoadError};
use crate::id::ContainerId;
use crate::record::ContainerRecord;
use crate::request::RootAccess;

pub use archive::Links;
pub use extract::Owners;

/// Files that were not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is mounted in it cannot be had.
    #[error(transparent)]
    Mounts(Box<StartError>),
    /// There is nothing.
    #[error("could not find the file {path} in container {}", id.short())]
    NotFound {
        /// Where.
        path: ContainerPath,
        /// In which.
        id: ContainerId,
    },
    /// Another process starts it at this moment.
    #[error("container {} is being started: try again", id.short())]
    Busy {
        /// Which.
        id: ContainerId,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: ContainerPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not to be written there.
    #[error("cannot write {path}: it is read-only in the container")]
    ReadOnly {
        /// Where.
        path: ContainerPath,
    },
    /// It is to be replaced, and something is mounted there.
    #[error("cannot replace {path}: it is mounted into the container (device or resource busy)")]
    Mounted {
        /// Where.
        path: ContainerPath,
    },
    /// Its files cannot be reached.
    #[error("cannot open the files of container {}", id.short())]
    Open {
        /// Which.
        id: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An archive makes no sense.
    #[error(transparent)]
    Read(#[from] TarError),
    /// An archive cannot be written.
    #[error(transparent)]
    Write(#[from] TarWriteError),
    /// Its image cannot be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file of the store cannot be used.
    #[error(transparent)]
    Store(#[from] PathError),
}

/// A container's files, or a directory of the host.
#[derive(Debug)]
pub struct Files {
    root: RootDir,
    /// What was mounted for it, of a container that does not run; behind the root, which is to be closed first.
    _at_rest: Option<RootAtRest>,
    /// Nobody starts it meanwhile.
    _held: Option<LockGuard>,
}

impl Containers {
    /// The files of a container.
    pub fn files(&self, record: &ContainerRecord, lease: &Lease) -> Result<Files, CopyError> {
        let failed = |source| CopyError::Open { id: record.id.clone(), source };
        if record.state.status.is_live()
            && let Some(process) = record.state.process
            // Held while its root is opened, so that the number cannot pass to another process.
            && let Some(_held) = process.open().map_err(failed)?
        {
            let root = RootDir::open(format!("/proc/{}/root", process.pid).as_ref()).map_err(failed)?;
            return Ok(Files { root, _at_rest: None, _held: None });
        }
        let held = self.hold_now(&record.id)?.ok_or_else(|| CopyError::Busy { id: record.id.clone() })?;
        if let Some(snapshot) = record.snapshot {
            lease.hold(Hold::Snapshot(snapshot))?;
        }
        let sources = self.mount_sources(record).map_err(|error| CopyError::Mounts(Box::new(error)))?;
        // They are its own from the first start on, as in Docker.
        let directory = self.directory(&record.id);
        let etc = super::create::ETC_FILES.map(|name| (name, directory.join(name)));
        let etc = etc.into_iter().filter(|(_, path)| record.state.started.is_some() && path.is_file()).collect();
        let mounts = crate::sandbox::mounts(&record.config, sources, etc);
        let access = match record.config.root {
            RootAccess::ReadOnly => Access::ReadOnly,
            RootAccess::ReadWrite => Access::ReadWrite,
        };
        let at_rest = RootAtRest::open(&self.writable(record).rootfs()?, access, &mounts).map_err(failed)?;
        let root = at_rest.root().try_clone().map_err(failed)?;
        Ok(Files { root, _at_rest: Some(at_rest), _held: Some(held) })
    }

    /// What a container has changed in its image, by path: a letter (added, changed, deleted) for each.
    pub fn diff(&self, record: &ContainerRecord, lease: &Lease) -> Result<Vec<(char, ContainerPath)>, CopyError> {
        if let Some(snapshot) = record.snapshot {
            lease.hold(Hold::Snapshot(snapshot))?;
        }
        let below = self.store().snapshots().view(record.snapshot)?;
        let changes = self.writable(record).changes();
        // Places that a start makes for its own mounts.
        let mut own: Vec<ContainerPath> =
            super::create::ETC_FILES.iter().map(|n| ContainerPath::new("/etc").join(n)).collect();
        own.extend(["/proc", "/sys", "/dev"].map(ContainerPath::new));
        own.extend(record.config.mounts.iter().map(|mount| mount.target.clone()));
        let mut found = Vec::new();
        // Directories that only such a place changed, as far as one sees.
        let (mut touched, mut alike) = (BTreeSet::new(), BTreeSet::new());
        let mut todo = vec![ContainerPath::root()];
        while let Some(directory) = todo.pop() {
            let failed = |source| CopyError::File { action: "list", path: directory.clone(), source };
            let relative: &[u8] = directory.as_bytes().strip_prefix(b"/").unwrap_or_default();
            for (name, entry) in changes.list(relative).map_err(failed)? {
                let path = directory.join(&name);
                if own.contains(&path) {
                    touched.insert(directory.clone());
                    continue;
                }
                let before = below.lstat(&path).map_err(failed)?;
                match entry {
                    rbuild_cache::view::LayerEntry::Whiteout if before.is_none() => {}
                    rbuild_cache::view::LayerEntry::Whiteout => found.push(('D', path)),
                    rbuild_cache::view::LayerEntry::Present(stat) => {
                        found.push((if before.is_some() { 'C' } else { 'A' }, path.clone()));
                        if stat.kind.is_directory() {
                            let owner = |stat: &rbuild_cache::view::Stat| (stat.mode, stat.uid, stat.gid);
                            if before.is_some_and(|before| owner(&before) == owner(&stat)) {
                                alike.insert(path.clone());
                            }
                            todo.push(path);
                        }
                    }
                }
            }
        }
        found.sort_by(|a, b| a.1.as_bytes().cmp(b.1.as_bytes()));
        let parents: BTreeSet<ContainerPath> = found.iter().filter_map(|(_, path)| path.parent()).collect();
        found.retain(|(_, path)| !touched.contains(path) || !alike.contains(path) || parents.contains(path));
        Ok(found)
    }
}

impl Files {
    /// A directory of the host, the caller's own.
    pub fn of_host(directory: &std::path::Path) -> io::Result<Self> {
        Ok(Self { root: RootDir::open(directory)?, _at_rest: None, _held: None })
    }

    /// What is at `path`; with [`Links::Follow`] a symlink there is followed.
    pub fn stat(&self, path: &ContainerPath, links: Links) -> Result<Option<Stat>, CopyError> {
        let found = match links {
            Links::Follow => self.root.stat(path),
            Links::Keep => self.root.lstat(path),
        };
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(CopyError::File { action: "inspect", path: path.clone(), source }),
        }
    }

    /// Where a path leads, or would lead if what is missing were there.
    pub fn resolve(&self, path: &ContainerPath) -> ContainerPath {
        self.root.resolve_missing(path).unwrap_or_else(|_| path.clone())
    }

    /// Writes what is at `path` as a tar in which it is called `name`.
    pub fn read(&self, path: &ContainerPath, name: &[u8], links: Links, out: &mut dyn Write) -> Result<(), CopyError> {
        archive::write(&self.root, path, name, links, out)
    }

    /// Unpacks a tar into the directory at `path`.
    pub fn write(&self, path: &ContainerPath, tar: &mut dyn Read, owners: Owners) -> Result<(), CopyError> {
        let failed = |action, source| CopyError::File { action, path: path.clone(), source };
        if self.root.stat(path).map_err(|source| failed("inspect", source))?.kind != FileKind::Directory {
            return Err(failed("unpack into", io::ErrorKind::NotADirectory.into()));
        }
        match extract::unpack(&self.root, path, tar, owners) {
            Err(CopyError::File { action, path, source }) => Err(match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem => CopyError::ReadOnly { path },
                io::ErrorKind::ResourceBusy => CopyError::Mounted { path },
                _ => CopyError::File { action, path, source },
            }),
            other => other,
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
