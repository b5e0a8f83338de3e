//! What the definition keys of steps were made of, and which files selections held: what a miss is compared with.
//!
//! Both outlive the results they came with, so that a step whose result was evicted can still be explained, and both
//! are bounded. They are a memory: nothing here decides about a hit.

use jiff::Timestamp;
use rbuild_image::ContentDigest;

use crate::db::{DbError, Durability, Json, Micros, Text, Tx};
use crate::id::{CacheKey, ResultId};
use crate::listing::Listing;
use crate::store::Store;

/// Most descriptions; the oldest go. Some 2 KB each.
const MOST: i64 = 20_000;
/// Most bytes of listings; the oldest go.
const MOST_LISTING_BYTES: u64 = 32 << 20;
/// Listings of fewer bytes are not looked at one by one: so much more may be kept until the next time.
const SMALL_LISTING: u64 = 16 << 10;
/// Each time that many were added, what is too much goes.
const LOOKED_AFTER: i64 = 64;

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepPlace {
    /// The Dockerfile: a path, or the URL of its context.
    pub project: String,
    /// The stage's name or number; empty where there is none.
    pub stage: String,
    /// Line of the instruction, from 1; 0 where there is none.
    pub line: u32,
    /// `run`, `file`, `http` or `git`.
    pub op: String,
}

/// What a definition key was made of, when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDescription {
    /// The key.
    pub definition: CacheKey,
    /// The key of the op alone.
    pub step: CacheKey,
    /// Where it stood.
    pub place: StepPlace,
    /// The step as people know it.
    pub subject: String,
    /// Which build recorded it.
    pub build: Option<String>,
    /// When.
    pub recorded_at: Timestamp,
    /// A line for each field.
    pub text: String,
    /// The digests of what was selected of inputs, by input.
    pub reads: Vec<(usize, ContentDigest)>,
}

/// A description to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The definition key.
    pub definition: CacheKey,
    /// The key of the op alone.
    pub step: CacheKey,
    /// Where it stood.
    pub stage: String,
    /// Line of the instruction.
    pub line: u32,
}

/// The descriptions that were there at some time ([`Descriptions::recorded_before`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded(i64);

/// Which descriptions to choose from.
#[derive(Clone, Copy, Debug)]
pub enum Among<'a> {
    /// Those of the same op in the same stage of the same Dockerfile.
    Stage(&'a StepPlace),
    /// Those of the same op in the same Dockerfile.
    Project(&'a StepPlace),
    /// Those of equal steps, wherever they stood.
    Step(&'a CacheKey, &'a StepPlace),
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// What it was made of when it was last recorded.
    pub description: Option<StepDescription>,
    /// By which rule and when it was evicted since.
    pub evicted: Option<(String, Timestamp)>,
}

/// Descriptions of a store.
#[derive(Clone, Copy, Debug)]
pub struct Descriptions<'a> {
    store: &'a Store,
}

impl Store {
    /// What definition keys were made of.
    pub fn descriptions(&self) -> Descriptions<'_> {
        Descriptions { store: self }
    }
}

impl Descriptions<'_> {
    /// What a definition key was made of.
    pub fn find(&self, definition: &CacheKey) -> Result<Option<StepDescription>, DbError> {
        self.store.db().read(|tx| find(tx, definition))
    }

    /// What became of a definition key.
    pub fn fate(&self, definition: &CacheKey) -> Result<Fate, DbError> {
        self.store.db().read(|tx| {
            let sql = "SELECT rule, evicted_at FROM tombstones WHERE key = ?1";
            let evicted = tx.first(sql, [Text(definition)], |row| {
                let Micros(evicted_at) = row.get(1)?;
                Ok((row.get(0)?, evicted_at))
            })?;
            Ok(Fate { description: find(tx, definition)?, evicted })
        })
    }

    /// The descriptions that lead to a result, the latest first.
    pub fn of_result(&self, result: ResultId) -> Result<Vec<StepDescription>, DbError> {
        let sql = format!(
            "{SELECT} WHERE definition IN (SELECT key FROM keys WHERE result = ?1 AND kind = 'definition')
             ORDER BY id DESC"
        );
        self.store.db().read(|tx| tx.all(&sql, [result], read))
    }

    /// How many descriptions had been recorded before a time, those that have gone counted as well. Who asks again and again asks
    /// for this once: a build of a thousand steps would else pass over all of its own each time.
    pub fn recorded_before(&self, time: Timestamp) -> Result<Recorded, DbError> {
        let sql = "SELECT id FROM descriptions WHERE recorded_at < ?1 ORDER BY id DESC LIMIT 1";
        self.store.db().read(|tx| Ok(Recorded(tx.first(sql, [Micros(time)], |row| row.get(0))?.unwrap_or(0))))
    }

    /// The latest of those descriptions, newest first.
    pub fn candidates(&self, among: Among<'_>, those: Recorded, limit: usize) -> Result<Vec<Candidate>, DbError> {
        let (what, last) = ("SELECT definition, step, stage, line FROM descriptions", those.0);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |row: &rusqlite::Row<'_>| {
            let (Text(definition), Text(step)) = (row.get(0)?, row.get(1)?);
            Ok(Candidate { definition, step, stage: row.get(2)?, line: row.get(3)? })
        };
        self.store.db().read(|tx| match among {
            Among::Stage(place) => {
                let sql = format!(
                    "{what} WHERE project = ?1 AND op = ?2 AND stage = ?3 AND id <= ?4 ORDER BY id DESC LIMIT ?5"
                );
                tx.all(&sql, (&place.project, &place.op, &place.stage, last, limit), read)
            }
            Among::Project(place) => {
                let sql = format!("{what} WHERE project = ?1 AND op = ?2 AND id <= ?3 ORDER BY id DESC LIMIT ?4");
                tx.all(&sql, (&place.project, &place.op, last, limit), read)
            }
            Among::Step(step, place) => {
                let sql = format!("{what} WHERE op = ?1 AND step = ?2 AND id <= ?3 ORDER BY id DESC LIMIT ?4");
                tx.all(&sql, (&place.op, Text(step), last, limit), read)
            }
        })
    }

    /// Notes what a step turned out to read.
    pub fn note_reads(&self, definition: &CacheKey, reads: &[(usize, ContentDigest)]) -> Result<(), DbError> {
        self.store.db().write(Durability::Lazy, |tx| {
            tx.execute("UPDATE descriptions SET reads = ?2 WHERE definition = ?1", (Text(definition), Json(reads)))?;
            Ok(())
        })
    }

    /// The files that a selection held.
    pub fn listing(&self, selection: &ContentDigest) -> Result<Option<Listing>, DbError> {
        let sql = "SELECT files FROM listings WHERE selection = ?1";
        let packed = self.store.db().read(|tx| tx.first(sql, [Text(selection)], |row| row.get::<_, Vec<u8>>(0)))?;
        Ok(packed.and_then(|packed| Listing::unpack(&packed)))
    }

    /// Whether the files that a selection held are known.
    pub fn has_listing(&self, selection: &ContentDigest) -> Result<bool, DbError> {
        let sql = "SELECT 1 FROM listings WHERE selection = ?1";
        Ok(self.store.db().read(|tx| tx.first(sql, [Text(selection)], |_| Ok(())))?.is_some())
    }

    /// Keeps the files that a selection holds, and lets the oldest go when there are too many.
    pub fn keep_listing(&self, selection: &ContentDigest, listing: &Listing) -> Result<(), DbError> {
        let Ok(packed) = listing.pack() else { return Ok(()) };
        let size = packed.len() as u64;
        if size > MOST_LISTING_BYTES / 4 {
            return Ok(());
        }
        self.store.db().write(Durability::Lazy, |tx| {
            let sql = "INSERT OR REPLACE INTO listings (selection, size, files) VALUES (?1, ?2, ?3)";
            let id = tx.insert(sql, (Text(selection), size, packed))?;
            // Adding all of them up for each small one would cost a build of many steps the square of their number.
            if size < SMALL_LISTING && id % LOOKED_AFTER != 0 {
                return Ok(());
            }
            let sql = "SELECT id, sum(size) OVER (ORDER BY id DESC) FROM listings ORDER BY id DESC";
            let sums = tx.all(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?)))?;
            if let Some((id, _)) = sums.into_iter().find(|(_, sum)| *sum > MOST_LISTING_BYTES) {
                tx.execute("DELETE FROM listings WHERE id <= ?1", [id])?;
            }
            Ok(())
        })
    }
}

const SELECT: &str = "SELECT definition, step, project, stage, line, op, subject, build, recorded_at, text, reads
                      FROM descriptions";

fn find(tx: &Tx<'_>, definition: &CacheKey) -> Result<Option<StepDescription>, DbError> {
    tx.first(&format!("{SELECT} WHERE definition = ?1"), [Text(definition)], read)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<StepDescription> {
    let (Text(definition), Text(step), Micros(recorded_at)) = (row.get(0)?, row.get(1)?, row.get(8)?);
    let Json(reads) = row.get(10)?;
    Ok(StepDescription {
        definition,
        step,
        place: StepPlace { project: row.get(2)?, stage: row.get(3)?, line: row.get(4)?, op: row.get(5)? },
        subject: row.get(6)?,
        build: row.get(7)?,
        recorded_at,
        text: row.get(9)?,
        reads,
    })
}

/// Writes a description, replacing an earlier one of the same key.
pub(crate) fn put(tx: &Tx<'_>, new: &StepDescription, now: Timestamp) -> Result<(), DbError> {
    let place = &new.place;
    let id = tx.insert(
        "INSERT OR REPLACE INTO descriptions
             (definition, step, project, stage, line, op, subject, build, recorded_at, text, reads)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        (
            Text(new.definition),
            Text(new.step),
            &place.project,
            &place.stage,
            place.line,
            &place.op,
            &new.subject,
            &new.build,
            Micros(now),
            &new.text,
            Json(&new.reads),
        ),
    )?;
    if id % 64 == 0 {
        tx.execute("DELETE FROM descriptions WHERE id <= ?1", [id - MOST])?;
    }
    Ok(())
}
