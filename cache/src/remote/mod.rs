//! Caches in other places, in BuildKit's format: a registry, a directory, inside an image.
//!
//! [`RemoteCache::open`] fetches a manifest and a config and nothing else; [`RemoteCache::bring`] fetches the layers of
//! one result into a store when something needs it. [`CacheDraft`] is how a cache is written; [`CacheTarget`] is where
//! to. Whatever another place says is verified: blobs by their digests, layers by their diff_ids, claims about content
//! by computing it again. A place that lies or fails costs time, never a wrong result.

mod bring;
mod draft;
mod format;
mod inline;
mod local;
mod manifest;
mod open;
mod recorded;
mod registry;
#[cfg(test)]
mod tests;

pub use bring::BringError;
pub use draft::{CacheDraft, DraftLayer, DraftRecord};
pub use format::{CACHE_CONFIG_TYPE, CacheConfigError, MAX_CACHE_CONFIG_BYTES};
pub use inline::{INLINE_CACHE_FIELD, embed, forget};
pub use local::LocalCache;
pub use manifest::{CacheManifest, CacheShape, write_manifest};
pub use open::{OpenCacheError, RemoteCache, RemoteLayer, RemoteResult};
pub use recorded::RecordedStep;
pub use registry::RegistryCache;

use std::io;

use rbuild_image::registry::{RegistryError, TransferSink};
use rbuild_image::{BlobSink, BlobSource, Descriptor, Digest, Document, MediaType};

/// Where a cache is read from.
pub trait CacheSource: Send + Sync {
    /// The manifest or index that the cache's name stands for.
    fn root(&self) -> Result<(Descriptor, Document), PlaceError>;

    /// A further manifest.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, PlaceError>;

    /// A small blob, verified.
    fn bytes(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, PlaceError>;

    /// A blob into `sink`, verified.
    fn blob(&self, blob: &Descriptor, sink: &dyn BlobSink, watch: &dyn TransferSink) -> Result<(), PlaceError>;
}

/// Where a cache is written to.
pub trait CacheTarget: Send + Sync {
    /// Sees to it that a blob is there.
    fn put_blob(&self, blob: &Descriptor, from: &dyn BlobSource, watch: &dyn TransferSink) -> Result<(), PlaceError>;

    /// Makes the cache's name stand for this manifest or index; all that it names is there.
    fn put_root(&self, media_type: &MediaType, bytes: &[u8]) -> Result<Digest, PlaceError>;
}

/// Why a place could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A directory.
    #[error(transparent)]
    Directory(#[from] local::LocalCacheError),
    /// Bytes could not be kept or read here.
    #[error("cannot move a blob of the cache")]
    Blob(#[source] io::Error),
}

impl PlaceError {
    /// Whether there is no such cache (yet), which is how every first build finds it.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_not_found(),
            Self::Directory(error) => error.is_absent(),
            Self::Blob(_) => false,
        }
    }

    /// Whether the user asked to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_cancelled())
    }
}
