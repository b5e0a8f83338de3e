//! An image's layers, from blobs in the store to a snapshot. Equal layers are unpacked once, also across processes; a
//! blob that nobody unpacked is still read to its end once, so that no image keeps one that is not what it says (I-08).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;

use rbuild_cache::snapshot::{Committed, Snapshot};
use rbuild_cache::{Lease, LockError, LockGuard, LockMode, LockName, OnWait, SnapshotId, Store, Waiting};
use rbuild_image::layer::Decoder;
use rbuild_image::{BlobSource, Descriptor, DiffId, Digest, Hashing};

use super::arrival::Arrivals;
use super::beside::Beside;
use crate::cli::report::Failure;
use crate::output::stage::known_blobs;

/// One layer: what it is, and where its bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerBlob {
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: DiffId,
    /// Digest of the blob.
    pub(crate) blob: Digest,
}

/// Unpacks layers, lowest first; gives the topmost snapshot and the bytes that all take on disk.
pub(crate) fn unpack(
    store: &Store,
    lease: &Lease,
    layers: &[LayerBlob],
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<(Option<SnapshotId>, u64), Failure> {
    let stop = |_: &Waiting<'_>| if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    unpack_arriving(store, lease, layers, None, cancelled, &stop)
}

/// As [`unpack`], while the blobs are still on their way; `on_wait` hears of other processes that unpack them.
pub(super) fn unpack_arriving(
    store: &Store,
    lease: &Lease,
    layers: &[LayerBlob],
    arrivals: Option<&Arrivals<'_>>,
    cancelled: &(dyn Fn() -> bool + Sync),
    on_wait: OnWait<'_>,
) -> Result<(Option<SnapshotId>, u64), Failure> {
    let beside = Beside::new(store, lease, layers, arrivals, cancelled);
    let placing = Placing { store, lease, arrivals, cancelled, on_wait, beside: &beside };
    beside.run(|| placing.all(layers))
}

/// Gives layers their place, the lowest first.
struct Placing<'a> {
    store: &'a Store,
    lease: &'a Lease,
    arrivals: Option<&'a Arrivals<'a>>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    on_wait: OnWait<'a>,
    beside: &'a Beside<'a>,
}

impl Placing<'_> {
    fn all(&self, layers: &[LayerBlob]) -> Result<(Option<SnapshotId>, u64), Failure> {
        let snapshots = self.store.snapshots();
        let (mut parent, mut size) = (None, 0);
        let mut known = None;
        for layer in layers {
            if (self.cancelled)() {
                return Err(Failure::interrupted());
            }
            let snapshot = match snapshots.adopt(parent, &layer.diff_id, self.lease)? {
                Some(snapshot) => {
                    self.beside.done(&layer.diff_id);
                    let known = match &mut known {
                        Some(known) => known,
                        none => none.insert(known_blobs(self.store)?),
                    };
                    self.check_blob(layer, known)?;
                    snapshot
                }
                None => self.place(parent, layer)?,
            };
            size += snapshot.disk_size();
            parent = Some(snapshot.id());
        }
        Ok((parent, size))
    }

    /// Sees to it that the blob of a layer that was there already is what the image says.
    fn check_blob(&self, layer: &LayerBlob, known: &BTreeMap<DiffId, Descriptor>) -> Result<(), Failure> {
        if layer.blob == *layer.diff_id.digest()
            || known.get(&layer.diff_id).is_some_and(|blob| blob.digest == layer.blob)
        {
            return Ok(());
        }
        if let Some(arrivals) = self.arrivals {
            arrivals.wait_whole(&layer.blob, self.cancelled)?;
        }
        verify(self.store, layer, self.cancelled)
    }

    fn place(&self, parent: Option<SnapshotId>, layer: &LayerBlob) -> Result<Snapshot<Committed>, Failure> {
        let snapshots = self.store.snapshots();
        let (received, lock) = match self.beside.take(&layer.diff_id) {
            Some((received, lock)) => (Some(received), lock),
            None => (None, None),
        };
        let _lock = match lock {
            Some(lock) => lock,
            None => self.lock(&layer.diff_id)?,
        };
        if let Some(snapshot) = snapshots.adopt(parent, &layer.diff_id, self.lease)? {
            return Ok(snapshot);
        }
        if let Some(received) = received {
            return Ok(snapshots.put_on(parent, received, self.lease)?);
        }
        if let Some(arrivals) = self.arrivals {
            let open = || arrivals.open(&layer.blob, self.cancelled);
            match open().map_err(Failure::from).and_then(|blob| self.apply(parent, layer, blob)) {
                Ok(snapshot) => return Ok(snapshot),
                Err(failure) => {
                    // Its bytes were not verified: only the whole blob tells whose fault it is.
                    tracing::debug!(failure = failure.message(), "unpacking from the whole blob");
                    arrivals.wait_whole(&layer.blob, self.cancelled)?;
                }
            }
        }
        self.apply(parent, layer, self.store.blobs().open(&layer.blob)?)
    }

    /// The lock of a layer. Who waits for it keeps no other.
    fn lock(&self, diff_id: &DiffId) -> Result<LockGuard, Failure> {
        let (name, mode) = (LockName::layer(diff_id), LockMode::Exclusive);
        match self.store.lock(&name, mode, &|_| ControlFlow::Break(())) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Stopped { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.beside.yielding(|| self.store.lock(&name, mode, self.on_wait))?)
    }

    fn apply(
        &self,
        parent: Option<SnapshotId>,
        layer: &LayerBlob,
        blob: Box<dyn Read + Send + '_>,
    ) -> Result<Snapshot<Committed>, Failure> {
        let mut tar = Decoder::new(blob)?;
        Ok(self.store.snapshots().apply(parent, &mut tar, Some(layer.diff_id), self.lease)?)
    }
}

/// Reads a blob whose layer is there already, made from another one: it must be the same tar all the same.
fn verify(store: &Store, layer: &LayerBlob, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<(), Failure> {
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        Failure::from_error(&format!("invalid layer {}", layer.blob), error)
    };
    let blob = match store.blobs().open(&layer.blob) {
        Ok(blob) => blob,
        // Where the layer was known beforehand, its bytes may never have been asked for.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(wrong(&error)),
    };
    let mut tar = Hashing::new(Decoder::new(blob).map_err(|error| wrong(&error))?);
    let mut buffer = vec![0; 256 * 1024];
    while tar.read(&mut buffer).map_err(|error| wrong(&error))? > 0 {
        if cancelled() {
            return Err(Failure::interrupted());
        }
    }
    let found = DiffId::new(tar.finish().1);
    if found == layer.diff_id {
        return Ok(());
    }
    Err(Failure::new(format!("invalid layer {}: its content is {found}, not {}", layer.blob, layer.diff_id)))
}
