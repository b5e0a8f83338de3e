//! `pull`, and images that builds and containers need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_cache::{BlobRole, Hold, Holder, ImageRecord, Lease, LeasedBlobs, SnapshotId, Store, StoredImage, Waiting};
use rbuild_image::pull::{self, ResolvedImage};
use rbuild_image::registry::{Client, RegistryError, TransferSink, TransferState};
use rbuild_image::{
    Descriptor, Digest, Document, ImageConfig, ImageRef, MAX_MANIFEST_BYTES, Platform, copy_blob, parse_index,
    parse_manifest,
};

use super::arrival::Arrivals;
use super::unpack::{LayerBlob, unpack, unpack_arriving};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::output::origins;
use crate::output::stage::known_blobs;
use crate::progress::Transfers;

/// Attestation manifests of one image that are fetched.
const MAX_ATTESTATIONS: usize = 16;
/// The most bytes that what one of them names may have.
const MAX_ATTESTED_BYTES: u64 = 64 << 20;

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
    let watch = Watch::of(transfers);
    let names = [resolved.reference.clone(), resolved.reference.with_digest(resolved.descriptor().digest)];
    let pulled = fetch_as(engine, &lease, &resolved, &names, Attested::Fetched, &watch)?;
    image_names::tell_of_transfer(store, "pull", reference);
    drop(lease);
    origins::let_go_now(engine)?;
    Ok(pulled)
}

/// Whether what is attested about an image comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attested {
    /// So that the image can leave again as it came.
    Fetched,
    /// Only what runs is wanted.
    Left,
}

/// Takes an item, the bytes moved, and the bytes in all.
type Advance<'a> = dyn Fn(&str, u64, Option<u64>) + Sync + 'a;

/// Passes transfers on, by short digest, and whom they wait for.
pub(crate) struct Watch<'a> {
    advance: Box<Advance<'a>>,
    /// Takes what is waited for, and who holds it.
    wait: Box<dyn Fn(&str) + Sync + 'a>,
    /// Whom was waited for already.
    told: Mutex<Vec<Holder>>,
}

/// Who waits for less has nothing to tell.
const WORTH_A_WORD: Duration = Duration::from_millis(200);

impl<'a> Watch<'a> {
    /// Passes everything on to these two.
    pub(crate) fn new(advance: impl Fn(&str, u64, Option<u64>) + Sync + 'a, wait: impl Fn(&str) + Sync + 'a) -> Self {
        Self { advance: Box::new(advance), wait: Box::new(wait), told: Mutex::default() }
    }

    /// Shows it.
    pub(super) fn of(transfers: &'a Transfers) -> Self {
        let wait = |whom: &str| transfers.say(&format!("waiting for {whom}"));
        Self::new(|item, current, total| transfers.advance(item, current, total), wait)
    }

    /// Says once of each process that it has what is wanted here.
    pub(crate) fn waits(&self, waiting: &Waiting<'_>) {
        let Some(holder) = waiting.holder.as_ref().filter(|_| waiting.waited >= WORTH_A_WORD) else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.iter().any(|known| (known.pid, known.command.as_str()) == (holder.pid, holder.command.as_str())) {
            told.push(holder.clone());
            (self.wait)(&format!("{}, held by {holder}", waiting.name.subject()));
        }
    }
}

impl TransferSink for Watch<'_> {
    fn transfer(&self, digest: &Digest, state: TransferState) {
        match state {
            TransferState::Moving { current, total } => (self.advance)(&digest.short(), current, Some(total)),
            TransferState::Flowing { current } => (self.advance)(&digest.short(), current, None),
            _ => {}
        }
    }
}

/// Fetches what the store does not have of a resolved image, unpacks it, names it.
pub(crate) fn fetch(
    engine: &Engine,
    lease: &Lease,
    resolved: &ResolvedImage,
    watch: &Watch<'_>,
) -> Result<Pulled, Failure> {
    let reference = &resolved.reference;
    let names = [reference.clone(), reference.with_digest(resolved.descriptor().digest)];
    fetch_as(engine, lease, resolved, &names, Attested::Left, watch)
}

/// As [`fetch`], under other names.
pub(super) fn fetch_as(
    engine: &Engine,
    lease: &Lease,
    resolved: &ResolvedImage,
    names: &[ImageRef],
    attested: Attested,
    watch: &Watch<'_>,
) -> Result<Pulled, Failure> {
    let store = engine.store()?;
    let id = resolved.image.config.digest;
    let digest = resolved.descriptor().digest;
    lease.hold(Hold::Blob(id))?;
    if let Some(known) = store.images().by_id(&id)?
        && known.record.manifest.as_ref().is_some_and(|manifest| manifest.digest == resolved.manifest.0.digest)
        && known.record.snapshot.is_some() | known.record.diff_ids.is_empty()
    {
        if let Some((index, bytes)) = &resolved.index
            && !known.record.blobs.contains_key(&index.digest)
        {
            // It came alone, or in another index.
            copy_blob(&mut bytes.as_slice(), index, &store.blobs_for(lease, &rbuild_cache::wait_silently))?;
            let mut record = known.record;
            record.blobs.insert(index.digest, BlobRole::Index);
            store.images().put(&record, names)?;
        }
        for name in names {
            store.images().tag(name, &id).map_err(image_names::explain)?;
        }
        return Ok(Pulled { id, digest, was_present: true });
    }
    let stop = |waiting: &Waiting<'_>| {
        watch.waits(waiting);
        match engine.cancel().is_cancelled() {
            true => std::ops::ControlFlow::Break(()),
            false => std::ops::ControlFlow::Continue(()),
        }
    };
    let failed = Arc::new(AtomicBool::new(false));
    let client = engine.client()?;
    let client = client.with_cancel(client.cancel().or_flag(Arc::clone(&failed)));
    let fetched = pull::fetch_config(&client, resolved)?;
    let config = fetched.1.clone();
    let layers = config.rootfs.diff_ids.iter().zip(&resolved.image.layers);
    let layers: Vec<LayerBlob> =
        layers.map(|(diff_id, layer)| LayerBlob { diff_id: *diff_id, blob: layer.digest }).collect();
    // Layers are unpacked while they come, the lowest first.
    let needless = needless(store, lease, &layers)?;
    let arrivals = Arrivals::new(store, store.blobs_for(lease, &stop), &resolved.image.layers, needless);
    let cancelled = || engine.cancel().is_cancelled();
    let (pulled, unpacked) = std::thread::scope(|threads| {
        let unpacking = threads.spawn(|| {
            let unpacked = unpack_arriving(store, lease, &layers, Some(&arrivals), &cancelled, &stop);
            if unpacked.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            unpacked
        });
        let pulled = pull::pull_configured(&client, resolved.clone(), fetched, &arrivals, watch);
        if pulled.is_err() {
            arrivals.give_up();
        }
        (pulled, unpacking.join().expect("unpacking does not panic"))
    });
    let pulled = match (pulled, &unpacked) {
        // It ended because a layer cannot be unpacked.
        (Err(error), Err(_)) if error.is_cancelled() && !cancelled() => None,
        (pulled, _) => Some(pulled?),
    };
    let (snapshot, size) = unpacked?;
    let pulled = pulled.expect("an image whose layers are unpacked was pulled");
    let mut blobs = BTreeMap::from([(id, BlobRole::Config), (pulled.manifest.0.digest, BlobRole::Manifest)]);
    if let Some((index, _)) = &pulled.index {
        blobs.insert(index.digest, BlobRole::Index);
    }
    // Without those that the store let go of and that were not fetched again.
    let kept = pulled.layers.iter().filter(|layer| store.blobs().len(&layer.digest).is_ok());
    blobs.extend(kept.map(|layer| (layer.digest, BlobRole::Layer)));
    if attested == Attested::Fetched {
        match fetch_attestations(&client, resolved, &store.blobs_for(lease, &stop), watch) {
            Ok(found) => blobs.extend(found),
            Err(error) if error.is_cancelled() => return Err(error.into()),
            // The image is whole without them.
            Err(error) => tracing::warn!(%error, cause = %error.cause, "attestations were left behind"),
        }
    }
    let record = ImageRecord {
        id,
        platform: config.platform(),
        manifest: Some(pulled.manifest.0),
        diff_ids: config.rootfs.diff_ids.clone(),
        snapshot,
        size,
        created_at: created(&config),
        blobs,
    };
    store.images().put(&record, names)?;
    Ok(Pulled { id, digest, was_present: false })
}

/// Blobs that nobody has to bring: the store has their layers, and knows that these came as them.
fn needless(store: &Store, lease: &Lease, layers: &[LayerBlob]) -> Result<BTreeSet<Digest>, Failure> {
    let mut needless = BTreeSet::new();
    let (mut parent, mut known) = (None, None);
    for layer in layers {
        let Some(snapshot) = store.snapshots().adopt(parent, &layer.diff_id, lease)? else { break };
        parent = Some(snapshot.id());
        let known = match &mut known {
            Some(known) => known,
            none => none.insert(known_blobs(store)?),
        };
        if known.get(&layer.diff_id).is_some_and(|blob| blob.digest == layer.blob) {
            needless.insert(layer.blob);
        }
    }
    Ok(needless)
}

/// Fetches the manifests that an image's index names as attestations about it, and what they name.
fn fetch_attestations(
    client: &Client,
    image: &ResolvedImage,
    sink: &LeasedBlobs<'_>,
    watch: &dyn TransferSink,
) -> Result<BTreeMap<Digest, BlobRole>, RegistryError> {
    let mut blobs = BTreeMap::new();
    let Some((_, bytes)) = &image.index else { return Ok(blobs) };
    let Ok(index) = parse_index(bytes, None) else { return Ok(blobs) };
    for descriptor in index.attestations_of(&image.manifest.0.digest).into_iter().take(MAX_ATTESTATIONS) {
        let fetched = client.fetch_described(&image.reference, descriptor)?;
        let Document::Manifest(manifest) = &fetched.document else { continue };
        let parts: Vec<&Descriptor> = std::iter::once(&manifest.config).chain(&manifest.layers).collect();
        if parts.iter().map(|part| part.size).sum::<u64>() > MAX_ATTESTED_BYTES {
            continue;
        }
        for part in parts {
            client.fetch_blob(&image.reference, part, sink, watch)?;
            blobs.insert(part.digest, BlobRole::Layer);
        }
        if let Err(error) = copy_blob(&mut fetched.bytes.as_slice(), descriptor, sink) {
            tracing::warn!(%error, "an attestation was left behind");
            continue;
        }
        blobs.insert(descriptor.digest, BlobRole::Manifest);
    }
    Ok(blobs)
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
