//! What the database, or what is not in it yet, says of a snapshot's layers: one row a layer, and the chain of them.
//!
//! The upper part of a chain may wait to be settled ([`super::settle`]); below what is in the database, all is. Its lower part may
//! be [remembered](super::remembered). Nothing is opened here, and nothing changed but a mark of a collection that came too early.

use jiff::Timestamp;
use rbuild_image::{ContentDigest, DiffId, Digest};

use super::diff::LayerDiff;
use super::index_files::{IndexRow, RootMetadata};
use super::kind::{Snapshotter, by_name};
use super::links::Chain;
use super::store::{SnapshotError, Snapshots};
use crate::db::{Json, Micros, Text};
use crate::id::{LayerId, SnapshotId};

/// What [`LayerRow::read`] reads of the layer `l`, behind a snapshot's id.
const COLUMNS: &str = "l.id, l.kind, l.path, l.size, l.diff_id, l.tar_size, l.content_digest, l.created_at, \
                       l.index_digest, l.side_digest, l.index_boot, l.index_root";

/// So many layers are asked for one by one before all that is below them is.
const FEW: usize = 32;

/// A layer as the database knows it.
#[derive(Clone, Debug)]
pub(super) struct LayerRow {
    pub(super) id: LayerId,
    pub(super) snapshot: SnapshotId,
    pub(super) kind: String,
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) diff_id: Option<DiffId>,
    pub(super) tar_size: Option<u64>,
    pub(super) content_digest: Option<ContentDigest>,
    pub(super) created_at: Timestamp,
    pub(super) index: Option<IndexRow>,
    /// What the root directory is given, where its tar does not say.
    pub(super) root: Option<RootMetadata>,
}

impl LayerRow {
    /// From a row of a snapshot's id and its layer's [`COLUMNS`].
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            snapshot: row.get(0)?,
            id: row.get(1)?,
            kind: row.get(2)?,
            path: row.get(3)?,
            size: row.get(4)?,
            diff_id: row.get::<_, Option<Text<DiffId>>>(5)?.map(|Text(digest)| digest),
            tar_size: row.get(6)?,
            content_digest: row.get::<_, Option<Text<ContentDigest>>>(7)?.map(|Text(digest)| digest),
            created_at: row.get::<_, Micros>(8)?.0,
            index: match row.get::<_, Option<Text<Digest>>>(9)? {
                Some(Text(digest)) => {
                    let side = row.get::<_, Option<Text<Digest>>>(10)?.map(|Text(digest)| digest);
                    Some(IndexRow { digest, side, boot: row.get(11)? })
                }
                None => None,
            },
            root: row.get::<_, Option<Json<_>>>(12)?.map(|Json(root)| root),
        })
    }

    pub(super) fn known_diff(&self) -> Option<LayerDiff> {
        let (diff_id, content_digest) = (self.diff_id?, self.content_digest?);
        Some(LayerDiff { diff_id, content_digest, size: self.tar_size? })
    }

    pub(super) fn with_diff(self, diff: LayerDiff) -> Self {
        let (diff_id, content_digest) = (Some(diff.diff_id), Some(diff.content_digest));
        Self { diff_id, content_digest, tar_size: Some(diff.size), ..self }
    }

    /// Whether it came from outside: then its own digest stands for its content.
    pub(super) fn is_imported(&self) -> bool {
        self.known_diff().is_some_and(|diff| diff.diff_id.digest() == diff.content_digest.digest())
    }

    pub(super) fn snapshotter(&self) -> Result<&'static dyn Snapshotter, SnapshotError> {
        by_name(&self.kind).ok_or_else(|| SnapshotError::UnknownKind { id: self.snapshot, kind: self.kind.clone() })
    }
}

impl Snapshots {
    /// The layers of a snapshot.
    pub(super) fn chain(&self, id: SnapshotId) -> Result<Chain, SnapshotError> {
        let remembered = self.remembered();
        let since = remembered.since();
        let mut above = Vec::new();
        let mut next = Some(id);
        let below = loop {
            let Some(id) = next else { break Chain::default() };
            if let Some((row, parent)) = self.store.unsettled().find(id) {
                if let Some(known) = remembered.chain(id) {
                    break known;
                }
                above.push(row);
                next = parent;
                continue;
            }
            if let Some(known) = remembered.chain(id) {
                self.must_stay(id)?;
                break known;
            }
            // Of a chain that has grown a little, the lower part is known.
            if above.len() < FEW && remembered.has_chains() {
                let (row, parent) = self.row_and_parent(id)?;
                above.push(row);
                next = parent;
                continue;
            }
            break self.settled_chain(id)?.into_iter().rev().collect();
        };
        let chain = above.into_iter().rev().fold(below, |below, row| Chain::on(row, below));
        remembered.note_chain(&chain, since);
        Ok(chain)
    }

    /// Makes sure that a snapshot in the database is not taken away.
    fn must_stay(&self, id: SnapshotId) -> Result<(), SnapshotError> {
        let sql = "SELECT doomed FROM snapshots WHERE id = ?1";
        let doomed = self.store.db().read(|tx| tx.first(sql, (id,), |row| row.get::<_, bool>(0)))?;
        // A collection may have marked it before the caller came to hold it.
        match doomed {
            Some(false) => Ok(()),
            Some(true) if self.store.rescue_snapshot(id)? => Ok(()),
            _ => Err(SnapshotError::Missing { id }),
        }
    }

    fn row_and_parent(&self, id: SnapshotId) -> Result<(LayerRow, Option<SnapshotId>), SnapshotError> {
        self.must_stay(id)?;
        let found = self.store.db().read(|tx| {
            let sql = format!(
                "SELECT s.id, {COLUMNS}, s.parent FROM snapshots s JOIN layers l ON l.id = s.layer WHERE s.id = ?1"
            );
            tx.first(&sql, (id,), |row| Ok((LayerRow::read(row)?, row.get("parent")?)))
        })?;
        found.ok_or(SnapshotError::Missing { id })
    }

    /// The topmost layer of a snapshot, by itself.
    pub(super) fn top_row(&self, id: SnapshotId) -> Result<LayerRow, SnapshotError> {
        if let Some((row, _)) = self.store.unsettled().find(id) {
            return Ok(row);
        }
        let found = self.store.db().read(|tx| {
            let sql =
                format!("SELECT s.id, {COLUMNS} FROM snapshots s JOIN layers l ON l.id = s.layer WHERE s.id = ?1");
            tx.first(&sql, (id,), LayerRow::read)
        })?;
        found.ok_or(SnapshotError::Missing { id })
    }

    /// The snapshot that this one lies on.
    pub(super) fn parent(&self, id: SnapshotId) -> Result<Option<SnapshotId>, SnapshotError> {
        if let Some((_, parent)) = self.store.unsettled().find(id) {
            return Ok(parent);
        }
        let found = self.store.db().read(|tx| {
            tx.first("SELECT parent FROM snapshots WHERE id = ?1", (id,), |row| row.get::<_, Option<SnapshotId>>(0))
        })?;
        found.ok_or(SnapshotError::Missing { id })
    }

    /// All layers of a snapshot that is in the database, topmost first.
    fn settled_chain(&self, id: SnapshotId) -> Result<Vec<LayerRow>, SnapshotError> {
        self.must_stay(id)?;
        let rows = self.store.db().read(|tx| {
            let sql = format!(
                "WITH RECURSIVE chain (id, parent, layer, level) AS (
                     SELECT id, parent, layer, 0 FROM snapshots WHERE id = ?1
                     UNION ALL
                     SELECT s.id, s.parent, s.layer, chain.level + 1 FROM snapshots s JOIN chain ON s.id = chain.parent
                 )
                 SELECT chain.id, {COLUMNS} FROM chain JOIN layers l ON l.id = chain.layer ORDER BY chain.level"
            );
            tx.all(&sql, (id,), LayerRow::read)
        })?;
        if rows.is_empty() { Err(SnapshotError::Missing { id }) } else { Ok(rows) }
    }
}
