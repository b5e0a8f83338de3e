//! One snapshot in hand: while it is written, and when it never changes again.
//!
//! The commit is here: private place, sync, rename, one transaction.

use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rbuild_executor::{Lower, Rootfs};

use super::diff::{LayerDiff, Times};
use super::directory::{self, DirectoryKind};
use super::kind::Snapshotter;
use super::layer_row::LayerRow;
use super::links::Chain;
use super::store::{SnapshotError, Snapshots, insert_snapshot};
use super::tar_layer::{self, TarKind, Written};
use super::writer::{Draft, LayerWriter};
use crate::db::{Durability, Json, Micros, Text};
use crate::failpoint;
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::{AtPath, PathError};
use crate::removal::remove_tree;
use crate::view::{Timestamp, View};

/// A snapshot that is being written.
#[derive(Debug)]
pub enum Active {}

/// A snapshot that never changes again.
#[derive(Debug)]
pub enum Committed {}

/// Where a layer may be put besides the parent it was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    AnyParent,
    OnlyHere,
}

impl Sharing {
    /// Of a layer whose form depends on what is below it, or does not.
    pub(super) fn of(depends_on_parent: bool) -> Self {
        if depends_on_parent { Self::OnlyHere } else { Self::AnyParent }
    }
}

/// A directory of so few bytes is read twice, for its digests and later for its tar, rather than written as a tar while somebody
/// waits.
const SMALL: u64 = 4 << 20;

/// Where an active snapshot's files are until it is committed.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) scratch: PathBuf,
    /// There once a tar is being written instead of the directory; filled when it is whole.
    tar: OnceLock<Arc<OnceLock<Written>>>,
}

impl Place {
    pub(super) fn new(scratch: PathBuf) -> Self {
        Self { scratch, tar: OnceLock::new() }
    }

    /// The kind of layer that was made, and what is known of one that is a tar.
    pub(super) fn made(&self) -> Result<(&'static dyn Snapshotter, Option<&Written>), PathError> {
        let Some(tar) = self.tar.get() else { return Ok((&DirectoryKind, None)) };
        let unfinished = || io::Error::other("its writer did not finish");
        Ok((&TarKind, Some(tar.get().ok_or_else(unfinished).at("commit", &self.scratch)?)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays behind goes with the lease.
        if let Err(error) = remove_tree(&self.scratch) {
            tracing::debug!(path = %self.scratch.display(), %error, "left for the end of the lease");
        }
    }
}

/// A stack of layers. [`Active`]: its topmost one is being written. [`Committed`]: it never changes again.
pub struct Snapshot<S> {
    pub(super) snapshots: Snapshots,
    pub(super) parent: Option<SnapshotId>,
    /// Of the parent while active.
    pub(super) chain: Chain,
    /// Of the chain; there while active, else made when it is wanted.
    pub(super) view: OnceLock<Arc<View>>,
    pub(super) place: Option<Place>,
    pub(super) state: PhantomData<fn() -> S>,
}

impl<S> fmt::Debug for Snapshot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("parent", &self.parent)
            .field("layers", &self.chain.len())
            .field("active", &self.place.is_some())
            .finish_non_exhaustive()
    }
}

impl<S> Snapshot<S> {
    /// The snapshot below; `None` where there is nothing.
    pub fn parent(&self) -> Option<SnapshotId> {
        self.parent
    }

    fn lowers(&self) -> Result<Vec<Lower>, SnapshotError> {
        self.snapshots.lowers(&self.chain)
    }
}

impl Snapshot<Active> {
    pub(super) fn place(&self) -> &Place {
        self.place.as_ref().expect("present until sealed, which consumes the snapshot")
    }

    /// How to mount it for a step.
    pub fn rootfs(&self) -> Result<Rootfs, SnapshotError> {
        Ok(directory::rootfs(self.scratch(), self.lowers()?))
    }

    pub(super) fn scratch(&self) -> &Path {
        &self.place().scratch
    }

    /// Remembers that its layer is a tar.
    pub(super) fn is_written(&self, written: Written) {
        let _known = self.place().tar.get_or_init(Arc::default).set(written);
    }

    /// The parent, merged.
    pub fn parent_view(&self) -> &Arc<View> {
        self.view.get().expect("made when it was prepared")
    }

    /// Writes into the layer without mounting it. One writer at a time, and none while a step runs.
    pub fn writer(&self) -> Result<LayerWriter, SnapshotError> {
        let scratch = self.scratch();
        if !self.snapshots.makes_tars()? {
            return Ok(directory::writer(scratch, self.parent_view().clone())?);
        }
        let now = self.snapshots.store.now();
        let now = Timestamp {
            seconds: now.as_nanosecond().div_euclid(1_000_000_000) as i64,
            nanoseconds: now.as_nanosecond().rem_euclid(1_000_000_000) as u32,
        };
        let written = self.place().tar.get_or_init(Arc::default).clone();
        let draft = Draft::new(tar_layer::place(scratch), now, written);
        Ok(LayerWriter::draft(draft, self.parent_view().clone()).at("inspect the parent of", scratch)?)
    }

    /// Whether what a step did changed anything with this name in the root directory, or below it.
    pub fn changes(&self, name: &str) -> Result<bool, SnapshotError> {
        Ok(self.place().tar.get().is_some() || directory::says(self.scratch(), name)?)
    }

    /// Makes it durable and visible, held by `lease`.
    pub fn commit(self, lease: &Lease) -> Result<Snapshot<Committed>, SnapshotError> {
        let sharing = if self.parent.is_none() { Sharing::AnyParent } else { Sharing::OnlyHere };
        let committed = self.seal(lease, None, sharing)?;
        if committed.top().diff_id.is_none() {
            committed.snapshots.convert_later(committed.id());
        }
        Ok(committed)
    }

    pub(super) fn seal(
        self,
        lease: &Lease,
        diff: Option<LayerDiff>,
        sharing: Sharing,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        let diff = match self.place().made()?.1 {
            Some(written) => diff.or(Some(written.diff)),
            None => diff,
        };
        self.seal_as(lease, diff, sharing)
    }

    /// Nothing says yet what the layer is known by, so that nobody else finds it.
    pub(super) fn seal_unnamed(self, lease: &Lease, sharing: Sharing) -> Result<Snapshot<Committed>, SnapshotError> {
        self.seal_as(lease, None, sharing)
    }

    fn seal_as(
        mut self,
        lease: &Lease,
        diff: Option<LayerDiff>,
        sharing: Sharing,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        if let Some(parent) = self.parent {
            self.snapshots.settle(parent)?;
        }
        let place = self.place.take().expect("present until sealed, which consumes the snapshot");
        let store = self.snapshots.store.clone();
        let (kind, written) = place.made()?;
        let shared = match written {
            Some(written) => self.snapshots.share_tar(&tar_layer::place(&place.scratch), written.diff.diff_id)?,
            None => None,
        };
        let measured = kind.measure(&place.scratch)?;
        let index = written.map(|written| Text(written.index));
        let side = written.and_then(|written| written.side.map(Text));
        let boot = written.map(|_| store.snapshotting().boot().unwrap_or_default());
        let root = written.and_then(|written| written.root.map(Json));
        store.grows_by(measured.saturating_sub(shared.as_ref().map_or(0, |shared| shared.bytes)));
        let name = unused_name(lease, &place.scratch, kind);
        lease.hold(Hold::Layer(name.clone()))?;
        let target = store.layout().layer(&name);
        kind.seal(&place.scratch, &target)?;
        // What a tar takes is known for sure when it was written.
        let size = if written.is_some() { tar_layer::used(&target).at("inspect", &target)? } else { measured };
        failpoint::hit("layer-name").at("name", &target)?;
        let now = Micros(store.now());
        let dependent = sharing == Sharing::OnlyHere;
        let id = store.db().write(Durability::Lazy, |tx| {
            self.snapshots.check_parent(tx, self.parent)?;
            shared.iter().try_for_each(|shared| shared.note(tx))?;
            let layer = tx.insert(
                "INSERT INTO layers (kind, path, size, diff_id, tar_size, content_digest, depends_on_parent, created_at,
                     index_digest, side_digest, index_boot, index_root, tar_file, tar_bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
                (
                    kind.name(),
                    &name,
                    size,
                    diff.map(|diff| Text(diff.diff_id)),
                    diff.map(|diff| diff.size),
                    diff.map(|diff| Text(diff.content_digest)),
                    dependent,
                    now,
                    index,
                    side,
                    boot,
                    root,
                    shared.as_ref().map(|shared| &shared.file),
                    shared.as_ref().map(|shared| shared.bytes),
                ),
            )?;
            let id = insert_snapshot(tx, self.parent, LayerId::from_row(layer), now)?;
            lease.hold(Hold::Snapshot(id))?;
            Ok::<_, SnapshotError>(id)
        })?;
        failpoint::hit("layer-done").at("name", &target)?;
        drop(place);
        self.snapshots.get(id)
    }
}

/// A name below `layers/` that no layer had before: of the lease and of the place in it, neither used twice.
pub(super) fn unused_name(lease: &Lease, scratch: &Path, kind: &dyn Snapshotter) -> String {
    let place = scratch.file_name().unwrap_or_default().to_string_lossy();
    let suffix = if kind.name() == tar_layer::NAME { tar_layer::SUFFIX } else { "" };
    format!("{}-{place}{suffix}", lease.info().id)
}

impl Clone for Snapshot<Committed> {
    fn clone(&self) -> Self {
        let (snapshots, chain, view) = (self.snapshots.clone(), self.chain.clone(), self.view.clone());
        Self { snapshots, parent: self.parent, chain, view, place: None, state: PhantomData }
    }
}

impl Snapshot<Committed> {
    pub(super) fn top(&self) -> &LayerRow {
        self.chain.top().expect("a committed snapshot has a layer")
    }

    /// Which it is.
    pub fn id(&self) -> SnapshotId {
        self.top().snapshot
    }

    /// It and everything below, topmost first.
    pub fn chain(&self) -> Vec<SnapshotId> {
        self.chain.iter().map(|row| row.snapshot).collect()
    }

    /// Which layer is its topmost; snapshots may share one.
    pub fn layer_id(&self) -> LayerId {
        self.top().id
    }

    /// The layers of its chain, topmost first.
    pub fn layer_ids(&self) -> Vec<LayerId> {
        self.chain.iter().map(|row| row.id).collect()
    }

    /// What to give to an overlay mount as lower layers, topmost first.
    pub fn rootfs_lowers(&self) -> Result<Vec<Lower>, SnapshotError> {
        self.lowers()
    }

    /// Everything it holds, merged.
    pub fn view(&self) -> Result<Arc<View>, SnapshotError> {
        if let Some(view) = self.view.get() {
            return Ok(view.clone());
        }
        let view = self.snapshots.view_of(&self.chain)?;
        Ok(self.view.get_or_init(|| view).clone())
    }

    /// Bytes that its topmost layer takes on disk.
    pub fn disk_size(&self) -> u64 {
        self.top().size
    }

    /// Whether the topmost layer came from outside: then only the blob it came as has its diff_id for sure.
    pub fn is_imported(&self) -> bool {
        self.top().is_imported()
    }

    /// The topmost layer's digests and size: computed once, then remembered.
    pub fn layer(&self) -> Result<LayerDiff, SnapshotError> {
        let row = self.top();
        if let Some(diff) = row.known_diff().map_or_else(|| self.remembered_diff(), |diff| Ok(Some(diff)))? {
            return Ok(diff);
        }
        if row.kind == directory::NAME && row.size > SMALL {
            self.snapshots.settle(self.id())?;
            if let Some(diff) = self.digest_as_tar()? {
                return Ok(diff);
            }
        }
        self.write_tar(&mut io::sink())
    }

    pub(super) fn remembered_diff(&self) -> Result<Option<LayerDiff>, SnapshotError> {
        if let Some(diff) = self.snapshots.store.snapshotting().queue().known(self.layer_id()) {
            return Ok(Some(diff));
        }
        Ok(self.snapshots.top_row(self.id())?.known_diff())
    }

    /// Writes the topmost layer as an uncompressed tar; remembers its digests.
    pub fn write_tar(&self, out: &mut (dyn Write + Send)) -> Result<LayerDiff, SnapshotError> {
        let row = self.top();
        let diff = self.write_tar_with(Times::Kept, out)?;
        match row.diff_id {
            Some(expected) if expected != diff.diff_id => {
                return Err(SnapshotError::NotReproducible { id: self.id(), expected });
            }
            Some(_) => return Ok(row.known_diff().unwrap_or(diff)),
            None => {}
        }
        self.snapshots.note_diff(row, diff)?;
        Ok(diff)
    }

    /// Writes the topmost layer with other times; nothing is remembered of that.
    pub fn write_tar_with(&self, times: Times, out: &mut (dyn Write + Send)) -> Result<LayerDiff, SnapshotError> {
        let row = self.top();
        row.snapshotter()?
            .write_tar(&self.snapshots.path(row), row.known_diff(), times, out)
            .map_err(|source| SnapshotError::Diff { id: self.id(), source })
    }
}
