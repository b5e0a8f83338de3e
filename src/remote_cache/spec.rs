//! What a user says about caches in other places, as plain data.

use std::path::PathBuf;

use rbuild_cache::remote::CacheShape;
use rbuild_image::{Digest, Flavour, ImageRef};

use crate::request::Compression;

/// A cache to look in (`--cache-from`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheImport {
    /// A cache, or an image that carries one: in the store under that name, or in its registry.
    Registry(ImageRef),
    /// A directory.
    Local {
        /// Which.
        directory: PathBuf,
        /// Which cache in it.
        pick: LocalPick,
    },
}

/// A cache in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalPick {
    /// By its tag.
    Tag(String),
    /// By the digest of its manifest.
    Digest(Digest),
}

/// A cache to write (`--cache-to`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheExport {
    /// Where to.
    pub place: ExportPlace,
    /// Which results go in.
    pub mode: CacheMode,
    /// How layers are compressed that have no blob yet.
    pub compression: Compression,
    /// What happens to layers that have a blob of another compression.
    pub existing: ExistingBlobs,
    /// Shape of the manifest.
    pub shape: CacheShape,
    /// Names of media types.
    pub flavour: Flavour,
    /// What a failure means.
    pub on_error: OnExportError,
}

/// Where a cache is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportPlace {
    /// A registry.
    Registry(ImageRef),
    /// A directory.
    Local {
        /// Which.
        directory: PathBuf,
        /// Under which tag.
        tag: String,
    },
    /// The image that is built.
    Inline,
}

/// Which results a cache has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMode {
    /// Those whose layers are in the image.
    Min,
    /// All.
    Max,
}

/// What happens to layers that have a blob already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingBlobs {
    /// They go as they are.
    Kept,
    /// They are compressed as asked (`force-compression`).
    Recompressed,
}

/// What a cache that cannot be written means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExportError {
    /// A warning.
    Warn,
    /// The build fails (`ignore-error=false`).
    Fail,
}

/// Names of places for people.
impl std::fmt::Display for CacheImport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(name) => write!(f, "{name}"),
            Self::Local { directory, .. } => write!(f, "{}", directory.display()),
        }
    }
}

impl std::fmt::Display for ExportPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(name) => write!(f, "registry {name}"),
            Self::Local { directory, .. } => write!(f, "directory {}", directory.display()),
            Self::Inline => write!(f, "the image"),
        }
    }
}
