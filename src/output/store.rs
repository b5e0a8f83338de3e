//! A build's result as an image in the store.

use std::collections::BTreeMap;

use rbuild_cache::{BlobRole, Hold, ImageRecord, Lease, SnapshotId, Store, wait_silently};
use rbuild_image::{Digest, ImageConfig, ImageRef};

use super::stage::blobs_at_hand;
use crate::cli::report::Failure;
use crate::transfer::created;

/// What a build made, ready to be kept or written.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image's config; its diff ids are those of the layers.
    pub config: ImageConfig,
    /// Topmost layer; `None` for an image without files.
    pub snapshot: Option<SnapshotId>,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// How many of its layers, from the lowest, are the base image's.
    pub base_layers: usize,
}

impl Built {
    /// The record of this image; its blobs are put into the store.
    pub fn record(&self, store: &Store, lease: &Lease) -> Result<ImageRecord, Failure> {
        let bytes = self.config.to_json();
        let id = store.blobs_for(lease, &wait_silently).put(&bytes)?;
        let mut blobs = BTreeMap::from([(id, BlobRole::Config)]);
        if !self.config.rootfs.diff_ids.is_empty() {
            // Layers that came from outside can only leave as the blobs that they came as: the image keeps them.
            let known = blobs_at_hand(store)?;
            for descriptor in self.config.rootfs.diff_ids.iter().filter_map(|diff_id| known.get(diff_id)) {
                lease.hold(Hold::Blob(descriptor.digest))?;
                blobs.insert(descriptor.digest, BlobRole::Layer);
            }
        }
        Ok(ImageRecord {
            id,
            platform: self.config.platform(),
            manifest: None,
            diff_ids: self.config.rootfs.diff_ids.clone(),
            snapshot: self.snapshot,
            size: self.size,
            created_at: created(&self.config),
            blobs,
        })
    }
}

/// Keeps a build's result under its names; gives the image's id.
pub fn put_image(store: &Store, lease: &Lease, built: &Built, names: &[ImageRef]) -> Result<Digest, Failure> {
    let record = built.record(store, lease)?;
    store.images().put(&record, names)?;
    Ok(record.id)
}
