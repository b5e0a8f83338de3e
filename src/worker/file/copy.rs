//! Copying selected files into a layer.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rbuild_cache::snapshot::{Content, LayerWriter, Metadata};
use rbuild_cache::view::{FileBytes, FileKind, LastLink, Lookup, Stat, Timestamp};
use rbuild_image::ContainerPath;
use rbuild_solver::{CopyAction, MakeDirAction, Unpack, WriteAction};

use super::archive;
use super::mode::ModeChange;
use super::owner::{Owner, find_owner};
use super::select::{Selected, select};
use super::source::SourceTree;
use super::{FileError, IsCancelled};

/// Does the actions of one step.
pub(super) struct Copier<'a> {
    pub(super) writer: &'a mut LayerWriter,
    cancelled: IsCancelled<'a>,
}

/// What new files and directories get instead of their source's metadata.
#[derive(Clone, Debug)]
pub(super) struct Overrides {
    pub(super) owner: Option<Owner>,
    pub(super) mode: Option<ModeChange>,
    /// Of a regular file, without `mode`.
    default_mode: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
}

impl Overrides {
    /// Of directories that are made on the way.
    fn new_directory(&self) -> Metadata {
        let owner = self.owner.unwrap_or(Owner { uid: 0, gid: 0 });
        let mode = self.mode.as_ref().and_then(ModeChange::for_new_directories).unwrap_or(0o755);
        Metadata { mode, uid: owner.uid, gid: owner.gid, mtime: self.mtime, ..Metadata::default() }
    }

    fn mode_of(&self, stat: &Stat) -> u32 {
        match (&self.mode, self.default_mode) {
            (Some(change), _) => change.apply(stat.mode, stat.kind),
            (None, Some(mode)) if stat.kind == FileKind::File => mode,
            _ => stat.mode,
        }
    }

    fn metadata_of(&self, stat: &Stat) -> Metadata {
        let owner = self.owner.unwrap_or(Owner { uid: stat.uid, gid: stat.gid });
        Metadata {
            mode: self.mode_of(stat),
            uid: owner.uid,
            gid: owner.gid,
            mtime: self.mtime.or(Some(stat.mtime)),
            ..Metadata::default()
        }
    }
}

impl<'a> Copier<'a> {
    pub(super) fn new(writer: &'a mut LayerWriter, cancelled: IsCancelled<'a>) -> Self {
        Self { writer, cancelled }
    }

    /// `COPY` and `ADD` of one source.
    pub(super) fn copy(&mut self, action: &CopyAction, tree: &Arc<dyn SourceTree>) -> Result<(), FileError> {
        let overrides = self.overrides(
            action.chown.as_deref(),
            action.chmod.as_deref(),
            action.default_mode,
            action.mtime.map(|seconds| Timestamp { seconds, nanoseconds: 0 }),
        )?;
        for selected in select(action, &**tree)? {
            self.check()?;
            if action.unpack == Unpack::Archives
                && selected.stat.kind == FileKind::File
                && archive::is_archive(&**tree, &selected)?
            {
                let place = self.resolve(&action.dest)?;
                self.make_directories(&place, &overrides)?;
                archive::unpack(self, &**tree, &selected, &place, overrides.owner)?;
                continue;
            }
            let dest = self.destination(action, &selected, &overrides)?;
            self.copy_selected(tree, &selected, &dest, &overrides)?;
        }
        Ok(())
    }

    /// A directory with everything in it, as it is.
    pub(super) fn copy_whole(
        &mut self,
        tree: &Arc<dyn SourceTree>,
        selected: &Selected,
        dest: &ContainerPath,
    ) -> Result<(), FileError> {
        let overrides = Overrides { owner: None, mode: None, default_mode: None, mtime: None };
        self.copy_selected(tree, selected, dest, &overrides)
    }

    /// A here-document.
    pub(super) fn write(&mut self, action: &WriteAction) -> Result<(), FileError> {
        let overrides = self.overrides(action.chown.as_deref(), action.chmod.as_deref(), None, None)?;
        let dest = self.place(&action.dest, action.name.as_bytes(), FileKind::File, true, &overrides)?;
        self.refuse_directory(&dest)?;
        let owner = overrides.owner.unwrap_or(Owner { uid: 0, gid: 0 });
        let mode = overrides.mode.as_ref().map_or(0o644, |change| change.apply(0o644, FileKind::File));
        let metadata = Metadata { mode, uid: owner.uid, gid: owner.gid, ..Metadata::default() };
        Ok(self.writer.file(&dest, &metadata, Content::Bytes(&action.content))?)
    }

    /// `WORKDIR`.
    pub(super) fn make_directory(&mut self, action: &MakeDirAction) -> Result<(), FileError> {
        let owner = match &action.owner {
            Some(owner) => find_owner(owner, self.writer.parent())?,
            None => Owner { uid: 0, gid: 0 },
        };
        let overrides = Overrides {
            owner: Some(owner),
            mode: Some(ModeChange::Exact(action.mode)),
            default_mode: None,
            mtime: None,
        };
        let place = self.resolve(action.path.as_bytes())?;
        self.make_directories(&place, &overrides)
    }

    fn overrides(
        &self,
        chown: Option<&str>,
        chmod: Option<&str>,
        default_mode: Option<u32>,
        mtime: Option<Timestamp>,
    ) -> Result<Overrides, FileError> {
        Ok(Overrides {
            owner: chown.map(|owner| find_owner(owner, self.writer.parent())).transpose()?,
            mode: chmod.map(str::parse).transpose()?,
            default_mode,
            mtime,
        })
    }

    pub(super) fn check(&self) -> Result<(), FileError> {
        if (self.cancelled)() { Err(FileError::Cancelled) } else { Ok(()) }
    }

    /// Where `path` leads in the image, as far as it exists.
    fn resolve(&self, path: impl AsRef<[u8]>) -> Result<ContainerPath, FileError> {
        let path = path.as_ref();
        let found = self.writer.resolve(path, LastLink::Follow);
        found.map(|found| found.path).map_err(|source| FileError::Read { path: ContainerPath::new(path), source })
    }

    pub(super) fn kind(&self, path: &ContainerPath) -> Result<Option<FileKind>, FileError> {
        self.writer.kind(path).map_err(|source| FileError::Read { path: path.clone(), source })
    }

    fn make_directories(&mut self, path: &ContainerPath, overrides: &Overrides) -> Result<(), FileError> {
        self.make_directories_with(path, &overrides.new_directory())
    }

    pub(super) fn make_directories_with(&mut self, path: &ContainerPath, metadata: &Metadata) -> Result<(), FileError> {
        let mut here = Some(path.clone());
        while let Some(directory) = here {
            match self.kind(&directory)? {
                Some(FileKind::Directory) => break,
                Some(_) => return Err(FileError::NotADirectory { path: directory }),
                None => here = directory.parent(),
            }
        }
        self.writer.make_directories(path, metadata)?;
        Ok(())
    }

    /// Where one selected source goes; makes the directories above.
    fn destination(
        &mut self,
        action: &CopyAction,
        selected: &Selected,
        overrides: &Overrides,
    ) -> Result<ContainerPath, FileError> {
        self.place(&action.dest, &selected.name, selected.stat.kind, action.contents, overrides)
    }

    fn place(
        &mut self,
        dest: &str,
        name: &[u8],
        kind: FileKind,
        contents: bool,
        overrides: &Overrides,
    ) -> Result<ContainerPath, FileError> {
        let is_directory = kind.is_directory();
        // A trailing slash (or dot) asks for a directory, else only what is above must exist.
        let last = dest.rsplit('/').next().unwrap_or_default();
        let above = if last.is_empty() || last == "." { dest } else { &dest[..dest.len() - last.len()] };
        let above = self.resolve(above)?;
        self.make_directories(&above, overrides)?;
        let mut place = self.resolve(ContainerPath::new(dest).as_bytes())?;
        let existing = self.kind(&place)?;
        let inside = match existing {
            Some(_) if is_directory => !contents,
            Some(FileKind::Directory) => true,
            _ => false,
        };
        if inside && !name.is_empty() {
            place = place.join(name);
        }
        if is_directory && contents && existing.is_none() {
            self.make_directories(&place, overrides)?;
        } else if let Some(parent) = place.parent() {
            self.make_directories(&parent, overrides)?;
        }
        Ok(place)
    }

    fn refuse_directory(&self, path: &ContainerPath) -> Result<(), FileError> {
        match self.kind(path)? {
            Some(FileKind::Directory) => Err(FileError::OntoDirectory { path: path.clone() }),
            _ => Ok(()),
        }
    }

    fn copy_selected(
        &mut self,
        tree: &Arc<dyn SourceTree>,
        selected: &Selected,
        dest: &ContainerPath,
        overrides: &Overrides,
    ) -> Result<(), FileError> {
        let mut names = HashMap::new();
        if !selected.stat.kind.is_directory() {
            return self.copy_leaf(tree, &selected.path, &selected.stat, dest, overrides, &mut names);
        }
        match self.kind(dest)? {
            // Only a directory that is made for it takes the source's metadata.
            None => self.new_directory(tree, &selected.path, &selected.stat, dest, overrides)?,
            Some(FileKind::Directory) => {}
            Some(_) => return Err(FileError::OntoNonDirectory { path: dest.clone() }),
        }
        for (number, entry) in selected.inside.iter().enumerate() {
            if number % 64 == 0 {
                self.check()?;
            }
            let from = selected.path.join(&entry.relative);
            let to = dest.join(&entry.relative);
            if !entry.stat.kind.is_directory() {
                self.copy_leaf(tree, &from, &entry.stat, &to, overrides, &mut names)?;
                continue;
            }
            match self.kind(&to)? {
                None => self.new_directory(tree, &from, &entry.stat, &to, overrides)?,
                Some(FileKind::Directory) if entry.chosen => {
                    let metadata = self.metadata(tree, &from, &entry.stat, overrides)?;
                    self.writer.set_directory_metadata(&to, &metadata)?;
                }
                // A directory on the way to something only gives its mode.
                Some(FileKind::Directory) => {
                    let had = self.writer.directory_metadata(&to);
                    let had = had.map_err(|source| FileError::Read { path: to.clone(), source })?;
                    let metadata = Metadata { mode: entry.stat.mode, ..had.unwrap_or_default() };
                    self.writer.set_directory_metadata(&to, &metadata)?;
                }
                Some(_) => return Err(FileError::OntoNonDirectory { path: to }),
            }
        }
        Ok(())
    }

    fn metadata(
        &self,
        tree: &Arc<dyn SourceTree>,
        from: &ContainerPath,
        stat: &Stat,
        overrides: &Overrides,
    ) -> Result<Metadata, FileError> {
        let xattrs = tree.xattrs(from).map_err(|source| FileError::Read { path: from.clone(), source })?;
        Ok(Metadata { xattrs, ..overrides.metadata_of(stat) })
    }

    fn new_directory(
        &mut self,
        tree: &Arc<dyn SourceTree>,
        from: &ContainerPath,
        stat: &Stat,
        to: &ContainerPath,
        overrides: &Overrides,
    ) -> Result<(), FileError> {
        let metadata = self.metadata(tree, from, stat, overrides)?;
        Ok(self.writer.make_directory(to, &metadata)?)
    }

    /// Copies anything but a directory. `names` has the first copy of each file with several names.
    fn copy_leaf(
        &mut self,
        tree: &Arc<dyn SourceTree>,
        from: &ContainerPath,
        stat: &Stat,
        to: &ContainerPath,
        overrides: &Overrides,
        names: &mut HashMap<(u64, u64), ContainerPath>,
    ) -> Result<(), FileError> {
        self.refuse_directory(to)?;
        let metadata = self.metadata(tree, from, stat, overrides)?;
        match stat.kind {
            FileKind::File => {
                if stat.links > 1 {
                    if let Some(first) = names.get(&stat.inode) {
                        return Ok(self.writer.hard_link(first, to)?);
                    }
                    names.insert(stat.inode, to.clone());
                }
                if stat.size == 0 {
                    return Ok(self.writer.file(to, &metadata, Content::Bytes(&[]))?);
                }
                let (tree, from) = (tree.clone(), from.clone());
                let open = move || -> io::Result<FileBytes> {
                    tree.open(&from)
                        .map_err(|error| io::Error::new(error.kind(), format!("cannot open {from}: {error}")))
                };
                self.writer.file(to, &metadata, Content::File(Box::new(open)))?;
            }
            FileKind::Symlink => {
                let target = tree.read_link(from).map_err(|source| FileError::Read { path: from.clone(), source })?;
                self.writer.symlink(to, &target, &metadata)?;
            }
            FileKind::CharDevice { .. } | FileKind::BlockDevice { .. } | FileKind::Fifo => {
                self.writer.node(to, stat.kind, &metadata)?;
            }
            FileKind::Socket | FileKind::Directory => {}
        }
        Ok(())
    }
}
