//! Files go into a container and come out of it, as tars.
//!
//! Every path is opened through descriptors that the kernel confines to the container's root: a symlink that the container
//! changes meanwhile leads nowhere else (the class of CVE-2018-15664). A container that runs is entered through its first
//! process's root, with all its mounts; one that does not run is mounted for the moment, at no place that anybody else sees.

mod archive;
mod extract;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use rbuild_cache::snapshot::SnapshotError;
use rbuild_cache::{Hold, Lease, LockGuard, PathError};
use rbuild_executor::{Access, FileKind, RootDir, Stat, open_rootfs};
use rbuild_image::ContainerPath;
use rbuild_image::layer::{TarError, TarWriteError};

use super::{Containers, LoadError};
use crate::config::ContainerMountSource;
use crate::id::ContainerId;
use crate::record::ContainerRecord;
use crate::request::RootAccess;

pub use archive::Links;
pub use extract::Owners;

/// Files that were not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of its volumes cannot be had.
    #[error(transparent)]
    Volume(#[from] crate::volumes::VolumeError),
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
    /// What is mounted in a container that does not run: the innermost first.
    mounts: Vec<(ContainerPath, PathBuf, Access)>,
    /// What its root file system is; that of one that runs says so itself.
    access: Access,
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
            return Ok(Files { root, mounts: Vec::new(), access: Access::ReadWrite, _held: None });
        }
        let held = self.hold_now(&record.id)?.ok_or_else(|| CopyError::Busy { id: record.id.clone() })?;
        if let Some(snapshot) = record.snapshot {
            lease.hold(Hold::Snapshot(snapshot))?;
        }
        let root = open_rootfs(&self.writable(record).rootfs()?).map_err(failed)?;
        let mut mounts = Vec::new();
        for mount in record.config.mounts.iter().rev() {
            let source = match &mount.source {
                ContainerMountSource::Volume { name, .. } => self.volume_source(name)?,
                ContainerMountSource::Bind { path, .. } if path.is_dir() => path.clone(),
                ContainerMountSource::Bind { .. } | ContainerMountSource::Tmpfs { .. } => continue,
            };
            mounts.push((mount.target.clone(), source, mount.access));
        }
        let access = match record.config.root {
            RootAccess::ReadOnly => Access::ReadOnly,
            RootAccess::ReadWrite => Access::ReadWrite,
        };
        Ok(Files { root, mounts, access, _held: Some(held) })
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
        Ok(Self { root: RootDir::open(directory)?, mounts: Vec::new(), access: Access::ReadWrite, _held: None })
    }

    /// What is at `path`; with [`Links::Follow`] a symlink there is followed.
    pub fn stat(&self, path: &ContainerPath, links: Links) -> Result<Option<Stat>, CopyError> {
        let (root, path, _) = self.place(path)?;
        let found = match links {
            Links::Follow => root.stat(&path),
            Links::Keep => root.lstat(&path),
        };
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(CopyError::File { action: "inspect", path, source }),
        }
    }

    /// Where a path leads, or would lead if what is missing were there.
    pub fn resolve(&self, path: &ContainerPath) -> ContainerPath {
        self.root.resolve_missing(path).unwrap_or_else(|_| path.clone())
    }

    /// Writes what is at `path` as a tar in which it is called `name`.
    pub fn read(&self, path: &ContainerPath, name: &[u8], links: Links, out: &mut dyn Write) -> Result<(), CopyError> {
        let (root, path, _) = self.place(path)?;
        archive::write(&root, &path, name, links, out)
    }

    /// Unpacks a tar into the directory at `path`.
    pub fn write(&self, path: &ContainerPath, tar: &mut dyn Read, owners: Owners) -> Result<(), CopyError> {
        let shown = path;
        let (root, path, access) = self.place(path)?;
        if access == Access::ReadOnly {
            return Err(CopyError::ReadOnly { path: shown.clone() });
        }
        let stat =
            root.stat(&path).map_err(|source| CopyError::File { action: "inspect", path: path.clone(), source })?;
        if stat.kind != FileKind::Directory {
            let source = io::ErrorKind::NotADirectory.into();
            return Err(CopyError::File { action: "unpack into", path, source });
        }
        match extract::unpack(&root, &path, tar, owners) {
            Err(CopyError::File { source, .. }) if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Err(CopyError::ReadOnly { path: shown.clone() })
            }
            other => other,
        }
    }

    /// The root in which a path lies, the path from there, and whether it may be written.
    fn place(&self, path: &ContainerPath) -> Result<(RootDir, ContainerPath, Access), CopyError> {
        let failed = |source| CopyError::File { action: "open", path: path.clone(), source };
        let resolved = self.resolve(path);
        for (target, source, access) in &self.mounts {
            let rest = resolved.as_bytes().strip_prefix(target.as_bytes());
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with(b"/")) {
                return Ok((RootDir::open(source).map_err(failed)?, ContainerPath::root().join(rest), *access));
            }
        }
        Ok((self.root.try_clone().map_err(failed)?, path.clone(), self.access))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
