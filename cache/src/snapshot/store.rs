//! Snapshots in the store: active ones that are being written, committed ones that never change again.
//!
//! ```text
//! prepare ─> Snapshot<Active> ── commit ─> Snapshot<Committed>
//!                                              ^
//! apply (a layer from outside) ────────────────┤
//! adopt, rebase (a layer that is there) ───────┘
//! ```
//!
//! A commit syncs the layer's files, moves them to their final place and syncs that directory; only then one
//! transaction names them (rules R-02, R-03). A directory without a row is garbage, a row without a directory cannot be.
//! Every snapshot that comes out of here is held by the lease that was given.

use std::fmt;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rbuild_executor::Rootfs;
use rbuild_image::{ContainerPath, ContentDigest, DiffId, Digest};

use super::apply::{ApplyError, unpack};
use super::diff::{DiffError, LayerDiff, Times};
use super::kind::{Snapshotter, by_name, for_new_layers};
use super::writer::{LayerWriteError, LayerWriter};
use crate::db::{DbError, Durability, Micros, Text, Tx};
use crate::failpoint;
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::{AtPath, PathError};
use crate::removal::remove_tree;
use crate::store::Store;
use crate::view::{LayerReader, View};

/// Why something could not be done with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such snapshot (any more).
    #[error("there is no snapshot {id} in the store")]
    Missing {
        /// Which.
        id: SnapshotId,
    },
    /// A newer rbuild made it in a way this one cannot read.
    #[error("snapshot {id} is of the unknown kind {kind:?}: a newer rbuild made it")]
    UnknownKind {
        /// Which.
        id: SnapshotId,
        /// Its kind.
        kind: String,
    },
    /// The layer that was given cannot be unpacked.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The layer could not be written.
    #[error(transparent)]
    Write(#[from] LayerWriteError),
    /// The layer could not be read back.
    #[error("layer of snapshot {id}")]
    Diff {
        /// Which.
        id: SnapshotId,
        /// Why.
        #[source]
        source: DiffError,
    },
    /// The tar made of a layer that came from outside is not the one it came as; its original blob is needed instead.
    #[error("the layer of snapshot {id} came as {expected} and cannot be written as that again")]
    NotReproducible {
        /// Which.
        id: SnapshotId,
        /// What images know it by.
        expected: DiffId,
    },
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
    /// The database said no.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// A snapshot that is being written.
#[derive(Debug)]
pub enum Active {}

/// A snapshot that never changes again.
#[derive(Debug)]
pub enum Committed {}

/// A layer as the database knows it.
#[derive(Clone, Debug)]
pub(super) struct LayerRow {
    id: LayerId,
    snapshot: SnapshotId,
    kind: String,
    path: String,
    size: u64,
    diff_id: Option<DiffId>,
    tar_size: Option<u64>,
    content_digest: Option<ContentDigest>,
    created_at: Timestamp,
}

/// One layer of a snapshot, as images are put together from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The snapshot whose topmost layer it is.
    pub snapshot: SnapshotId,
    /// Bytes on disk.
    pub size: u64,
    /// Its digests and the size of its tar.
    pub diff: LayerDiff,
    /// When the layer was made or came in.
    pub created_at: Timestamp,
}

impl LayerRow {
    fn known_diff(&self) -> Option<LayerDiff> {
        let (diff_id, content_digest) = (self.diff_id?, self.content_digest?);
        Some(LayerDiff { diff_id, content_digest, size: self.tar_size? })
    }

    /// Whether it came from outside: then its own digest stands for its content.
    fn is_imported(&self) -> bool {
        self.known_diff().is_some_and(|diff| diff.diff_id.digest() == diff.content_digest.digest())
    }

    fn snapshotter(&self) -> Result<&'static dyn Snapshotter, SnapshotError> {
        by_name(&self.kind).ok_or_else(|| SnapshotError::UnknownKind { id: self.snapshot, kind: self.kind.clone() })
    }
}

/// The snapshots of a store.
#[derive(Clone, Debug)]
pub struct Snapshots {
    store: Store,
}

impl Store {
    /// Snapshots and their layers.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { store: self.clone() }
    }
}

impl Snapshots {
    /// Begins a snapshot on `parent` (`None`: on nothing) in the lease's private place.
    pub fn prepare(&self, parent: Option<SnapshotId>, lease: &Lease) -> Result<Snapshot<Active>, SnapshotError> {
        let chain = match parent {
            Some(id) => {
                lease.hold(Hold::Snapshot(id))?;
                self.chain(id)?
            }
            None => Vec::new(),
        };
        let view = Arc::new(self.view_of(&chain)?);
        let kind = for_new_layers();
        let scratch = lease.scratch_name("snapshot")?;
        let root = view.lstat(&ContainerPath::root()).at("inspect the parent of", &scratch)?;
        kind.prepare(&scratch, root.as_ref())?;
        let place = Place { kind, scratch };
        Ok(Snapshot { snapshots: self.clone(), parent, chain, view, place: Some(place), state: PhantomData })
    }

    /// A committed snapshot. Hold it before.
    pub fn get(&self, id: SnapshotId) -> Result<Snapshot<Committed>, SnapshotError> {
        self.committed(self.chain(id)?)
    }

    /// Unpacks a layer that came from outside on top of `parent`. The uncompressed bytes of `tar` must have the digest
    /// `expected`; nothing is visible before that is known.
    ///
    /// Callers serialise by layer: take [`crate::LockName::layer`] around fetching and applying, and [`Self::adopt`]
    /// first.
    pub fn apply(
        &self,
        parent: Option<SnapshotId>,
        tar: &mut (dyn Read + Send),
        expected: Option<DiffId>,
        lease: &Lease,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        let active = self.prepare(parent, lease)?;
        let mut writer = active.writer()?;
        let unpacked = unpack(tar, expected, &mut writer)?;
        let content_digest = ContentDigest::new(*unpacked.diff_id.digest());
        let diff = LayerDiff { diff_id: unpacked.diff_id, content_digest, size: unpacked.size };
        let sharing = if writer.depends_on_parent() { Sharing::OnlyHere } else { Sharing::AnyParent };
        drop(writer);
        active.seal(lease, Some(diff), sharing)
    }

    /// Unpacks a tar that is no image's layer yet (`import`): its layer is our own tar of the same files.
    pub fn import(&self, tar: &mut (dyn Read + Send), lease: &Lease) -> Result<Snapshot<Committed>, SnapshotError> {
        let active = self.prepare(None, lease)?;
        let mut writer = active.writer()?;
        unpack(tar, None, &mut writer)?;
        drop(writer);
        active.commit(lease)
    }

    /// Puts a layer that the store has already on top of `parent`, by its diff_id; `None` when it has to be fetched.
    pub fn adopt(
        &self,
        parent: Option<SnapshotId>,
        diff_id: &DiffId,
        lease: &Lease,
    ) -> Result<Option<Snapshot<Committed>>, SnapshotError> {
        if let Some(parent) = parent {
            lease.hold(Hold::Snapshot(parent))?;
        }
        let now = Micros(self.store.now());
        let id = self.store.db().write(Durability::Lazy, |tx| {
            self.check_parent(tx, parent)?;
            let same = tx.first(
                "SELECT s.id FROM snapshots s JOIN layers l ON l.id = s.layer
                 WHERE s.parent IS ?1 AND l.diff_id = ?2 ORDER BY s.id",
                (parent, Text(diff_id)),
                |row| row.get::<_, SnapshotId>(0),
            )?;
            let id = match same {
                Some(id) => Some(id),
                None => {
                    let layer = tx.first(
                        "SELECT id FROM layers WHERE diff_id = ?1 AND depends_on_parent = 0 ORDER BY id",
                        (Text(diff_id),),
                        |row| row.get::<_, LayerId>(0),
                    )?;
                    layer.map(|layer| insert_snapshot(tx, parent, layer, now)).transpose()?
                }
            };
            if let Some(id) = id {
                lease.hold(Hold::Snapshot(id))?;
            }
            Ok::<_, SnapshotError>(id)
        })?;
        id.map(|id| self.get(id)).transpose()
    }

    /// Puts the layer of `snapshot` on top of another parent (`COPY --link`). The layer must have been made on nothing.
    pub fn rebase(
        &self,
        snapshot: SnapshotId,
        parent: Option<SnapshotId>,
        lease: &Lease,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        lease.hold(Hold::Snapshot(snapshot))?;
        if let Some(parent) = parent {
            lease.hold(Hold::Snapshot(parent))?;
        }
        let now = Micros(self.store.now());
        let id = self.store.db().write(Durability::Lazy, |tx| {
            self.check_parent(tx, parent)?;
            let layer = tx
                .first("SELECT layer FROM snapshots WHERE id = ?1", (snapshot,), |row| row.get::<_, LayerId>(0))?
                .ok_or(SnapshotError::Missing { id: snapshot })?;
            let same = tx.first(
                "SELECT id FROM snapshots WHERE parent IS ?1 AND layer = ?2 ORDER BY id",
                (parent, layer),
                |row| row.get::<_, SnapshotId>(0),
            )?;
            let id = match same {
                Some(id) => id,
                None => insert_snapshot(tx, parent, layer, now)?,
            };
            lease.hold(Hold::Snapshot(id))?;
            Ok::<_, SnapshotError>(id)
        })?;
        self.get(id)
    }

    /// A merged view of a snapshot; of the empty tree for `None`. Hold it before.
    pub fn view(&self, id: Option<SnapshotId>) -> Result<View, SnapshotError> {
        match id {
            Some(id) => self.view_of(&self.chain(id)?),
            None => Ok(View::empty()),
        }
    }

    /// Identity of a snapshot's whole content: the chain of its layers' content digests (diff_ids for layers that came
    /// from outside). Digests that are not known yet are computed.
    pub fn rootfs_identity(&self, id: Option<SnapshotId>) -> Result<ContentDigest, SnapshotError> {
        let mut identity = ContentDigest::new(Digest::sha256("rbuild root 1\n"));
        let Some(id) = id else { return Ok(identity) };
        if let Some(known) = self.known_identity(id)? {
            return Ok(known);
        }
        let chain = self.chain(id)?;
        for (position, row) in chain.iter().enumerate().rev() {
            if let Some(known) = self.known_identity(row.snapshot)? {
                identity = known;
                continue;
            }
            let layer = match row.known_diff() {
                Some(diff) => diff,
                None => self.committed(chain[position..].to_vec())?.layer()?,
            };
            identity =
                ContentDigest::new(Digest::sha256(format!("{identity}\n{content}\n", content = layer.content_digest)));
            self.store.db().write(Durability::Lazy, |tx| {
                tx.execute(
                    "UPDATE snapshots SET identity = ?2 WHERE id = ?1 AND identity IS NULL",
                    (row.snapshot, Text(&identity)),
                )
            })?;
        }
        Ok(identity)
    }

    /// The layers of a snapshot, lowest first. Digests that are not known yet are computed, several at once.
    pub fn layers(&self, id: SnapshotId) -> Result<Vec<LayerInfo>, SnapshotError> {
        let chain = self.chain(id)?;
        let info = |position: usize| {
            let row = &chain[position];
            let diff = match row.known_diff() {
                Some(diff) => diff,
                None => self.committed(chain[position..].to_vec())?.layer()?,
            };
            Ok(LayerInfo { snapshot: row.snapshot, size: row.size, diff, created_at: row.created_at })
        };
        (0..chain.len()).into_par_iter().rev().map(info).collect()
    }

    fn known_identity(&self, id: SnapshotId) -> Result<Option<ContentDigest>, SnapshotError> {
        let known = self.store.db().read(|tx| {
            tx.first("SELECT identity FROM snapshots WHERE id = ?1", (id,), |row| {
                row.get::<_, Option<Text<ContentDigest>>>(0)
            })
        })?;
        Ok(known.ok_or(SnapshotError::Missing { id })?.map(|Text(digest)| digest))
    }

    fn check_parent(&self, tx: &Tx<'_>, parent: Option<SnapshotId>) -> Result<(), SnapshotError> {
        let Some(id) = parent else { return Ok(()) };
        let found = tx.first("SELECT 1 FROM snapshots WHERE id = ?1", (id,), |_| Ok(()))?;
        found.ok_or(SnapshotError::Missing { id })
    }

    /// The layers of a snapshot, topmost first.
    pub(super) fn chain(&self, id: SnapshotId) -> Result<Vec<LayerRow>, SnapshotError> {
        let (rows, doomed) = self.store.db().read(|tx| {
            let doomed = tx.first("SELECT doomed FROM snapshots WHERE id = ?1", (id,), |row| row.get::<_, bool>(0))?;
            let rows = tx.all(
                "WITH RECURSIVE chain (id, parent, layer, level) AS (
                     SELECT id, parent, layer, 0 FROM snapshots WHERE id = ?1
                     UNION ALL
                     SELECT s.id, s.parent, s.layer, chain.level + 1 FROM snapshots s JOIN chain ON s.id = chain.parent
                 )
                 SELECT chain.id, l.id, l.kind, l.path, l.size, l.diff_id, l.tar_size, l.content_digest,
                     l.created_at
                 FROM chain JOIN layers l ON l.id = chain.layer ORDER BY chain.level",
                (id,),
                |row| {
                    Ok(LayerRow {
                        snapshot: row.get(0)?,
                        id: row.get(1)?,
                        kind: row.get(2)?,
                        path: row.get(3)?,
                        size: row.get(4)?,
                        diff_id: row.get::<_, Option<Text<DiffId>>>(5)?.map(|Text(digest)| digest),
                        tar_size: row.get(6)?,
                        content_digest: row.get::<_, Option<Text<ContentDigest>>>(7)?.map(|Text(digest)| digest),
                        created_at: row.get::<_, Micros>(8)?.0,
                    })
                },
            )?;
            Ok::<_, DbError>((rows, doomed == Some(true)))
        })?;
        // A collection may have marked it before the caller came to hold it.
        if rows.is_empty() || (doomed && !self.store.rescue_snapshot(id)?) {
            return Err(SnapshotError::Missing { id });
        }
        Ok(rows)
    }

    fn committed(&self, chain: Vec<LayerRow>) -> Result<Snapshot<Committed>, SnapshotError> {
        let parent = chain.get(1).map(|row| row.snapshot);
        let view = Arc::new(self.view_of(&chain)?);
        Ok(Snapshot { snapshots: self.clone(), parent, chain, view, place: None, state: PhantomData })
    }

    fn view_of(&self, chain: &[LayerRow]) -> Result<View, SnapshotError> {
        Ok(View::new(self.readers(chain)?))
    }

    /// Readers of the layers of `chain`, in its order.
    pub(super) fn readers(&self, chain: &[LayerRow]) -> Result<Vec<Arc<dyn LayerReader>>, SnapshotError> {
        chain.iter().map(|row| Ok(row.snapshotter()?.reader(&self.path(row)))).collect()
    }

    /// What a mount of `chain` takes as lower directories, in its order.
    pub(super) fn lowers(&self, chain: &[LayerRow]) -> Result<Vec<PathBuf>, SnapshotError> {
        chain.iter().map(|row| Ok(row.snapshotter()?.lower(&self.path(row)))).collect()
    }

    fn path(&self, row: &LayerRow) -> PathBuf {
        self.store.layout().layer(&row.path)
    }
}

fn insert_snapshot(
    tx: &Tx<'_>,
    parent: Option<SnapshotId>,
    layer: LayerId,
    now: Micros,
) -> Result<SnapshotId, DbError> {
    let row = tx.insert(
        "INSERT INTO snapshots (parent, layer, depth, created_at)
         VALUES (?1, ?2, 1 + coalesce((SELECT depth FROM snapshots WHERE id = ?1), 0), ?3)",
        (parent, layer, now),
    )?;
    Ok(SnapshotId::from_row(row))
}

/// Where a layer may be put besides the parent it was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    AnyParent,
    OnlyHere,
}

/// Where an active snapshot's files are until it is committed.
struct Place {
    kind: &'static dyn Snapshotter,
    scratch: PathBuf,
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
    snapshots: Snapshots,
    parent: Option<SnapshotId>,
    /// Topmost first; of the parent while active.
    chain: Vec<LayerRow>,
    /// Of the chain.
    view: Arc<View>,
    place: Option<Place>,
    state: PhantomData<fn() -> S>,
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

    fn lowers(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        self.snapshots.lowers(&self.chain)
    }
}

impl Snapshot<Active> {
    fn place(&self) -> &Place {
        self.place.as_ref().expect("present until sealed, which consumes the snapshot")
    }

    /// How to mount it for a step.
    pub fn rootfs(&self) -> Result<Rootfs, SnapshotError> {
        let place = self.place();
        Ok(place.kind.rootfs(&place.scratch, self.lowers()?))
    }

    /// The parent, merged.
    pub fn parent_view(&self) -> &Arc<View> {
        &self.view
    }

    /// Writes into the layer without mounting it. One writer at a time, and none while a step runs.
    pub fn writer(&self) -> Result<LayerWriter, SnapshotError> {
        let place = self.place();
        Ok(place.kind.writer(&place.scratch, self.view.clone())?)
    }

    /// Makes it durable and visible, held by `lease`.
    pub fn commit(self, lease: &Lease) -> Result<Snapshot<Committed>, SnapshotError> {
        let sharing = if self.parent.is_none() { Sharing::AnyParent } else { Sharing::OnlyHere };
        self.seal(lease, None, sharing)
    }

    fn seal(
        mut self,
        lease: &Lease,
        diff: Option<LayerDiff>,
        sharing: Sharing,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        let place = self.place.take().expect("present until sealed, which consumes the snapshot");
        let store = self.snapshots.store.clone();
        let size = place.kind.measure(&place.scratch)?.size;
        let name = unused_name(lease, &place.scratch);
        lease.hold(Hold::Layer(name.clone()))?;
        let target = store.layout().layer(&name);
        place.kind.seal(&place.scratch, &target)?;
        failpoint::hit("layer-name").at("name", &target)?;
        let now = Micros(store.now());
        let dependent = sharing == Sharing::OnlyHere;
        let id = store.db().write(Durability::Lazy, |tx| {
            self.snapshots.check_parent(tx, self.parent)?;
            let layer = tx.insert(
                "INSERT INTO layers (kind, path, size, diff_id, tar_size, content_digest, depends_on_parent, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                (
                    place.kind.name(),
                    &name,
                    size,
                    diff.map(|diff| Text(diff.diff_id)),
                    diff.map(|diff| diff.size),
                    diff.map(|diff| Text(diff.content_digest)),
                    dependent,
                    now,
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
fn unused_name(lease: &Lease, scratch: &Path) -> String {
    let place = scratch.file_name().unwrap_or_default().to_string_lossy();
    format!("{}-{place}", lease.info().id)
}

impl Snapshot<Committed> {
    fn top(&self) -> &LayerRow {
        self.chain.first().expect("a committed snapshot has a layer")
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

    /// What to give to an overlay mount as lower directories, topmost first.
    pub fn rootfs_lowers(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        self.lowers()
    }

    /// Everything it holds, merged.
    pub fn view(&self) -> &Arc<View> {
        &self.view
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
        match self.top().known_diff().map_or_else(|| self.remembered_diff(), |diff| Ok(Some(diff)))? {
            Some(diff) => Ok(diff),
            None => self.write_tar(&mut io::sink()),
        }
    }

    fn remembered_diff(&self) -> Result<Option<LayerDiff>, SnapshotError> {
        let id = self.id();
        let chain = self.snapshots.chain(id)?;
        Ok(chain.first().and_then(LayerRow::known_diff))
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
        self.snapshots.store.db().write(Durability::Lazy, |tx| {
            tx.execute(
                "UPDATE layers SET diff_id = ?2, tar_size = ?3, content_digest = ?4 WHERE id = ?1 AND diff_id IS NULL",
                (row.id, Text(diff.diff_id), diff.size, Text(diff.content_digest)),
            )
        })?;
        Ok(diff)
    }

    /// Writes the topmost layer with other times; nothing is remembered of that.
    pub fn write_tar_with(&self, times: Times, out: &mut (dyn Write + Send)) -> Result<LayerDiff, SnapshotError> {
        let row = self.top();
        row.snapshotter()?
            .write_tar(&self.snapshots.path(row), times, out)
            .map_err(|source| SnapshotError::Diff { id: self.id(), source })
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        Self::other(error)
    }
}
