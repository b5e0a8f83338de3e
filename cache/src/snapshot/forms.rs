//! What a layer is when it leaves: its tar as a file, and what it is known to become when it is compressed. Compression
//! gives the same bytes each time, so whoever only has to name them need not make them.
//!
//! The bytes may be kept as well, for the next one who wants them. Such a blob is a copy that nothing depends on: it goes
//! before anything else when room is needed, and with its layer, and what is gone is made again.

use std::fs::File;
use std::path::Path;

use rbuild_image::Digest;

use super::handle::{Committed, Snapshot};
use super::store::SnapshotError;
use crate::content::IngestError;
use crate::db::{DbError, Durability, Micros, Text};
use crate::failpoint;
use crate::lease::{Hold, Lease};
use crate::lock::OnWait;
use crate::path_error::AtPath;
use crate::store::Store;

impl Snapshot<Committed> {
    /// The topmost layer's tar, where it is kept as one.
    pub fn open_tar(&self) -> Result<Option<File>, SnapshotError> {
        let row = self.top();
        let path = self.snapshots.path(row);
        Ok(row.snapshotter()?.open_tar(&path).transpose().at("open", &path)?)
    }

    /// Digest and size of what the topmost layer became when it was compressed by `algorithm`.
    pub fn form(&self, algorithm: &str) -> Result<Option<(Digest, u64)>, SnapshotError> {
        Ok(self.remembered(algorithm)?.map(|form| (form.digest, form.size)))
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

    /// Keeps the bytes of the form that was remembered last for `algorithm`: `file` has them, below the store's root.
    pub fn keep_form(
        &self,
        algorithm: &str,
        file: &Path,
        lease: &Lease,
        on_wait: OnWait<'_>,
    ) -> Result<(), IngestError> {
        let store = &self.snapshots.store;
        let Some(Form { digest, size, .. }) = self.remembered(algorithm)? else { return Ok(()) };
        store.blobs_for(lease, on_wait).adopt(file, &digest, size)?;
        failpoint::hit("keep-form").at("keep", file)?;
        Ok(self.mark_kept(algorithm)?)
    }

    /// The form by `algorithm`, if its bytes are kept; `lease` has them then.
    pub fn kept_form(&self, algorithm: &str, lease: &Lease) -> Result<Option<(Digest, u64)>, SnapshotError> {
        let Some(Form { digest, size, is_kept: true }) = self.remembered(algorithm)? else { return Ok(None) };
        lease.hold(Hold::Blob(digest))?;
        let store = &self.snapshots.store;
        let file = store.layout().blob(&digest);
        // A copy that is damaged is none.
        if store.rescue_blob(&digest)?.is_none() || !file.metadata().is_ok_and(|file| file.len() == size) {
            return Ok(None);
        }
        self.mark_kept(algorithm)?;
        Ok(Some((digest, size)))
    }

    fn remembered(&self, algorithm: &str) -> Result<Option<Form>, DbError> {
        let sql = "SELECT digest, size, kept_at IS NOT NULL FROM layer_forms WHERE layer = ?1 AND algorithm = ?2";
        self.snapshots.store.db().read(|tx| {
            tx.first(sql, (self.layer_id(), algorithm), |row| {
                let Text(digest) = row.get(0)?;
                Ok(Form { digest, size: row.get(1)?, is_kept: row.get(2)? })
            })
        })
    }

    fn mark_kept(&self, algorithm: &str) -> Result<(), DbError> {
        let store = &self.snapshots.store;
        let sql = "UPDATE layer_forms SET kept_at = ?3 WHERE layer = ?1 AND algorithm = ?2";
        store.db().write(Durability::Lazy, |tx| tx.execute(sql, (self.layer_id(), algorithm, Micros(store.now()))))?;
        Ok(())
    }
}

/// What a layer became.
struct Form {
    digest: Digest,
    size: u64,
    is_kept: bool,
}

impl Store {
    /// Lets go of the compressed layers that are kept: the next collection takes them. How many they are.
    pub fn let_go_of_kept_forms(&self) -> Result<usize, DbError> {
        let sql = "UPDATE layer_forms SET kept_at = NULL WHERE kept_at IS NOT NULL";
        self.db().write(Durability::Lazy, |tx| tx.execute(sql, []))
    }
}
