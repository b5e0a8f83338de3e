//! What a layer is when it leaves: its tar as a file, and what it is known to become when it is compressed. Compression
//! gives the same bytes each time, so whoever only has to name them need not make them.

use std::fs::File;

use rbuild_image::Digest;

use super::handle::{Committed, Snapshot};
use super::store::SnapshotError;
use crate::db::{Durability, Text};
use crate::path_error::AtPath;

impl Snapshot<Committed> {
    /// The topmost layer's tar, where it is kept as one.
    pub fn open_tar(&self) -> Result<Option<File>, SnapshotError> {
        let row = self.top();
        let path = self.snapshots.path(row);
        Ok(row.snapshotter()?.open_tar(&path).transpose().at("open", &path)?)
    }

    /// Digest and size of what the topmost layer became when it was compressed by `algorithm`.
    pub fn form(&self, algorithm: &str) -> Result<Option<(Digest, u64)>, SnapshotError> {
        let sql = "SELECT digest, size FROM layer_forms WHERE layer = ?1 AND algorithm = ?2";
        let found = self.snapshots.store.db().read(|tx| {
            tx.first(sql, (self.layer_id(), algorithm), |row| {
                let Text(digest) = row.get(0)?;
                Ok((digest, row.get(1)?))
            })
        })?;
        Ok(found)
    }

    /// Remembers what the topmost layer became; `None` forgets it.
    pub fn set_form(&self, algorithm: &str, form: Option<(Digest, u64)>) -> Result<(), SnapshotError> {
        self.snapshots.store.db().write(Durability::Lazy, |tx| {
            match form {
                Some((digest, size)) => tx.execute(
                    "INSERT OR REPLACE INTO layer_forms (layer, algorithm, digest, size) VALUES (?1, ?2, ?3, ?4)",
                    (self.layer_id(), algorithm, Text(digest), size),
                )?,
                None => tx.execute(
                    "DELETE FROM layer_forms WHERE layer = ?1 AND algorithm = ?2",
                    (self.layer_id(), algorithm),
                )?,
            };
            Ok::<_, SnapshotError>(())
        })
    }
}
