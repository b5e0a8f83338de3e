//! An image from a registry: reference → index → the platform's manifest → config → layers, each step verified
//! before the next relies on it. The first steps stand alone, so that a build can learn digest and config of a base
//! image without moving a layer.

use crate::blob::{BlobSink, copy_blob};
use crate::config::ImageConfig;
use crate::descriptor::Descriptor;
use crate::document::{Document, MAX_CONFIG_BYTES, MAX_INDEX_NESTING, parse_config};
use crate::index::Index;
use crate::manifest::Manifest;
use crate::platform::Platform;
use crate::reference::ImageRef;
use crate::registry::{Action, Cause, Client, FetchedManifest, RegistryError, Target, TransferSink, in_parallel};

/// What a reference stands for on one platform.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The reference that was asked for.
    pub reference: ImageRef,
    /// The index by which the manifest was chosen, when there is one: the outermost.
    pub index: Option<(Descriptor, Vec<u8>)>,
    /// The manifest, and what it is called.
    pub manifest: (Descriptor, Vec<u8>),
    /// What the manifest says.
    pub image: Manifest,
}

impl ResolvedImage {
    /// The digest that pins the reference: of the index, else of the manifest.
    pub fn descriptor(&self) -> &Descriptor {
        self.index.as_ref().map_or(&self.manifest.0, |(descriptor, _)| descriptor)
    }
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct PulledImage {
    /// The reference that was asked for.
    pub reference: ImageRef,
    /// The outermost index, when there is one.
    pub index: Option<(Descriptor, Vec<u8>)>,
    /// The manifest.
    pub manifest: (Descriptor, Vec<u8>),
    /// The config's bytes.
    pub config: (Descriptor, Vec<u8>),
    /// What the config says.
    pub image_config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// Finds the manifest of an image for a platform.
pub fn resolve(client: &Client, name: &ImageRef, platform: &Platform) -> Result<ResolvedImage, RegistryError> {
    let name = name.tag_or_latest();
    let mut fetched = client.fetch_manifest(&name)?;
    let mut outermost = None;
    for _ in 0..=MAX_INDEX_NESTING {
        let FetchedManifest { descriptor, bytes, document } = fetched;
        match document {
            Document::Manifest(image) => {
                if !image.config.media_type.is_config() {
                    let found: String = image.config.media_type.as_str().chars().take(100).collect();
                    return Err(failed(&name, Cause::NotAnImage { found: found.escape_debug().to_string() }));
                }
                return Ok(ResolvedImage { reference: name, index: outermost, manifest: (descriptor, bytes), image });
            }
            Document::Index(index) => {
                let chosen = choose(&index, platform).map_err(|cause| failed(&name, cause))?;
                fetched = client.fetch_described(&name, chosen)?;
                outermost.get_or_insert((descriptor, bytes));
            }
        }
    }
    Err(failed(&name, Cause::Nesting(MAX_INDEX_NESTING)))
}

fn choose<'a>(index: &'a Index, platform: &Platform) -> Result<&'a Descriptor, Cause> {
    index.select(platform).ok_or_else(|| Cause::NoPlatform {
        wanted: platform.clone(),
        available: index.platforms().into_iter().cloned().collect(),
    })
}

fn failed(name: &ImageRef, cause: Cause) -> RegistryError {
    let item = name.digest().map(ToString::to_string).or_else(|| name.tag().map(str::to_owned));
    let target = Target { registry: name.registry().to_owned(), repository: name.repository().to_owned(), item };
    RegistryError { action: Action::FetchManifest, target: Box::new(target), attempts: 1, cause: Box::new(cause) }
}

/// Fetches an image's config. It has one diff id for each layer of the manifest.
pub fn fetch_config(client: &Client, image: &ResolvedImage) -> Result<(Vec<u8>, ImageConfig), RegistryError> {
    let bytes = client.fetch_bytes(&image.reference, &image.image.config, MAX_CONFIG_BYTES)?;
    let config = parse_config(&bytes, &image.image).map_err(|error| failed(&image.reference, error.into()))?;
    Ok((bytes, config))
}

/// Fetches an image's layers into a sink, several at once; those that the sink has are left alone.
pub fn fetch_layers(
    client: &Client,
    image: &ResolvedImage,
    sink: &dyn BlobSink,
    watch: &dyn TransferSink,
) -> Result<(), RegistryError> {
    // A layer may be in an image more than once.
    let mut layers: Vec<&Descriptor> = Vec::new();
    for layer in &image.image.layers {
        if !layers.iter().any(|known| known.digest == layer.digest) {
            layers.push(layer);
        }
    }
    in_parallel(&layers, client.parallel(), client.cancel(), |layer, cancel| {
        client.with_cancel(cancel.clone()).fetch_blob(&image.reference, layer, sink, watch)
    })
}

/// Pulls an image: config and layers go into the sink, then manifest and index, so that these are there only when
/// everything they name is.
pub fn pull(
    client: &Client,
    name: &ImageRef,
    platform: &Platform,
    sink: &dyn BlobSink,
    watch: &dyn TransferSink,
) -> Result<PulledImage, RegistryError> {
    pull_resolved(client, resolve(client, name, platform)?, sink, watch)
}

/// Pulls an image whose manifest is known already.
pub fn pull_resolved(
    client: &Client,
    image: ResolvedImage,
    sink: &dyn BlobSink,
    watch: &dyn TransferSink,
) -> Result<PulledImage, RegistryError> {
    let config = fetch_config(client, &image)?;
    pull_configured(client, image, config, sink, watch)
}

/// Pulls an image whose config was fetched already.
pub fn pull_configured(
    client: &Client,
    image: ResolvedImage,
    (config, image_config): (Vec<u8>, ImageConfig),
    sink: &dyn BlobSink,
    watch: &dyn TransferSink,
) -> Result<PulledImage, RegistryError> {
    fetch_layers(client, &image, sink, watch)?;
    let keep = |descriptor: &Descriptor, bytes: &[u8]| {
        copy_blob(&mut &*bytes, descriptor, sink).map_err(|error| failed(&image.reference, Cause::Storage(error)))
    };
    keep(&image.image.config, &config)?;
    keep(&image.manifest.0, &image.manifest.1)?;
    if let Some((descriptor, bytes)) = &image.index {
        keep(descriptor, bytes)?;
    }
    Ok(PulledImage {
        reference: image.reference,
        index: image.index,
        manifest: image.manifest,
        config: (image.image.config, config),
        image_config,
        layers: image.image.layers,
    })
}
