//! Merged indexes of chains in the store: found, made, and made again.
//!
//! ```text
//! merged/NAME     one index over the tars of several layers that follow each other in a chain; NAME says which
//! ```
//!
//! All of it is derived from the layers' own indexes, which lie below `layers/`. One is made when a chain is mounted that
//! wants it (see [`super::chain`]), by whoever mounts first; views use those that are there. Its row refers to the snapshot
//! of the topmost of its layers, and goes with that: who holds a snapshot on top may use it.
//!
//! ```text
//! private file, synced ─> renamed to merged/NAME ─> one transaction names it
//! ```
//!
//! A crash in between leaves a file without a row, which is garbage. A row without its file, or a chain whose layers have got
//! other files, means that it is made again.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_executor::Lower;
use rbuild_image::{Digest, Hashing};

use super::chain::{UNIT, pieces, ranges};
use super::directory;
use super::layer_row::LayerRow;
use super::links::Chain;
use super::store::{SnapshotError, Snapshots};
use super::tar_layer::{self, Files};
use super::tar_reader::TarLayer;
use crate::db::{DbError, Durability, Text};
use crate::erofs::{Beneath, Index, IndexInfo, Part, merge};
use crate::failpoint;
use crate::id::SnapshotId;
use crate::lease::{Hold, Lease};
use crate::lock::{LockMode, LockName, wait_silently};
use crate::path_error::{AtPath, PathError};
use crate::view::LayerReader;

/// How many lower layers overlayfs takes.
const MAX_LOWERS: usize = 500;

/// Layers that follow each other in a chain, with their merged index, if there is one.
struct Run<'c> {
    /// Topmost first.
    rows: &'c [&'c LayerRow],
    beneath: Beneath,
    /// Name of the index.
    name: String,
}

impl Snapshots {
    /// What a mount of `chain` takes as lower layers, in its order: single layers, and merged ones, which are made where
    /// they are missing.
    pub(super) fn merged_lowers(&self, chain: &[&LayerRow]) -> Result<Vec<Lower>, SnapshotError> {
        let weights = self.weights(chain)?;
        let mut lowers = Vec::new();
        for piece in in_pieces(chain, &ranges(&weights)) {
            match piece {
                Piece::Layer(row) => {
                    lowers.push(row.snapshotter()?.lower(&self.path(row), self.store.snapshotting().seen().of(row)))
                }
                Piece::Range(range) => {
                    let run = Run::new(chain, &range);
                    self.ensure_merged(chain, &weights, &range, &run)?;
                    lowers.push(Lower::Erofs { index: self.merged_path(&run), devices: self.devices(run.rows) });
                }
            }
        }
        Ok(lowers)
    }

    /// Brings `lowers` of `chain` down to what overlayfs takes: layers that are directories become tars, so that they merge,
    /// where layers are kept so; elsewhere the lowest are stacked by an overlay of their own.
    pub(super) fn within_limit(&self, chain: &Chain, mut lowers: Vec<Lower>) -> Result<Vec<Lower>, SnapshotError> {
        let Some(top) = chain.top().filter(|_| lowers.len() > MAX_LOWERS) else { return Ok(lowers) };
        if self.makes_tars()? {
            let directories = chain.each().filter(|one| one.top().is_some_and(|row| row.kind == directory::NAME));
            let ids: Vec<SnapshotId> = directories.filter_map(|one| Some(one.top()?.snapshot)).collect();
            let directories: Vec<_> = ids.into_iter().rev().map(|id| self.get(id)).collect::<Result<_, _>>()?;
            self.become_tars(&directories)?;
            // Another process may have done some of it.
            self.remembered().forget_chains();
            let chain = self.chain(top.snapshot)?;
            self.ensure_indexes(&chain)?;
            lowers = self.merged_lowers(&chain.rows())?;
        }
        let id = top.snapshot;
        stacked(lowers).map_err(|layers| SnapshotError::TooManyLayers { id, layers, most: 2 * MAX_LOWERS - 1 })
    }

    /// Readers of `chain`, in its order: of single layers, and of merged ones that are there.
    pub(super) fn merged_readers(&self, chain: &[&LayerRow]) -> Result<Vec<Arc<dyn LayerReader>>, SnapshotError> {
        let weights = self.weights(chain)?;
        let mut readers: Vec<Arc<dyn LayerReader>> = Vec::new();
        for piece in in_pieces(chain, &ranges(&weights)) {
            match piece {
                Piece::Layer(row) => readers.push(row.snapshotter()?.reader(&self.path(row))),
                Piece::Range(range) => {
                    let run = Run::new(chain, &range);
                    if self.has_merged(&run)? {
                        readers.push(Arc::new(TarLayer::over(self.merged_path(&run), self.devices(run.rows))));
                        continue;
                    }
                    for row in run.rows {
                        readers.push(row.snapshotter()?.reader(&self.path(row)));
                    }
                }
            }
        }
        Ok(readers)
    }

    /// How large the index of each layer is, the lowest first; nothing is asked of chains that are not merged.
    fn weights(&self, chain: &[&LayerRow]) -> Result<Vec<Option<u64>>, PathError> {
        let weight = |row: &&LayerRow| {
            if chain.len() < UNIT || row.kind != tar_layer::NAME {
                return Ok(None);
            }
            Ok(Some(self.facts(row).at("inspect the index of", &self.path(row))?.index))
        };
        chain.iter().rev().map(weight).collect()
    }

    fn merged_path(&self, run: &Run<'_>) -> PathBuf {
        self.store.layout().merged_index(&run.name)
    }

    /// Everything that the merged index of these layers, topmost first, points into, in its order: the tars from the lowest,
    /// then their side blobs.
    fn devices(&self, rows: &[&LayerRow]) -> Vec<PathBuf> {
        let each: Vec<Vec<PathBuf>> = rows.iter().rev().map(|row| self.devices_of(row)).collect();
        let tars = each.iter().filter_map(|devices| devices.first());
        tars.chain(each.iter().flat_map(|devices| devices.iter().skip(1))).cloned().collect()
    }

    /// Whether there is a merged index of these layers as they are.
    fn has_merged(&self, run: &Run<'_>) -> Result<bool, SnapshotError> {
        let named = self.store.db().read(|tx| {
            let sql = "SELECT path FROM merged WHERE snapshot = ?1 AND layers = ?2";
            tx.first(sql, (run.top(), run.rows.len() as u64), |row| row.get::<_, String>(0))
        })?;
        Ok(named.is_some_and(|path| path == run.name) && self.merged_path(run).exists())
    }

    fn ensure_merged(
        &self,
        chain: &[&LayerRow],
        weights: &[Option<u64>],
        range: &Range<usize>,
        run: &Run<'_>,
    ) -> Result<(), SnapshotError> {
        if self.has_merged(run)? {
            return Ok(());
        }
        // Making it twice would only be a waste, so a lock that cannot be had is no reason to fail.
        let name = LockName::other("merged", &run.name);
        let _lock = self.store.lock(&name, LockMode::Exclusive, &wait_silently).ok();
        if self.has_merged(run)? {
            return Ok(());
        }
        let mut parts = Vec::new();
        let mut at = range.start;
        for piece in pieces(weights, range) {
            let piece_run = Run::new(chain, &piece);
            if self.has_merged(&piece_run)? {
                self.layers_as_parts(chain, range, at..piece.start, &mut parts)?;
                let index = self.merged_path(&piece_run);
                parts.push(self.part(&index, self.devices(piece_run.rows))?);
                at = piece.end;
            }
        }
        self.layers_as_parts(chain, range, at..range.end, &mut parts)?;
        self.make_merged(run, numbered(parts, &self.devices(run.rows)))
    }

    /// The layers in `layers`, which lie in `range`, each by itself.
    fn layers_as_parts(
        &self,
        chain: &[&LayerRow],
        range: &Range<usize>,
        layers: Range<usize>,
        parts: &mut Vec<(Index, Vec<PathBuf>)>,
    ) -> Result<(), SnapshotError> {
        debug_assert!(range.start <= layers.start && layers.end <= range.end);
        for row in rows(chain, &layers).iter().rev() {
            parts.push(self.part(&Files::of(&self.path(row)).index, self.devices_of(row))?);
        }
        Ok(())
    }

    fn part(&self, index: &Path, devices: Vec<PathBuf>) -> Result<(Index, Vec<PathBuf>), SnapshotError> {
        Ok((File::open(index).and_then(Index::open).at("read", index)?, devices))
    }

    fn make_merged(&self, run: &Run<'_>, parts: Vec<Part>) -> Result<(), SnapshotError> {
        let store = &self.store;
        // Only then there can be a row for it.
        self.settle(run.top())?;
        let lease = store.lease("merged index")?;
        lease.hold(Hold::Snapshot(run.top()))?;
        let target = self.merged_path(run);
        let (info, size) = write(&lease, &parts, run.beneath, &target, &store.layout().merged())?;
        failpoint::hit("merged-name").at("name", &target)?;
        store.db().write(Durability::Lazy, |tx| {
            let sql = "INSERT OR REPLACE INTO merged (snapshot, layers, path, size, digest)
                       SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM snapshots WHERE id = ?1)";
            tx.execute(sql, (run.top(), run.rows.len() as u64, &run.name, size, Text(info.digest)))
        })?;
        tracing::debug!(layers = run.rows.len(), inodes = info.inodes, bytes = info.bytes, "merged");
        Ok(())
    }

    /// Forgets the merged indexes that a layer is part of: its own index may have been damaged when they were made.
    pub(super) fn forget_merged(&self, of: &LayerRow) -> Result<(), DbError> {
        self.store.db().write(Durability::Lazy, |tx| {
            let sql = "WITH RECURSIVE above (id) AS (
                           SELECT id FROM snapshots WHERE layer = ?1
                           UNION SELECT s.id FROM snapshots s JOIN above a ON s.parent = a.id)
                       DELETE FROM merged WHERE snapshot IN (SELECT id FROM above)";
            tx.execute(sql, (of.id,)).map(drop)
        })
    }
}

impl<'c> Run<'c> {
    fn new(chain: &'c [&'c LayerRow], range: &Range<usize>) -> Self {
        let rows = rows(chain, range);
        let beneath = if range.start == 0 { Beneath::Nothing } else { Beneath::Layers };
        let mut made_of = format!("rbuild merged 1\n{beneath:?}\n");
        for row in rows {
            made_of.push_str(&row.path);
            made_of.push('\n');
        }
        // A layer's path is never used twice. The snapshot is in the name so that no two rows name one file.
        let digest = Digest::sha256(made_of);
        let name = format!("{}-{}-{}", rows[0].snapshot, rows.len(), digest.hex());
        Self { rows, beneath, name }
    }

    fn top(&self) -> SnapshotId {
        self.rows[0].snapshot
    }
}

/// A part of a chain to be mounted.
enum Piece<'c> {
    Layer(&'c LayerRow),
    Range(Range<usize>),
}

/// The chain, topmost first, with `ranges`, which count from the bottom, as one each.
fn in_pieces<'c>(chain: &'c [&'c LayerRow], ranges: &[Range<usize>]) -> Vec<Piece<'c>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for range in ranges {
        pieces.extend(rows(chain, &(at..range.start)).iter().rev().copied().map(Piece::Layer));
        pieces.push(Piece::Range(range.clone()));
        at = range.end;
    }
    pieces.extend(rows(chain, &(at..chain.len())).iter().rev().copied().map(Piece::Layer));
    pieces.reverse();
    pieces
}

/// The layers of `chain`, topmost first, that `range` counts from the bottom.
fn rows<'c>(chain: &'c [&'c LayerRow], range: &Range<usize>) -> &'c [&'c LayerRow] {
    &chain[chain.len() - range.end..chain.len() - range.start]
}

/// Says where each part's devices are among `devices`.
fn numbered(parts: Vec<(Index, Vec<PathBuf>)>, devices: &[PathBuf]) -> Vec<Part> {
    // A chain may have a layer twice, and then its files.
    let mut positions: BTreeMap<&Path, VecDeque<usize>> = BTreeMap::new();
    for (position, path) in devices.iter().enumerate() {
        positions.entry(path).or_default().push_back(position);
    }
    let number = |(index, own): (Index, Vec<PathBuf>)| {
        // All are among those of the whole: they come from the same layers.
        let devices = own.iter().filter_map(|path| positions.get_mut(path.as_path())?.pop_front()).collect();
        Part { index, devices }
    };
    parts.into_iter().map(number).collect()
}

/// As many of the lowest directories as have to be are stacked; says how many there are if that does not do.
fn stacked(mut lowers: Vec<Lower>) -> Result<Vec<Lower>, usize> {
    let count = lowers.len();
    if count <= MAX_LOWERS {
        return Ok(lowers);
    }
    let below = lowers.split_off(MAX_LOWERS - 1);
    let path = |lower| match lower {
        Lower::Directory(path) => Some(path),
        // The kernel stacks no more than two file systems on another one.
        Lower::Erofs { .. } | Lower::Stack(_) => None,
    };
    let below = below.into_iter().map(path).collect::<Option<Vec<_>>>();
    let below = below.filter(|below| below.len() <= MAX_LOWERS).ok_or(count)?;
    lowers.push(Lower::Stack(below));
    Ok(lowers)
}

/// Writes the index to a private file, syncs it and moves it to `target`; its bytes on disk.
fn write(
    lease: &Lease,
    parts: &[Part],
    beneath: Beneath,
    target: &Path,
    directory: &Path,
) -> Result<(IndexInfo, u64), SnapshotError> {
    let place = lease.scratch_name("merged")?;
    let mut out = File::create_new(&place).at("create", &place)?;
    let info = merge(parts, beneath, &mut out).map_err(|source| SnapshotError::Merge { source })?;
    failpoint::hit("merged-sync").and_then(|()| out.sync_all()).at("sync", &place)?;
    let size = out.metadata().at("inspect", &place)?.blocks() * 512;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", directory)?,
        _ => {}
    }
    failpoint::hit("merged-rename").and_then(|()| fs::rename(&place, target)).at("rename", &place)?;
    Ok((info, size))
}

/// The digest of a merged index as it is.
pub(crate) fn merged_digest(path: &Path) -> io::Result<Digest> {
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut File::open(path)?, &mut hashing)?;
    Ok(hashing.finish().1)
}
