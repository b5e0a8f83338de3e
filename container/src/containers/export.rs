//! A container's files as one tar, as `export` gives it: the image with the container's changes, no mounts.
//!
//! Read through the merged view: nothing is mounted, no symlink is followed, special files are entries and are never
//! opened (S-24). Sockets are left out, as in every layer.

use std::collections::HashMap;
use std::io::{self, Write};

use rbuild_cache::snapshot::SnapshotError;
use rbuild_cache::view::{FileKind, Stat, View};
use rbuild_cache::{Hold, Lease, PathError};
use rbuild_image::ContainerPath;
use rbuild_image::layer::{Device, Entry, EntryKind, TarWriteError, TarWriter, Timestamp};

use super::Containers;
use crate::record::ContainerRecord;

/// A container whose files could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Its files cannot be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// One of its files cannot be read.
    #[error("cannot read {path} of the container")]
    Read {
        /// Which.
        path: ContainerPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error(transparent)]
    Tar(#[from] TarWriteError),
    /// The archive cannot be finished.
    #[error("cannot finish the archive")]
    Finish(#[source] io::Error),
    /// The image cannot be held.
    #[error(transparent)]
    File(#[from] PathError),
}

impl Containers {
    /// A container's files: its image, which `lease` keeps, with its changes on top.
    pub fn view(&self, record: &ContainerRecord, lease: &Lease) -> Result<View, ExportError> {
        if let Some(snapshot) = record.snapshot {
            lease.hold(Hold::Snapshot(snapshot))?;
        }
        Ok(self.writable(record).view()?)
    }

    /// Writes all files of a container as a tar.
    pub fn export(&self, record: &ContainerRecord, out: &mut dyn Write, lease: &Lease) -> Result<(), ExportError> {
        let view = self.view(record, lease)?;
        let mut export = Export { view: &view, tar: TarWriter::new(out), names: HashMap::new() };
        export.directory(&ContainerPath::root())?;
        export.tar.finish().map_err(ExportError::Finish)?;
        self.tell(record, "export", &[]);
        Ok(())
    }
}

struct Export<'a> {
    view: &'a View,
    tar: TarWriter<&'a mut dyn Write>,
    /// Where a file with several names was written first, by device and inode.
    names: HashMap<(u64, u64), ContainerPath>,
}

impl Export<'_> {
    fn directory(&mut self, path: &ContainerPath) -> Result<(), ExportError> {
        let entries = self.view.list(path).map_err(reading(path))?;
        for entry in entries {
            let path = path.join(&entry.name);
            self.entry(&path, &entry.stat)?;
            if entry.stat.kind == FileKind::Directory {
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &ContainerPath, stat: &Stat) -> Result<(), ExportError> {
        let device = |major, minor| Device { major, minor };
        let kind = match stat.kind {
            FileKind::Socket => return Ok(()),
            FileKind::File => match self.first_name(path, stat) {
                Some(target) => EntryKind::Hardlink { target },
                None => EntryKind::file(stat.size),
            },
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink { target: self.view.read_link(path).map_err(reading(path))? },
            FileKind::CharDevice { major, minor } => EntryKind::CharDevice(device(major, minor)),
            FileKind::BlockDevice { major, minor } => EntryKind::BlockDevice(device(major, minor)),
            FileKind::Fifo => EntryKind::Fifo,
        };
        let content = matches!(kind, EntryKind::File { .. });
        let entry = Entry {
            path: path.clone(),
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: Timestamp { seconds: stat.mtime.seconds, nanoseconds: stat.mtime.nanoseconds },
            xattrs: self.view.xattrs(path).map_err(reading(path))?,
        };
        if content {
            let mut file = self.view.open(path).map_err(reading(path))?;
            self.tar.append(&entry, &mut file)?;
        } else {
            self.tar.append(&entry, &mut io::empty())?;
        }
        Ok(())
    }

    /// The name under which the same file was written before.
    fn first_name(&mut self, path: &ContainerPath, stat: &Stat) -> Option<ContainerPath> {
        if stat.links < 2 {
            return None;
        }
        if let Some(first) = self.names.get(&stat.inode) {
            return Some(first.clone());
        }
        self.names.insert(stat.inode, path.clone());
        None
    }
}

fn reading(path: &ContainerPath) -> impl FnOnce(io::Error) -> ExportError + use<> {
    let path = path.clone();
    move |source| ExportError::Read { path, source }
}
