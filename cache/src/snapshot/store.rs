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

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rbuild_executor::Lower;
use rbuild_image::{ContainerPath, ContentDigest, DiffId, Digest};

use super::apply::{ApplyError, unpack};
use super::diff::{DiffError, LayerDiff};
use super::directory;
use super::handle::{Active, Committed, Place, Sharing, Snapshot};
use super::layer_row::LayerRow;
use super::links::Chain;
use super::tar_layer::{self, Taken};
use super::writer::LayerWriteError;
use crate::db::{DbError, Durability, Micros, Text, Tx};
use crate::erofs::IndexError;
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::{AtPath, PathError};
use crate::store::Store;
use crate::view::{Hidden, LayerReader, View, hidden};

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
    #[error("cannot read the layer of snapshot {id}")]
    Diff {
        /// Which.
        id: SnapshotId,
        /// Why.
        #[source]
        source: DiffError,
    },
    /// A layer that no snapshot names (yet) could not be read back.
    #[error("cannot read the layer at {}", path.display())]
    Reread {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: DiffError,
    },
    /// The tar made of a layer that came from outside is not the one it came as; its original blob is needed instead.
    #[error("the layer of snapshot {id} came as {expected} and cannot be written as that again: pull its image again")]
    NotReproducible {
        /// Which.
        id: SnapshotId,
        /// What images know it by.
        expected: DiffId,
    },
    /// Layers are to be kept in a way that is not possible here.
    #[error(
        "layers cannot be kept as tars here: the kernel mounts no erofs from files (that needs Linux 6.12 with \
         CONFIG_EROFS_FS_BACKED_BY_FILE, and root outside of user namespaces); --snapshotter auto does without"
    )]
    NoErofs {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The indexes of a chain's layers cannot be made into one.
    #[error("cannot merge the indexes of a chain of layers")]
    Merge {
        /// Why.
        #[source]
        source: IndexError,
    },
    /// There are more layers that are directories than can be mounted.
    #[error(
        "snapshot {id} has {layers} layers that are directories, and overlayfs mounts at most {most} of them: build with \
         --snapshotter erofs, or with fewer steps"
    )]
    TooManyLayers {
        /// Which.
        id: SnapshotId,
        /// How many lower layers a mount of it would have.
        layers: usize,
        /// How many it can have.
        most: usize,
    },
    /// It, or what it was to be settled with, could not be kept.
    #[error(transparent)]
    Unsettled(Arc<Self>),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
    /// The database said no.
    #[error(transparent)]
    Database(#[from] DbError),
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

/// The snapshots of a store.
#[derive(Clone, Debug)]
pub struct Snapshots {
    pub(super) store: Store,
}

impl Store {
    /// Snapshots and their layers.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { store: self.clone() }
    }
}

impl Snapshot<Active> {
    /// Takes a tar from outside as its layer; what it is known by.
    pub(super) fn take(
        &self,
        tar: &mut (dyn Read + Send),
        expected: Option<DiffId>,
    ) -> Result<(LayerDiff, Sharing), SnapshotError> {
        if !self.snapshots.makes_tars()? {
            return self.take_as_directory(tar, expected);
        }
        self.take_in(tar_layer::take(tar, expected, &tar_layer::place(self.scratch()), self.parent_view().clone())?)
    }

    /// Makes what was taken in its layer: as a directory where its tar cannot be mounted.
    pub(super) fn take_in(&self, taken: Taken) -> Result<(LayerDiff, Sharing), SnapshotError> {
        match taken {
            Taken::Layer(written) => {
                let known = (written.diff, Sharing::of(written.depends_on_parent));
                self.is_written(*written);
                Ok(known)
            }
            Taken::OnlyTar(path, found) => {
                let mut tar = File::open(&path).at("open", &path)?;
                self.take_as_directory(&mut tar, Some(found.diff_id))
            }
        }
    }

    fn take_as_directory(
        &self,
        tar: &mut (dyn Read + Send),
        expected: Option<DiffId>,
    ) -> Result<(LayerDiff, Sharing), SnapshotError> {
        let mut writer = directory::writer(self.scratch(), self.parent_view().clone())?;
        let unpacked = unpack(tar, expected, &mut writer)?;
        Ok((unpacked.as_diff(), Sharing::of(writer.depends_on_parent())))
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
            None => Chain::default(),
        };
        let view = self.view_of(&chain)?;
        let scratch = lease.scratch_name("snapshot")?;
        let root = view.lstat(&ContainerPath::root()).at("inspect the parent of", &scratch)?;
        directory::prepare(&scratch, root.as_ref())?;
        let place = Place::new(scratch);
        Ok(Snapshot {
            snapshots: self.clone(),
            parent,
            chain,
            view: view.into(),
            place: Some(place),
            state: PhantomData,
        })
    }

    /// A committed snapshot. Hold it before.
    pub fn get(&self, id: SnapshotId) -> Result<Snapshot<Committed>, SnapshotError> {
        self.settle(id)?;
        Ok(self.committed(self.chain(id)?))
    }

    /// A committed snapshot and those below it, topmost first. Hold it before.
    pub fn stack(&self, id: SnapshotId) -> Result<Vec<Snapshot<Committed>>, SnapshotError> {
        self.settle(id)?;
        Ok(self.chain(id)?.each().map(|chain| self.committed(chain)).collect())
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
        let (diff, sharing) = active.take(tar, expected)?;
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
            self.settle(parent)?;
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
        self.settle(snapshot)?;
        if let Some(parent) = parent {
            lease.hold(Hold::Snapshot(parent))?;
            self.settle(parent)?;
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
            Some(id) => Ok(self.view_of(&self.chain(id)?)?.as_ref().clone()),
            None => Ok(View::empty()),
        }
    }

    /// Calls `visit` for every regular file that one of the topmost `among` layers of a snapshot has and another of them hides,
    /// each once; what the layers below have is not looked at. Hold it before.
    pub fn hidden(&self, id: SnapshotId, among: usize, visit: &mut dyn FnMut(Hidden)) -> Result<(), SnapshotError> {
        let chain = self.chain(id)?;
        self.ensure_indexes(&chain)?;
        let reader = |row: &LayerRow| Ok(row.snapshotter()?.reader(&self.path(row)));
        let layers = chain.iter().take(among).map(reader).collect::<Result<Vec<_>, SnapshotError>>()?;
        hidden(&layers, visit)
            .at("look for hidden files in", &self.store.layout().layers())
            .map_err(SnapshotError::from)
    }

    /// Identity of a snapshot's whole content: the chain of its layers' content digests (diff_ids for layers that came
    /// from outside). Digests that are not known yet are computed.
    pub fn rootfs_identity(&self, id: Option<SnapshotId>) -> Result<ContentDigest, SnapshotError> {
        let mut identity = ContentDigest::new(Digest::sha256("rbuild root 1\n"));
        let Some(id) = id else { return Ok(identity) };
        if let Some(known) = self.known_identity(id)? {
            return Ok(known);
        }
        // Down to one that is known, and up again: of a long chain that grows by a layer, only the new one is looked at.
        let (mut unknown, mut next) = (vec![id], self.parent(id)?);
        while let Some(below) = next {
            if let Some(known) = self.known_identity(below)? {
                identity = known;
                break;
            }
            unknown.push(below);
            next = self.parent(below)?;
        }
        for id in unknown.into_iter().rev() {
            let layer = match self.top_row(id)?.known_diff() {
                Some(diff) => diff,
                None => self.committed(self.chain(id)?).layer()?,
            };
            identity =
                ContentDigest::new(Digest::sha256(format!("{identity}\n{content}\n", content = layer.content_digest)));
            if self.store.unsettled().note_identity(id, &identity) {
                continue;
            }
            self.store.db().write(Durability::Lazy, |tx| {
                tx.execute(
                    "UPDATE snapshots SET identity = ?2 WHERE id = ?1 AND identity IS NULL",
                    (id, Text(&identity)),
                )
            })?;
        }
        Ok(identity)
    }

    /// Remembers what a layer is known by.
    pub(super) fn note_diff(&self, row: &LayerRow, diff: LayerDiff) -> Result<(), SnapshotError> {
        if self.store.unsettled().note_diff(row.snapshot, diff) {
            self.remembered().forget(&BTreeSet::from([row.id]));
            return Ok(());
        }
        self.write_diff(row.id, diff)
    }

    pub(super) fn write_diff(&self, layer: LayerId, diff: LayerDiff) -> Result<(), SnapshotError> {
        self.store.db().write(Durability::Lazy, |tx| {
            tx.execute(
                "UPDATE layers SET diff_id = ?2, tar_size = ?3, content_digest = ?4 WHERE id = ?1 AND diff_id IS NULL",
                (layer, Text(diff.diff_id), diff.size, Text(diff.content_digest)),
            )
        })?;
        self.remembered().forget(&BTreeSet::from([layer]));
        Ok(())
    }

    /// Bytes on disk of a snapshot's topmost layer.
    pub fn layer_size(&self, id: SnapshotId) -> Result<u64, SnapshotError> {
        self.settle(id)?;
        let sql = "SELECT l.size FROM snapshots s JOIN layers l ON l.id = s.layer WHERE s.id = ?1";
        let size = self.store.db().read(|tx| tx.first(sql, [id], |row| row.get(0)))?;
        size.ok_or(SnapshotError::Missing { id })
    }

    /// The layers of a snapshot, lowest first. Digests that are not known yet are computed, several at once.
    pub fn layers(&self, id: SnapshotId) -> Result<Vec<LayerInfo>, SnapshotError> {
        self.settle(id)?;
        let mut stack = self.stack(id)?;
        stack.reverse();
        let unknown: Vec<_> = stack.iter().filter(|one| one.top().known_diff().is_none()).cloned().collect();
        self.convert_all(&unknown)?;
        let info = |one: &Snapshot<Committed>| {
            let row = one.top();
            let (diff, size) = match row.known_diff() {
                Some(diff) => (diff, row.size),
                // It may have got another form by that.
                None => (one.layer()?, self.layer_size(row.snapshot)?),
            };
            Ok(LayerInfo { snapshot: row.snapshot, size, diff, created_at: row.created_at })
        };
        stack.par_iter().map(info).collect()
    }

    fn known_identity(&self, id: SnapshotId) -> Result<Option<ContentDigest>, SnapshotError> {
        if let Some(known) = self.store.unsettled().identity(id) {
            return Ok(known);
        }
        let known = self.store.db().read(|tx| {
            tx.first("SELECT identity FROM snapshots WHERE id = ?1", (id,), |row| {
                row.get::<_, Option<Text<ContentDigest>>>(0)
            })
        })?;
        Ok(known.ok_or(SnapshotError::Missing { id })?.map(|Text(digest)| digest))
    }

    pub(super) fn check_parent(&self, tx: &Tx<'_>, parent: Option<SnapshotId>) -> Result<(), SnapshotError> {
        let Some(id) = parent else { return Ok(()) };
        let found = tx.first("SELECT 1 FROM snapshots WHERE id = ?1", (id,), |_| Ok(()))?;
        found.ok_or(SnapshotError::Missing { id })
    }

    fn committed(&self, chain: Chain) -> Snapshot<Committed> {
        let parent = chain.below().top().map(|row| row.snapshot);
        Snapshot { snapshots: self.clone(), parent, chain, view: OnceLock::new(), place: None, state: PhantomData }
    }

    /// Readers of the layers of `chain`, in its order.
    pub(super) fn readers(&self, chain: &Chain) -> Result<Vec<Arc<dyn LayerReader>>, SnapshotError> {
        self.ensure_indexes(chain)?;
        self.merged_readers(&chain.rows())
    }

    /// What a mount of `chain` takes as lower layers, in its order.
    pub(super) fn lowers(&self, chain: &Chain) -> Result<Vec<Lower>, SnapshotError> {
        let Some(top) = chain.top() else { return Ok(Vec::new()) };
        let is_tar = |row: &&LayerRow| row.kind == tar_layer::NAME;
        if chain.iter().any(|row| is_tar(&row)) && self.mounts_erofs().is_err() {
            for row in chain.rows().into_iter().filter(is_tar).rev() {
                self.become_directory(row)?;
            }
            return self.lowers(&self.chain(top.snapshot)?);
        }
        self.ensure_indexes(chain)?;
        let lowers = self.merged_lowers(&chain.rows())?;
        self.within_limit(chain, lowers)
    }

    pub(super) fn path(&self, row: &LayerRow) -> PathBuf {
        self.store.layout().layer(&row.path)
    }
}

pub(super) fn insert_snapshot(
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

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        Self::other(error)
    }
}
