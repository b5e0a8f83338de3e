//! Cache records: which keys lead to which result. What became of those that lead nowhere any more is in `tombstone`.
//!
//! Several keys may lead to one result (its definition, and each content it was found by). A look-up holds the
//! result's snapshot under the caller's lease before it answers. Whether a result may be recorded at all is decided by
//! the solver; this file knows neither ops nor how keys are made.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_image::ContentDigest;

use crate::db::{DbError, Durability, Micros, Text, Tx};
use crate::descriptions::{self, StepDescription};
use crate::failpoint;
use crate::id::{CacheKey, ResultId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::path_error::{AtPath, PathError};
use crate::store::Store;
use crate::tombstone::evict;

/// How a key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// From the op, its parameters, and its inputs' definitions.
    Definition,
    /// From the op, its parameters, and the content of what it reads.
    Content,
    /// From the op and the snapshot that it ran on: finds the earlier of two equal results.
    Rerun,
    /// From the op alone: knows that and for how long it ran before.
    Step,
}

impl KeyKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Content => "content",
            Self::Rerun => "rerun",
            Self::Step => "step",
        }
    }

    pub(crate) fn from_column(text: &str) -> rusqlite::Result<Self> {
        match text {
            "definition" => Ok(Self::Definition),
            "content" => Ok(Self::Content),
            "rerun" => Ok(Self::Rerun),
            "step" => Ok(Self::Step),
            _ => Err(rusqlite::Error::InvalidQuery),
        }
    }
}

/// A key, with a note. What the definitions of steps are made of is in [`crate::StepDescription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordKey {
    /// The key.
    pub key: CacheKey,
    /// How it was made.
    pub kind: KeyKind,
    /// Whatever the one who recorded it wants to know of it.
    pub description: String,
}

/// What making a result used of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepUsage {
    /// Processor time, of programs and of the kernel for them.
    pub processor: Duration,
    /// The most memory in use at once, in bytes.
    pub memory_peak: u64,
}

/// What is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The keys that shall lead to it.
    pub keys: Vec<RecordKey>,
    /// What the step gave; `None` is the empty tree. A lease must hold it.
    pub snapshot: Option<SnapshotId>,
    /// What the layer that it made holds.
    pub content_digest: Option<ContentDigest>,
    /// The step as people know it.
    pub subject: String,
    /// Which build did it.
    pub build: Option<String>,
    /// How long it took.
    pub duration: Duration,
    /// What its definition was made of; what is no step has none.
    pub description: Option<StepDescription>,
    /// What it used, where that was measured.
    pub usage: Option<StepUsage>,
}

/// What a step gave when it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// Its identity.
    pub result: ResultId,
    /// What the step gave; `None` is the empty tree.
    pub snapshot: Option<SnapshotId>,
    /// What the layer that it made holds.
    pub content_digest: Option<ContentDigest>,
    /// The step as people know it.
    pub subject: String,
    /// Which build did it.
    pub build: Option<String>,
    /// When it was done.
    pub created_at: Timestamp,
    /// How long it took: what a hit saves.
    pub duration: Duration,
    /// When it last was a hit.
    pub used_at: Timestamp,
    /// How often it was a hit.
    pub use_count: u64,
    /// What it used, where that was measured.
    pub usage: Option<StepUsage>,
}

/// A record, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRecord {
    /// The record.
    pub record: CacheRecord,
    /// The keys that lead to it, by kind, then by key.
    pub keys: Vec<RecordKey>,
    /// Bytes of its topmost layer.
    pub size: u64,
    /// The result below it.
    pub parent: Option<SnapshotId>,
}

/// Why a record cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The snapshot to be recorded is not there.
    #[error("snapshot {snapshot} of {subject:?} is not in the store")]
    NoSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The step.
        subject: String,
    },
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The lease cannot be written.
    #[error(transparent)]
    File(#[from] PathError),
}

/// Cache records.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    store: &'a Store,
}

impl Store {
    /// Cache records.
    pub fn records(&self) -> Records<'_> {
        Records { store: self }
    }
}

impl Records<'_> {
    /// The result that a key leads to; `lease` holds its snapshot.
    pub fn lookup(&self, key: &CacheKey, lease: &Lease) -> Result<Option<CacheRecord>, RecordError> {
        Ok(self.lookup_all(std::slice::from_ref(key), lease)?.pop().flatten())
    }

    /// The results of several keys, in their order, for the price of two.
    pub fn lookup_all(&self, keys: &[CacheKey], lease: &Lease) -> Result<Vec<Option<CacheRecord>>, RecordError> {
        let mut found =
            self.store.db().read(|tx| keys.iter().map(|key| find(tx, key)).collect::<Result<Vec<_>, _>>())?;
        failpoint::hit("lookup-hold").at("hold in", self.store.layout().root())?;
        lease.hold_all(found.iter().flatten().filter_map(|record| record.snapshot).map(Hold::Snapshot))?;
        // Only a look after the hold counts. What has become another result meanwhile is a miss.
        let again = self.store.db().read(|tx| {
            let pairs = keys.iter().zip(&found).filter(|(_, found)| found.is_some());
            pairs.map(|(key, _)| leads_to(tx, key)).collect::<Result<Vec<_>, _>>()
        })?;
        for (slot, now) in found.iter_mut().filter(|slot| slot.is_some()).zip(again) {
            let Some(record) = slot.take() else { continue };
            *slot = match now {
                Some((result, true)) if result == record.result => self.rescued(record)?,
                Some((result, false)) if result == record.result => Some(record),
                _ => None,
            };
        }
        Ok(found)
    }

    /// The note of a key.
    pub fn description(&self, key: &CacheKey) -> Result<Option<String>, DbError> {
        let sql = "SELECT description FROM keys WHERE key = ?1";
        self.store.db().read(|tx| tx.first(sql, [Text(key)], |row| row.get(0)))
    }

    fn rescued(&self, record: CacheRecord) -> Result<Option<CacheRecord>, DbError> {
        match record.snapshot {
            Some(snapshot) => Ok(self.store.rescue_snapshot(snapshot)?.then_some(record)),
            None => Ok(Some(record)),
        }
    }

    /// Records a result; its keys lead to it from now on, wherever they led before.
    pub fn record(&self, new: &NewRecord) -> Result<ResultId, RecordError> {
        let now = self.store.now();
        self.store.db().write(Durability::Lazy, |tx| {
            if let Some(snapshot) = new.snapshot
                && tx.first("SELECT 1 FROM snapshots WHERE id = ?1", [snapshot], |_| Ok(()))?.is_none()
            {
                return Err(RecordError::NoSnapshot { snapshot, subject: new.subject.clone() });
            }
            let id = tx.insert(
                "INSERT INTO results (snapshot, content_digest, subject, build, created_at, duration, used_at, processor,
                     memory_peak)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?7, ?8)",
                (
                    new.snapshot,
                    new.content_digest.map(Text),
                    &new.subject,
                    &new.build,
                    Micros(now),
                    micros(new.duration),
                    new.usage.map(|usage| micros(usage.processor)),
                    new.usage.map(|usage| i64::try_from(usage.memory_peak).unwrap_or(i64::MAX)),
                ),
            )?;
            let result = ResultId::from_row(id);
            lead(tx, result, &new.keys)?;
            if let Some(description) = &new.description {
                descriptions::put(tx, description, now)?;
            }
            Ok(result)
        })
    }

    /// Makes further keys lead to a result, and keeps what a new definition among them was made of.
    pub fn add_keys(
        &self,
        result: ResultId,
        keys: &[RecordKey],
        description: Option<&StepDescription>,
    ) -> Result<(), DbError> {
        let now = self.store.now();
        self.store.db().write(Durability::Lazy, |tx| {
            // A collection may have been faster.
            if tx.first("SELECT 1 FROM results WHERE id = ?1", [result], |_| Ok(()))?.is_none() {
                return Ok(());
            }
            lead(tx, result, keys)?;
            description.map_or(Ok(()), |description| descriptions::put(tx, description, now))
        })
    }

    /// Notes that these results were hits, in one transaction.
    pub fn touch(&self, results: &[ResultId]) -> Result<(), DbError> {
        if results.is_empty() {
            return Ok(());
        }
        let now = Micros(self.store.now());
        self.store.db().write(Durability::Lazy, |tx| {
            for result in results {
                let sql = "UPDATE results SET used_at = max(used_at, ?2), use_count = use_count + 1 WHERE id = ?1";
                tx.execute(sql, (result, now))?;
            }
            Ok(())
        })
    }

    /// All records, the latest used first.
    pub fn list(&self) -> Result<Vec<ListedRecord>, DbError> {
        self.store.db().read(|tx| {
            let sql =
                "SELECT r.id, r.snapshot, r.content_digest, r.subject, r.build, r.created_at, r.duration, r.used_at,
                           r.use_count, r.processor, r.memory_peak, coalesce(l.bytes, 0), s.parent
                       FROM results r LEFT JOIN snapshots s ON s.id = r.snapshot LEFT JOIN layer_bytes l ON l.layer = s.layer
                       ORDER BY r.used_at DESC, r.id DESC";
            let mut records = tx.all(sql, [], |row| {
                Ok(ListedRecord { record: read(row)?, keys: Vec::new(), size: row.get(11)?, parent: row.get(12)? })
            })?;
            let sql = "SELECT key, kind, description, result FROM keys ORDER BY kind DESC, key";
            let mut keys: BTreeMap<ResultId, Vec<RecordKey>> = BTreeMap::new();
            for (result, key) in tx.all(sql, [], |row| Ok((row.get(3)?, read_key(row)?)))? {
                keys.entry(result).or_default().push(key);
            }
            for listed in &mut records {
                listed.keys = keys.remove(&listed.record.result).unwrap_or_default();
            }
            Ok(records)
        })
    }

    /// The keys of steps that people know under the same name, the latest done first: what a missed key is compared
    /// with.
    pub fn alike(&self, subject: &str, limit: usize) -> Result<Vec<RecordKey>, DbError> {
        self.store.db().read(|tx| {
            let sql = "SELECT k.key, k.kind, k.description FROM keys k JOIN results r ON r.id = k.result
                       WHERE r.subject = ?1 ORDER BY r.created_at DESC, k.key LIMIT ?2";
            tx.all(sql, (subject, i64::try_from(limit).unwrap_or(i64::MAX)), read_key)
        })
    }

    /// The median of how long steps of that name took, for planning.
    pub fn usual_duration(&self, subject: &str) -> Result<Option<Duration>, DbError> {
        let sql = "SELECT duration FROM results WHERE subject = ?1 ORDER BY created_at DESC LIMIT 9";
        let mut times: Vec<i64> = self.store.db().read(|tx| tx.all(sql, [subject], |row| row.get(0)))?;
        times.sort_unstable();
        Ok(times.get(times.len() / 2).map(|micros| Duration::from_micros(micros.unsigned_abs())))
    }

    /// Forgets a result and its keys, leaving tombstones that name `rule`. Its files go with the next collection.
    pub fn remove(&self, result: ResultId, rule: &str) -> Result<bool, DbError> {
        let now = self.store.now();
        self.store.db().write(Durability::Lazy, |tx| evict(tx, result, rule, now))
    }
}

fn lead(tx: &Tx<'_>, result: ResultId, keys: &[RecordKey]) -> Result<(), DbError> {
    for key in keys {
        let before: Option<ResultId> =
            tx.first("SELECT result FROM keys WHERE key = ?1", [Text(key.key)], |row| row.get(0))?;
        tx.execute(
            "INSERT INTO keys (key, kind, result, description) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET kind = excluded.kind, result = excluded.result,
                 description = excluded.description",
            (Text(key.key), key.kind.as_str(), result, &key.description),
        )?;
        tx.execute("DELETE FROM tombstones WHERE key = ?1", [Text(key.key)])?;
        if let Some(before) = before.filter(|before| *before != result) {
            // A result that nothing leads to is of no use.
            let sql = "DELETE FROM results WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM keys WHERE result = ?1)";
            tx.execute(sql, [before])?;
        }
    }
    Ok(())
}

/// The result of a key.
fn find(tx: &Tx<'_>, key: &CacheKey) -> Result<Option<CacheRecord>, DbError> {
    let sql = "SELECT r.id, r.snapshot, r.content_digest, r.subject, r.build, r.created_at, r.duration, r.used_at,
                   r.use_count, r.processor, r.memory_peak
               FROM keys k JOIN results r ON r.id = k.result WHERE k.key = ?1";
    tx.first(sql, [Text(key)], read)
}

/// Which result a key leads to, and whether a collection is about to take its snapshot.
fn leads_to(tx: &Tx<'_>, key: &CacheKey) -> Result<Option<(ResultId, bool)>, DbError> {
    let sql = "SELECT r.id, coalesce(s.doomed, 0) FROM keys k JOIN results r ON r.id = k.result
               LEFT JOIN snapshots s ON s.id = r.snapshot WHERE k.key = ?1";
    tx.first(sql, [Text(key)], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn read_key(row: &rusqlite::Row<'_>) -> rusqlite::Result<RecordKey> {
    let Text(key) = row.get(0)?;
    Ok(RecordKey { key, kind: KeyKind::from_column(&row.get::<_, String>(1)?)?, description: row.get(2)? })
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<CacheRecord> {
    let (Micros(created_at), Micros(used_at)) = (row.get(5)?, row.get(7)?);
    Ok(CacheRecord {
        result: row.get(0)?,
        snapshot: row.get(1)?,
        content_digest: row.get::<_, Option<Text<ContentDigest>>>(2)?.map(|Text(digest)| digest),
        subject: row.get(3)?,
        build: row.get(4)?,
        created_at,
        duration: Duration::from_micros(row.get::<_, i64>(6)?.unsigned_abs()),
        used_at,
        use_count: row.get(8)?,
        usage: read_usage(row)?,
    })
}

fn read_usage(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<StepUsage>> {
    let (processor, memory_peak): (Option<i64>, Option<i64>) = (row.get(9)?, row.get(10)?);
    Ok(processor.zip(memory_peak).map(|(processor, memory_peak)| StepUsage {
        processor: Duration::from_micros(processor.unsigned_abs()),
        memory_peak: memory_peak.unsigned_abs(),
    }))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
