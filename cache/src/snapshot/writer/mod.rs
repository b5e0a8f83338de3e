//! Writing one layer on top of a parent: the only way files get into a layer other than a running step.
//!
//! The layer becomes a directory, or a tar with its index ([`draft`]); what is written where is decided alike for both.
//!
//! A [`LayerWriter`] shows the parent with everything written so far on top, and takes changes to it. Names and types of
//! the new layer are kept in memory and looked up there and in the parent's [`View`]; on disk every call names one
//! component in a directory that this writer made, opened without following symlinks. A path in an archive or an image
//! can therefore never lead outside, whatever it says.
//!
//! Directories of the parent that get new entries are copied up with their own metadata. Replacing a directory marks the
//! new one opaque. File contents are copied by several threads; [`LayerWriter::finish`] waits for them and sets the
//! directories' metadata. Nothing is synced here: a commit does that once.

mod content;
mod disk;
mod draft;
mod metadata;
mod pool;
mod staging;
mod tree;
mod unknown;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rbuild_executor::user_namespace::{Powers, powers};
use rbuild_image::ContainerPath;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::view::{FileKind, LastLink, Lookup, Resolved, View, resolve};
use content::{create, write_at, write_sparse, write_stream};
use disk::Disk;
use pool::Job;
use tree::{Directory, Location, NodeId, ROOT, State, Tree};

pub use content::{Content, OpenContent};
pub(super) use draft::Draft;
use draft::Stored;
pub use metadata::Metadata;

/// A change to a layer that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct LayerWriteError {
    /// What was tried, e.g. `create directory`.
    pub action: &'static str,
    /// Where in the layer.
    pub path: ContainerPath,
    /// Why not.
    #[source]
    pub source: io::Error,
}

fn failed(action: &'static str, path: &ContainerPath) -> impl FnOnce(Errno) -> LayerWriteError + use<> {
    let path = path.clone();
    move |errno| LayerWriteError { action, path, source: errno.into() }
}

fn failed_io(action: &'static str, path: &ContainerPath) -> impl FnOnce(io::Error) -> LayerWriteError + use<> {
    let path = path.clone();
    move |source| LayerWriteError { action, path, source }
}

/// Writes one layer. See the module for the rules.
pub struct LayerWriter {
    parent: Arc<View>,
    tree: Tree,
    depends_on_parent: bool,
    /// Whether the parent can be asked anything.
    knows_parent: bool,
    /// Whether the layer says how its root looks.
    describes_root: bool,
    target: Target,
}

/// What the layer becomes.
enum Target {
    Disk(Disk),
    Draft(Draft),
}

impl std::fmt::Debug for LayerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerWriter").field("depends_on_parent", &self.depends_on_parent).finish_non_exhaustive()
    }
}

impl LayerWriter {
    /// Writes into an empty directory that is no layer: a copy of a tree. The root is left with mode 0755 of 0:0
    /// unless [`Self::set_directory_metadata`] says otherwise.
    pub fn into_directory(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::new(rustix::fs::open(path, flags, Mode::empty())?, Arc::new(View::empty()))
    }

    /// Writes into the empty directory `root`, on top of `parent`.
    pub(super) fn new(root: OwnedFd, parent: Arc<View>) -> io::Result<Self> {
        Self::on(Target::Disk(Disk::new(root)), parent)
    }

    /// Writes into the empty directory `root` on top of whatever will be below: what only the parent could tell is an
    /// error.
    pub(super) fn ahead(root: OwnedFd) -> io::Result<Self> {
        let unknown = View::new(vec![Arc::new(unknown::Unknown)]);
        Ok(Self { knows_parent: false, ..Self::new(root, Arc::new(unknown))? })
    }

    /// Whether the layer says how its root looks.
    pub(super) fn describes_root(&self) -> bool {
        self.describes_root
    }

    /// Writes a tar with its index, on top of `parent`.
    pub(super) fn draft(draft: Draft, parent: Arc<View>) -> io::Result<Self> {
        Self::on(Target::Draft(draft), parent)
    }

    fn on(target: Target, parent: Arc<View>) -> io::Result<Self> {
        let metadata = match parent.lstat(&ContainerPath::root())? {
            Some(stat) => Metadata::from(&stat),
            None => Metadata { mode: 0o755, ..Metadata::default() },
        };
        let tree = Tree::new(Directory::new(metadata, false));
        Ok(Self { parent, tree, depends_on_parent: false, knows_parent: true, describes_root: false, target })
    }

    /// Writes a tree of its own, with nothing underneath, into the empty directory `root`.
    pub fn standalone(root: OwnedFd) -> io::Result<Self> {
        Self::new(root, Arc::new(View::empty()))
    }

    /// Whether what was written could differ on another parent.
    pub(super) fn depends_on_parent(&self) -> bool {
        self.depends_on_parent
    }

    /// The tree underneath, without what was written.
    pub fn parent(&self) -> &View {
        &self.parent
    }

    /// Resolves `path` in the parent with the changes so far; missing components resolve to themselves.
    pub fn resolve(&self, path: impl AsRef<[u8]>, last: LastLink) -> io::Result<Resolved> {
        resolve(self, path, last)
    }

    /// Makes the directory `path`, whose parent directories must exist; one that exists stays as it is.
    pub fn make_directory(&mut self, path: &ContainerPath, metadata: &Metadata) -> Result<(), LayerWriteError> {
        let Some(name) = path.file_name() else { return Ok(()) };
        let parent = self.stage_parent(path)?;
        match self.tree.child(parent, name) {
            Some(existing) if self.tree.directory(existing).is_some() => Ok(()),
            Some(existing) if matches!(self.tree.node(existing).state, State::Whiteout) => {
                // What the whiteout hid must stay hidden under the new directory.
                self.unlink(existing, path)?;
                let made = self.new_directory(parent, path, metadata.clone(), true)?;
                self.mark_opaque(made, path)
            }
            Some(_) => Err(failed("create directory", path)(Errno::EXIST)),
            None => match self.lower_kind(parent, path)? {
                Some(FileKind::Directory) => {
                    self.copy_up_directory(parent, path)?;
                    Ok(())
                }
                Some(_) => Err(failed("create directory", path)(Errno::EXIST)),
                None => self.new_directory(parent, path, metadata.clone(), true).map(drop),
            },
        }
    }

    /// Makes `path` and its missing parents, all with `metadata`; returns those that were made, outermost first.
    /// An existing directory stays as it is; anything else in the way is an error. No symlink is followed.
    pub fn make_directories(
        &mut self,
        path: &ContainerPath,
        metadata: &Metadata,
    ) -> Result<Vec<ContainerPath>, LayerWriteError> {
        let mut missing = Vec::new();
        let mut here = path.clone();
        loop {
            match self.kind(&here).map_err(failed_io("look up", &here))? {
                Some(FileKind::Directory) => break,
                Some(_) => return Err(failed("create directory", &here)(Errno::NOTDIR)),
                None => {}
            }
            missing.push(here.clone());
            match here.parent() {
                Some(parent) => here = parent,
                None => break,
            }
        }
        missing.reverse();
        for directory in &missing {
            self.make_directory(directory, metadata)?;
        }
        Ok(missing)
    }

    /// Makes `path` a directory as an archive's entry says: one of the parent or of this layer gets the metadata and
    /// keeps its entries, anything else is replaced.
    pub(super) fn directory_entry(&mut self, path: &ContainerPath, metadata: &Metadata) -> Result<(), LayerWriteError> {
        let Some(name) = path.file_name() else { return self.set_directory_metadata(path, metadata) };
        let parent = self.stage_parent(path)?;
        match self.tree.child(parent, name) {
            Some(existing) => {
                if let Some(directory) = self.tree.directory_mut(existing) {
                    directory.metadata = metadata.clone();
                    return Ok(());
                }
                // It replaced, or hid, whatever the parent has there.
                self.unlink(existing, path)?;
                let made = self.new_directory(parent, path, metadata.clone(), true)?;
                self.mark_opaque(made, path)
            }
            None => {
                // Over anything else it is the same directory; who then asks what it hides learns nothing.
                let merges = !self.knows_parent || self.lower_kind(parent, path)? == Some(FileKind::Directory);
                self.new_directory(parent, path, metadata.clone(), !merges).map(drop)
            }
        }
    }

    /// Removes what this layer has at `path`, if anything; what the parent has there is not hidden by this.
    pub(super) fn discard(&mut self, path: &ContainerPath) -> Result<(), LayerWriteError> {
        match self.tree.locate(path) {
            Location::Staged(ROOT) | Location::Lower | Location::Absent => Ok(()),
            Location::Staged(id) => self.unlink(id, path),
        }
    }

    /// Remembers that what follows was decided by what the parent has.
    pub(super) fn note_dependence(&mut self) {
        self.depends_on_parent = true;
    }

    /// Gives an existing directory this metadata. A time of `None` leaves the one it has.
    pub fn set_directory_metadata(&mut self, path: &ContainerPath, metadata: &Metadata) -> Result<(), LayerWriteError> {
        let id = self.stage_directory(path)?;
        self.describes_root |= id == ROOT;
        let directory = self.tree.directory_mut(id).expect("just staged as a directory");
        let mtime = metadata.mtime.or(directory.metadata.mtime);
        directory.metadata = Metadata { mtime, ..metadata.clone() };
        Ok(())
    }

    /// The metadata a directory of the layer or the parent has.
    pub fn directory_metadata(&self, path: &ContainerPath) -> io::Result<Option<Metadata>> {
        match self.tree.locate(path) {
            Location::Staged(id) => Ok(self.tree.directory(id).map(|directory| directory.metadata.clone())),
            Location::Absent => Ok(None),
            Location::Lower => {
                let stat = self.parent.lstat(path)?;
                Ok(stat.filter(|stat| stat.kind.is_directory()).map(|stat| Metadata::from(&stat)))
            }
        }
    }

    /// Makes a regular file; anything but a directory is replaced.
    pub fn file(
        &mut self,
        path: &ContainerPath,
        metadata: &Metadata,
        content: Content<'_>,
    ) -> Result<(), LayerWriteError> {
        let (parent, name) = self.clear(path)?;
        if let Target::Draft(draft) = &mut self.target {
            let stored = draft.store(content).map_err(failed_io("read the content of", path))?;
            let inode = draft.inode(metadata, stored);
            let id = self.tree.add(parent, &name, State::Leaf(FileKind::File));
            draft.name(id, inode);
            return Ok(());
        }
        let dir = self.directory_fd(parent, path)?;
        match content {
            Content::File(open) => {
                let job = Job { dir, name: name.clone(), path: path.clone(), metadata: metadata.clone(), open };
                self.disk(path)?.pool(path)?.submit(job).map_err(|(path, source)| LayerWriteError {
                    action: "copy to",
                    path,
                    source,
                })?;
            }
            content => {
                let file = create(&dir, &name).map_err(failed("create", path))?;
                let buffer = &mut self.disk(path)?.buffer;
                let written = match content {
                    Content::Bytes(bytes) => write_at(&file, bytes, 0),
                    Content::Stream(reader, size) => write_stream(&file, reader, size, buffer),
                    Content::Sparse(reader, map, size) => write_sparse(&file, reader, map, size, buffer),
                    Content::File(_) => Ok(()),
                };
                written.map_err(failed_io("write", path))?;
                metadata.apply_to_file(file.as_fd()).map_err(failed("set metadata of", path))?;
            }
        }
        self.tree.add(parent, &name, State::Leaf(FileKind::File));
        Ok(())
    }

    /// Makes a symlink; anything but a directory is replaced.
    pub fn symlink(&mut self, path: &ContainerPath, target: &[u8], metadata: &Metadata) -> Result<(), LayerWriteError> {
        let (parent, name) = self.clear(path)?;
        self.in_directory(parent, path, "create symlink", |dir| rustix::fs::symlinkat(target, dir, &*name))?;
        self.in_directory(parent, path, "set metadata of", |dir| metadata.apply_at(dir, &name, FileKind::Symlink))?;
        let id = self.tree.add(parent, &name, State::Symlink(target.to_vec()));
        self.drafted(id, metadata, Stored::None);
        Ok(())
    }

    /// Makes a device or fifo; anything but a directory is replaced. A character device 0:0 cannot be kept in a layer
    /// directory (overlayfs would take it for a whiteout) and is refused.
    pub fn node(&mut self, path: &ContainerPath, kind: FileKind, metadata: &Metadata) -> Result<(), LayerWriteError> {
        let (file_type, device) = match kind {
            FileKind::CharDevice { major: 0, minor: 0 } => return Err(failed("create device 0:0", path)(Errno::PERM)),
            FileKind::CharDevice { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            FileKind::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            FileKind::Fifo => (FileType::Fifo, 0),
            _ => return Err(failed("create special file", path)(Errno::INVAL)),
        };
        let (parent, name) = self.clear(path)?;
        if kind != FileKind::Fifo && powers() != Powers::All {
            // As other tools do in a user namespace: sandboxes have a /dev of their own.
            tracing::debug!(%path, "a device file cannot be made here and is left out");
            return Ok(());
        }
        let mode = Mode::RUSR | Mode::WUSR;
        self.in_directory(parent, path, "create special file", |dir| {
            rustix::fs::mknodat(dir, &*name, file_type, mode, device)
        })?;
        self.in_directory(parent, path, "set metadata of", |dir| metadata.apply_at(dir, &name, kind))?;
        let id = self.tree.add(parent, &name, State::Leaf(kind));
        self.drafted(id, metadata, Stored::None);
        Ok(())
    }

    /// Makes `path` another name of `existing`, which may be in the parent (then it is copied up) but must be no
    /// directory; the last component of neither is followed.
    pub fn hard_link(&mut self, existing: &ContainerPath, path: &ContainerPath) -> Result<(), LayerWriteError> {
        if existing == path {
            return match self.kind(path).map_err(failed_io("look up", path))? {
                Some(kind) if !kind.is_directory() => Ok(()),
                Some(_) => Err(failed("hard-link", path)(Errno::ISDIR)),
                None => Err(failed("hard-link", path)(Errno::NOENT)),
            };
        }
        let source = match self.tree.locate(existing) {
            Location::Staged(id) => id,
            Location::Absent => return Err(failed("hard-link", existing)(Errno::NOENT)),
            Location::Lower => self.copy_up_leaf(existing)?,
        };
        let copy = match &self.tree.node(source).state {
            State::Directory(_) => return Err(failed("hard-link", existing)(Errno::ISDIR)),
            State::Symlink(target) => State::Symlink(target.clone()),
            State::Leaf(kind) => State::Leaf(*kind),
            State::Whiteout | State::Gone => return Err(failed("hard-link", existing)(Errno::NOENT)),
        };
        let (parent, name) = self.clear(path)?;
        let target = self.tree.add(parent, &name, copy);
        let settle = match &mut self.target {
            Target::Disk(disk) => {
                disk.links.push((source, target));
                disk.pool.is_none()
            }
            Target::Draft(draft) => {
                draft.link(source, target);
                false
            }
        };
        if settle { self.settle(path) } else { Ok(()) }
    }

    /// Removes `path` with everything below it, in the layer and from view of the parent.
    pub fn remove(&mut self, path: &ContainerPath) -> Result<(), LayerWriteError> {
        let Some(name) = path.file_name().map(<[u8]>::to_vec) else {
            return Err(failed("remove", path)(Errno::BUSY));
        };
        let had_lower = self.lower_is_visible_behind(path).map_err(failed_io("look up", path))?;
        if let Location::Staged(id) = self.tree.locate(path) {
            self.unlink(id, path)?;
        }
        if !had_lower {
            return Ok(());
        }
        let parent = self.stage_parent(path)?;
        if self.tree.child(parent, &name).is_none() {
            self.whiteout(parent, &name, path)?;
        }
        Ok(())
    }

    /// Hides what any parent has at `path`; what this layer has there stays (rule I-03).
    pub(super) fn hide(&mut self, path: &ContainerPath) -> Result<(), LayerWriteError> {
        let Some(name) = path.file_name().map(<[u8]>::to_vec) else {
            return Err(failed("hide", path)(Errno::INVAL));
        };
        let parent = self.stage_parent(path)?;
        match self.tree.child(parent, &name) {
            None => self.whiteout(parent, &name, path),
            Some(existing) if self.tree.directory(existing).is_some() => self.hide_all(path),
            Some(_) => Ok(()),
        }
    }

    /// Hides everything that any parent has in the directory `path`; what this layer has there stays.
    pub(super) fn hide_all(&mut self, path: &ContainerPath) -> Result<(), LayerWriteError> {
        let id = self.stage_directory(path)?;
        if id == ROOT {
            // overlayfs does not look for the mark on a layer's root.
            self.depends_on_parent = true;
            let parent = self.parent.clone();
            for entry in parent.list(path).map_err(failed_io("list", path))? {
                if self.tree.child(ROOT, &entry.name).is_none() {
                    self.whiteout(ROOT, &entry.name, &path.join(&entry.name))?;
                }
            }
        } else {
            self.mark_opaque(id, path)?;
        }
        self.tree.directory_mut(id).expect("just staged as a directory").hides = true;
        Ok(())
    }

    /// Waits for all contents and gives every directory its metadata.
    pub fn finish(&mut self) -> Result<(), LayerWriteError> {
        let root = ContainerPath::root();
        if let Target::Draft(draft) = &mut self.target {
            return draft.finish(&self.tree, self.parent.clone()).map_err(failed_io("write the tar of", &root));
        }
        self.settle(&root)?;
        let order: Vec<NodeId> = self.tree.directories_inside_out().map(|(id, ..)| id).collect();
        for id in order {
            let path = ContainerPath::new(self.tree.path(id));
            let node = self.tree.node(id);
            let (parent, name) = (node.parent, node.name.clone());
            let metadata = self.tree.directory(id).expect("listed as a directory").metadata.clone();
            let result = if id == ROOT {
                metadata.apply_at(&self.disk(&path)?.root, b".", FileKind::Directory)
            } else {
                let dir = self.directory_fd(parent, &path)?;
                metadata.apply_at(&dir, &name, FileKind::Directory)
            };
            result.map_err(failed("set metadata of", &path))?;
        }
        let disk = self.disk(&root)?;
        disk.open.clear();
        disk.pool = None;
        Ok(())
    }
}

impl Lookup for LayerWriter {
    fn kind(&self, path: &ContainerPath) -> io::Result<Option<FileKind>> {
        match self.tree.locate(path) {
            Location::Lower => Lookup::kind(&*self.parent, path),
            Location::Absent => Ok(None),
            Location::Staged(id) => Ok(Some(match &self.tree.node(id).state {
                State::Directory(_) => FileKind::Directory,
                State::Symlink(_) => FileKind::Symlink,
                State::Leaf(kind) => *kind,
                State::Whiteout | State::Gone => return Ok(None),
            })),
        }
    }

    fn read_link(&self, path: &ContainerPath) -> io::Result<Vec<u8>> {
        match self.tree.locate(path) {
            Location::Lower => self.parent.read_link(path),
            Location::Staged(id) => match &self.tree.node(id).state {
                State::Symlink(target) => Ok(target.clone()),
                _ => Err(Errno::INVAL.into()),
            },
            Location::Absent => Err(Errno::NOENT.into()),
        }
    }
}
