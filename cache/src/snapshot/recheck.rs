//! Layers that came from outside, compared with the tar they came as, and unpacked from it once more.
//!
//! Such a layer is kept unpacked, and the tar cannot be written from its files again. But unpacking is deterministic:
//! what the same tar gives on the same parent must have the same content.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};

use rbuild_image::{ContentDigest, DiffId};

use super::apply::unpack;
use super::diff::{LayerDiff, Times};
use super::directory::{self, DirectoryKind};
use super::handle::{Committed, Snapshot};
use super::index_files::RootMetadata;
use super::kind::{Snapshotter, by_path};
use super::store::{SnapshotError, Snapshots, insert_snapshot};
use super::tar_layer;
use super::writer::Metadata;
use crate::db::{DbError, Durability, Json, Micros, Text};
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::AtPath;
use crate::removal::remove_tree;
use crate::usage::disk_usage;
use crate::verify::{Problem, VerifyReport};
use crate::view::LayerEntry;

/// A layer's directory that no row names.
#[derive(Clone, Debug)]
pub(crate) struct FoundLayer {
    path: String,
    size: u64,
    pub(crate) diff: LayerDiff,
    /// What its index says of the root directory, if it has one that can be read.
    root: Option<RootMetadata>,
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
        let failed = |source| SnapshotError::Reread { path: path.clone(), source };
        let diff = by_path(name).write_tar(&path, None, Times::Kept, &mut io::sink()).map_err(failed)?;
        let root = match by_path(name).reader(&path).lookup(b"") {
            Ok(Some(LayerEntry::Present(root))) if by_path(name).name() == tar_layer::NAME => {
                Some(RootMetadata::from(&Metadata::from(&root)))
            }
            _ => None,
        };
        Ok(FoundLayer { path: name.to_owned(), size: disk_usage(&path)?, diff, root })
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
                    "INSERT INTO layers (kind, path, size, diff_id, tar_size, content_digest, depends_on_parent, created_at,
                         index_root)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    (
                        by_path(&found.path).name(),
                        &found.path,
                        found.size,
                        Text(found.diff.diff_id),
                        found.diff.size,
                        Text(found.diff.content_digest),
                        parent.is_some(),
                        now,
                        found.root.map(Json),
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
        let active = self.prepare(parent, lease)?;
        let mut writer = directory::writer(active.scratch(), active.parent_view().clone())?;
        unpack(tar, Some(expected), &mut writer)?;
        drop(writer);
        let trial = lease.scratch_name("trial")?;
        DirectoryKind.seal(active.scratch(), &trial)?;
        let written = DirectoryKind.write_tar(&trial, None, Times::Kept, &mut io::sink());
        remove_tree(&trial).at("remove", &trial)?;
        let failed = |source| SnapshotError::Reread { path: trial, source };
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
        let active = self.prepare(parent, lease)?;
        active.take(tar, Some(expected))?;
        let place = active.place.as_ref().expect("present until sealed");
        let (kind, written) = place.made()?;
        let size = kind.measure(&place.scratch)?;
        let index = written.map(|written| Text(written.index));
        let side = written.and_then(|written| written.side.map(Text));
        let boot = written.map(|_| self.store.snapshotting().boot().unwrap_or_default());
        let root = written.and_then(|written| written.root.map(Json));
        let name = super::handle::unused_name(lease, &place.scratch, kind);
        lease.hold(Hold::Layer(name.clone()))?;
        kind.seal(&place.scratch, &self.store.layout().layer(&name))?;
        let before = self.store.db().write(Durability::Synced, |tx| {
            let before = tx.one("SELECT path FROM layers WHERE id = ?1", [layer], |row| row.get::<_, String>(0))?;
            let sql = "UPDATE layers SET path = ?2, size = ?3, kind = ?4, index_digest = ?5, side_digest = ?6,
                           index_boot = ?7, index_root = ?8, tar_file = NULL, tar_bytes = NULL WHERE id = ?1";
            tx.execute(sql, (layer, &name, size, kind.name(), index, side, boot, root))?;
            Ok::<_, DbError>(before)
        })?;
        Ok(before)
    }

    /// Makes damaged indexes of layers that are kept as tars again, where the tars are sound; those that are whole now.
    pub(crate) fn restore_indexes(
        &self,
        report: &VerifyReport,
        in_use: &BTreeSet<LayerId>,
    ) -> Result<Vec<LayerId>, DbError> {
        let mut restored = Vec::new();
        for problem in &report.problems {
            let Problem::LayerIndex { layer } = problem else { continue };
            let others = report.problems.iter().filter(|other| other.layer() == Some(*layer)).count();
            if others > 1 || in_use.contains(layer) {
                continue;
            }
            let snapshot = self.store.db().read(|tx| {
                tx.first("SELECT min(id) FROM snapshots WHERE layer = ?1", [layer], |row| row.get::<_, SnapshotId>(0))
            })?;
            let Some(snapshot) = snapshot else { continue };
            match self.chain(snapshot).and_then(|chain| self.index_again_of(&chain)) {
                Ok(()) => restored.push(*layer),
                Err(error) => tracing::debug!(%layer, %error, "not restored"),
            }
        }
        Ok(restored)
    }
}
