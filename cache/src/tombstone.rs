//! What became of cache records that are gone: what, when, and by which rule. `cache why` reads them.
//!
//! A tombstone stands for a key, and goes when the key leads somewhere again. They are bounded: none outlives the
//! time that a collection remembers, and there are never more than [`LIMIT`] after one.

use std::time::Duration;

use jiff::Timestamp;

use crate::db::{DbError, Micros, Text, Tx};
use crate::id::{CacheKey, ResultId};
use crate::index::KeyKind;
use crate::store::Store;

/// Most tombstones that a collection leaves, the latest. About five stand for one step.
const LIMIT: i64 = 20_000;

/// A key that was evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The key.
    pub key: CacheKey,
    /// How it was made.
    pub kind: KeyKind,
    /// The step as people know it.
    pub subject: String,
    /// Which rule evicted it, as people know it: `prune --all`, `gc policy 2: …`, `damaged`.
    pub rule: String,
    /// When.
    pub evicted_at: Timestamp,
    /// When it was last a hit; `None` where an earlier version of rbuild wrote this.
    pub used_at: Option<Timestamp>,
    /// Bytes of its layer.
    pub size: u64,
    /// What a hit saved.
    pub duration: Duration,
}

/// Tombstones of a store.
#[derive(Clone, Copy, Debug)]
pub struct Tombstones<'a> {
    store: &'a Store,
}

impl Store {
    /// What became of evicted keys.
    pub fn tombstones(&self) -> Tombstones<'_> {
        Tombstones { store: self }
    }
}

impl Tombstones<'_> {
    /// What became of a key; `None` when it was never there, leads somewhere, or was forgotten.
    pub fn for_key(&self, key: &CacheKey) -> Result<Option<Tombstone>, DbError> {
        self.store.db().read(|tx| find(tx, key))
    }

    /// The same for several keys, in their order.
    pub fn for_keys(&self, keys: &[CacheKey]) -> Result<Vec<Option<Tombstone>>, DbError> {
        self.store.db().read(|tx| keys.iter().map(|key| find(tx, key)).collect())
    }

    /// The latest evictions of steps that people know by this name, one per key.
    pub fn for_subject(&self, subject: &str, limit: usize) -> Result<Vec<Tombstone>, DbError> {
        let sql = format!("{SELECT} WHERE subject = ?1 ORDER BY evicted_at DESC, key LIMIT ?2");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.store.db().read(|tx| tx.all(&sql, (subject, limit), read))
    }
}

const SELECT: &str = "SELECT key, kind, subject, rule, evicted_at, used_at, size, duration FROM tombstones";

fn find(tx: &Tx<'_>, key: &CacheKey) -> Result<Option<Tombstone>, DbError> {
    tx.first(&format!("{SELECT} WHERE key = ?1"), [Text(key)], read)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Tombstone> {
    let (Text(key), Micros(evicted_at), Micros(used_at)) = (row.get(0)?, row.get(4)?, row.get(5)?);
    Ok(Tombstone {
        key,
        kind: KeyKind::from_column(&row.get::<_, String>(1)?)?,
        subject: row.get(2)?,
        rule: row.get(3)?,
        evicted_at,
        used_at: Some(used_at).filter(|time| *time != Timestamp::UNIX_EPOCH),
        size: row.get(6)?,
        duration: Duration::from_micros(row.get::<_, i64>(7)?.unsigned_abs()),
    })
}

/// Removes a result, leaving tombstones.
pub(crate) fn evict(tx: &Tx<'_>, result: ResultId, rule: &str, now: Timestamp) -> Result<bool, DbError> {
    tx.execute(
        "INSERT OR REPLACE INTO tombstones (key, kind, subject, rule, evicted_at, used_at, size, duration)
         SELECT k.key, k.kind, r.subject, ?2, ?3, r.used_at, coalesce(l.size, 0), r.duration
         FROM keys k JOIN results r ON r.id = k.result LEFT JOIN snapshots s ON s.id = r.snapshot
         LEFT JOIN layers l ON l.id = s.layer WHERE r.id = ?1",
        (result, rule, Micros(now)),
    )?;
    Ok(tx.execute("DELETE FROM results WHERE id = ?1", [result])? > 0)
}

/// Drops those older than `horizon`, and the oldest of too many.
pub(crate) fn forget(tx: &Tx<'_>, horizon: Micros) -> Result<(), DbError> {
    tx.execute("DELETE FROM tombstones WHERE evicted_at < ?1", [horizon])?;
    let sql = "DELETE FROM tombstones WHERE key IN (
                   SELECT key FROM tombstones ORDER BY evicted_at DESC, key LIMIT -1 OFFSET ?1)";
    tx.execute(sql, [LIMIT])?;
    Ok(())
}
