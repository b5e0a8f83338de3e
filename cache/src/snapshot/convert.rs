//! From one kind of layer to the other.
//!
//! A step's changes are a directory first, so that the next step stands on them at once; they become a tar when their
//! digests are computed, which somebody waits for anyhow. Where layers that are tars cannot be mounted, as in a user
//! namespace, they become directories when they are.
//!
//! The row changes from one form to the other in one transaction; until then the new form is a private file of the
//! lease, or held by it. The old form is garbage from then on. Live processes may still use it, so it goes only when all
//! leases that began before are over: that is what its change time tells a collection, and why it is renewed here.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::apply::unpack;
use super::diff::{LayerDiff, Times, plan_directory};
use super::directory;
use super::directory::DirectoryKind;
use super::handle::{Committed, Snapshot, unused_name};
use super::kind::Snapshotter;
use super::layer_dir::LayerDir;
use super::store::{LayerRow, SnapshotError, Snapshots};
use super::tar_layer::{self, TarKind};
use super::writer::Metadata;
use crate::db::{Durability, Text};
use crate::failpoint;
use crate::lease::Hold;
use crate::lock::{LockMode, LockName, wait_silently};
use crate::path_error::{AtPath, PathError};
use crate::view::Stat;

impl Snapshot<Committed> {
    /// Turns the topmost layer into a tar, where layers are kept so and it is none; what it is known by then.
    pub(super) fn become_tar(&self) -> Result<Option<LayerDiff>, SnapshotError> {
        let row = self.top();
        if row.kind != directory::NAME || !self.snapshots.makes_tars()? {
            return Ok(None);
        }
        let store = &self.snapshots.store;
        // Computing it twice would only be a waste, so a lock that cannot be had is no reason to fail.
        let name = LockName::other("layer", &row.id.to_string());
        let _lock = store.lock(&name, LockMode::Exclusive, &wait_silently).ok();
        if let Some(diff) = self.remembered_diff()? {
            return Ok(Some(diff));
        }
        let lease = store.lease("layer to tar")?;
        lease.hold(Hold::Snapshot(self.id()))?;
        let directory = self.snapshots.path(row);
        let layer = LayerDir::new(&directory);
        let failed = |source| SnapshotError::Diff { id: self.id(), source };
        let planned = plan_directory(&layer, Times::Kept).map_err(failed)?;
        let root = Stat::at(layer.fd().at("open", &directory)?, b"").at("inspect", &directory)?;
        let parent = Arc::new(self.snapshots.view(self.parent)?);
        let scratch = lease.scratch_name("tar")?;
        fs::create_dir(&scratch).at("create", &scratch)?;
        let place = tar_layer::place(&scratch);
        store.grows_by(row.size);
        let written = tar_layer::write(planned, &place, parent, Some(&Metadata::from(&root))).map_err(failed)?;
        let path = unused_name(&lease, &scratch, &TarKind);
        lease.hold(Hold::Layer(path.clone()))?;
        let target = store.layout().layer(&path);
        TarKind.seal(&scratch, &target)?;
        failpoint::hit("layer-name").at("name", &target)?;
        renew(&directory)?;
        let diff = written.diff;
        let changed = store.db().write(Durability::Lazy, |tx| {
            tx.execute(
                "UPDATE layers SET kind = ?2, path = ?3, size = ?4, diff_id = ?5, tar_size = ?6, content_digest = ?7,
                     index_digest = ?8 WHERE id = ?1 AND path = ?9 AND diff_id IS NULL",
                (
                    row.id,
                    tar_layer::NAME,
                    &path,
                    written.size,
                    Text(diff.diff_id),
                    diff.size,
                    Text(diff.content_digest),
                    Text(written.index),
                    &row.path,
                ),
            )
        })?;
        failpoint::hit("layer-done").at("name", &target)?;
        if changed > 0 {
            store.snapshotting().note_replaced();
            renew(&directory)?;
        }
        Ok(Some(diff))
    }
}

impl Snapshots {
    /// Turns a layer that is a tar into a directory.
    pub(super) fn become_directory(&self, row: &LayerRow) -> Result<(), SnapshotError> {
        let store = &self.store;
        let name = LockName::other("layer", &row.id.to_string());
        let _lock = store.lock(&name, LockMode::Exclusive, &wait_silently).ok();
        if self.chain(row.snapshot)?.first().is_some_and(|now| now.path != row.path) {
            return Ok(());
        }
        let lease = store.lease("layer to directory")?;
        lease.hold(Hold::Snapshot(row.snapshot))?;
        let parent = self.chain(row.snapshot)?.get(1).map(|below| below.snapshot);
        let active = self.prepare(parent, &lease)?;
        store.grows_by(row.size);
        let layer = self.path(row);
        let tar = tar_layer::Files::of(&layer).tar;
        let mut writer = directory::writer(active.scratch(), active.parent_view().clone())?;
        let mut tar = File::open(&tar).at("open", &tar)?;
        unpack(&mut tar, row.diff_id, &mut writer)?;
        drop(writer);
        let size = DirectoryKind.measure(active.scratch())?;
        let path = unused_name(&lease, active.scratch(), &DirectoryKind);
        lease.hold(Hold::Layer(path.clone()))?;
        DirectoryKind.seal(active.scratch(), &store.layout().layer(&path))?;
        renew(&layer)?;
        let changed = store.db().write(Durability::Lazy, |tx| {
            let sql =
                "UPDATE layers SET kind = ?2, path = ?3, size = ?4, index_digest = NULL WHERE id = ?1 AND path = ?5";
            tx.execute(sql, (row.id, directory::NAME, &path, size, &row.path))
        })?;
        if changed > 0 {
            store.snapshotting().note_replaced();
            renew(&layer)?;
        }
        Ok(())
    }

    /// Makes the indexes of the layers of `chain` that have lost theirs, the lowest first.
    pub(super) fn ensure_indexes(&self, chain: &[LayerRow]) -> Result<(), SnapshotError> {
        for (position, row) in chain.iter().enumerate().rev() {
            if row.kind == tar_layer::NAME && !tar_layer::Files::of(&self.path(row)).index.exists() {
                self.index_again(row, &chain[position + 1..])?;
            }
        }
        Ok(())
    }

    /// Makes the index of a layer on top of the layers `below` from its tar once more, and puts it in its place.
    pub(super) fn index_again(&self, row: &LayerRow, below: &[LayerRow]) -> Result<(), SnapshotError> {
        let store = &self.store;
        let name = LockName::other("layer", &row.id.to_string());
        let _lock = store.lock(&name, LockMode::Exclusive, &wait_silently).ok();
        let lease = store.lease("index of a layer")?;
        lease.hold(Hold::Snapshot(row.snapshot))?;
        let layer = self.path(row);
        let place = lease.scratch_name("index")?;
        let Some(diff) = row.known_diff() else { return Ok(()) };
        let written = tar_layer::index_again(&layer, &place, Arc::new(self.view_of(below)?), diff)?;
        tar_layer::put_index(&place, &layer)?;
        self.forget_merged(row)?;
        store.db().write(Durability::Lazy, |tx| {
            tx.execute("UPDATE layers SET index_digest = ?2 WHERE id = ?1", (row.id, Text(written.index)))
        })?;
        Ok(())
    }
}

/// Makes the change time of a layer's directory now, and changes nothing else.
fn renew(directory: &Path) -> Result<(), PathError> {
    let file = File::open(directory).at("open", directory)?;
    let mode = file.metadata().at("inspect", directory)?.permissions().mode() & 0o7777;
    file.set_permissions(Permissions::from_mode(mode)).at("renew", directory)
}
