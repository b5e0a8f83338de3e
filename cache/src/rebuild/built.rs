//! Images that were built here, from their configs and the directories of their layers.
//!
//! A layer that was made here always gives the same tar, so its directory tells its diff id; a config names the diff
//! ids of its layers, and its blob has the digest it claims. Together they prove the image.

use std::collections::BTreeMap;

use rbuild_image::{DiffId, Digest, ImageConfig, MAX_CONFIG_BYTES};

use super::RebuildError;
use crate::images::{BlobRole, ImageRecord};
use crate::lease::Lease;
use crate::snapshot::FoundLayer;
use crate::store::Store;

/// The layers that lie in the store without a row, by what their files give.
pub(super) fn layers(store: &Store) -> Result<BTreeMap<DiffId, FoundLayer>, RebuildError> {
    let mut found = BTreeMap::new();
    for path in store.snapshots().directories()? {
        // What cannot be read as a layer is garbage.
        match store.snapshots().found(&path) {
            Ok(layer) => drop(found.entry(layer.diff.diff_id).or_insert(layer)),
            Err(error) => tracing::debug!(path, %error, "no layer"),
        }
    }
    Ok(found)
}

/// The image that a blob is the config of, if it is one and all its layers can be had.
pub(super) fn image(
    store: &Store,
    digest: &Digest,
    found: &BTreeMap<DiffId, FoundLayer>,
    sources: &BTreeMap<DiffId, Digest>,
    lease: &Lease,
) -> Result<Option<ImageRecord>, RebuildError> {
    let bytes = store.blobs().read(digest, MAX_CONFIG_BYTES)?;
    let Ok(config) = ImageConfig::parse(&bytes) else { return Ok(None) };
    let diff_ids = &config.rootfs.diff_ids;
    let at_hand = |diff_id: &DiffId| found.contains_key(diff_id) || sources.contains_key(diff_id);
    if diff_ids.is_empty() || !diff_ids.iter().all(at_hand) {
        return Ok(None);
    }
    let (mut parent, mut size) = (None, 0);
    for diff_id in diff_ids {
        let snapshots = store.snapshots();
        let snapshot = match (snapshots.adopt(parent, diff_id, lease), found.get(diff_id), sources.get(diff_id)) {
            (Ok(Some(snapshot)), _, _) => Ok(snapshot),
            (Err(error), _, _) => Err(error),
            (_, Some(layer), _) => snapshots.adopt_found(parent, layer, lease),
            (_, None, Some(blob)) => {
                let mut tar = store.layer_tar(blob)?;
                snapshots.apply(parent, &mut *tar, Some(*diff_id), lease)
            }
            (_, None, None) => return Ok(None),
        };
        let snapshot = snapshot?;
        size += snapshot.disk_size();
        parent = Some(snapshot.id());
    }
    Ok(Some(ImageRecord {
        id: *digest,
        platform: config.platform(),
        manifest: None,
        diff_ids: diff_ids.clone(),
        snapshot: parent,
        size,
        created_at: config.created.as_deref().and_then(|text| text.parse().ok()),
        blobs: BTreeMap::from([(*digest, BlobRole::Config)]),
    }))
}
