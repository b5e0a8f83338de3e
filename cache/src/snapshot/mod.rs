//! Snapshots: stacks of immutable layers, and the one writable directory on top of them while a step runs.

mod beneath;
mod layer_dir;
mod overlay;
mod writer;
mod xattr;

pub use writer::{Content, LayerWriteError, LayerWriter, Metadata, OpenContent};
