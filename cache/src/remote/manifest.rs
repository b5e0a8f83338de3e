//! The manifest of a cache: an image manifest whose config is the cache config, or an index that lists layers and config
//! side by side (BuildKit's older shape).

use std::collections::BTreeMap;

use rbuild_image::{Descriptor, Digest, Document, Flavour, Index, MAX_LAYERS, Manifest, MediaType};

use super::format::CACHE_CONFIG_TYPE;

/// The annotation with the digest of a layer's uncompressed tar.
pub(super) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// The annotation with the time when a layer was made.
pub(super) const CREATED: &str = "buildkit/createdat";

/// The shape of a cache's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheShape {
    /// An OCI image manifest (`image-manifest=true`).
    Image,
    /// An index or manifest list.
    Index,
}

/// What a cache's manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheManifest {
    /// The cache config.
    pub config: Descriptor,
    /// The layers by blob.
    pub layers: BTreeMap<Digest, Descriptor>,
}

impl CacheManifest {
    /// Reads a document; `None` when it is no cache.
    pub fn read(document: &Document) -> Option<Self> {
        let is_config = |descriptor: &&Descriptor| descriptor.media_type.as_str() == CACHE_CONFIG_TYPE;
        let (config, layers) = match document {
            Document::Manifest(manifest) => (Some(&manifest.config).filter(is_config)?, &manifest.layers),
            Document::Index(index) => (index.manifests.iter().find(is_config)?, &index.manifests),
        };
        let layer = |layer: &Descriptor| (layer.digest, layer.clone());
        let layers = layers.iter().filter(|layer| layer.media_type.is_layer()).map(layer).collect();
        Some(Self { config: config.clone(), layers })
    }
}

/// Writes the manifest of a cache. A cache of more layers than an image may have becomes an index whatever was asked.
pub fn write_manifest(
    config: &[u8],
    layers: &[Descriptor],
    shape: CacheShape,
    flavour: Flavour,
) -> (MediaType, Vec<u8>) {
    let config = Descriptor::of(MediaType::from(CACHE_CONFIG_TYPE), config);
    let named = |layer: &Descriptor| {
        let media_type = layer.media_type.compression().and_then(|how| MediaType::layer(flavour, how));
        Descriptor { media_type: media_type.unwrap_or_else(|| layer.media_type.clone()), ..layer.clone() }
    };
    let mut layers: Vec<Descriptor> = layers.iter().map(named).collect();
    if shape == CacheShape::Image && flavour == Flavour::Oci && layers.len() <= MAX_LAYERS {
        let media_type = MediaType::manifest(flavour);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type.clone()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: serde_json::Map::new(),
        };
        return (media_type, manifest.to_json());
    }
    layers.push(config);
    let media_type = MediaType::index(flavour);
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        artifact_type: None,
        manifests: layers,
        subject: None,
        annotations: BTreeMap::new(),
        extra: serde_json::Map::new(),
    };
    (media_type, index.to_json())
}
