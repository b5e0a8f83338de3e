//! The layer format: tar, whiteouts, compression, and what a layer is worth as a cache key.

mod entry;
mod tar_field;
mod tar_pax;
mod tar_reader;
mod tar_writer;
pub mod whiteout;

pub use entry::{Device, Entry, EntryKind, Segment, SparseMap, Timestamp};
pub use tar_reader::{TarError, TarLimits, TarReader};
pub use tar_writer::{TarWriteError, TarWriter};
