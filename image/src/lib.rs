//! The OCI image model, and the ways in and out of it.
//!
//! Knows formats and transports, not where bytes are kept: it streams to a `BlobSink` and from a `BlobSource`,
//! which the store implements.

pub mod archive;
mod assemble;
mod blob;
mod chain;
mod config;
pub mod credentials;
mod descriptor;
mod digest;
mod document;
mod index;
pub mod layer;
mod manifest;
mod media_type;
mod path;
mod platform;
pub mod pull;
pub mod push;
mod reference;
pub mod registry;
mod strict_json;
pub mod write_behind;

pub use assemble::{
    ATTESTATION_ARTIFACT, AssembleError, AssembledImage, AttestationForm, Attestations, DescribedBytes, LayerBlob,
    assemble, assemble_attestations, assemble_index, assemble_with_config,
};
pub use blob::{BlobSink, BlobSource, BlobWriter, MemoryBlobs, copy_blob};
pub use chain::chain_ids;
pub use config::{Empty, Healthcheck, History, ImageConfig, RootFs, RuntimeConfig};
pub use descriptor::{Descriptor, DescriptorMismatch};
pub use digest::{Algorithm, ChainId, ContentDigest, DiffId, Digest, Hashing, InvalidDigest};
pub use document::{
    Document, DocumentError, MAX_CONFIG_BYTES, MAX_INDEX_NESTING, MAX_LAYERS, MAX_MANIFEST_BYTES, parse_config,
    parse_index, parse_manifest,
};
pub use index::{Index, is_image};
pub use manifest::Manifest;
pub use media_type::{Compression, Flavour, MediaType};
pub use path::ContainerPath;
pub use platform::{InvalidPlatform, Platform};
pub use reference::{ImageRef, InvalidReference};
pub use strict_json::JsonError;
