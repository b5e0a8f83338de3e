//! What a kind of snapshot has to do. Nothing outside this module's parent knows which kind is in use.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_executor::Rootfs;

use super::diff::{DiffError, LayerDiff, Times};
use super::directory::{self, DirectoryKind};
use super::writer::LayerWriter;
use crate::path_error::PathError;
use crate::view::{LayerReader, Stat, View};

/// A layer that is ready to become visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Bytes on disk.
    pub(super) size: u64,
}

/// One way to keep layers.
pub(super) trait Snapshotter: Send + Sync {
    /// Name in the database.
    fn name(&self) -> &'static str;

    /// Makes the private place `scratch` for an active snapshot whose root looks like `root`.
    fn prepare(&self, scratch: &Path, root: Option<&Stat>) -> Result<(), PathError>;

    /// How an active snapshot on `lowers` (topmost first) is mounted.
    fn rootfs(&self, scratch: &Path, lowers: Vec<PathBuf>) -> Rootfs;

    /// Writes into an active snapshot without mounting it.
    fn writer(&self, scratch: &Path, parent: Arc<View>) -> Result<LayerWriter, PathError>;

    /// Reads what was changed in an active snapshot so far.
    fn changes(&self, scratch: &Path) -> Arc<dyn LayerReader>;

    /// What an active snapshot takes on disk.
    fn measure(&self, scratch: &Path) -> Result<Sealed, PathError>;

    /// Syncs an active snapshot's layer and moves it to its final place, durably.
    fn seal(&self, scratch: &Path, layer: &Path) -> Result<(), PathError>;

    /// Reads a layer; opens it when it is first asked.
    fn reader(&self, layer: &Path) -> Arc<dyn LayerReader>;

    /// What is given to a mount as a lower directory.
    fn lower(&self, layer: &Path) -> PathBuf;

    /// Writes a layer as a tar.
    fn write_tar(&self, layer: &Path, times: Times, out: &mut (dyn Write + Send)) -> Result<LayerDiff, DiffError>;
}

/// The kind that new layers get.
pub(super) fn for_new_layers() -> &'static dyn Snapshotter {
    &DirectoryKind
}

/// The kind with this name in the database.
pub(super) fn by_name(name: &str) -> Option<&'static dyn Snapshotter> {
    (name == directory::NAME).then_some(&DirectoryKind as &dyn Snapshotter)
}
