//! Whether the store keeps its promises: every name leads to complete, verified content.
//!
//! Verifying reads only. What a crash may leave, files without rows, is garbage and no problem. `repair.rs` mends.

mod imported;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rbuild_image::{DiffId, Digest};

use crate::content::digest_file;
use crate::db::{DbError, Json, Text, Tx};
use crate::gc::{PruneError, garbage_paths, quarantined};
use crate::id::{LayerId, SnapshotId};
use crate::lease::Hold;
use crate::path_error::{AtPath, PathError};
use crate::snapshot::{IndexState, Times, index_state, merged_digest};
use crate::store::Store;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyDepth {
    /// Names, sizes and references.
    Structure,
    /// Also the digest of every blob, and the content of every layer: one that was made here must give the tar it gave
    /// before, one that came from outside must have the files that its blob unpacks to.
    Content,
}

/// A promise that is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// SQLite finds its own file wrong.
    #[error("database: {detail}")]
    Database {
        /// What it says.
        detail: String,
    },
    /// A blob's file is not there.
    #[error("blob {digest} is missing")]
    BlobMissing {
        /// Which blob.
        digest: Digest,
    },
    /// A blob has another length.
    #[error("blob {digest} has {got} bytes instead of {want}")]
    BlobSize {
        /// Which blob.
        digest: Digest,
        /// Bytes that were verified when it came in.
        want: u64,
        /// Bytes now.
        got: u64,
    },
    /// A blob has other bytes.
    #[error("blob {digest} now has the digest {got}")]
    BlobContent {
        /// Which blob.
        digest: Digest,
        /// What its bytes give.
        got: Digest,
    },
    /// A layer's files are not there.
    #[error("layer {layer} is missing at {}", path.display())]
    LayerMissing {
        /// Which layer.
        layer: LayerId,
        /// Where it should be.
        path: PathBuf,
    },
    /// A layer's files give another tar than they once did.
    #[error("layer {layer} now gives {got} instead of {want}")]
    LayerContent {
        /// Which layer.
        layer: LayerId,
        /// What it gave when it was computed first.
        want: DiffId,
        /// What it gives now.
        got: DiffId,
    },
    /// A layer from outside has other files than the blob it came as.
    #[error("layer {layer} no longer has the files that it came with as {diff_id}")]
    LayerFiles {
        /// Which layer.
        layer: LayerId,
        /// What images know it by.
        diff_id: DiffId,
    },
    /// The index of a layer that is kept as its tar is another one than was made.
    #[error("the index of layer {layer} is damaged")]
    LayerIndex {
        /// Which layer.
        layer: LayerId,
    },
    /// A merged index of a chain is another one than was made.
    #[error("the merged index of snapshot {snapshot} over {layers} layers is damaged")]
    MergedIndex {
        /// With the topmost of the layers.
        snapshot: SnapshotId,
        /// How many they are.
        layers: u64,
    },
    /// A layer's files cannot be read as a layer.
    #[error("layer {layer} cannot be read: {detail}")]
    LayerUnreadable {
        /// Which layer.
        layer: LayerId,
        /// Why.
        detail: String,
    },
    /// An image's layers are not those of its snapshot.
    #[error("image {} names layer {want} where its snapshot has {got}", id.short())]
    ImageLayer {
        /// Which image.
        id: Digest,
        /// What its config says.
        want: DiffId,
        /// What the snapshot has.
        got: DiffId,
    },
    /// A cache mount's directory is not there.
    #[error("cache mount {id:?} is missing at {}", path.display())]
    MountMissing {
        /// Its id.
        id: String,
        /// Where it should be.
        path: PathBuf,
    },
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Promises that are not kept; a sound store has none.
    pub problems: Vec<Problem>,
    /// Files that nothing names; they only take room.
    pub garbage: Vec<PathBuf>,
    /// How many blobs were looked at.
    pub blobs: usize,
    /// How many layers.
    pub layers: usize,
    /// How many images.
    pub images: usize,
    /// Layers from outside whose blobs are not there (any more) to be compared with.
    pub unchecked: usize,
    /// Damaged files that a repair took out of use.
    pub quarantined: Vec<PathBuf>,
    /// Whether it was interrupted.
    pub interrupted: bool,
}

impl Problem {
    /// The layer that is damaged.
    pub fn layer(&self) -> Option<LayerId> {
        match self {
            Self::LayerMissing { layer, .. }
            | Self::LayerContent { layer, .. }
            | Self::LayerFiles { layer, .. }
            | Self::LayerIndex { layer }
            | Self::LayerUnreadable { layer, .. } => Some(*layer),
            _ => None,
        }
    }

    /// The blob that is damaged or missing.
    pub fn blob(&self) -> Option<Digest> {
        match self {
            Self::BlobMissing { digest } | Self::BlobSize { digest, .. } | Self::BlobContent { digest, .. } => {
                Some(*digest)
            }
            _ => None,
        }
    }
}

impl VerifyReport {
    /// The blobs that are damaged or missing.
    pub fn damaged_blobs(&self) -> BTreeSet<Digest> {
        self.problems.iter().filter_map(Problem::blob).collect()
    }

    /// Whether every promise is kept, as far as was looked.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Store {
    /// Checks every promise, changing nothing.
    pub fn verify(
        &self,
        depth: VerifyDepth,
        interrupt: &(dyn Fn() -> ControlFlow<()> + Sync),
    ) -> Result<VerifyReport, PruneError> {
        let mut report = VerifyReport::default();
        self.db().read(|tx| check_database(tx, &mut report))?;
        self.check_blobs(depth, interrupt, &mut report)?;
        self.check_layers(&mut report)?;
        if depth == VerifyDepth::Content {
            self.check_layer_content(interrupt, &mut report)?;
            self.check_indexes(interrupt, &mut report)?;
            self.check_merged(interrupt, &mut report)?;
            self.check_imported_layers(interrupt, &mut report)?;
        }
        self.check_images(&mut report)?;
        for info in self.cache_mounts().list()? {
            let path = self.layout().cache_mount(&info.hash, info.instance);
            if !path.is_dir() && self.cache_mounts().list()?.contains(&info) {
                report.problems.push(Problem::MountMissing { id: info.id, path });
            }
        }
        report.garbage = garbage_paths(self)?;
        report.quarantined = quarantined(self)?;
        Ok(report)
    }

    fn check_blobs(
        &self,
        depth: VerifyDepth,
        interrupt: &(dyn Fn() -> ControlFlow<()> + Sync),
        report: &mut VerifyReport,
    ) -> Result<(), PruneError> {
        for info in self.blobs().list()? {
            if interrupt().is_break() {
                report.interrupted = true;
                return Ok(());
            }
            report.blobs += 1;
            let path = self.layout().blob(&info.digest);
            let found = check_blob(&path, info.digest, info.size, depth)?;
            // Collected between the list and the look: no problem.
            if let Some(problem) = found
                && self.blobs().len(&info.digest).is_ok()
            {
                report.problems.push(problem);
            }
        }
        Ok(())
    }

    fn check_layers(&self, report: &mut VerifyReport) -> Result<(), DbError> {
        let look = |tx: &Tx<'_>| {
            tx.all("SELECT id, path FROM layers ORDER BY id", [], |row| {
                Ok((row.get::<_, LayerId>(0)?, row.get::<_, String>(1)?))
            })
        };
        let layers = self.db().read(look)?;
        report.layers = layers.len();
        let missing: Vec<_> = layers.into_iter().filter(|(_, path)| !self.layout().layer(path).exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let still = self.db().read(look)?;
        for (layer, path) in missing.into_iter().filter(|row| still.contains(row)) {
            report.problems.push(Problem::LayerMissing { layer, path: self.layout().layer(&path) });
        }
        Ok(())
    }

    fn check_layer_content(
        &self,
        interrupt: &(dyn Fn() -> ControlFlow<()> + Sync),
        report: &mut VerifyReport,
    ) -> Result<(), PruneError> {
        let lease = self.lease("verify")?;
        let rows = self.db().read(|tx| {
            let sql = "SELECT l.id, min(s.id), l.diff_id FROM layers l JOIN snapshots s ON s.layer = l.id
                       WHERE l.diff_id IS NOT NULL AND l.diff_id IS NOT l.content_digest GROUP BY l.id ORDER BY l.id";
            tx.all(sql, [], |row| {
                let Text(want) = row.get(2)?;
                Ok::<(LayerId, SnapshotId, DiffId), _>((row.get(0)?, row.get(1)?, want))
            })
        })?;
        for (layer, snapshot, want) in rows {
            if interrupt().is_break() {
                report.interrupted = true;
                return Ok(());
            }
            lease.hold(Hold::Snapshot(snapshot))?;
            let known = |problem: &Problem| matches!(problem, Problem::LayerMissing { layer: missing, .. } if *missing == layer);
            if report.problems.iter().any(known) || !self.rescue_snapshot(snapshot)? {
                continue;
            }
            let written = self
                .snapshots()
                .get(snapshot)
                .and_then(|snapshot| snapshot.write_tar_with(Times::Kept, &mut io::sink()));
            match written {
                Ok(diff) if diff.diff_id == want => {}
                Ok(diff) => report.problems.push(Problem::LayerContent { layer, want, got: diff.diff_id }),
                // Something below it is missing, which is told elsewhere; or it is itself unreadable.
                Err(error) => report.problems.push(Problem::LayerUnreadable { layer, detail: error.to_string() }),
            }
        }
        Ok(())
    }

    /// Whether the indexes of layers that are kept as tars are those that were made. A missing one is no problem: it is
    /// made again when it is needed. Nor is one of an earlier boot that nobody has looked at since: it was never synced, and is
    /// compared with its digest before it is used.
    fn check_indexes(
        &self,
        interrupt: &(dyn Fn() -> ControlFlow<()> + Sync),
        report: &mut VerifyReport,
    ) -> Result<(), PruneError> {
        let look = |tx: &Tx<'_>| {
            let sql = "SELECT id, path, index_digest, side_digest FROM layers
                       WHERE index_digest IS NOT NULL AND (index_boot IS NULL OR index_boot = ?1) ORDER BY id";
            tx.all(sql, [self.snapshotting().boot().unwrap_or_default()], |row| {
                let (Text(index), side) = (row.get(2)?, row.get::<_, Option<Text<Digest>>>(3)?);
                Ok((row.get::<_, LayerId>(0)?, row.get::<_, String>(1)?, index, side.map(|Text(side)| side)))
            })
        };
        let rows: Vec<(LayerId, String, Digest, Option<Digest>)> = self.db().read(look)?;
        let mut damaged = Vec::new();
        for row in rows {
            if interrupt().is_break() {
                report.interrupted = true;
                return Ok(());
            }
            match index_state(&self.layout().layer(&row.1), &row.2, row.3.as_ref()) {
                Ok(IndexState::Whole | IndexState::Missing) => {}
                Ok(IndexState::Damaged) | Err(_) => damaged.push(row),
            }
        }
        if !damaged.is_empty() {
            let still = self.db().read(look)?;
            let problems = damaged.into_iter().filter(|row| still.contains(row));
            report.problems.extend(problems.map(|(layer, ..)| Problem::LayerIndex { layer }));
        }
        Ok(())
    }

    /// The same of merged indexes.
    fn check_merged(
        &self,
        interrupt: &(dyn Fn() -> ControlFlow<()> + Sync),
        report: &mut VerifyReport,
    ) -> Result<(), PruneError> {
        let look = |tx: &Tx<'_>| {
            tx.all("SELECT snapshot, layers, path, digest FROM merged ORDER BY snapshot, layers", [], |row| {
                let Text(want) = row.get(3)?;
                Ok::<(SnapshotId, u64, String, Digest), _>((row.get(0)?, row.get(1)?, row.get(2)?, want))
            })
        };
        let mut damaged = Vec::new();
        for row in self.db().read(look)? {
            if interrupt().is_break() {
                report.interrupted = true;
                return Ok(());
            }
            match merged_digest(&self.layout().merged_index(&row.2)) {
                Ok(found) if found == row.3 => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => damaged.push(row),
            }
        }
        if !damaged.is_empty() {
            let still = self.db().read(look)?;
            let problems = damaged.into_iter().filter(|row| still.contains(row));
            report.problems.extend(problems.map(|(snapshot, layers, ..)| Problem::MergedIndex { snapshot, layers }));
        }
        Ok(())
    }

    fn check_images(&self, report: &mut VerifyReport) -> Result<(), DbError> {
        self.db().read(|tx| {
            let images = tx.all("SELECT id, diff_ids, snapshot FROM images ORDER BY id", [], |row| {
                let (Text(id), Json(diff_ids)) = (row.get(0)?, row.get(1)?);
                Ok::<(Digest, Vec<DiffId>, Option<SnapshotId>), _>((id, diff_ids, row.get(2)?))
            })?;
            report.images = images.len();
            for (id, diff_ids, snapshot) in images {
                let chain = match snapshot {
                    Some(snapshot) => diff_ids_of(tx, snapshot)?,
                    None => Vec::new(),
                };
                if chain.len() != diff_ids.len() {
                    continue;
                }
                for (want, got) in diff_ids.into_iter().zip(chain) {
                    if let Some(got) = got.filter(|got| *got != want) {
                        report.problems.push(Problem::ImageLayer { id, want, got });
                    }
                }
            }
            Ok(())
        })
    }
}

fn check_database(tx: &Tx<'_>, report: &mut VerifyReport) -> Result<(), DbError> {
    let lines: Vec<String> = tx.all("PRAGMA quick_check", [], |row| row.get(0))?;
    let broken: Vec<String> = tx.all("PRAGMA foreign_key_check", [], |row| {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(format!("a row of {table} refers to a row of {parent} that does not exist"))
    })?;
    let details = lines.into_iter().filter(|line| line != "ok").chain(broken);
    report.problems.extend(details.map(|detail| Problem::Database { detail }));
    Ok(())
}

fn check_blob(path: &Path, digest: Digest, want: u64, depth: VerifyDepth) -> Result<Option<Problem>, PathError> {
    let got = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Problem::BlobMissing { digest })),
        other => other.at("inspect", path)?.len(),
    };
    if got != want {
        return Ok(Some(Problem::BlobSize { digest, want, got }));
    }
    if depth == VerifyDepth::Structure {
        return Ok(None);
    }
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Problem::BlobMissing { digest })),
        other => other.at("open", path)?,
    };
    let (got, _) = digest_file(&mut file, digest.algorithm()).at("read", path)?;
    Ok((got != digest).then_some(Problem::BlobContent { digest, got }))
}

/// The diff_ids of a snapshot's layers, lowest first, as far as they are known.
fn diff_ids_of(tx: &Tx<'_>, top: SnapshotId) -> Result<Vec<Option<DiffId>>, DbError> {
    let sql = "WITH RECURSIVE chain (id, parent, layer, depth) AS (
                   SELECT id, parent, layer, depth FROM snapshots WHERE id = ?1
                   UNION ALL SELECT s.id, s.parent, s.layer, s.depth FROM snapshots s JOIN chain c ON s.id = c.parent)
               SELECT l.diff_id FROM chain c JOIN layers l ON l.id = c.layer ORDER BY c.depth";
    tx.all(sql, [top], |row| Ok(row.get::<_, Option<Text<DiffId>>>(0)?.map(|Text(diff_id)| diff_id)))
}
