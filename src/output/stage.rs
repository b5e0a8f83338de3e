//! An image made ready to leave: its manifest, and where the bytes of each blob come from.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rbuild_cache::snapshot::{Committed, Snapshot, Times};
use rbuild_cache::{ImageRecord, Lease, Store, StoredImage};
use rbuild_image::{
    BlobSource, Descriptor, DiffId, Digest, ImageConfig, Manifest, assemble_with_config, parse_manifest,
};

use super::growing::GrowingLayer;
use super::origins::{LayerBlobs, Origins, manifest};
use super::pack::{Packed, PackedBytes, Packer, Packing};
use super::turns::{Turn, Turns};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::remote_cache::spec::ExistingBlobs;

/// Layers that are compressed at once.
const LAYERS_AT_ONCE: usize = 4;
/// The same where they have to come in order: one that is written, and the next.
const LAYERS_IN_ORDER: usize = 2;

/// Where layers go while others are packed.
pub(crate) trait Outlet: Sync {
    /// A layer's file begins to grow.
    fn begun(&self, _: &Arc<GrowingLayer>) {}

    /// A layer can leave. A failure ends the packing.
    fn ready(&self, packed: &Packed) -> Result<(), Failure>;

    /// Whether layers have to come one after the other, from the lowest.
    fn wants_order(&self) -> bool {
        false
    }

    /// A place for a layer that has to be compressed, if it need not lie in a file of its own.
    fn place(&self) -> io::Result<Option<Box<dyn LayerPlace + '_>>> {
        Ok(None)
    }

    /// An image leaves with the layers that it came with: nothing is packed.
    fn comes_whole(&self, _root: &Descriptor, _blobs: &dyn BlobSource) -> Result<(), Failure> {
        Ok(())
    }
}

/// Takes the bytes of one layer's blob.
pub(crate) trait LayerPlace: Write + Send {
    /// Says what they were. Where nobody says so, there was no blob.
    fn whole(&mut self, digest: &Digest, size: u64) -> io::Result<()>;
}

/// Who is told of layers that leave.
pub(crate) type Ready<'a> = &'a dyn Outlet;

/// Nobody waits for single layers.
pub(crate) const NOBODY: Ready<'static> = &Nobody;

struct Nobody;

impl Outlet for Nobody {
    fn ready(&self, _: &Packed) -> Result<(), Failure> {
        Ok(())
    }
}

/// How an image is packed.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How layers leave.
    pub packing: Packing,
    /// What becomes of layers that came from outside.
    pub existing: ExistingBlobs,
    /// Times in the layers of this build.
    pub times: Times,
    /// So many layers, from the lowest, are the base image's: their times stay.
    pub base_layers: usize,
    /// Notes in the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// An image ready to leave.
pub struct Staged<'a> {
    /// What its manifest is called.
    pub manifest: Descriptor,
    /// The manifest.
    pub manifest_bytes: Vec<u8>,
    /// What the manifest says.
    pub document: Manifest,
    /// Digests of the uncompressed layers.
    pub diff_ids: Vec<DiffId>,
    stored: Arc<LayerBlobs<'a>>,
    layers: BTreeMap<Digest, PackedBytes>,
    memory: BTreeMap<Digest, Vec<u8>>,
}

impl BlobSource for Staged<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match (self.layers.get(digest).map(PackedBytes::open).transpose()?.flatten(), self.memory.get(digest)) {
            (Some(file), _) => Ok(Box::new(file)),
            (None, Some(bytes)) => Ok(Box::new(Cursor::new(bytes.clone()))),
            (None, None) => BlobSource::open(&*self.stored, digest),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        match (self.layers.get(digest).and_then(PackedBytes::size), self.memory.get(digest)) {
            (Some(size), _) => Ok(size),
            (None, Some(bytes)) => Ok(bytes.len() as u64),
            (None, None) => BlobSource::size(&*self.stored, digest),
        }
    }
}

/// An image with the manifest that it came with, when all its blobs are still there or can be fetched again.
pub fn original<'a>(stored: &Arc<LayerBlobs<'a>>, image: &StoredImage) -> Result<Option<Staged<'a>>, Failure> {
    let (Some(descriptor), Some((bytes, document))) = (&image.record.manifest, manifest(stored.store(), image)?) else {
        return Ok(None);
    };
    let there = document.layers.iter().all(|layer| stored.has(&layer.digest));
    Ok(there.then(|| Staged {
        manifest: descriptor.clone(),
        manifest_bytes: bytes,
        document,
        diff_ids: image.record.diff_ids.clone(),
        stored: Arc::clone(stored),
        layers: BTreeMap::new(),
        memory: BTreeMap::new(),
    }))
}

/// Compresses an image's layers and writes its manifest. The files live as long as the lease.
pub(crate) fn pack<'a>(
    engine: &'a Engine,
    lease: &Lease,
    record: &ImageRecord,
    packing: Packing,
    ready: Ready<'_>,
) -> Result<Staged<'a>, Failure> {
    let store = engine.store()?;
    let config = image_names::config(store, &record.id)?;
    let recipe = Recipe {
        packing,
        existing: ExistingBlobs::Kept,
        times: Times::Kept,
        base_layers: 0,
        annotations: BTreeMap::new(),
    };
    pack_layers(engine, lease, record, &config, &recipe, ready)
}

/// As [`pack`], by a recipe and with a config of the caller's, whose diff ids follow from the layers. `ready` is told of
/// each layer as soon as it can leave.
pub(crate) fn pack_layers<'a>(
    engine: &'a Engine,
    lease: &Lease,
    record: &ImageRecord,
    config: &ImageConfig,
    recipe: &Recipe,
    ready: Ready<'_>,
) -> Result<Staged<'a>, Failure> {
    let packing = recipe.packing;
    let store = engine.store()?;
    let chain = chain(store, record)?;
    let known = known_blobs(store)?;
    let work: Vec<Mutex<Option<Result<Packed, Failure>>>> = chain.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    // Each compresses on all processors: more at once only keep more in memory.
    let workers = match ready.wants_order() {
        true => LAYERS_IN_ORDER,
        false => std::thread::available_parallelism().map_or(1, usize::from).min(LAYERS_AT_ONCE),
    };
    let workers = workers.min(chain.len().max(1));
    let turns = Turns::default();
    let compress = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(snapshot) = chain.get(at) else { return };
            let times = if at < recipe.base_layers { Times::Kept } else { recipe.times };
            let pack = |outlet: &dyn Outlet| {
                let packer = Packer { store, lease, known: &known, packing, existing: recipe.existing, outlet };
                packer.pack(snapshot, times)
            };
            let packed = match ready.wants_order() {
                true => Turn::new(&turns, at, ready).take(pack),
                false => pack(ready).and_then(|packed| ready.ready(&packed).map(|()| packed)),
            };
            if packed.is_err() {
                next.store(chain.len(), Ordering::Relaxed);
            }
            *work[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(packed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(compress);
        }
    });
    let done: Vec<_> =
        work.into_iter().map(|packed| packed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)).collect();
    let (mut bytes, mut layers, mut diff_ids) = (BTreeMap::new(), Vec::new(), Vec::new());
    // The layers behind one that failed were not begun.
    let (failed, whole): (Vec<_>, Vec<_>) = done.into_iter().flatten().partition(Result::is_err);
    for packed in failed.into_iter().chain(whole) {
        let packed = packed?;
        bytes.insert(packed.descriptor.digest, packed.bytes);
        layers.push(packed.descriptor);
        diff_ids.push(packed.diff_id);
    }
    let mut config = config.clone();
    config.rootfs.diff_ids.clone_from(&diff_ids);
    let assembled =
        assemble_with_config(config.to_json(), &record.platform, &layers, packing.flavour, &recipe.annotations)?;
    let (manifest, manifest_bytes) = assembled.manifest;
    let document = parse_manifest(&manifest_bytes, Some(&manifest.media_type))?;
    let (config, config_bytes) = assembled.config;
    let memory = BTreeMap::from([(config.digest, config_bytes), (manifest.digest, manifest_bytes.clone())]);
    let stored = Arc::new(LayerBlobs::new(engine)?);
    Ok(Staged { manifest, manifest_bytes, document, diff_ids, stored, layers: bytes, memory })
}

/// An image's snapshots, lowest first.
fn chain(store: &Store, record: &ImageRecord) -> Result<Vec<Snapshot<Committed>>, Failure> {
    let Some(top) = record.snapshot else {
        if record.diff_ids.is_empty() {
            return Ok(Vec::new());
        }
        return Err(Failure::new(format!(
            "image {} is not unpacked, and its original blobs are gone",
            record.id.short()
        )));
    };
    let mut stack = store.snapshots().stack(top)?;
    stack.reverse();
    Ok(stack)
}

/// The blobs that layers came as, by diff id: from the manifests of stored images, and from caches elsewhere. Some may
/// have to be fetched again.
pub fn known_blobs(store: &Store) -> Result<BTreeMap<DiffId, Descriptor>, Failure> {
    let origins = Origins::of(store)?;
    blobs_if(store, |digest| store.blobs().len(digest).is_ok() || origins.size(digest).is_some())
}

/// Those of them that are here.
pub fn blobs_at_hand(store: &Store) -> Result<BTreeMap<DiffId, Descriptor>, Failure> {
    blobs_if(store, |digest| store.blobs().len(digest).is_ok())
}

fn blobs_if(store: &Store, has: impl Fn(&Digest) -> bool) -> Result<BTreeMap<DiffId, Descriptor>, Failure> {
    let mut known: BTreeMap<DiffId, Descriptor> = store.snapshots().forms()?.into_iter().collect();
    for image in store.images().list()? {
        let Some((_, manifest)) = manifest(store, &image)? else { continue };
        if manifest.layers.iter().all(|layer| has(&layer.digest)) {
            known.extend(image.record.diff_ids.iter().copied().zip(manifest.layers));
        }
    }
    Ok(known)
}
