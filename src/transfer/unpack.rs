//! An image's layers, from blobs in the store to a snapshot. Equal layers are unpacked once, also across processes; a
//! blob that nobody unpacked is still read to its end once, so that no image keeps one that is not what it says (I-08).

use std::io::{self, Read};
use std::ops::ControlFlow;

use rbuild_cache::snapshot::{Committed, Snapshot};
use rbuild_cache::{Lease, LockMode, LockName, SnapshotId, Store, Waiting};
use rbuild_image::layer::Decoder;
use rbuild_image::{BlobSource, DiffId, Digest, Hashing};

use super::arrival::Arrivals;
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
    unpack_arriving(store, lease, layers, None, cancelled)
}

/// As [`unpack`], while the blobs are still on their way.
pub(super) fn unpack_arriving(
    store: &Store,
    lease: &Lease,
    layers: &[LayerBlob],
    arrivals: Option<&Arrivals<'_>>,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<(Option<SnapshotId>, u64), Failure> {
    let snapshots = store.snapshots();
    let (mut parent, mut size) = (None, 0);
    let mut known = None;
    for layer in layers {
        if cancelled() {
            return Err(Failure::interrupted());
        }
        let adopted = snapshots.adopt(parent, &layer.diff_id, lease)?;
        let snapshot = match adopted {
            Some(snapshot) => {
                if layer.blob != *layer.diff_id.digest() {
                    let known = match &mut known {
                        Some(known) => known,
                        none => none.insert(known_blobs(store)?),
                    };
                    if known.get(&layer.diff_id).is_none_or(|blob| blob.digest != layer.blob) {
                        if let Some(arrivals) = arrivals {
                            arrivals.wait_whole(&layer.blob, cancelled)?;
                        }
                        verify(store, layer, cancelled)?;
                    }
                }
                snapshot
            }
            None => {
                let stop =
                    |_: &Waiting<'_>| if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
                let _unpacking = store.lock(&LockName::layer(&layer.diff_id), LockMode::Exclusive, &stop)?;
                match snapshots.adopt(parent, &layer.diff_id, lease)? {
                    Some(snapshot) => snapshot,
                    None => match arrivals
                        .map(|arrivals| apply_arriving(arrivals, store, lease, parent, layer, cancelled))
                    {
                        Some(Ok(snapshot)) => snapshot,
                        Some(Err(failure)) => {
                            // Its bytes were not verified: only the whole blob tells whose fault it is.
                            tracing::debug!(failure = failure.message(), "unpacking from the whole blob");
                            if let Some(arrivals) = arrivals {
                                arrivals.wait_whole(&layer.blob, cancelled)?;
                            }
                            apply(store, lease, parent, layer)?
                        }
                        None => apply(store, lease, parent, layer)?,
                    },
                }
            }
        };
        size += snapshot.disk_size();
        parent = Some(snapshot.id());
    }
    Ok((parent, size))
}

fn apply(
    store: &Store,
    lease: &Lease,
    parent: Option<SnapshotId>,
    layer: &LayerBlob,
) -> Result<Snapshot<Committed>, Failure> {
    let mut tar = Decoder::new(store.blobs().open(&layer.blob)?)?;
    Ok(store.snapshots().apply(parent, &mut tar, Some(layer.diff_id), lease)?)
}

fn apply_arriving(
    arrivals: &Arrivals<'_>,
    store: &Store,
    lease: &Lease,
    parent: Option<SnapshotId>,
    layer: &LayerBlob,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Snapshot<Committed>, Failure> {
    let mut tar = Decoder::new(arrivals.open(&layer.blob, cancelled)?)?;
    Ok(store.snapshots().apply(parent, &mut tar, Some(layer.diff_id), lease)?)
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
