//! Immutable layers kept as their tars, read through an index.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::tar_layer::Files;
use super::xattr;
use crate::erofs::{Index, InodeRef};
use crate::view::{FileBytes, FileKind, LayerEntry, LayerReader, Part, Xattrs};

/// A layer's tar and index, or a merged index over several tars. Opened when it is first read: a stack of hundreds of layers
/// costs nothing until then; nor does a tar that nothing is read from.
#[derive(Debug)]
pub(super) struct TarLayer {
    place: Place,
    opened: OnceLock<Opened>,
}

#[derive(Debug)]
enum Place {
    Layer(PathBuf),
    Merged { index: PathBuf, devices: Vec<PathBuf> },
}

#[derive(Debug)]
struct Opened {
    index: Index,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    path: PathBuf,
    file: OnceLock<Arc<File>>,
}

impl TarLayer {
    /// The layer in the directory `path`.
    pub(super) fn new(path: &Path) -> Self {
        Self { place: Place::Layer(path.to_path_buf()), opened: OnceLock::new() }
    }

    /// Several layers by their merged index and what it points into.
    pub(super) fn over(index: PathBuf, devices: Vec<PathBuf>) -> Self {
        Self { place: Place::Merged { index, devices }, opened: OnceLock::new() }
    }

    fn opened(&self) -> io::Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let (index, devices) = match &self.place {
            Place::Layer(path) => {
                let files = Files::of(path);
                (files.index.clone(), files.devices(None))
            }
            Place::Merged { index, devices } => (index.clone(), devices.clone()),
        };
        let index = Index::open(File::open(index)?)?;
        let devices = devices.into_iter().map(|path| Device { path, file: OnceLock::new() }).collect();
        // When another thread was faster, its file stays and this one is closed.
        Ok(self.opened.get_or_init(|| Opened { index, devices }))
    }

    fn inode(&self, path: &[u8]) -> io::Result<(&Opened, InodeRef)> {
        let opened = self.opened()?;
        let inode = opened.index.lookup(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok((opened, inode))
    }
}

impl Device {
    fn file(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.file.get() {
            return Ok(file.clone());
        }
        let opened = Arc::new(File::open(&self.path)?);
        Ok(self.file.get_or_init(|| opened).clone())
    }
}

impl LayerReader for TarLayer {
    fn lookup(&self, path: &[u8]) -> io::Result<Option<LayerEntry>> {
        let index = &self.opened()?.index;
        index.lookup(path)?.map(|inode| index.entry(&inode)).transpose()
    }

    fn is_opaque(&self, path: &[u8]) -> io::Result<bool> {
        if path.is_empty() {
            return Ok(false);
        }
        let (opened, inode) = self.inode(path)?;
        opened.index.is_opaque(&inode)
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, LayerEntry)>> {
        let (opened, inode) = self.inode(path)?;
        let index = &opened.index;
        index.list(&inode)?.into_iter().map(|(name, inode)| Ok((name, index.entry(&inode)?))).collect()
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let (opened, inode) = self.inode(path)?;
        opened.index.read_link(&inode)
    }

    fn open(&self, path: &[u8]) -> io::Result<FileBytes> {
        let (opened, inode) = self.inode(path)?;
        if opened.index.stat(&inode)?.kind != FileKind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut parts = Vec::new();
        for extent in opened.index.extents(&inode)? {
            let device = |position: usize| {
                let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the index names a file that is not there");
                opened.devices.get(position).ok_or_else(damaged)?.file()
            };
            let file = extent.device.map(device).transpose()?;
            parts.push(Part { file, offset: extent.offset, length: extent.length });
        }
        Ok(FileBytes::of_parts(parts))
    }

    fn xattrs(&self, path: &[u8]) -> io::Result<Xattrs> {
        let (opened, inode) = self.inode(path)?;
        let mut xattrs = opened.index.xattrs(&inode)?;
        xattrs.retain(|name, _| xattr::is_content(name));
        Ok(xattrs)
    }
}
