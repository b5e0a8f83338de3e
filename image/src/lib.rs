//! The OCI image model, and the ways in and out of it.
//!
//! Knows formats and transports, not where bytes are kept: it streams to a `BlobSink` and from a `BlobSource`,
//! which the store implements.

mod digest;
mod path;
mod platform;
mod reference;

pub use digest::{Algorithm, ChainId, ContentDigest, DiffId, Digest, Hashing, InvalidDigest};
pub use path::ContainerPath;
pub use platform::{InvalidPlatform, Platform};
pub use reference::{ImageRef, InvalidReference};
