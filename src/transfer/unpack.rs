//! An image's layers, from blobs in the store to a snapshot. Equal layers are unpacked once, also across processes.

use std::ops::ControlFlow;

use rbuild_cache::{Lease, LockMode, LockName, SnapshotId, Store, Waiting};
use rbuild_image::layer::Decoder;
use rbuild_image::{BlobSource, DiffId, Digest};

use crate::cli::report::Failure;

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
    let snapshots = store.snapshots();
    let (mut parent, mut size) = (None, 0);
    for layer in layers {
        if cancelled() {
            return Err(Failure::interrupted());
        }
        let adopted = snapshots.adopt(parent, &layer.diff_id, lease)?;
        let snapshot = match adopted {
            Some(snapshot) => snapshot,
            None => {
                let stop =
                    |_: &Waiting<'_>| if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
                let _unpacking = store.lock(&LockName::layer(&layer.diff_id), LockMode::Exclusive, &stop)?;
                match snapshots.adopt(parent, &layer.diff_id, lease)? {
                    Some(snapshot) => snapshot,
                    None => {
                        let mut tar = Decoder::new(store.blobs().open(&layer.blob)?)?;
                        snapshots.apply(parent, &mut tar, Some(layer.diff_id), lease)?
                    }
                }
            }
        };
        size += snapshot.disk_size();
        parent = Some(snapshot.id());
    }
    Ok((parent, size))
}
