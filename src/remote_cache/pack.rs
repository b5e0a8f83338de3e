//! A layer's blob for a cache: as it is at hand, else compressed once and kept until the build ends.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::remote::DraftLayer;
use rbuild_cache::snapshot::{LayerInfo, Times};
use rbuild_cache::{Lease, Store};
use rbuild_image::{BlobSource, Descriptor, DiffId, Digest};

use super::spec::ExistingBlobs;
use crate::cli::report::Failure;
use crate::output::pack::{self, Packed, PackedBytes, Packing};
use crate::output::stage::{self, NOBODY};

/// Packs layers for one cache.
pub(super) struct Packer<'a> {
    store: &'a Store,
    lease: &'a Lease,
    packing: Packing,
    existing: ExistingBlobs,
    /// Blobs at hand, by diff_id.
    known: Mutex<Arc<BTreeMap<DiffId, Descriptor>>>,
    /// What was packed; whoever wants the same layer waits for the first.
    packed: Mutex<BTreeMap<DiffId, Slot>>,
}

/// A layer that is packed once, by whoever asks first.
type Slot = Arc<Mutex<Option<Ready>>>;

/// A layer that is ready to go.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) draft: DraftLayer,
    bytes: PackedBytes,
}

impl<'a> Packer<'a> {
    pub(super) fn new(store: &'a Store, lease: &'a Lease, packing: Packing, existing: ExistingBlobs) -> Self {
        Self { store, lease, packing, existing, known: Mutex::default(), packed: Mutex::default() }
    }

    /// Packs a layer.
    pub(super) fn pack(&self, layer: &LayerInfo) -> Result<Ready, Failure> {
        let slot = {
            let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(packed.entry(layer.diff.diff_id).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = &*slot {
            return Ok(ready.clone());
        }
        let made = self.make(layer)?;
        let blob = Descriptor::new(made.descriptor.media_type, made.descriptor.digest, made.descriptor.size);
        let draft = DraftLayer { blob, diff_id: made.diff_id, created_at: Some(layer.created_at) };
        Ok(slot.insert(Ready { draft, bytes: made.bytes }).clone())
    }

    fn make(&self, layer: &LayerInfo) -> Result<Packed, Failure> {
        let snapshot = self.store.snapshots().get(layer.snapshot)?;
        let mut known = Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner));
        if snapshot.is_imported() && !known.contains_key(&layer.diff.diff_id) {
            // The image that it came with may have come during this build.
            known = Arc::new(stage::blobs_at_hand(self.store)?);
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&known);
        }
        let Self { store, lease, packing, existing, .. } = *self;
        pack::Packer { store, lease, known: &known, packing, existing, outlet: NOBODY }.pack(&snapshot, Times::Kept)
    }

    /// The bytes of a layer that is ready.
    pub(super) fn bytes<'b>(&'b self, ready: &'b Ready) -> LayerBytes<'b> {
        LayerBytes { store: self.store, ready }
    }
}

/// Where one layer's bytes are.
pub(super) struct LayerBytes<'a> {
    store: &'a Store,
    ready: &'a Ready,
}

impl BlobSource for LayerBytes<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let own = *digest == self.ready.draft.blob.digest;
        match own.then(|| self.ready.bytes.open()).transpose()?.flatten() {
            Some(file) => Ok(Box::new(file)),
            None => BlobSource::open(&self.store.blobs(), digest),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        let own = *digest == self.ready.draft.blob.digest;
        match own.then(|| self.ready.bytes.size()).flatten() {
            Some(size) => Ok(size),
            None => BlobSource::size(&self.store.blobs(), digest),
        }
    }
}
