//! Where the members of a layer go, whatever the layer becomes: the directory that holds a member is looked up inside the tree
//! made of the parent snapshot and of what came so far, symlinks followed, and made where it is missing (rules I-01 to I-07).

use std::io;

use rbuild_image::ContainerPath;
use rbuild_image::layer::whiteout::{InvalidWhiteout, Whiteout, classify};

use super::{FileKind, LastLink, Lookup, resolve};

/// A layer that is being made on top of a parent.
pub(crate) trait LayerTree: Lookup {
    /// Why a member cannot be placed.
    type Error: From<InvalidWhiteout>;

    /// Remembers that the parent had a say in where something went.
    fn note_dependence(&mut self);

    /// Makes `path` and its missing parents, as directories that no member describes; no symlink is followed.
    fn make_directories(&mut self, path: &ContainerPath) -> Result<(), Self::Error>;

    /// `path` lies below a whiteout.
    fn below_whiteout(path: &ContainerPath) -> Self::Error;

    /// `path` cannot be looked up.
    fn unresolved(path: &ContainerPath, source: io::Error) -> Self::Error;
}

/// Finds the directories of members. Remembers where the last one led, since the next one is mostly in the same.
#[derive(Debug, Default)]
pub(crate) struct Parents {
    last: Option<(ContainerPath, ContainerPath)>,
}

impl Parents {
    /// The directory that holds `path`, made if it is missing, symlinks resolved inside the image.
    pub(crate) fn of<T: LayerTree>(&mut self, tree: &mut T, path: &ContainerPath) -> Result<ContainerPath, T::Error> {
        let given = path.parent().unwrap_or_else(ContainerPath::root);
        if let Some((last, resolved)) = &self.last
            && *last == given
        {
            return Ok(resolved.clone());
        }
        for name in given.components() {
            if classify(name)? != Whiteout::None {
                return Err(T::below_whiteout(path));
            }
        }
        let (resolved, kind) = resolve_member(tree, &given, LastLink::Follow)?;
        if !kind.is_some_and(FileKind::is_directory) {
            tree.note_dependence();
            tree.make_directories(&resolved)?;
        }
        self.last = Some((given, resolved.clone()));
        Ok(resolved)
    }

    /// For when a directory comes: a symlink of that name may have been what the last one led through.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// For when what is at `path` goes.
    pub(crate) fn forget_below(&mut self, path: &ContainerPath) {
        self.last = self.last.take().filter(|(_, resolved)| !resolved.starts_with(path));
    }
}

/// Where `path` leads in the layer, and what is there.
pub(crate) fn resolve_member<T: LayerTree>(
    tree: &mut T,
    path: &ContainerPath,
    last: LastLink,
) -> Result<(ContainerPath, Option<FileKind>), T::Error> {
    let found = resolve(&*tree, path.as_bytes(), last).map_err(|source| T::unresolved(path, source))?;
    if found.path != *path {
        tree.note_dependence();
    }
    Ok((found.path, found.kind))
}
