//! From one kind of layer to the other.
//!
//! A step's changes are a directory first, so that the next step stands on them at once. What is large is written as a tar when
//! its digests are computed, which somebody waits for anyhow; the rest later. The digests are known from then on; the tars of
//! several layers become durable together, with one sync ([`super::meanwhile`]). Where layers that are tars cannot be mounted, as in a user
//! namespace, they become directories when they are.
//!
//! The row changes from one form to the other in one transaction; until then the new form is a private file of the
//! lease, or held by it. The old form is garbage from then on. Live processes may still use it, so it goes only when all
//! leases that began before are over: that is what its change time tells a collection, and why it is renewed here.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::apply::unpack;
use super::diff::{LayerDiff, Times, plan_directory};
use super::directory;
use super::directory::DirectoryKind;
use super::handle::{Committed, Snapshot, unused_name};
use super::kind::Snapshotter;
use super::layer_dir::LayerDir;
use super::layer_row::LayerRow;
use super::links::Chain;
use super::meanwhile::Opened;
use super::store::{SnapshotError, Snapshots};
use super::tar_layer::{self, TarKind, Written};
use super::writer::Metadata;
use crate::db::{Durability, Json, Text};
use crate::failpoint;
use crate::id::LayerId;
use crate::lease::{Hold, Lease};
use crate::lock::{LockGuard, LockMode, LockName, wait_silently};
use crate::path_error::{AtPath, PathError};
use crate::view::Stat;
use rbuild_image::ContainerPath;

/// The topmost layer of a snapshot as a tar, complete, but neither durable nor named yet. Other processes that want the same
/// wait for its lock, until what it is known by can be told.
#[derive(Debug)]
pub(super) struct Converted {
    row: LayerRow,
    /// What it was.
    directory: PathBuf,
    scratch: PathBuf,
    written: Written,
    lease: Lease,
    opened: Opened,
    lock: Option<LockGuard>,
}

impl Converted {
    pub(super) fn layer(&self) -> LayerId {
        self.row.id
    }

    pub(super) fn diff(&self) -> LayerDiff {
        self.written.diff
    }

    /// It is known now: who wants its digests need not wait.
    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }
}

/// What to do when somebody else is at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Wait until he is done. Only for who has no other layer in hand.
    Wait,
    /// Leave it to him.
    Skip,
}

impl Snapshot<Committed> {
    /// Computes what the topmost layer is known by, by writing it as a tar; durable later, with others. `None` where layers are not
    /// kept so.
    pub(super) fn digest_as_tar(&self) -> Result<Option<LayerDiff>, SnapshotError> {
        match self.convert(Busy::Wait, &|| true)? {
            Some(converted) => {
                let diff = converted.diff();
                self.snapshots.put_later(converted)?;
                Ok(Some(diff))
            }
            None => self.remembered_diff(),
        }
    }

    /// Writes the topmost layer as a tar, where layers are kept so and it is none.
    pub(super) fn convert(
        &self,
        busy: Busy,
        going_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Converted>, SnapshotError> {
        let row = self.top();
        if row.kind != directory::NAME || !self.snapshots.makes_tars()? {
            return Ok(None);
        }
        let store = &self.snapshots.store;
        let name = LockName::other("layer", &row.id.to_string());
        let lock = match busy {
            // Computing it twice would only be a waste, so a lock that cannot be had is no reason to fail.
            Busy::Wait => store.lock(&name, LockMode::Exclusive, &wait_silently).ok(),
            Busy::Skip => match store.try_lock(&name, LockMode::Exclusive)? {
                Some(lock) => Some(lock),
                None => return Ok(None),
            },
        };
        // Somebody may have done it; what came from outside cannot be written again as it was.
        let now = self.snapshots.top_row(self.id())?;
        let pending = self.snapshots.store.snapshotting().queue().known(row.id).is_some();
        if pending || now.kind != directory::NAME || now.is_imported() {
            return Ok(None);
        }
        let opened = self.snapshots.open_layers()?;
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
        let root = Metadata::from(&root);
        let written = tar_layer::write(planned, &place, parent, Some(&root), going_on).map_err(failed)?;
        Ok(Some(Converted { row: row.clone(), directory, scratch, written, lease, opened, lock }))
    }
}

impl Snapshots {
    /// Writes the layers of these snapshots as tars which nobody else is writing just now; all of them become durable and named
    /// together.
    pub(super) fn convert_all(&self, snapshots: &[Snapshot<Committed>]) -> Result<(), SnapshotError> {
        let converted = snapshots.par_iter().try_for_each(|one| self.add_converted(one, Busy::Skip));
        self.put_made(snapshots.iter().map(Snapshot::layer_id))?;
        converted
    }

    /// The same of layers that must be tars when this is done, whoever is writing them.
    pub(super) fn become_tars(&self, snapshots: &[Snapshot<Committed>]) -> Result<(), SnapshotError> {
        let converted = snapshots.iter().try_for_each(|one| self.add_converted(one, Busy::Wait));
        self.put_made(snapshots.iter().map(Snapshot::layer_id))?;
        converted
    }

    fn add_converted(&self, snapshot: &Snapshot<Committed>, busy: Busy) -> Result<(), SnapshotError> {
        let queue = self.store.snapshotting().queue();
        if let Some(converted) = snapshot.convert(busy, &|| true)? {
            queue.add(converted);
        }
        Ok(())
    }

    fn open_layers(&self) -> Result<Opened, PathError> {
        let layers = self.store.layout().layers();
        self.store.snapshotting().queue().open(&layers).at("open", &layers)
    }

    /// Makes layers durable, with one sync however many they are; their rows say so in one transaction.
    pub(super) fn put_converted(&self, all: &[Converted]) -> Result<(), SnapshotError> {
        let store = &self.store;
        let mut named = Vec::with_capacity(all.len());
        for one in all {
            let place = tar_layer::place(&one.scratch);
            let shared = self.share_tar(&place, one.written.diff.diff_id)?;
            let path = unused_name(&one.lease, &one.scratch, &TarKind);
            one.lease.hold(Hold::Layer(path.clone()))?;
            let target = store.layout().layer(&path);
            tar_layer::put(&one.scratch, &target)?;
            named.push((path, target, shared));
        }
        match (named.as_slice(), all.iter().map(|one| &one.opened).min_by_key(|opened| opened.order)) {
            ([_], _) => named.iter().try_for_each(|(_, target, _)| tar_layer::sync(target))?,
            ([(_, first, _), ..], Some(opened)) => {
                failpoint::hit("layer-sync").at("sync", first)?;
                rustix::fs::syncfs(&opened.directory).at("sync", first)?;
            }
            _ => return Ok(()),
        }
        let boot = store.snapshotting().boot().unwrap_or_default();
        let mut sizes = Vec::with_capacity(all.len());
        for (one, (_, target, _)) in all.iter().zip(&named) {
            sizes.push(tar_layer::used(target).at("inspect", target)?);
            failpoint::hit("layer-name").at("name", target)?;
            renew(&one.directory)?;
        }
        let changed = store.db().write(Durability::Lazy, |tx| {
            let mut changed = Vec::with_capacity(all.len());
            for ((one, (path, _, shared)), size) in all.iter().zip(&named).zip(&sizes) {
                let Written { diff, index, side, root, .. } = &one.written;
                shared.iter().try_for_each(|shared| shared.note(tx))?;
                changed.push(tx.execute(
                    "UPDATE layers SET kind = ?2, path = ?3, size = ?4, diff_id = ?5, tar_size = ?6, content_digest = ?7,
                         index_digest = ?8, side_digest = ?10, index_boot = ?11, index_root = ?12,
                         tar_file = ?13, tar_bytes = ?14
                     WHERE id = ?1 AND path = ?9 AND (diff_id IS NULL OR diff_id = ?5)",
                    (
                        one.row.id,
                        tar_layer::NAME,
                        path,
                        *size,
                        Text(diff.diff_id),
                        diff.size,
                        Text(diff.content_digest),
                        Text(*index),
                        &one.row.path,
                        side.map(Text),
                        boot,
                        root.map(Json),
                        shared.as_ref().map(|shared| &shared.file),
                        shared.as_ref().map(|shared| shared.bytes),
                    ),
                )?);
            }
            Ok::<_, SnapshotError>(changed)
        })?;
        for ((one, (_, target, _)), changed) in all.iter().zip(&named).zip(changed) {
            failpoint::hit("layer-done").at("name", target)?;
            if changed > 0 {
                store.snapshotting().note_replaced();
                renew(&one.directory)?;
            }
        }
        self.remembered().forget(&all.iter().map(Converted::layer).collect());
        Ok(())
    }
}

impl Snapshots {
    /// Turns a layer that is a tar into a directory.
    pub(super) fn become_directory(&self, row: &LayerRow) -> Result<(), SnapshotError> {
        let store = &self.store;
        let name = LockName::other("layer", &row.id.to_string());
        let _lock = store.lock(&name, LockMode::Exclusive, &wait_silently).ok();
        if self.top_row(row.snapshot)?.path != row.path {
            self.remembered().forget(&BTreeSet::from([row.id]));
            return Ok(());
        }
        let lease = store.lease("layer to directory")?;
        lease.hold(Hold::Snapshot(row.snapshot))?;
        let parent = self.parent(row.snapshot)?;
        let active = self.prepare(parent, &lease)?;
        store.grows_by(row.size);
        let layer = self.path(row);
        let tar = tar_layer::Files::of(&layer).tar;
        let mut writer = directory::writer(active.scratch(), active.parent_view().clone())?;
        let mut tar = File::open(&tar).at("open", &tar)?;
        if let Some(root) = row.root {
            writer.set_directory_metadata(&ContainerPath::root(), &root.into())?;
        }
        unpack(&mut tar, row.diff_id, &mut writer)?;
        drop(writer);
        let size = DirectoryKind.measure(active.scratch())?;
        let path = unused_name(&lease, active.scratch(), &DirectoryKind);
        lease.hold(Hold::Layer(path.clone()))?;
        DirectoryKind.seal(active.scratch(), &store.layout().layer(&path))?;
        renew(&layer)?;
        let changed = store.db().write(Durability::Lazy, |tx| {
            let sql = "UPDATE layers SET kind = ?2, path = ?3, size = ?4, index_digest = NULL, side_digest = NULL,
                           index_boot = NULL, index_root = NULL, tar_file = NULL, tar_bytes = NULL WHERE id = ?1 AND path = ?5";
            tx.execute(sql, (row.id, directory::NAME, &path, size, &row.path))
        })?;
        self.remembered().forget(&BTreeSet::from([row.id]));
        if changed > 0 {
            store.snapshotting().note_replaced();
            renew(&layer)?;
        }
        Ok(())
    }

    /// Makes the index of the topmost layer of a chain from its tar once more, and puts it in its place.
    pub(super) fn index_again_of(&self, chain: &Chain) -> Result<(), SnapshotError> {
        chain.top().map_or(Ok(()), |row| self.index_again(row, &chain.below()))
    }

    /// The same of a layer that lies on the layers `below`.
    pub(super) fn index_again(&self, row: &LayerRow, below: &Chain) -> Result<(), SnapshotError> {
        let store = &self.store;
        let name = LockName::other("layer", &row.id.to_string());
        let _lock = store.lock(&name, LockMode::Exclusive, &wait_silently).ok();
        let lease = store.lease("index of a layer")?;
        lease.hold(Hold::Snapshot(row.snapshot))?;
        let layer = self.path(row);
        let place = lease.scratch_name("index")?;
        let Some(diff) = row.known_diff() else { return Ok(()) };
        let written = tar_layer::index_again(&layer, &place, self.view_of(below)?, diff, row.root)?;
        tar_layer::put_index(&place, &layer)?;
        self.forget_merged(row)?;
        let boot = store.snapshotting().boot().unwrap_or_default();
        store.db().write(Durability::Lazy, |tx| {
            let sql = "UPDATE layers SET index_digest = ?2, side_digest = ?3, index_boot = ?4 WHERE id = ?1";
            tx.execute(sql, (row.id, Text(written.index), written.side.map(Text), boot))
        })?;
        self.remembered().forget(&BTreeSet::from([row.id]));
        Ok(())
    }
}

/// Makes the change time of a layer's directory now, and changes nothing else.
fn renew(directory: &Path) -> Result<(), PathError> {
    let file = File::open(directory).at("open", directory)?;
    let mode = file.metadata().at("inspect", directory)?.permissions().mode() & 0o7777;
    file.set_permissions(Permissions::from_mode(mode)).at("renew", directory)
}
