//! Unpacking a layer that a step made in another store.
//!
//! Such a layer is as good as one that was made here when writing it again gives the same tar: then it can leave in any
//! compression, and its content counts without times. That is computed, not believed. Otherwise it is kept as one from
//! outside, with the blob that it came as.

use std::collections::BTreeSet;
use std::io::{self, Read};

use jiff::Timestamp;
use rbuild_image::{ContentDigest, Descriptor, DiffId, MediaType};

use super::diff::Times;
use super::handle::{Committed, Snapshot};
use super::store::{SnapshotError, Snapshots};
use crate::db::{Durability, Micros, Text};
use crate::id::SnapshotId;
use crate::lease::Lease;

/// What a cache says of a layer.
#[derive(Clone, Copy, Debug)]
pub struct MadeElsewhere<'a> {
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// What it holds, without times.
    pub content: Option<ContentDigest>,
    /// The blob that it came as; a lease holds it.
    pub blob: &'a Descriptor,
}

impl Snapshots {
    /// As [`Self::apply`], for a layer of a cache elsewhere.
    pub fn apply_made(
        &self,
        parent: Option<SnapshotId>,
        tar: &mut (dyn Read + Send),
        expected: DiffId,
        made: &MadeElsewhere<'_>,
        lease: &Lease,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        let active = self.prepare(parent, lease)?;
        let (outside, sharing) = active.take(tar, Some(expected))?;
        // Without a diff_id nobody else finds it: nothing is decided until the next transaction.
        let snapshot = active.seal_unnamed(lease, sharing)?;
        let own = made.content.and_then(|content| {
            let written = snapshot.write_tar_with(Times::Kept, &mut io::sink()).ok()?;
            (written.diff_id == expected && written.content_digest == content).then_some(written)
        });
        let diff = own.unwrap_or(outside);
        self.store.db().write(Durability::Lazy, |tx| {
            tx.execute(
                "UPDATE layers SET diff_id = ?2, tar_size = ?3, content_digest = ?4,
                     created_at = coalesce(?5, created_at) WHERE id = ?1",
                (
                    snapshot.layer_id(),
                    Text(diff.diff_id),
                    diff.size,
                    Text(diff.content_digest),
                    made.created_at.map(Micros),
                ),
            )?;
            if own.is_none() {
                tx.execute(
                    "INSERT OR IGNORE INTO layer_blobs (layer, blob, media_type) VALUES (?1, ?2, ?3)",
                    (snapshot.layer_id(), Text(made.blob.digest), made.blob.media_type.as_str()),
                )?;
            }
            Ok::<_, SnapshotError>(())
        })?;
        self.remembered().forget(&BTreeSet::from([snapshot.layer_id()]));
        self.get(snapshot.id())
    }
}

impl Snapshots {
    /// The blobs that layers from caches came as, by diff_id: what cannot be written again leaves as these.
    pub fn forms(&self) -> Result<Vec<(DiffId, Descriptor)>, SnapshotError> {
        let rows = self.store.db().read(|tx| {
            let sql = "SELECT l.diff_id, b.digest, b.size, f.media_type FROM layer_blobs f
                       JOIN layers l ON l.id = f.layer JOIN blobs b ON b.digest = f.blob
                       WHERE l.diff_id IS NOT NULL ORDER BY l.id, b.digest";
            tx.all(sql, [], |row| {
                let (Text(diff_id), Text(digest)) = (row.get(0)?, row.get(1)?);
                let media_type: String = row.get(3)?;
                Ok((diff_id, Descriptor::new(MediaType::from(media_type.as_str()), digest, row.get(2)?)))
            })
        })?;
        Ok(rows)
    }
}
