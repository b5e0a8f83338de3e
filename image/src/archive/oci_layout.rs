//! Reads OCI image layouts (OCI image-spec, `image-layout.md`).

use serde::Deserialize;

use super::members::Members;
use super::{ArchiveError, ArchiveImage, ArchiveManifest, tagged_name};
use crate::assemble::{DescribedBytes, LayerBlob};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::document::{
    Document, DocumentError, MAX_CONFIG_BYTES, MAX_INDEX_NESTING, MAX_MANIFEST_BYTES, parse_config, parse_index,
};
use crate::index::is_image;
use crate::manifest::Manifest;
use crate::reference::ImageRef;
use crate::strict_json;

/// The annotation with an image's whole name.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with an image's tag, or its name, depending on who wrote it.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The only version there is.
pub(super) const LAYOUT_VERSION: &str = "1.0.0";

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// The name of the member that holds a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Enumerates the images of a layout. Artefacts that are no images are passed over.
pub(super) fn read(members: &Members) -> Result<Vec<ArchiveImage>, ArchiveError> {
    let json = |name: &'static str| move |source| ArchiveError::Json { name: name.to_owned(), source };
    let layout: Layout =
        strict_json::parse(&members.read("oci-layout", 64 << 10)?, 64 << 10).map_err(json("oci-layout"))?;
    if layout.version != LAYOUT_VERSION {
        return Err(ArchiveError::LayoutVersion { found: layout.version.chars().take(40).collect() });
    }
    let bytes = members.read("index.json", MAX_MANIFEST_BYTES)?;
    let index = parse_index(&bytes, None)
        .map_err(|source| ArchiveError::Document { digest: Digest::sha256(&bytes), source })?;
    let mut images: Vec<(Digest, ArchiveImage)> = Vec::new();
    for descriptor in index.manifests.iter().filter(|descriptor| is_image(descriptor)) {
        let (name, label) = name_of(descriptor)?;
        // An image with several names has one line for each.
        if let Some((_, image)) = images.iter_mut().find(|(digest, _)| *digest == descriptor.digest) {
            image.names.extend(name.filter(|name| !image.names.contains(name)));
            image.label = image.label.take().or(label);
            continue;
        }
        let mut image =
            ArchiveImage { names: name.into_iter().collect(), label, indexes: Vec::new(), manifests: Vec::new() };
        collect(members, descriptor, 1, &mut image)?;
        if !image.manifests.is_empty() {
            images.push((descriptor.digest, image));
        }
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// The name of an image, or the label that is none. Names by digest are no tags and are passed over.
fn name_of(descriptor: &Descriptor) -> Result<(Option<ImageRef>, Option<String>), ArchiveError> {
    if let Some(name) = descriptor.annotations.get(IMAGE_NAME) {
        let name = if name.contains('@') { None } else { Some(tagged_name(name)?) };
        return Ok((name, None));
    }
    // Some write a whole name here, some a tag, some anything.
    let Some(label) = descriptor.annotations.get(REF_NAME) else { return Ok((None, None)) };
    match tagged_name(label) {
        Ok(name) if label.contains([':', '/']) => Ok((Some(name), None)),
        _ => Ok((None, Some(label.clone()))),
    }
}

/// Adds the manifests that `descriptor` leads to. Below an index those may be missing whose blobs the writer left out.
fn collect(
    members: &Members,
    descriptor: &Descriptor,
    depth: usize,
    image: &mut ArchiveImage,
) -> Result<(), ArchiveError> {
    if depth > MAX_INDEX_NESTING {
        return Err(ArchiveError::Nesting { digest: descriptor.digest, limit: MAX_INDEX_NESTING });
    }
    let bytes = document(members, descriptor, MAX_MANIFEST_BYTES)?;
    let parsed = Document::parse(&bytes, Some(&descriptor.media_type));
    let parsed = parsed.map_err(|source| ArchiveError::Document { digest: descriptor.digest, source })?;
    let plain = Descriptor { annotations: Default::default(), ..descriptor.clone() };
    match parsed {
        Document::Manifest(manifest) if manifest.config.media_type.is_config() => {
            image.manifests.push(manifest_of(members, (plain, bytes), &manifest)?);
            Ok(())
        }
        Document::Manifest(_) => Ok(()),
        Document::Index(index) => {
            image.indexes.push((plain, bytes));
            let (before, mut missing) = (image.manifests.len(), None);
            for child in index.manifests.iter().filter(|child| is_image(child)) {
                match collect(members, child, depth + 1, image) {
                    Err(error @ ArchiveError::MissingMember { .. }) => missing = Some(error),
                    other => other?,
                }
            }
            match missing {
                Some(missing) if image.manifests.len() == before => Err(missing),
                _ => Ok(()),
            }
        }
    }
}

fn manifest_of(
    members: &Members,
    manifest: DescribedBytes,
    parsed: &Manifest,
) -> Result<ArchiveManifest, ArchiveError> {
    let bytes = document(members, &parsed.config, MAX_CONFIG_BYTES)?;
    let image_config = parse_config(&bytes, parsed)
        .map_err(|source| ArchiveError::Document { digest: parsed.config.digest, source })?;
    let mut layers = Vec::with_capacity(parsed.layers.len());
    for (layer, diff_id) in parsed.layers.iter().zip(&image_config.rootfs.diff_ids) {
        if !layer.media_type.is_layer() {
            let source = DocumentError::NotALayer { found: layer.media_type.clone() };
            return Err(ArchiveError::Document { digest: manifest.0.digest, source });
        }
        check_size(layer, members.find(&blob_name(&layer.digest))?.size())?;
        layers.push(LayerBlob { descriptor: layer.clone(), diff_id: *diff_id });
    }
    let (mut descriptor, document) = manifest;
    let platform = descriptor.platform.get_or_insert_with(|| image_config.platform()).normalised();
    Ok(ArchiveManifest {
        platform,
        manifest: (descriptor, document),
        config: (parsed.config.clone(), bytes),
        image_config,
        layers,
    })
}

/// Reads a blob that is a document, and checks it.
fn document(members: &Members, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ArchiveError> {
    let name = blob_name(&descriptor.digest);
    check_size(descriptor, members.find(&name)?.size())?;
    let bytes = members.read(&name, limit)?;
    descriptor.verify(&bytes)?;
    Ok(bytes)
}

fn check_size(descriptor: &Descriptor, got: u64) -> Result<(), ArchiveError> {
    if got == descriptor.size {
        return Ok(());
    }
    let Descriptor { digest, size: want, .. } = *descriptor;
    Err(crate::descriptor::DescriptorMismatch::Size { digest, want, got }.into())
}
