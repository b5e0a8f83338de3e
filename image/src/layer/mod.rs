//! The layer format: tar, whiteouts, compression, and what a layer is worth as a cache key.

mod blocks;
mod content_digest;
mod decoder;
mod deflate;
mod encoder;
mod entry;
mod tar_field;
mod tar_pax;
mod tar_reader;
mod tar_writer;
pub mod whiteout;
mod writer;

pub use blocks::{GZIP_ALGORITHM, ZSTD_ALGORITHM};
pub use content_digest::{FileContent, FileHasher, LayerHasher};
pub use decoder::{DecodeLimitExceeded, DecodeLimits, Decoder, detect};
pub use encoder::{EncodeOptions, Encoder, UnsupportedEncoding};
pub use entry::{Device, Entry, EntryKind, Placement, Segment, SparseMap, Timestamp};
pub use tar_reader::{TarError, TarLimits, TarReader};
pub use tar_writer::{TarWriteError, TarWriter};
pub use writer::{LayerSummary, LayerWriter};
