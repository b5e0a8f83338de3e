//! The way back for what a collection has marked, when a lease came to hold it after the mark.
//!
//! A marked row that one has just come to hold may be about to go: the second transaction may have read the leases
//! already. Writers exclude each other, so a transaction that clears the mark either comes before the second one,
//! which then sees the hold and spares the row, or after it, and finds nothing.

use rbuild_image::Digest;

use crate::db::{DbError, Durability, Text};
use crate::id::SnapshotId;
use crate::store::Store;

impl Store {
    /// Clears the mark of a snapshot, and of its parents, that a live lease holds already; whether it is still there.
    pub(crate) fn rescue_snapshot(&self, id: SnapshotId) -> Result<bool, DbError> {
        self.db().write(Durability::Lazy, |tx| {
            let sql = "WITH RECURSIVE chain (id, parent) AS (
                           SELECT id, parent FROM snapshots WHERE id = ?1
                           UNION ALL SELECT s.id, s.parent FROM snapshots s JOIN chain c ON s.id = c.parent)
                       UPDATE snapshots SET doomed = 0 WHERE id IN (SELECT id FROM chain)";
            Ok(tx.execute(sql, [id])? > 0)
        })
    }

    /// Clears the mark of a blob that a live lease holds already; its size, if it is still there.
    pub(crate) fn rescue_blob(&self, digest: &Digest) -> Result<Option<u64>, DbError> {
        self.db().write(Durability::Lazy, |tx| {
            let sql = "UPDATE blobs SET doomed = 0 WHERE digest = ?1 RETURNING size";
            tx.first(sql, [Text(digest)], |row| row.get(0))
        })
    }
}
