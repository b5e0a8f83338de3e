//! What a kind of layer has to do. Nothing outside this module's parent knows which kind is in use; a store may hold both
//! side by side.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rbuild_executor::Lower;

use super::diff::{DiffError, LayerDiff, Times};
use super::directory::{self, DirectoryKind};
use super::seen::Facts;
use super::tar_layer::{self, TarKind};
use crate::path_error::PathError;
use crate::view::LayerReader;

/// One way to keep layers that never change again.
pub(super) trait Snapshotter: Send + Sync {
    /// Name in the database.
    fn name(&self) -> &'static str;

    /// Bytes on disk of the layer that was made in `scratch`.
    fn measure(&self, scratch: &Path) -> Result<u64, PathError>;

    /// Syncs the layer that was made in `scratch` and moves it to its final place, durably.
    fn seal(&self, scratch: &Path, layer: &Path) -> Result<(), PathError>;

    /// Moves the layer that was made in `scratch` to its final place, durably only when a sync of the directory that it gives
    /// has ended well: it was opened before anything else, so that it tells of all that could not be written.
    fn put(&self, scratch: &Path, layer: &Path) -> Result<OwnedFd, PathError>;

    /// Reads a layer; opens it when it is first asked.
    fn reader(&self, layer: &Path) -> Arc<dyn LayerReader>;

    /// What is given to a mount; `facts` are what is known of a layer that is a tar.
    fn lower(&self, layer: &Path, facts: Option<Facts>) -> Lower;

    /// Writes a layer as a tar. Its content is digested anew unless `known` says what it holds and there is nothing to
    /// compute that from on the way.
    fn write_tar(
        &self,
        layer: &Path,
        known: Option<LayerDiff>,
        times: Times,
        out: &mut (dyn Write + Send),
    ) -> Result<LayerDiff, DiffError>;

    /// The file that is the layer's tar, byte for byte, where it is kept as one.
    fn open_tar(&self, layer: &Path) -> Option<io::Result<File>>;
}

/// The kind with this name in the database.
pub(super) fn by_name(name: &str) -> Option<&'static dyn Snapshotter> {
    match name {
        directory::NAME => Some(&DirectoryKind),
        tar_layer::NAME => Some(&TarKind),
        _ => None,
    }
}

/// The kind of a layer that no row names, by its path below the directory of layers.
pub(super) fn by_path(path: &str) -> &'static dyn Snapshotter {
    match path.strip_suffix(tar_layer::SUFFIX) {
        Some(_) => &TarKind,
        None => &DirectoryKind,
    }
}
