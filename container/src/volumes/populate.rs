//! What the image has at a volume's mount point, copied into the empty volume: files, owners, modes, attributes, hard
//! links, and the mount point's own owner and mode.
//!
//! Everything is read through the container's merged view, so no symlink of the image leads to the host (S-24, S-25).

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rbuild_cache::snapshot::{Content, LayerWriteError, LayerWriter, Metadata};
use rbuild_cache::view::{FileKind, LastLink, Stat, View};
use rbuild_image::ContainerPath;
use rustix::fs::{Mode, OFlags};

use super::Seed;

/// Files that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum PopulateError {
    /// The mount point is no directory in the image.
    #[error("{path} is a file in the image, not a directory")]
    NotADirectory {
        /// The mount point.
        path: ContainerPath,
    },
    /// The image cannot be read.
    #[error("cannot read {path} of the image")]
    Read {
        /// Where.
        path: ContainerPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The volume cannot be written.
    #[error(transparent)]
    Write(#[from] LayerWriteError),
    /// The volume cannot be opened.
    #[error("cannot open the volume's directory")]
    Open(#[source] io::Error),
}

/// Fills the empty directory `into`; nothing happens when the image has nothing there.
pub(super) fn fill(seed: &Seed, into: &Path) -> Result<(), PopulateError> {
    let reading = |path: &ContainerPath| {
        let path = path.clone();
        move |source| PopulateError::Read { path, source }
    };
    let resolved = seed.view.resolve(seed.path.as_bytes(), LastLink::Follow).map_err(reading(&seed.path))?;
    match resolved.kind {
        None => return Ok(()),
        Some(FileKind::Directory) => {}
        Some(_) => return Err(PopulateError::NotADirectory { path: seed.path.clone() }),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(into, flags, Mode::empty()).map_err(|error| PopulateError::Open(error.into()))?;
    let writer = LayerWriter::standalone(root).map_err(PopulateError::Open)?;
    let mut copy = Copy { view: &seed.view, writer, names: HashMap::new() };
    copy.directory(&resolved.path, &ContainerPath::root())?;
    copy.writer.finish()?;
    Ok(())
}

struct Copy<'a> {
    view: &'a Arc<View>,
    writer: LayerWriter,
    /// Where a file with several names was put first, by device and inode.
    names: HashMap<(u64, u64), ContainerPath>,
}

impl Copy<'_> {
    fn directory(&mut self, from: &ContainerPath, to: &ContainerPath) -> Result<(), PopulateError> {
        let stat = self.read(from, self.view.lstat(from))?;
        if let Some(stat) = stat {
            let metadata = self.metadata(from, &stat)?;
            if !to.is_root() {
                self.writer.make_directory(to, &metadata)?;
            }
            self.writer.set_directory_metadata(to, &metadata)?;
        }
        for entry in self.read(from, self.view.list(from))? {
            let (from, to) = (from.join(&entry.name), to.join(&entry.name));
            self.entry(&from, &to, &entry.stat)?;
        }
        Ok(())
    }

    fn entry(&mut self, from: &ContainerPath, to: &ContainerPath, stat: &Stat) -> Result<(), PopulateError> {
        if stat.kind == FileKind::Directory {
            return self.directory(from, to);
        }
        if stat.links > 1 {
            if let Some(first) = self.names.get(&stat.inode) {
                return Ok(self.writer.hard_link(&first.clone(), to)?);
            }
            self.names.insert(stat.inode, to.clone());
        }
        let metadata = self.metadata(from, stat)?;
        match stat.kind {
            FileKind::File => {
                let (view, path) = (Arc::clone(self.view), from.clone());
                self.writer.file(to, &metadata, Content::File(Box::new(move || view.open(&path))))?;
            }
            FileKind::Symlink => {
                let target = self.read(from, self.view.read_link(from))?;
                self.writer.symlink(to, &target, &metadata)?;
            }
            // A socket is nothing without the process that listens.
            FileKind::Socket => {}
            kind => self.writer.node(to, kind, &metadata)?,
        }
        Ok(())
    }

    fn metadata(&self, path: &ContainerPath, stat: &Stat) -> Result<Metadata, PopulateError> {
        let xattrs = self.read(path, self.view.xattrs(path))?;
        Ok(Metadata { xattrs, ..Metadata::from(stat) })
    }

    fn read<T>(&self, path: &ContainerPath, result: io::Result<T>) -> Result<T, PopulateError> {
        result.map_err(|source| PopulateError::Read { path: path.clone(), source })
    }
}
