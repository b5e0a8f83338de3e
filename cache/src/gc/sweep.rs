//! The second transaction, and the deletion of files after it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rbuild_image::Digest;

use super::PruneError;
use super::inventory::{Inventory, Reach};
use crate::content::blob_is_named;
use crate::db::{DbError, Text, Tx};
use crate::failpoint;
use crate::lease::{self, Lease};
use crate::lock::{LockMode, LockName};
use crate::mount_cache::{CacheMountError, CacheMountInfo};
use crate::path_error::{AtPath, PathError};
use crate::removal::remove_tree;
use crate::store::Store;

/// What has no row any more.
pub(super) struct Condemned {
    pub(super) layers: Vec<String>,
    /// Merged indexes.
    pub(super) merged: Vec<String>,
    pub(super) blobs: Vec<Digest>,
}

/// Marks again, with what leases hold now; spares what is reached, deletes the other doomed rows.
pub(super) fn rows(store: &Store, tx: &Tx<'_>) -> Result<Condemned, PruneError> {
    let inventory = Inventory::load(tx)?;
    let holds = lease::live(store.layout())?.holds;
    let results = inventory.results.keys().copied().collect();
    let mut reach = Reach::of(&inventory, &results, &BTreeSet::new(), &holds);
    // What came after the first transaction is not ours to judge, and stands on its parents.
    for (id, _) in inventory.snapshots.iter().filter(|(_, row)| !row.doomed) {
        inventory.chain(*id, &mut reach.snapshots);
    }
    let mut condemned = Condemned { layers: Vec::new(), merged: Vec::new(), blobs: Vec::new() };
    // Children have higher ids than their parents.
    for (id, _) in inventory.snapshots.iter().rev().filter(|(_, row)| row.doomed) {
        if reach.snapshots.contains(id) {
            tx.execute("UPDATE snapshots SET doomed = 0 WHERE id = ?1", [id])?;
        } else {
            // Their rows go with that of the snapshot.
            let merged = "SELECT path FROM merged WHERE snapshot = ?1";
            condemned.merged.extend(tx.all(merged, [id], |row| row.get::<_, String>(0))?);
            tx.execute("DELETE FROM snapshots WHERE id = ?1", [id])?;
        }
    }
    for (id, row) in inventory.layers.iter().filter(|(id, _)| !reach.layers.contains(id)) {
        // Not if a snapshot stands on it that came after the first transaction.
        let sql = "DELETE FROM layers WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM snapshots WHERE layer = ?1)";
        if tx.execute(sql, [id])? > 0 {
            condemned.layers.push(row.path.clone());
        }
    }
    for (digest, _) in inventory.blobs.iter().filter(|(_, row)| row.doomed) {
        if reach.blobs.contains(digest) || is_attached(tx, digest)? {
            tx.execute("UPDATE blobs SET doomed = 0 WHERE digest = ?1", [Text(digest)])?;
        } else {
            tx.execute("DELETE FROM blobs WHERE digest = ?1", [Text(digest)])?;
            condemned.blobs.push(*digest);
        }
    }
    failpoint::hit("gc-rows").at("collect in", store.layout().root())?;
    Ok(condemned)
}

/// Whether a layer that stays has this blob.
fn is_attached(tx: &Tx<'_>, digest: &Digest) -> Result<bool, DbError> {
    let sql = "SELECT 1 FROM layer_blobs WHERE blob = ?1
               UNION ALL SELECT 1 FROM layer_forms WHERE digest = ?1 AND kept_at IS NOT NULL";
    Ok(tx.first(sql, [Text(digest)], |_| Ok(()))?.is_some())
}

/// Deletes files and counts what that gave back.
pub(super) struct Sweeper<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) interrupt: &'a (dyn Fn() -> ControlFlow<()> + Sync),
    pub(super) freed: u64,
}

impl Sweeper<'_> {
    /// Deletes what has no row any more. `removed` gets the mounts that were.
    pub(super) fn files(
        &mut self,
        condemned: &Condemned,
        mounts: &[CacheMountInfo],
        removed: &mut Vec<CacheMountInfo>,
    ) -> Result<ControlFlow<()>, PruneError> {
        for path in &condemned.layers {
            if (self.interrupt)().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            failpoint::hit("gc-layer").at("remove", &self.store.layout().layer(path))?;
            self.tree(&self.store.layout().layer(path))?;
        }
        for path in &condemned.merged {
            if (self.interrupt)().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            failpoint::hit("gc-merged").at("remove", &self.store.layout().merged_index(path))?;
            self.file(&self.store.layout().merged_index(path))?;
        }
        for digest in &condemned.blobs {
            if (self.interrupt)().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            failpoint::hit("gc-blob").at("remove", &self.store.layout().blob(digest))?;
            self.blob(digest)?;
        }
        for mount in mounts {
            if (self.interrupt)().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            match self.store.cache_mounts().remove(mount, self.lease) {
                Ok(bytes) => {
                    self.freed += bytes;
                    removed.push(mount.clone());
                }
                // Somebody was faster than we.
                Err(CacheMountError::InUse { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Removes a tree that nothing names: out of sight first, so that it is never seen half empty.
    pub(super) fn tree(&mut self, path: &Path) -> Result<(), PathError> {
        let doomed = self.lease.scratch_name("doomed")?;
        match fs::rename(path, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.at("rename", path)?,
        }
        failpoint::hit("gc-tree-hidden").at("remove", path)?;
        self.freed += remove_tree(&doomed).at("remove", path)?;
        Ok(())
    }

    /// Removes a blob's file, unless somebody is bringing the blob back.
    pub(super) fn blob(&mut self, digest: &Digest) -> Result<(), PruneError> {
        let Some(_lock) = self.store.try_lock(&LockName::blob(digest), LockMode::Exclusive)? else { return Ok(()) };
        if self.store.db().read(|tx| blob_is_named(tx, digest))? {
            return Ok(());
        }
        let path = self.store.layout().blob(digest);
        Ok(self.file(&path)?)
    }

    /// Removes one file.
    pub(super) fn file(&mut self, path: &Path) -> Result<(), PathError> {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.at("inspect", path)?,
        };
        fs::remove_file(path).at("remove", path)?;
        if metadata.nlink() == 1 {
            self.freed += metadata.blocks() * 512;
        }
        Ok(())
    }
}
