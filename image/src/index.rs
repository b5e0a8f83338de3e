//! An index: manifests for several platforms (OCI image-spec, `image-index.md`; Docker's manifest list).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::strict_json::null_as_default;

/// The annotation by which BuildKit marks manifests that describe another one rather than being an image.
pub(crate) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The annotation by which it says which one.
pub(crate) const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// An index or manifest list. Field order as in Go's struct; unknown fields are kept.
///
/// To pass an index on unchanged keep its bytes: the digest is of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// What the document says it is; OCI allows it to be missing.
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What kind of artefact this is, when it is no image.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, or further indexes.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Notes for tools and people.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that this crate does not know, kept as they were.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Index {
    /// Writes the document as BuildKit does: two spaces of indentation, no newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("an index has only string keys and finite numbers")
    }

    /// The entry that serves `wanted` best, as containerd chooses: closest platform, then first in the document.
    /// Entries without a platform come last; attestations never.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let rank = |descriptor: &Descriptor| match &descriptor.platform {
            Some(platform) => platform.rank_for(wanted),
            None => Some(u32::MAX),
        };
        self.manifests
            .iter()
            .filter(|descriptor| is_image(descriptor))
            .filter_map(|descriptor| Some((rank(descriptor)?, descriptor)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, descriptor)| descriptor)
    }

    /// The manifests that BuildKit put beside the one with this digest: what is attested about it.
    pub fn attestations_of(&self, manifest: &Digest) -> Vec<&Descriptor> {
        let about = manifest.to_string();
        let is_one = |descriptor: &&Descriptor| {
            descriptor.media_type.is_manifest() && descriptor.annotations.get(REFERENCE_DIGEST) == Some(&about)
        };
        self.manifests.iter().filter(is_one).collect()
    }

    /// The platforms on offer, in the document's order.
    pub fn platforms(&self) -> Vec<&Platform> {
        self.manifests.iter().filter(|descriptor| is_image(descriptor)).filter_map(|d| d.platform.as_ref()).collect()
    }
}

/// Whether an index entry is an image or a further index, not an attestation about one.
pub fn is_image(descriptor: &Descriptor) -> bool {
    (descriptor.media_type.is_manifest() || descriptor.media_type.is_index())
        && !descriptor.annotations.contains_key(REFERENCE_TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn entry(platform: Option<&str>, seed: &str) -> Descriptor {
        let platform = platform.map(|text| text.parse().unwrap());
        Descriptor { platform, ..Descriptor::new(MediaType::OciManifest, Digest::sha256(seed), 1) }
    }

    #[test]
    fn the_closest_platform_is_chosen() {
        let mut attestation = entry(Some("linux/amd64"), "attestation");
        attestation.annotations.insert(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned());
        let index = Index {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            artifact_type: None,
            manifests: vec![
                attestation,
                entry(Some("linux/arm/v6"), "v6"),
                entry(Some("linux/arm/v7"), "v7"),
                entry(Some("linux/amd64"), "amd64"),
                entry(Some("linux/amd64"), "second amd64"),
            ],
            subject: None,
            annotations: BTreeMap::new(),
            extra: serde_json::Map::new(),
        };
        let chosen = |text: &str| index.select(&text.parse().unwrap()).map(|d| d.digest);
        assert_eq!(chosen("linux/amd64"), Some(Digest::sha256("amd64")));
        assert_eq!(chosen("linux/arm/v7"), Some(Digest::sha256("v7")));
        assert_eq!(chosen("linux/arm/v6"), Some(Digest::sha256("v6")));
        assert_eq!(chosen("linux/s390x"), None);
        assert_eq!(index.platforms().len(), 4);
    }
}
