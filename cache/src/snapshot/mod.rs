//! Snapshots: stacks of immutable layers, and the one writable place on top of them while a step runs.
//!
//! [`Snapshots`] is the way in: [`Snapshots::prepare`] for a step, [`Snapshots::apply`] for a layer from outside.
//! How layers are kept is decided inside; outside they are seen as a [`crate::view::View`], as lower directories of a
//! mount, or as a tar.

mod apply;
mod beneath;
mod chain;
mod choice;
mod convert;
mod diff;
mod directory;
mod equal;
mod forms;
mod handle;
mod index_files;
mod kind;
mod layer_dir;
mod layer_row;
mod links;
mod made;
mod meanwhile;
mod merged;
mod overlay;
mod received;
mod recheck;
mod remembered;
mod scan;
mod seen;
mod settle;
mod store;
mod tar_layer;
mod tar_reader;
#[cfg(test)]
mod tests;
mod writable;
mod writer;
mod xattr;

pub use apply::ApplyError;
pub(crate) use choice::Snapshotting;
pub use choice::{InvalidSnapshotter, Keeping, SnapshotterChoice, WhyKept};
pub use diff::{DiffError, LayerDiff, Times};
pub use handle::{Active, Committed, Snapshot};
pub use made::MadeElsewhere;
pub use meanwhile::Meanwhile;
pub(crate) use merged::merged_digest;
pub use received::Received;
pub(crate) use recheck::FoundLayer;
pub(crate) use settle::Unsettled;
pub use store::{LayerInfo, SnapshotError, Snapshots};
pub use writable::Writable;
pub use writer::{Content, LayerWriteError, LayerWriter, Metadata, OpenContent};
pub(crate) use xattr::may_be_applied as layer_may_set;

pub(crate) use index_files::{IndexState, index_state};

/// Writes a directory that is no layer as one.
pub(crate) fn directory_to_tar(path: &std::path::Path, out: &mut (dyn std::io::Write + Send)) -> Result<(), DiffError> {
    diff::write_tar(&layer_dir::LayerDir::new(path), Times::Kept, out)?;
    Ok(())
}

/// Unpacks a layer into an empty directory that is none. The root keeps mode 0755 of 0:0.
pub(crate) fn directory_from_tar(
    path: &std::path::Path,
    tar: &mut (dyn std::io::Read + Send),
) -> Result<(), ApplyError> {
    let mut writer = LayerWriter::into_directory(path).map_err(ApplyError::Read)?;
    apply::unpack(tar, None, &mut writer)?;
    Ok(())
}
