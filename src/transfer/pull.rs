//! `pull`, and images that builds and containers need.

use std::collections::BTreeMap;

use rbuild_cache::{BlobRole, Hold, ImageRecord, Lease, SnapshotId, Store, StoredImage};
use rbuild_image::pull::{self, ResolvedImage};
use rbuild_image::registry::{TransferSink, TransferState};
use rbuild_image::{Digest, ImageConfig, ImageRef, MAX_MANIFEST_BYTES, Platform, parse_manifest};

use super::unpack::{LayerBlob, unpack};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::progress::Transfers;

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image's id.
    pub id: Digest,
    /// The digest that the name stood for: of the index, else of the manifest.
    pub digest: Digest,
    /// Whether the store had it already.
    pub was_present: bool,
}

/// Fetches an image and names it.
pub fn pull(
    engine: &Engine,
    reference: &ImageRef,
    platform: &Platform,
    transfers: &Transfers,
) -> Result<Pulled, Failure> {
    transfers.say(&format!("Pulling {reference} for {platform}"));
    let store = engine.store()?;
    let lease = store.lease(&format!("pull {reference}"))?;
    let resolved = pull::resolve(&engine.client()?, reference, platform)?;
    let watch = Watch { advance: &|item, current, total| transfers.advance(item, current, total) };
    fetch(engine, &lease, &resolved, &watch)
}

/// Passes transfers on, by short digest.
pub(crate) struct Watch<'a> {
    /// Takes an item, the bytes moved, and the bytes in all.
    pub(crate) advance: &'a (dyn Fn(&str, u64, Option<u64>) + Sync),
}

impl TransferSink for Watch<'_> {
    fn transfer(&self, digest: &Digest, state: TransferState) {
        if let TransferState::Moving { current, total } = state {
            (self.advance)(&digest.short(), current, Some(total));
        }
    }
}

/// Fetches what the store does not have of a resolved image, unpacks it, names it.
pub(crate) fn fetch(
    engine: &Engine,
    lease: &Lease,
    resolved: &ResolvedImage,
    watch: &dyn TransferSink,
) -> Result<Pulled, Failure> {
    let reference = &resolved.reference;
    let names = [reference.clone(), reference.with_digest(resolved.descriptor().digest)];
    fetch_as(engine, lease, resolved, &names, watch)
}

/// As [`fetch`], under other names.
pub(super) fn fetch_as(
    engine: &Engine,
    lease: &Lease,
    resolved: &ResolvedImage,
    names: &[ImageRef],
    watch: &dyn TransferSink,
) -> Result<Pulled, Failure> {
    let store = engine.store()?;
    let id = resolved.image.config.digest;
    let digest = resolved.descriptor().digest;
    lease.hold(Hold::Blob(id))?;
    if let Some(known) = store.images().by_id(&id)?
        && known.record.manifest.as_ref().is_some_and(|manifest| manifest.digest == resolved.manifest.0.digest)
        && known.record.snapshot.is_some() | known.record.diff_ids.is_empty()
    {
        for name in names {
            store.images().tag(name, &id).map_err(image_names::explain)?;
        }
        return Ok(Pulled { id, digest, was_present: true });
    }
    let stop = |_: &rbuild_cache::Waiting<'_>| match engine.cancel().is_cancelled() {
        true => std::ops::ControlFlow::Break(()),
        false => std::ops::ControlFlow::Continue(()),
    };
    let sink = store.blobs_for(lease, &stop);
    let client = engine.client()?;
    let pulled = pull::pull_resolved(&client, resolved.clone(), &sink, watch)?;
    let mut blobs = BTreeMap::from([(id, BlobRole::Config), (pulled.manifest.0.digest, BlobRole::Manifest)]);
    if let Some((index, _)) = &pulled.index {
        blobs.insert(index.digest, BlobRole::Index);
    }
    blobs.extend(pulled.layers.iter().map(|layer| (layer.digest, BlobRole::Layer)));
    let config = &pulled.image_config;
    let layers = config.rootfs.diff_ids.iter().zip(&pulled.layers);
    let layers: Vec<LayerBlob> =
        layers.map(|(diff_id, layer)| LayerBlob { diff_id: *diff_id, blob: layer.digest }).collect();
    let (snapshot, size) = unpack(store, lease, &layers, &|| engine.cancel().is_cancelled())?;
    let record = ImageRecord {
        id,
        platform: config.platform(),
        manifest: Some(pulled.manifest.0),
        diff_ids: config.rootfs.diff_ids.clone(),
        snapshot,
        size,
        created_at: created(config),
        blobs,
    };
    store.images().put(&record, names)?;
    Ok(Pulled { id, digest, was_present: false })
}

/// When a config says that its image was made.
pub(crate) fn created(config: &ImageConfig) -> Option<jiff::Timestamp> {
    config.created.as_deref().and_then(|text| text.parse().ok())
}

/// The topmost snapshot of a stored image; unpacks it first where only its blobs are there.
pub(crate) fn ensure_unpacked(
    store: &Store,
    lease: &Lease,
    image: &StoredImage,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Option<SnapshotId>, Failure> {
    let record = &image.record;
    if record.snapshot.is_some() || record.diff_ids.is_empty() {
        return Ok(record.snapshot);
    }
    let layers = layer_blobs(store, image)?;
    let (snapshot, size) = unpack(store, lease, &layers, cancelled)?;
    if let Some(snapshot) = snapshot {
        store.images().set_snapshot(&record.id, snapshot, size)?;
    }
    Ok(snapshot)
}

/// Which blob each layer of a stored image came as.
fn layer_blobs(store: &Store, image: &StoredImage) -> Result<Vec<LayerBlob>, Failure> {
    let incomplete =
        || Failure::new(format!("image {} has neither its layers nor their blobs", image.record.id.short()));
    let descriptor = image.record.manifest.as_ref().ok_or_else(incomplete)?;
    let bytes = store.blobs().read(&descriptor.digest, MAX_MANIFEST_BYTES)?;
    let manifest = parse_manifest(&bytes, Some(&descriptor.media_type))?;
    let pairs = image.record.diff_ids.iter().zip(&manifest.layers);
    Ok(pairs.map(|(diff_id, layer)| LayerBlob { diff_id: *diff_id, blob: layer.digest }).collect())
}
