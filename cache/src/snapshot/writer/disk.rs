//! Writing a layer as a directory: descriptors of directories, threads that copy, and links that wait for them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rbuild_image::ContainerPath;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::pool::Pool;
use super::tree::{NodeId, ROOT};
use super::{LayerWriteError, LayerWriter, Target, failed, failed_io};
use crate::snapshot::beneath;

/// How many directories stay open between calls.
const OPEN_DIRECTORIES: usize = 32;
/// Threads that copy contents at most; more only fight for the file system's journal.
const COPY_THREADS: usize = 4;

/// A directory that a layer is written into.
pub(super) struct Disk {
    pub(super) root: Arc<OwnedFd>,
    pub(super) open: HashMap<NodeId, Arc<OwnedFd>>,
    pub(super) pool: Option<Pool>,
    /// Hard links to files that may still be in the queue, as (existing, new).
    pub(super) links: Vec<(NodeId, NodeId)>,
    pub(super) buffer: Vec<u8>,
}

impl Disk {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), open: HashMap::new(), pool: None, links: Vec::new(), buffer: Vec::new() }
    }

    pub(super) fn pool(&mut self, path: &ContainerPath) -> Result<&mut Pool, LayerWriteError> {
        if self.pool.is_none() {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(COPY_THREADS);
            self.pool = Some(Pool::start(threads).map_err(failed_io("start copying to", path))?);
        }
        Ok(self.pool.as_mut().expect("set above"))
    }
}

impl LayerWriter {
    pub(super) fn disk(&mut self, path: &ContainerPath) -> Result<&mut Disk, LayerWriteError> {
        match &mut self.target {
            Target::Disk(disk) => Ok(disk),
            Target::Draft(_) => Err(failed("open the directory of", path)(Errno::INVAL)),
        }
    }

    /// Does something in a directory of the layer, where that is one on disk.
    pub(super) fn in_directory(
        &mut self,
        id: NodeId,
        path: &ContainerPath,
        action: &'static str,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), LayerWriteError> {
        if matches!(self.target, Target::Draft(_)) {
            return Ok(());
        }
        let dir = self.directory_fd(id, path)?;
        work(dir.as_fd()).map_err(failed(action, path))
    }

    /// Waits for queued contents and makes the links that waited for them.
    pub(super) fn settle(&mut self, path: &ContainerPath) -> Result<(), LayerWriteError> {
        let Target::Disk(disk) = &mut self.target else { return Ok(()) };
        if let Some(pool) = &mut disk.pool {
            pool.drain().map_err(|(path, source)| LayerWriteError { action: "copy to", path, source })?;
        }
        for (source, target) in std::mem::take(&mut disk.links) {
            let (from, to) = (self.tree.node(source), self.tree.node(target));
            let (from_parent, from_name) = (from.parent, from.name.clone());
            let (to_parent, to_name) = (to.parent, to.name.clone());
            let from_dir = self.directory_fd(from_parent, path)?;
            let to_dir = self.directory_fd(to_parent, path)?;
            rustix::fs::linkat(&from_dir, &*from_name, &to_dir, &*to_name, AtFlags::empty())
                .map_err(failed("hard-link", &ContainerPath::new(self.tree.path(target))))?;
        }
        Ok(())
    }

    pub(super) fn directory_fd(&mut self, id: NodeId, path: &ContainerPath) -> Result<Arc<OwnedFd>, LayerWriteError> {
        let disk = self.disk(path)?;
        if id == ROOT {
            return Ok(disk.root.clone());
        }
        if let Some(fd) = disk.open.get(&id) {
            return Ok(fd.clone());
        }
        let below = self.tree.path(id);
        let disk = self.disk(path)?;
        let opened = beneath::open(&disk.root, &below, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(failed("open the directory of", path))?;
        if disk.open.len() >= OPEN_DIRECTORIES {
            disk.open.clear();
        }
        let fd = Arc::new(opened);
        disk.open.insert(id, fd.clone());
        Ok(fd)
    }
}
