//! The layer format: tar, whiteouts, compression, and what a layer is worth as a cache key.

mod content_digest;
mod decoder;
mod encoder;
mod entry;
mod gzip;
mod tar_field;
mod tar_pax;
mod tar_reader;
mod tar_writer;
pub mod whiteout;
mod writer;

pub use content_digest::{FileContent, FileHasher, LayerHasher};
pub use decoder::{DecodeLimitExceeded, DecodeLimits, Decoder, detect};
pub use encoder::{EncodeOptions, Encoder, UnsupportedEncoding, ZSTD_ALGORITHM};
pub use entry::{Device, Entry, EntryKind, Placement, Segment, SparseMap, Timestamp};
pub use gzip::{GZIP_ALGORITHM, GzipWriter};
pub use tar_reader::{TarError, TarLimits, TarReader};
pub use tar_writer::{TarWriteError, TarWriter};
pub use writer::{LayerSummary, LayerWriter};
