//! Reads what `docker save` wrote before it wrote OCI layouts: `manifest.json`, configurations and layer tars under
//! names of any kind. There is no manifest inside, so one is made; the configuration, whose digest is the image's id,
//! stays as it is.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::members::{Members, Section};
use super::{ArchiveError, ArchiveImage, ArchiveManifest, doing, tagged_name};
use crate::assemble::{LayerBlob, assemble_with_config};
use crate::blob::MemoryBlobs;
use crate::config::ImageConfig;
use crate::descriptor::Descriptor;
use crate::digest::{DiffId, Digest, Hashing};
use crate::document::{DocumentError, MAX_CONFIG_BYTES, MAX_LAYERS, MAX_MANIFEST_BYTES};
use crate::layer::detect;
use crate::media_type::{Compression, Flavour, MediaType};
use crate::strict_json::{self, null_as_default};

/// One image of `manifest.json`.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default, deserialize_with = "null_as_default")]
    names: Vec<String>,
    #[serde(rename = "Layers", default, deserialize_with = "null_as_default")]
    layers: Vec<String>,
}

/// Enumerates the images, says in `located` where their blobs are, and puts the manifests it makes into `made`.
pub(super) fn read(
    members: &Members,
    located: &mut BTreeMap<Digest, Section>,
    made: &mut MemoryBlobs<'static>,
) -> Result<Vec<ArchiveImage>, ArchiveError> {
    let bytes = members.read("manifest.json", MAX_MANIFEST_BYTES)?;
    let items: Vec<Item> = strict_json::parse(&bytes, MAX_MANIFEST_BYTES)
        .map_err(|source| ArchiveError::Json { name: "manifest.json".to_owned(), source })?;
    // Images of one archive share layers: each is looked at once.
    let mut seen = BTreeMap::new();
    let mut images = Vec::with_capacity(items.len().min(1024));
    for item in &items {
        images.push(image(members, item, &mut seen, located, made)?);
    }
    Ok(images)
}

fn image(
    members: &Members,
    item: &Item,
    seen: &mut BTreeMap<(String, DiffId), Descriptor>,
    located: &mut BTreeMap<Digest, Section>,
    made: &mut MemoryBlobs<'static>,
) -> Result<ArchiveImage, ArchiveError> {
    let names = item.names.iter().map(|name| tagged_name(name)).collect::<Result<Vec<_>, _>>()?;
    let section = members.find(&item.config)?;
    let bytes = members.read(&item.config, MAX_CONFIG_BYTES)?;
    let id = Digest::sha256(&bytes);
    let document = |source| ArchiveError::Document { digest: id, source };
    let image_config = ImageConfig::parse(&bytes).map_err(|source| document(source.into()))?;
    let diff_ids = &image_config.rootfs.diff_ids;
    if item.layers.len() > MAX_LAYERS {
        return Err(document(DocumentError::TooManyLayers { count: item.layers.len() }));
    }
    if diff_ids.len() != item.layers.len() {
        return Err(document(DocumentError::LayerCount { layers: item.layers.len(), diff_ids: diff_ids.len() }));
    }
    let mut descriptors = Vec::with_capacity(diff_ids.len());
    for (name, diff_id) in item.layers.iter().zip(diff_ids) {
        let key = (name.clone(), *diff_id);
        let descriptor = match seen.get(&key) {
            Some(descriptor) => descriptor.clone(),
            None => {
                let section = members.find(name)?;
                let descriptor = layer(name, &section, diff_id)?;
                located.insert(descriptor.digest, section);
                seen.insert(key, descriptor.clone());
                descriptor
            }
        };
        descriptors.push(descriptor);
    }
    let platform = image_config.platform();
    let assembled = assemble_with_config(bytes, &platform, &descriptors, Flavour::Docker, &BTreeMap::new())?;
    located.insert(id, section);
    made.insert(assembled.manifest.1.clone());
    let layers = assembled.layers.iter().zip(diff_ids);
    let layers = layers.map(|(descriptor, diff_id)| LayerBlob { descriptor: descriptor.clone(), diff_id: *diff_id });
    let manifest = ArchiveManifest {
        platform,
        layers: layers.collect(),
        manifest: assembled.manifest,
        config: assembled.config,
        image_config,
    };
    Ok(ArchiveImage { names, label: None, indexes: Vec::new(), manifests: vec![manifest] })
}

/// Describes a layer. A plain tar has its diff id for digest, which whoever takes it will check; a compressed one has
/// to be hashed, unless its name is its digest.
fn layer(name: &str, section: &Section, diff_id: &DiffId) -> Result<Descriptor, ArchiveError> {
    let read = |error| doing(format!("read layer {name:?}"))(error);
    let compression = detect(&section.start(6).map_err(read)?);
    let Some(media_type) = MediaType::layer(Flavour::Docker, compression) else {
        return Err(ArchiveError::LayerCompression { name: name.to_owned(), compression });
    };
    let digest = match (compression, name.strip_prefix("blobs/sha256/")) {
        (Compression::None, _) => *diff_id.digest(),
        (_, Some(hex)) if let Ok(digest) = format!("sha256:{hex}").parse() => digest,
        _ => {
            let mut hashing = Hashing::new(section.reader().map_err(read)?);
            std::io::copy(&mut hashing, &mut std::io::sink()).map_err(read)?;
            hashing.finish().1
        }
    };
    Ok(Descriptor::new(media_type, digest, section.size()))
}
