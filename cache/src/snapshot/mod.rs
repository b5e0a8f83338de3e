//! Snapshots: stacks of immutable layers, and the one writable place on top of them while a step runs.
//!
//! [`Snapshots`] is the way in: [`Snapshots::prepare`] for a step, [`Snapshots::apply`] for a layer from outside.
//! How layers are kept is decided inside; outside they are seen as a [`crate::view::View`], as lower directories of a
//! mount, or as a tar.

mod apply;
mod beneath;
mod diff;
mod directory;
mod handle;
mod kind;
mod layer_dir;
mod made;
mod overlay;
mod recheck;
mod scan;
mod store;
#[cfg(test)]
mod tests;
mod writable;
mod writer;
mod xattr;

pub use apply::ApplyError;
pub use diff::{DiffError, LayerDiff, Times};
pub use handle::{Active, Committed, Snapshot};
pub use made::MadeElsewhere;
pub(crate) use recheck::FoundLayer;
pub use store::{LayerInfo, SnapshotError, Snapshots};
pub use writable::Writable;
pub use writer::{Content, LayerWriteError, LayerWriter, Metadata, OpenContent};
