//! Descriptors: what names a blob from the outside (OCI image-spec, `descriptor.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::strict_json::null_as_default;

/// Type, digest and size of a blob, with what an index says beside it. Field order as in Go's struct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What the blob is.
    #[serde(rename = "mediaType")]
    pub media_type: MediaType,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Where else it may be fetched. Never followed by this crate.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Notes for tools and people.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// For which platform the blob is, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Fields that this crate does not know (`data`, `artifactType`, …), kept as they were.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    /// A descriptor with nothing but the three required fields.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            extra: serde_json::Map::new(),
        }
    }

    /// Describes `bytes`.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// Checks bytes held in memory against size and digest.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), DescriptorMismatch> {
        if bytes.len() as u64 != self.size {
            return Err(DescriptorMismatch::Size { digest: self.digest, want: self.size, got: bytes.len() as u64 });
        }
        let got = Digest::compute(self.digest.algorithm(), bytes);
        if got != self.digest {
            return Err(DescriptorMismatch::Digest { want: self.digest, got });
        }
        Ok(())
    }
}

/// Bytes that are not what their descriptor says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorMismatch {
    /// More or fewer bytes.
    #[error("blob {digest} has {got} bytes, its descriptor says {want}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// What the descriptor says.
        want: u64,
        /// What was read.
        got: u64,
    },
    /// Other bytes.
    #[error("blob {want} has the digest {got}")]
    Digest {
        /// What the descriptor says.
        want: Digest,
        /// What was read.
        got: Digest,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_says_what_came_instead() {
        let digest = Digest::sha256("abc");
        let descriptor = Descriptor::new(MediaType::OciLayer, digest, 3);
        assert_eq!(descriptor.verify(b"abc"), Ok(()));
        for (bytes, words) in [
            (&b"abcd"[..], format!("blob {digest} has 4 bytes, its descriptor says 3")),
            (b"abd", format!("blob {digest} has the digest {}", Digest::sha256("abd"))),
        ] {
            assert_eq!(descriptor.verify(bytes).unwrap_err().to_string(), words);
        }
    }
}
