//! A result from elsewhere into this store: what is here already is used, the rest is fetched, verified and unpacked.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rbuild_image::layer::Decoder;
use rbuild_image::registry::TransferSink;
use rbuild_image::{BlobSink, BlobSource, Descriptor, DiffId};

use super::PlaceError;
use super::open::{RemoteCache, RemoteLayer, RemoteResult};
use crate::db::DbError;
use crate::id::SnapshotId;
use crate::lease::Lease;
use crate::lock::{LockError, LockMode, LockName, OnWait};
use crate::snapshot::{MadeElsewhere, SnapshotError};
use crate::store::Store;

/// Layers that are fetched at once.
const PARALLEL: usize = 4;

/// Why a result did not come.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// The place could not give a layer.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Nobody has that layer.
    #[error("layer {diff_id} is not in the store, and none of the caches has it")]
    Nowhere {
        /// Which.
        diff_id: DiffId,
    },
    /// A layer cannot be read.
    #[error("cannot read a layer")]
    Read(#[source] io::Error),
    /// A layer is not what the cache says, or cannot be kept.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Another process has the layer, and waiting for it was stopped.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl RemoteCache {
    /// Brings a result into the store; `lease` holds it. `None` is the empty tree.
    pub fn bring(
        &self,
        result: &RemoteResult,
        store: &Store,
        lease: &Lease,
        watch: &dyn TransferSink,
        on_wait: OnWait<'_>,
    ) -> Result<Option<SnapshotId>, BringError> {
        let snapshots = store.snapshots();
        let mut parent = None;
        for (at, layer) in result.layers.iter().enumerate() {
            if let Some(known) = snapshots.adopt(parent, &layer.diff_id, lease)? {
                parent = Some(known.id());
                continue;
            }
            let _unpacking = store.lock(&LockName::layer(&layer.diff_id), LockMode::Exclusive, on_wait)?;
            if let Some(known) = snapshots.adopt(parent, &layer.diff_id, lease)? {
                parent = Some(known.id());
                continue;
            }
            self.fetch_all(&result.layers[at..], store, lease, watch, on_wait)?;
            let blob = layer.blob.as_ref().ok_or(BringError::Nowhere { diff_id: layer.diff_id })?;
            let bytes = store.blobs().open(&blob.digest).map_err(BringError::Read)?;
            let mut tar = Decoder::new(bytes).map_err(BringError::Read)?;
            let made = MadeElsewhere { created_at: layer.created_at, content: layer.content, blob };
            parent = Some(snapshots.apply_made(parent, &mut tar, layer.diff_id, &made, lease)?.id());
        }
        Ok(parent)
    }

    /// Brings the blob of a layer into the store; `lease` holds it.
    pub fn fetch(
        &self,
        blob: &Descriptor,
        store: &Store,
        lease: &Lease,
        watch: &dyn TransferSink,
        on_wait: OnWait<'_>,
    ) -> Result<(), PlaceError> {
        let sink = store.blobs_for(lease, on_wait);
        if sink.contains(&blob.digest).map_err(PlaceError::Blob)? {
            return Ok(());
        }
        match &self.source {
            Some(source) => source.blob(blob, &sink, watch),
            None => Err(PlaceError::Blob(io::ErrorKind::NotFound.into())),
        }
    }

    /// Fetches the blobs of the lowest of `layers` and of those above it that have to be unpacked, several at once.
    fn fetch_all(
        &self,
        layers: &[RemoteLayer],
        store: &Store,
        lease: &Lease,
        watch: &dyn TransferSink,
        on_wait: OnWait<'_>,
    ) -> Result<(), BringError> {
        let mut wanted: Vec<&Descriptor> = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            let blob = layer.blob.as_ref().ok_or(BringError::Nowhere { diff_id: layer.diff_id })?;
            // One that may stand on anything is taken as it is.
            if at == 0 || !store.snapshots().has_free_layer(&layer.diff_id)? {
                wanted.push(blob);
            }
        }
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<PlaceError>> = Mutex::new(None);
        let work = || {
            while let Some(blob) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.fetch(blob, store, lease, watch, on_wait) {
                    next.store(wanted.len(), Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL.min(wanted.len()) {
                scope.spawn(work);
            }
            work();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |error| Err(error.into()))
    }
}
