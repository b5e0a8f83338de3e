//! Snapshots that are used before they are durable: the next step of a build runs on them while they are synced.
//!
//! [`Snapshot::commit_soon`] moves a layer to its final place and gives its snapshot an id, which this process can use at once
//! to build on. Only [`Snapshots::settle`] syncs it, and only then its rows are written (rules ): no other process, and
//! no later one, ever sees a snapshot that is not whole. What is never settled is a directory without a row, held by the lease.
//!
//! Whoever settles first syncs all that wait, with one `syncfs` and one transaction for all of them; the others wait for that.
//! Short steps follow each other faster than a disk writes, and a sync holds up whatever else is written meanwhile: who can wait
//! ([`Snapshots::settle_soon`]) leaves the steps of a moment to one sync. A failure is every one's whose layer was in it, for good:
//! a failed sync is not tried again.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rbuild_image::ContentDigest;

use super::diff::LayerDiff;
use super::directory;
use super::equal::SharedTar;
use super::handle::{Active, Place, Sharing, Snapshot, unused_name};
use super::index_files::IndexRow;
use super::layer_row::LayerRow;
use super::store::{SnapshotError, Snapshots};
use super::tar_layer;
use crate::db::{Durability, Json, Micros, Text, Tx};
use crate::failpoint;
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::AtPath;
use crate::removal::remove_tree;

/// How many ids are set aside at once.
const IDS: i64 = 32;
/// How long one that can wait does so for others.
const GATHERING: Duration = Duration::from_millis(100);
/// So many wait for no more.
const ENOUGH: usize = 32;
/// With so many waiting, who makes one more waits, too: each has a descriptor and a thread.
const MOST: usize = 128;

/// What waits to be settled in this process.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Not in the database yet. Parents have smaller ids than what is on them.
    waiting: BTreeMap<SnapshotId, Arc<Waiting>>,
    failed: BTreeMap<SnapshotId, Arc<SnapshotError>>,
    /// Whether somebody syncs.
    busy: bool,
    /// Whether somebody waits for what waits here.
    hurry: bool,
    /// Ids that are set aside: the next ones of snapshot and layer, and how many are left.
    ids: (i64, i64, i64),
}

#[derive(Debug)]
struct Waiting {
    parent: Option<SnapshotId>,
    row: LayerRow,
    sharing: Sharing,
    /// Whose file its tar is, if that is shared.
    shared: Option<SharedTar>,
    /// What its layer is known by, once that is computed.
    diff: OnceLock<LayerDiff>,
    /// Of its whole content, once that is computed.
    identity: OnceLock<ContentDigest>,
    /// Opened before anything else, so that a sync tells of all that could not be written.
    directory: OwnedFd,
    /// Removed when this is settled, which nobody waits for.
    _place: Place,
}

impl Waiting {
    fn late(&self) -> Option<(LayerId, LayerDiff)> {
        self.diff.get().map(|diff| (self.row.id, *diff))
    }
}

impl Unsettled {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first that waits, if so many do.
    fn oldest_of(&self, many: usize) -> Option<SnapshotId> {
        let state = self.state();
        state.waiting.first_key_value().map(|(id, _)| *id).filter(|_| state.waiting.len() >= many)
    }

    /// The topmost layer and the parent of a snapshot that is not settled.
    pub(super) fn find(&self, id: SnapshotId) -> Option<(LayerRow, Option<SnapshotId>)> {
        let state = self.state();
        state.waiting.get(&id).map(|waiting| {
            let row = match waiting.diff.get() {
                Some(diff) => waiting.row.clone().with_diff(*diff),
                None => waiting.row.clone(),
            };
            (row, waiting.parent)
        })
    }

    /// Remembers what a layer is known by until its row says so; `false` where it has a row.
    pub(super) fn note_diff(&self, id: SnapshotId, diff: LayerDiff) -> bool {
        self.state().waiting.get(&id).map(|waiting| waiting.diff.get_or_init(|| diff)).is_some()
    }

    /// The same of the identity.
    pub(super) fn note_identity(&self, id: SnapshotId, identity: &ContentDigest) -> bool {
        self.state().waiting.get(&id).map(|waiting| waiting.identity.get_or_init(|| *identity)).is_some()
    }

    /// The identity of a snapshot that is not settled, if it is known; `None` for one that is settled.
    pub(super) fn identity(&self, id: SnapshotId) -> Option<Option<ContentDigest>> {
        self.state().waiting.get(&id).map(|waiting| waiting.identity.get().cloned())
    }
}

impl Snapshot<Active> {
    /// Makes it usable at once, by this process, and held by `lease`; [`Snapshots::settle`] makes it durable and visible.
    pub fn commit_soon(mut self, lease: &Lease) -> Result<SnapshotId, SnapshotError> {
        let oldest = self.snapshots.store.unsettled().oldest_of(MOST);
        if let Some(oldest) = oldest {
            // What went wrong there is told to those who built on it.
            drop(self.snapshots.settle(oldest));
        }
        let place = self.place.take().expect("present until sealed, which consumes the snapshot");
        let store = &self.snapshots.store;
        let (kind, written) = place.made()?;
        let written = written.cloned();
        let shared = match &written {
            Some(written) => self.snapshots.share_tar(&tar_layer::place(&place.scratch), written.diff.diff_id)?,
            None => None,
        };
        let measured = kind.measure(&place.scratch)?;
        store.grows_by(measured.saturating_sub(shared.as_ref().map_or(0, |shared| shared.bytes)));
        let path = unused_name(lease, &place.scratch, kind);
        let (snapshot, layer) = self.snapshots.set_aside(self.parent)?;
        lease.hold_all([Hold::Layer(path.clone()), Hold::Snapshot(snapshot)])?;
        let directory = kind.put(&place.scratch, &store.layout().layer(&path))?;
        let boot = || store.snapshotting().boot().map(str::to_owned);
        let row = LayerRow {
            id: layer,
            snapshot,
            kind: kind.name().to_owned(),
            path,
            size: measured,
            diff_id: None,
            tar_size: None,
            content_digest: None,
            // As the database gives it back.
            created_at: Micros::rounded(store.now()),
            index: written.as_ref().map(|it| IndexRow { digest: it.index, side: it.side, boot: boot() }),
            root: written.as_ref().and_then(|written| written.root),
        };
        let sharing = if self.parent.is_none() { Sharing::AnyParent } else { Sharing::OnlyHere };
        let diff = written.map_or_else(OnceLock::new, |written| OnceLock::from(written.diff));
        let (parent, identity) = (self.parent, OnceLock::new());
        let waiting = Waiting { parent, row, sharing, shared, diff, identity, directory, _place: place };
        let mut state = store.unsettled().state();
        state.hurry = false;
        state.waiting.insert(snapshot, Arc::new(waiting));
        if state.waiting.len() >= ENOUGH {
            store.unsettled().changed.notify_all();
        }
        Ok(snapshot)
    }
}

impl Snapshots {
    /// Makes a snapshot durable and visible, if it is not yet.
    pub fn settle(&self, id: SnapshotId) -> Result<(), SnapshotError> {
        self.hurry();
        self.settle_soon(id)
    }

    /// The same, a moment later and with others, unless somebody is in a hurry.
    pub fn settle_soon(&self, id: SnapshotId) -> Result<(), SnapshotError> {
        let unsettled = self.store.unsettled();
        let deadline = Instant::now() + GATHERING;
        let mut state = unsettled.state();
        loop {
            if let Some(error) = state.failed.get(&id) {
                return Err(SnapshotError::Unsettled(Arc::clone(error)));
            }
            if !state.waiting.contains_key(&id) {
                return Ok(());
            }
            if state.busy {
                state = unsettled.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !state.hurry && state.waiting.len() < ENOUGH && !left.is_zero() {
                (state, _) = unsettled.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.busy = true;
            state.hurry = false;
            let batch: Vec<Arc<Waiting>> = state.waiting.values().cloned().collect();
            drop(state);
            let done = self.settle_all(&batch);
            let (done, said) = match done {
                Ok(said) => (Ok(()), said),
                Err(error) => (Err(Arc::new(error)), Vec::new()),
            };
            if done.is_err() {
                self.give_up(&batch);
            }
            state = unsettled.state();
            state.busy = false;
            for waiting in &batch {
                state.waiting.remove(&waiting.row.snapshot);
                if let Err(error) = &done {
                    state.failed.insert(waiting.row.snapshot, Arc::clone(error));
                }
            }
            // Computed after the rows were written; whoever computes it from here on finds them.
            let late: Vec<_> = batch.iter().zip(said).filter(|(_, said)| !said).filter_map(|(w, _)| w.late()).collect();
            unsettled.changed.notify_all();
            drop(state);
            late.into_iter().try_for_each(|(layer, diff)| self.write_diff(layer, diff))?;
            if done.is_ok() {
                let directories = batch.iter().filter(|waiting| waiting.row.kind == directory::NAME);
                directories.for_each(|waiting| self.convert_later(waiting.row.snapshot));
            }
            // Removing what they leave takes a while.
            drop(batch);
            state = unsettled.state();
        }
    }

    /// What waits to be settled does not wait for more.
    pub fn hurry(&self) {
        let unsettled = self.store.unsettled();
        unsettled.state().hurry = true;
        unsettled.changed.notify_all();
    }

    /// Syncs layers, then names them; for each whether its row says what it is known by.
    fn settle_all(&self, batch: &[Arc<Waiting>]) -> Result<Vec<bool>, SnapshotError> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let target = self.path(&first.row);
        failpoint::hit("layer-sync").at("sync", &target)?;
        rustix::fs::syncfs(&first.directory).at("sync", &target)?;
        failpoint::hit("layer-name").at("name", &target)?;
        let said = self.store.db().write(Durability::Lazy, |tx| {
            batch.iter().map(|waiting| self.name(tx, waiting)).collect::<Result<Vec<bool>, SnapshotError>>()
        })?;
        failpoint::hit("layer-done").at("name", &target)?;
        Ok(said)
    }

    fn name(&self, tx: &Tx<'_>, waiting: &Waiting) -> Result<bool, SnapshotError> {
        let Waiting { parent, row, sharing, shared, .. } = waiting;
        let diff = waiting.diff.get();
        self.check_parent(tx, *parent)?;
        shared.iter().try_for_each(|shared| shared.note(tx))?;
        let index = row.index.as_ref();
        let path = self.path(row);
        // What a tar takes is known for sure when it was written.
        let size = if index.is_some() { tar_layer::used(&path).at("inspect", &path)? } else { row.size };
        tx.execute(
            "INSERT INTO layers (id, kind, path, size, depends_on_parent, created_at, diff_id, tar_size, content_digest,
                 index_digest, side_digest, index_boot, index_root, tar_file, tar_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            (
                row.id,
                &row.kind,
                &row.path,
                size,
                *sharing == Sharing::OnlyHere,
                Micros(row.created_at),
                diff.map(|diff| Text(diff.diff_id)),
                diff.map(|diff| diff.size),
                diff.map(|diff| Text(diff.content_digest)),
                index.map(|index| Text(index.digest)),
                index.and_then(|index| index.side.map(Text)),
                index.and_then(|index| index.boot.as_deref()),
                row.root.map(Json),
                shared.as_ref().map(|shared| &shared.file),
                shared.as_ref().map(|shared| shared.bytes),
            ),
        )?;
        tx.execute(
            "INSERT INTO snapshots (id, parent, layer, depth, created_at, identity)
             VALUES (?1, ?2, ?3, 1 + coalesce((SELECT depth FROM snapshots WHERE id = ?2), 0), ?4, ?5)",
            (row.snapshot, *parent, row.id, Micros(row.created_at), waiting.identity.get().map(Text)),
        )?;
        Ok(diff.is_some())
    }

    /// Layers that will never be named take no room.
    fn give_up(&self, batch: &[Arc<Waiting>]) {
        for waiting in batch {
            let path = self.path(&waiting.row);
            if let Err(error) = remove_tree(&path) {
                tracing::debug!(path = %path.display(), %error, "left for a collection");
            }
        }
    }

    /// Ids that no row has or will get; that of the snapshot is larger than its parent's, as everywhere.
    fn set_aside(&self, parent: Option<SnapshotId>) -> Result<(SnapshotId, LayerId), SnapshotError> {
        let mut state = self.store.unsettled().state();
        let (snapshot, layer, left) = match state.ids {
            // The parent may have come since these were set aside.
            (next, _, left) if left == 0 || parent.is_some_and(|parent| parent >= SnapshotId::from_row(next)) => {
                let first = self.store.db().write(Durability::Lazy, |tx| {
                    Ok::<_, SnapshotError>((skip_ids(tx, "snapshots")?, skip_ids(tx, "layers")?))
                })?;
                (first.0, first.1, IDS)
            }
            ids => ids,
        };
        state.ids = (snapshot + 1, layer + 1, left - 1);
        Ok((SnapshotId::from_row(snapshot), LayerId::from_row(layer)))
    }
}

/// Takes the next ids of a table out of use; gives the first.
fn skip_ids(tx: &Tx<'_>, table: &str) -> Result<i64, SnapshotError> {
    tx.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT ?1, 0
         WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
        [table],
    )?;
    tx.execute("UPDATE sqlite_sequence SET seq = seq + ?2 WHERE name = ?1", (table, IDS))?;
    let last = tx.one("SELECT seq FROM sqlite_sequence WHERE name = ?1", [table], |row| row.get::<_, i64>(0))?;
    Ok(last - IDS + 1)
}

#[cfg(test)]
mod tests {
    use super::super::writer::{Content, Metadata};
    use super::*;
    use crate::gc::{GcPolicy, PruneMode, PruneScope};
    use crate::store::{OpenOptions, Store};
    use crate::tests::PATIENT;
    use rbuild_image::ContainerPath;

    fn layer(snapshots: &Snapshots, parent: Option<SnapshotId>, name: &str, lease: &Lease) -> SnapshotId {
        let active = snapshots.prepare(parent, lease).unwrap();
        let path = directory_of(&active).join(name);
        std::fs::write(path, name).unwrap();
        active.commit_soon(lease).unwrap()
    }

    fn directory_of(active: &Snapshot<Active>) -> std::path::PathBuf {
        active.scratch().join("upper")
    }

    fn rows(store: &Store) -> i64 {
        store.db().read(|tx| tx.one("SELECT count(*) FROM snapshots", [], |row| row.get(0))).unwrap()
    }

    #[test]
    fn what_is_committed_soon_can_be_built_on_at_once_and_is_seen_by_others_once_settled() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let (snapshots, lease) = (store.snapshots(), store.lease("test").unwrap());
        let first = layer(&snapshots, None, "a", &lease);
        let second = layer(&snapshots, Some(first), "b", &lease);
        assert_eq!(rows(&store), 0);
        let created = || snapshots.top_row(second).unwrap().created_at;
        let before = created();
        let view = snapshots.view(Some(second)).unwrap();
        for name in ["/a", "/b"] {
            assert!(view.lstat(&ContainerPath::new(name)).unwrap().is_some(), "{name}");
        }
        // A commit on top has its parents settled.
        let active = snapshots.prepare(Some(second), &lease).unwrap();
        let mut writer = active.writer().unwrap();
        writer.file(&ContainerPath::new("/c"), &Metadata::default(), Content::Bytes(b"c")).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let third = active.commit(&lease).unwrap();
        assert_eq!((rows(&store), third.chain().len()), (3, 3));
        assert_eq!(created(), before);
        let other = Store::open(&home.path().join("store"), OpenOptions::new("other")).unwrap();
        assert_eq!(other.snapshots().layers(third.id()).unwrap().len(), 3);
        snapshots.settle(first).unwrap();
    }

    #[test]
    fn no_more_wait_than_there_are_descriptors_for() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let (snapshots, lease) = (store.snapshots(), store.lease("test").unwrap());
        let mut most = 0;
        for n in 0..3 * MOST {
            layer(&snapshots, None, &n.to_string(), &lease);
            most = most.max(store.unsettled().state().waiting.len());
        }
        assert_eq!(most, MOST);
        assert_eq!(rows(&store) as usize % MOST, 0);
    }

    #[test]
    fn ids_that_are_set_aside_are_nobody_elses() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let other = Store::open(&home.path().join("store"), OpenOptions::new("other")).unwrap();
        let lease = store.lease("test").unwrap();
        let mut ids = Vec::new();
        for round in 0..3 {
            ids.push(layer(&store.snapshots(), None, "a", &lease));
            let committed = other.snapshots().prepare(None, &lease).unwrap().commit(&lease).unwrap().id();
            assert!(!ids.contains(&committed), "round {round}");
            ids.push(committed);
            ids.push(layer(&other.snapshots(), None, "b", &lease));
        }
        for id in ids.clone() {
            store.snapshots().settle(id).unwrap();
            other.snapshots().settle(id).unwrap();
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), rows(&store)), (9, 9));
    }

    #[test]
    fn what_is_on_top_has_the_larger_id_whoever_made_its_parent() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let (snapshots, lease) = (store.snapshots(), store.lease("test").unwrap());
        let first = layer(&snapshots, None, "a", &lease);
        let parent = snapshots.prepare(Some(first), &lease).unwrap().commit(&lease).unwrap().id();
        let top = layer(&snapshots, Some(parent), "b", &lease);
        assert!(first < parent && parent < top, "{first} {parent} {top}");
        snapshots.settle(top).unwrap();
        drop(lease);
        store.prune(&GcPolicy::new("test", PruneScope::All), PruneMode::Apply, PATIENT).unwrap();
        assert_eq!(rows(&store), 0);
    }

    #[test]
    fn what_is_on_something_that_could_not_be_settled_cannot_be_either() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let (snapshots, lease) = (store.snapshots(), store.lease("test").unwrap());
        let gone = snapshots.prepare(None, &lease).unwrap().commit(&lease).unwrap().id();
        let first = layer(&snapshots, Some(gone), "a", &lease);
        let second = snapshots.prepare(Some(gone), &lease).unwrap();
        store.db().write(Durability::Lazy, |tx| tx.execute("DELETE FROM snapshots WHERE id = ?1", [gone])).unwrap();
        let message = snapshots.settle(first).unwrap_err().to_string();
        assert!(message.contains(&format!("no snapshot {gone}")), "{message}");
        let again = snapshots.settle(first).unwrap_err().to_string();
        let second = second.commit_soon(&lease).unwrap();
        assert!(again == message && snapshots.settle(second).is_err());
        assert_eq!(rows(&store), 0);
    }
}
