//! What things other than a live process keep from collection: a stopped container keeps its snapshot.

use std::collections::BTreeMap;

use rbuild_image::Digest;

use crate::db::{DbError, Durability, Micros, Text, Tx};
use crate::id::SnapshotId;
use crate::store::Store;

/// Something that a root keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// A blob.
    Blob(Digest),
    /// A snapshot and all its parents.
    Snapshot(SnapshotId),
}

/// Named roots.
#[derive(Clone, Copy, Debug)]
pub struct Roots<'a> {
    store: &'a Store,
}

impl Store {
    /// Named roots.
    pub fn roots(&self) -> Roots<'_> {
        Roots { store: self }
    }
}

impl Roots<'_> {
    /// Makes `owner` (`container/ID`) keep exactly these. A lease must hold them until this returns.
    pub fn set(&self, owner: &str, kept: &[Kept]) -> Result<(), DbError> {
        let now = self.store.now();
        self.store.db().write(Durability::Synced, |tx| {
            tx.execute("DELETE FROM roots WHERE owner = ?1", [owner])?;
            for kept in kept {
                let (kind, key) = match kept {
                    Kept::Blob(digest) => ("blob", digest.to_string()),
                    Kept::Snapshot(id) => ("snapshot", id.to_string()),
                };
                tx.execute(
                    "INSERT OR IGNORE INTO roots (owner, kind, key, created_at) VALUES (?1, ?2, ?3, ?4)",
                    (owner, kind, key, Micros(now)),
                )?;
            }
            Ok(())
        })
    }

    /// `owner` keeps nothing any more.
    pub fn release(&self, owner: &str) -> Result<(), DbError> {
        self.store.db().write(Durability::Lazy, |tx| {
            tx.execute("DELETE FROM roots WHERE owner = ?1", [owner])?;
            Ok(())
        })
    }

    /// All roots, by owner.
    pub fn list(&self) -> Result<BTreeMap<String, Vec<Kept>>, DbError> {
        self.store.db().read(all)
    }
}

pub(crate) fn all(tx: &Tx<'_>) -> Result<BTreeMap<String, Vec<Kept>>, DbError> {
    let rows = tx.all("SELECT owner, kind, key FROM roots ORDER BY owner, kind, key", [], |row| {
        let kept = match row.get::<_, String>(1)?.as_str() {
            "blob" => Kept::Blob(row.get::<_, Text<Digest>>(2)?.0),
            "snapshot" => Kept::Snapshot(row.get::<_, Text<SnapshotId>>(2)?.0),
            _ => return Err(rusqlite::Error::InvalidQuery),
        };
        Ok((row.get::<_, String>(0)?, kept))
    })?;
    let mut roots: BTreeMap<String, Vec<Kept>> = BTreeMap::new();
    for (owner, kept) in rows {
        roots.entry(owner).or_default().push(kept);
    }
    Ok(roots)
}
