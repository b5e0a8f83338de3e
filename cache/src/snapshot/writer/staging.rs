//! The steps below the writer's calls: making directories of the parent part of the layer, and making room.

use std::io;

use rbuild_image::ContainerPath;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::content::Content;
use super::metadata::Metadata;
use super::tree::{Directory, Location, NodeId, ROOT, State};
use super::{LayerWriteError, LayerWriter, Stored, Target, failed, failed_io};
use crate::snapshot::overlay;
use crate::view::{FileKind, Lookup};

impl LayerWriter {
    /// The directory that will hold `path`, made part of the layer.
    pub(super) fn stage_parent(&mut self, path: &ContainerPath) -> Result<NodeId, LayerWriteError> {
        match path.parent() {
            Some(parent) => self.stage_directory(&parent),
            None => Ok(ROOT),
        }
    }

    /// Makes the existing directory `path` part of the layer.
    pub(super) fn stage_directory(&mut self, path: &ContainerPath) -> Result<NodeId, LayerWriteError> {
        let mut here = ROOT;
        let mut so_far = ContainerPath::root();
        for name in path.components() {
            so_far = so_far.join(name);
            here = match self.tree.child(here, name) {
                Some(next) if self.tree.directory(next).is_some() => next,
                Some(next) => {
                    let gone = matches!(self.tree.node(next).state, State::Whiteout);
                    return Err(failed("enter", &so_far)(if gone { Errno::NOENT } else { Errno::NOTDIR }));
                }
                None => match self.lower_kind(here, &so_far)? {
                    Some(FileKind::Directory) => self.copy_up_directory(here, &so_far)?,
                    Some(_) => return Err(failed("enter", &so_far)(Errno::NOTDIR)),
                    None => return Err(failed("enter", &so_far)(Errno::NOENT)),
                },
            };
        }
        Ok(here)
    }

    /// What the parent shows at `path`, whose directory `staged` is in the layer and which itself is not.
    pub(super) fn lower_kind(
        &mut self,
        staged: NodeId,
        path: &ContainerPath,
    ) -> Result<Option<FileKind>, LayerWriteError> {
        if self.tree.directory(staged).is_none_or(|directory| directory.hides) {
            return Ok(None);
        }
        self.parent.kind(path).map_err(failed_io("look up", path))
    }

    pub(super) fn copy_up_directory(
        &mut self,
        parent: NodeId,
        path: &ContainerPath,
    ) -> Result<NodeId, LayerWriteError> {
        self.depends_on_parent = true;
        let stat = self.parent.lstat(path).map_err(failed_io("look up", path))?;
        let metadata = stat.as_ref().map(Metadata::from).unwrap_or_default();
        self.new_directory(parent, path, metadata, false)
    }

    pub(super) fn new_directory(
        &mut self,
        parent: NodeId,
        path: &ContainerPath,
        metadata: Metadata,
        hides: bool,
    ) -> Result<NodeId, LayerWriteError> {
        let name = path.file_name().unwrap_or_default();
        self.in_directory(parent, path, "create directory", |dir| rustix::fs::mkdirat(dir, name, Mode::RWXU))?;
        Ok(self.tree.add(parent, name, State::Directory(Directory::new(metadata, hides))))
    }

    /// Copies a file, symlink or special file of the parent into the layer.
    pub(super) fn copy_up_leaf(&mut self, path: &ContainerPath) -> Result<NodeId, LayerWriteError> {
        self.depends_on_parent = true;
        let view = self.parent.clone();
        let look_up = |error| failed_io("look up", path)(error);
        let Some(stat) = view.lstat(path).map_err(look_up)? else {
            return Err(failed("hard-link", path)(Errno::NOENT));
        };
        let metadata = Metadata { xattrs: view.xattrs(path).map_err(look_up)?, ..Metadata::from(&stat) };
        match stat.kind {
            FileKind::Directory => return Err(failed("hard-link", path)(Errno::ISDIR)),
            FileKind::File => {
                let mut file = view.open(path).map_err(look_up)?;
                self.file(path, &metadata, Content::Stream(&mut file, stat.size))?;
            }
            FileKind::Symlink => {
                let target = view.read_link(path).map_err(look_up)?;
                self.symlink(path, &target, &metadata)?;
            }
            kind => self.node(path, kind, &metadata)?,
        }
        match self.tree.locate(path) {
            Location::Staged(id) => Ok(id),
            _ => Err(failed("hard-link", path)(Errno::NOENT)),
        }
    }

    /// Makes room for something that is no directory; returns the staged directory and the name.
    pub(super) fn clear(&mut self, path: &ContainerPath) -> Result<(NodeId, Box<[u8]>), LayerWriteError> {
        let Some(name) = path.file_name() else { return Err(failed("replace", path)(Errno::ISDIR)) };
        let parent = self.stage_parent(path)?;
        if let Some(existing) = self.tree.child(parent, name) {
            if self.tree.directory(existing).is_some() {
                return Err(failed("replace", path)(Errno::ISDIR));
            }
            self.unlink(existing, path)?;
        }
        Ok((parent, name.into()))
    }

    /// Whether the parent has something at `path` that would show if the layer said nothing.
    pub(super) fn lower_is_visible_behind(&self, path: &ContainerPath) -> io::Result<bool> {
        let staged_parent = path.parent().map(|parent| self.tree.locate(&parent));
        match staged_parent {
            Some(Location::Staged(id)) if self.tree.directory(id).is_none_or(|directory| directory.hides) => Ok(false),
            Some(Location::Absent) => Ok(false),
            _ => Ok(self.parent.lstat(path)?.is_some()),
        }
    }

    pub(super) fn whiteout(
        &mut self,
        parent: NodeId,
        name: &[u8],
        path: &ContainerPath,
    ) -> Result<(), LayerWriteError> {
        self.in_directory(parent, path, "hide", |dir| overlay::make_whiteout(dir, name))?;
        self.tree.add(parent, name, State::Whiteout);
        Ok(())
    }

    /// Removes a node of the layer, on disk and in the tree.
    pub(super) fn unlink(&mut self, id: NodeId, path: &ContainerPath) -> Result<(), LayerWriteError> {
        self.settle(path)?;
        let mut order = vec![id];
        let mut next = 0;
        while let Some(id) = order.get(next) {
            if let Some(directory) = self.tree.directory(*id) {
                order.extend(directory.children.values());
            }
            next += 1;
        }
        for id in order.into_iter().rev() {
            let node = self.tree.node(id);
            let (parent, name) = (node.parent, node.name.clone());
            let flags = if self.tree.directory(id).is_some() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            self.in_directory(parent, path, "remove", |dir| rustix::fs::unlinkat(dir, &*name, flags))?;
            if let Target::Disk(disk) = &mut self.target {
                disk.open.remove(&id);
            }
        }
        self.tree.detach(id);
        Ok(())
    }

    /// Marks a directory of the layer opaque.
    pub(super) fn mark_opaque(&mut self, id: NodeId, path: &ContainerPath) -> Result<(), LayerWriteError> {
        let node = self.tree.node(id);
        let (parent, name) = (node.parent, node.name.clone());
        self.in_directory(parent, path, "mark directory opaque", |dir| overlay::set_opaque(dir, &name))?;
        if let Some(directory) = self.tree.directory_mut(id) {
            directory.opaque = true;
        }
        Ok(())
    }

    /// Remembers what a new leaf has besides its name, where the layer becomes a tar.
    pub(super) fn drafted(&mut self, id: NodeId, metadata: &Metadata, stored: Stored) {
        if let Target::Draft(draft) = &mut self.target {
            let inode = draft.inode(metadata, stored);
            draft.name(id, inode);
        }
    }
}
