//! Layers that came from outside, compared with the tar they came as, and unpacked from it once more.
//!
//! Such a layer is kept unpacked, and the tar cannot be written from its files again. But unpacking is deterministic:
//! what the same tar gives on the same parent must have the same content.

use std::fs;
use std::io::{self, Read};

use rbuild_image::{ContentDigest, DiffId};

use super::apply::unpack;
use super::diff::{LayerDiff, Times};
use super::handle::{Active, Committed, Snapshot};
use super::kind::for_new_layers;
use super::store::{SnapshotError, Snapshots, insert_snapshot};
use crate::db::{DbError, Durability, Micros, Text};
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::AtPath;
use crate::removal::remove_tree;
use crate::usage::disk_usage;

/// A layer's directory that no row names.
#[derive(Clone, Debug)]
pub(crate) struct FoundLayer {
    path: String,
    size: u64,
    pub(crate) diff: LayerDiff,
}

impl Snapshots {
    /// The names of all directories of layers.
    pub(crate) fn directories(&self) -> Result<Vec<String>, SnapshotError> {
        let layers = self.store.layout().layers();
        let mut names = Vec::new();
        for entry in fs::read_dir(&layers).at("list", &layers)? {
            names.push(entry.at("list", &layers)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// What a directory gives as a layer that was made here.
    pub(crate) fn found(&self, name: &str) -> Result<FoundLayer, SnapshotError> {
        let path = self.store.layout().layer(name);
        let failed = |source| SnapshotError::Diff { id: SnapshotId::from_row(0), source };
        let diff = for_new_layers().write_tar(&path, Times::Kept, &mut io::sink()).map_err(failed)?;
        Ok(FoundLayer { path: name.to_owned(), size: disk_usage(&path)?, diff })
    }

    /// Names a directory as a layer on top of `parent`.
    pub(crate) fn adopt_found(
        &self,
        parent: Option<SnapshotId>,
        found: &FoundLayer,
        lease: &Lease,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        let now = Micros(self.store.now());
        let id = self.store.db().write(Durability::Lazy, |tx| {
            self.check_parent(tx, parent)?;
            let known = tx.first("SELECT id FROM layers WHERE path = ?1", [&found.path], |row| row.get(0))?;
            let layer = match known {
                Some(layer) => layer,
                None => LayerId::from_row(tx.insert(
                    "INSERT INTO layers (kind, path, size, diff_id, tar_size, content_digest, depends_on_parent, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    (
                        for_new_layers().name(),
                        &found.path,
                        found.size,
                        Text(found.diff.diff_id),
                        found.diff.size,
                        Text(found.diff.content_digest),
                        parent.is_some(),
                        now,
                    ),
                )?),
            };
            let id = insert_snapshot(tx, parent, layer, now)?;
            lease.hold(Hold::Snapshot(id))?;
            Ok::<_, SnapshotError>(id)
        })?;
        self.get(id)
    }

    /// What a layer holds, from its files as they are now.
    pub(crate) fn content_now(&self, id: SnapshotId) -> Result<ContentDigest, SnapshotError> {
        Ok(self.get(id)?.write_tar_with(Times::Kept, &mut io::sink())?.content_digest)
    }

    /// What a tar gives on this parent; nothing of it is kept.
    pub(crate) fn content_of_tar(
        &self,
        parent: Option<SnapshotId>,
        tar: &mut (dyn Read + Send),
        expected: DiffId,
        lease: &Lease,
    ) -> Result<ContentDigest, SnapshotError> {
        let active = self.unpacked(parent, tar, expected, lease)?;
        let place = active.place.as_ref().expect("present until sealed");
        let trial = lease.scratch_name("trial")?;
        place.kind.seal(&place.scratch, &trial)?;
        let written = place.kind.write_tar(&trial, Times::Kept, &mut io::sink());
        remove_tree(&trial).at("remove", &trial)?;
        let failed = |source| SnapshotError::Diff { id: SnapshotId::from_row(0), source };
        Ok(written.map_err(failed)?.content_digest)
    }

    /// Unpacks a layer once more and puts that in its place; gives the path, below the directory of layers, that it
    /// had. Nobody may use it.
    pub(crate) fn replace_layer(
        &self,
        layer: LayerId,
        parent: Option<SnapshotId>,
        tar: &mut (dyn Read + Send),
        expected: DiffId,
        lease: &Lease,
    ) -> Result<String, SnapshotError> {
        let active = self.unpacked(parent, tar, expected, lease)?;
        let place = active.place.as_ref().expect("present until sealed");
        let size = place.kind.measure(&place.scratch)?.size;
        let name = super::handle::unused_name(lease, &place.scratch);
        lease.hold(Hold::Layer(name.clone()))?;
        place.kind.seal(&place.scratch, &self.store.layout().layer(&name))?;
        let before = self.store.db().write(Durability::Synced, |tx| {
            let before = tx.one("SELECT path FROM layers WHERE id = ?1", [layer], |row| row.get::<_, String>(0))?;
            tx.execute("UPDATE layers SET path = ?2, size = ?3 WHERE id = ?1", (layer, &name, size))?;
            Ok::<_, DbError>(before)
        })?;
        Ok(before)
    }

    fn unpacked(
        &self,
        parent: Option<SnapshotId>,
        tar: &mut (dyn Read + Send),
        expected: DiffId,
        lease: &Lease,
    ) -> Result<Snapshot<Active>, SnapshotError> {
        let active = self.prepare(parent, lease)?;
        let mut writer = active.writer()?;
        unpack(tar, Some(expected), &mut writer)?;
        drop(writer);
        Ok(active)
    }
}
