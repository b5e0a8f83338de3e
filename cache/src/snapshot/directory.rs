//! The directory kind: a layer is an immutable directory with overlayfs's whiteouts and opaque marks in it.
//!
//! ```text
//! active:     SCRATCH/upper   becomes the layer     SCRATCH/work   overlayfs's own, thrown away
//! committed:  layers/PATH
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_executor::{Lower, Rootfs};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::diff::{self, DiffError, LayerDiff, Times};
use super::kind::Snapshotter;
use super::layer_dir::LayerDir;
use super::scan::{self, Detail};
use super::seen::Facts;
use super::writer::{LayerWriter, Metadata};
use crate::failpoint;
use crate::path_error::{AtPath, PathError};
use crate::view::{FileKind, LayerReader, Stat, View};

/// Name of this kind in the database.
pub(super) const NAME: &str = "directory";

/// Layers as directories.
#[derive(Debug)]
pub(super) struct DirectoryKind;

fn upper(scratch: &Path) -> PathBuf {
    scratch.join("upper")
}

fn work(scratch: &Path) -> PathBuf {
    scratch.join("work")
}

/// Makes the private place `scratch` for a step's changes to a root that looks like `root`.
pub(super) fn prepare(scratch: &Path, root: Option<&Stat>) -> Result<(), PathError> {
    for path in [scratch.to_path_buf(), upper(scratch), work(scratch)] {
        rustix::fs::mkdir(&path, Mode::RWXU).at("create", &path)?;
    }
    look_like(&upper(scratch), root)
}

/// Whether a layer that is being made says anything of a name in its root.
pub(super) fn says(scratch: &Path, name: &str) -> Result<bool, PathError> {
    let path = upper(scratch).join(name);
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.at("inspect", &path).map(|_| true),
    }
}

/// Gives the root of a layer the metadata of what is below it: a mount shows the upper directory's own as the root's.
fn look_like(path: &Path, root: Option<&Stat>) -> Result<(), PathError> {
    let metadata = root.map_or_else(|| Metadata { mode: 0o755, ..Metadata::default() }, Metadata::from);
    let dir = LayerDir::new(path);
    metadata.apply_at(dir.fd().at("open", path)?, b".", FileKind::Directory).at("set metadata of", path)
}

/// Makes the directory `place` for the files of a layer that nobody knows the parent of.
pub(super) fn ahead(place: &Path) -> Result<LayerWriter, PathError> {
    rustix::fs::mkdir(place, Mode::RWXU).at("create", place)?;
    let root = open_directory(place)?;
    LayerWriter::ahead(root).at("write into", place)
}

/// Makes the files that were written to `ahead` the changes in `scratch`, to a root that looks like `root` where they do
/// not say how it looks.
pub(super) fn place(ahead: &Path, scratch: &Path, root: Option<Option<&Stat>>) -> Result<(), PathError> {
    // In place of the empty one.
    std::fs::rename(ahead, upper(scratch)).at("rename", ahead)?;
    root.map_or(Ok(()), |root| look_like(&upper(scratch), root))
}

fn open_directory(path: &Path) -> Result<OwnedFd, PathError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

/// How such a place is mounted on `lowers`, the topmost first.
pub(super) fn rootfs(scratch: &Path, lowers: Vec<Lower>) -> Rootfs {
    Rootfs::Overlay { lowers, upper: upper(scratch), work: work(scratch) }
}

/// Writes into such a place without mounting it.
pub(super) fn writer(scratch: &Path, parent: Arc<View>) -> Result<LayerWriter, PathError> {
    let path = upper(scratch);
    let root = open_directory(&path)?;
    LayerWriter::new(root, parent).at("inspect the parent of", &path)
}

/// Reads what was changed in such a place so far.
pub(super) fn changes(scratch: &Path) -> Arc<dyn LayerReader> {
    Arc::new(LayerDir::new(&upper(scratch)))
}

impl Snapshotter for DirectoryKind {
    fn name(&self) -> &'static str {
        NAME
    }

    fn measure(&self, scratch: &Path) -> Result<u64, PathError> {
        let path = upper(scratch);
        let layer = LayerDir::new(&path);
        let entries = scan::scan(&layer, Detail::Stat).at("list", &path)?;
        let root = Stat::at(layer.fd().at("open", &path)?, b"").at("inspect", &path)?;
        Ok(root.blocks * 512 + scan::disk_usage(&entries))
    }

    fn seal(&self, scratch: &Path, layer: &Path) -> Result<(), PathError> {
        let path = upper(scratch);
        let root = open_directory(&path)?;
        failpoint::hit("layer-sync").at("sync", &path)?;
        rustix::fs::syncfs(root.as_fd()).at("sync", &path)?;
        failpoint::hit("layer-rename").at("rename", &path)?;
        rustix::fs::renameat_with(CWD, &path, CWD, layer, RenameFlags::NOREPLACE).at("rename", &path)?;
        let Some(parent) = layer.parent() else { return Ok(()) };
        failpoint::hit("layer-sync-directory").at("sync", parent)?;
        let parent_dir = open_directory(parent)?;
        rustix::fs::fsync(&parent_dir).at("sync", parent)
    }

    fn put(&self, scratch: &Path, layer: &Path) -> Result<OwnedFd, PathError> {
        let path = upper(scratch);
        let root = open_directory(&path)?;
        failpoint::hit("layer-rename").at("rename", &path)?;
        rustix::fs::renameat_with(CWD, &path, CWD, layer, RenameFlags::NOREPLACE).at("rename", &path)?;
        Ok(root)
    }

    fn reader(&self, layer: &Path) -> Arc<dyn LayerReader> {
        Arc::new(LayerDir::new(layer))
    }

    fn lower(&self, layer: &Path, _: Option<Facts>) -> Lower {
        Lower::Directory(layer.to_path_buf())
    }

    fn write_tar(
        &self,
        layer: &Path,
        _known: Option<LayerDiff>,
        times: Times,
        out: &mut (dyn Write + Send),
    ) -> Result<LayerDiff, DiffError> {
        diff::write_tar(&LayerDir::new(layer), times, out)
    }

    fn open_tar(&self, _: &Path) -> Option<io::Result<File>> {
        None
    }
}
