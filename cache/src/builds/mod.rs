//! The history of builds: who built what, when, and how each vertex went.
//!
//! A build is written when it begins and when it ends. One that says "running" while its lease is dead was aborted;
//! nobody has to write that down.

mod id;
mod retention;

use std::path::PathBuf;
use std::time::Duration;

pub use id::{BuildId, InvalidBuildId};
pub use retention::HistoryLimits;

use jiff::Timestamp;
use rbuild_image::Digest;

use crate::db::{DbError, Durability, Json, Micros, Text, Tx};
use crate::id::{CacheKey, ResultId};
use crate::lease::{Lease, is_live};
use crate::path_error::PathError;
use crate::store::Store;

/// How a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStatus {
    /// It runs.
    Running,
    /// It did what was asked.
    Succeeded,
    /// A step failed, or something around them.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// Its process died.
    Aborted,
}

/// How a vertex went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VertexOutcome {
    /// It was a hit.
    Cached,
    /// It was done.
    Done,
    /// It failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// A build that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBuild {
    /// Its identity.
    pub id: BuildId,
    /// The command line, without secrets.
    pub arguments: Vec<String>,
    /// The context as given.
    pub context: String,
    /// The Dockerfile as given.
    pub dockerfile: String,
    /// The target stage.
    pub target: Option<String>,
    /// Whatever else is known of what was asked for: a JSON object.
    pub detail: Detail,
}

/// A JSON object.
pub type Detail = serde_json::Map<String, serde_json::Value>;

/// One vertex of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildVertex {
    /// The step as people know it.
    pub name: String,
    /// How it went.
    pub outcome: VertexOutcome,
    /// Its definition key.
    pub key: Option<CacheKey>,
    /// The result it gave or hit.
    pub result: Option<ResultId>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// How long it took.
    pub duration: Option<Duration>,
    /// Inputs, the reason of a miss, the error: a JSON object.
    pub detail: Detail,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildEnd {
    /// The status; neither `Running` nor `Aborted`.
    pub status: BuildStatus,
    /// The image it made.
    pub image: Option<Digest>,
    /// What went wrong.
    pub error: Option<String>,
    /// How each vertex went, in the order of the plan.
    pub vertices: Vec<BuildVertex>,
    /// Replaces what was written when it began: by now more is known.
    pub detail: Detail,
    /// Bytes of the build's files below `logs/`.
    pub log_bytes: u64,
}

/// A build, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRecord {
    /// How it began.
    pub build: NewBuild,
    /// How it stands.
    pub status: BuildStatus,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The image it made; perhaps removed since.
    pub image: Option<Digest>,
    /// What went wrong.
    pub error: Option<String>,
    /// How many vertices it had, as far as it said so.
    pub vertices: usize,
    /// How many of them came from the cache.
    pub cached: usize,
    /// How many of them have a product.
    pub completed: usize,
}

/// Why the history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The leases cannot be read.
    #[error(transparent)]
    File(#[from] PathError),
}

/// The history of builds.
#[derive(Clone, Copy, Debug)]
pub struct Builds<'a> {
    store: &'a Store,
}

impl Store {
    /// The history of builds.
    pub fn builds(&self) -> Builds<'_> {
        Builds { store: self }
    }
}

impl Builds<'_> {
    /// Writes that a build begins under `lease`.
    pub fn begin(&self, build: &NewBuild, lease: &Lease) -> Result<(), DbError> {
        let now = self.store.now();
        self.store.db().write(Durability::Lazy, |tx| {
            tx.execute(
                "INSERT INTO builds (id, lease, status, started_at, arguments, context, dockerfile, target, detail)
                 VALUES (?1, ?2, 'running', ?3, ?4, ?5, ?6, ?7, ?8)",
                (
                    build.id.as_str(),
                    &lease.info().id,
                    Micros(now),
                    Json(&build.arguments),
                    &build.context,
                    &build.dockerfile,
                    &build.target,
                    Json(&build.detail),
                ),
            )?;
            Ok(())
        })
    }

    /// Writes how a build ended.
    pub fn finish(&self, id: &BuildId, end: &BuildEnd) -> Result<(), DbError> {
        let now = self.store.now();
        self.store.db().write(Durability::Lazy, |tx| {
            tx.execute(
                "UPDATE builds SET status = ?2, finished_at = max(started_at, ?3), image = ?4, error = ?5, detail = ?6,
                     log_bytes = ?7 WHERE id = ?1",
                (
                    id.as_str(),
                    status_text(end.status),
                    Micros(now),
                    end.image.map(Text),
                    &end.error,
                    Json(&end.detail),
                    end.log_bytes,
                ),
            )?;
            for (position, vertex) in end.vertices.iter().enumerate() {
                write_vertex(tx, id, position, vertex)?;
            }
            Ok(())
        })
    }

    /// The latest builds, newest first.
    pub fn list(&self, limit: usize) -> Result<Vec<BuildRecord>, HistoryError> {
        self.select("ORDER BY started_at DESC, id LIMIT ?1", i64::try_from(limit).unwrap_or(i64::MAX))
    }

    /// The builds whose ids begin with `prefix`.
    pub fn find(&self, prefix: &str) -> Result<Vec<BuildRecord>, HistoryError> {
        self.select("WHERE substr(id, 1, length(?1)) = ?1 ORDER BY started_at DESC, id", prefix)
    }

    /// The directory of a build's files. It exists once the build has said something, and goes with its record.
    pub fn files(&self, id: &BuildId) -> PathBuf {
        self.store.layout().build_files(id.as_str())
    }

    /// The build that made a result, and the position of its vertex there; unless that is forgotten.
    pub fn maker(&self, result: ResultId) -> Result<Option<(BuildId, usize)>, DbError> {
        let sql = "SELECT v.build, v.position FROM results r JOIN build_vertices v ON v.build = r.build
                   WHERE r.id = ?1 AND v.result = ?1 AND v.outcome = 'done'";
        self.store.db().read(|tx| {
            tx.first(sql, [result], |row| {
                let (Text(id), position) = (row.get(0)?, row.get(1)?);
                Ok((id, position))
            })
        })
    }

    /// Whether the history has come near its limits, so that [`Builds::trim`] has work.
    pub fn is_over(&self, limits: HistoryLimits) -> Result<bool, DbError> {
        let (count, bytes): (usize, u64) = self.store.db().read(|tx| {
            tx.one("SELECT count(*), coalesce(sum(log_bytes), 0) FROM builds", (), |row| Ok((row.get(0)?, row.get(1)?)))
        })?;
        Ok(count > limits.builds || bytes > limits.bytes)
    }

    /// How each vertex of a build went, in the order of the plan.
    pub fn vertices(&self, id: &BuildId) -> Result<Vec<BuildVertex>, DbError> {
        let sql = "SELECT name, outcome, key, result, started_at, duration, detail FROM build_vertices
                   WHERE build = ?1 ORDER BY position";
        self.store.db().read(|tx| {
            tx.all(sql, [id.as_str()], |row| {
                let Json(detail) = row.get(6)?;
                Ok(BuildVertex {
                    name: row.get(0)?,
                    outcome: outcome_from(&row.get::<_, String>(1)?)?,
                    key: row.get::<_, Option<Text<CacheKey>>>(2)?.map(|Text(key)| key),
                    result: row.get(3)?,
                    started_at: row.get::<_, Option<Micros>>(4)?.map(|Micros(time)| time),
                    duration: row.get::<_, Option<i64>>(5)?.map(|time| Duration::from_micros(time.unsigned_abs())),
                    detail,
                })
            })
        })
    }

    fn select(&self, rest: &str, parameter: impl rusqlite::ToSql) -> Result<Vec<BuildRecord>, HistoryError> {
        let sql = format!(
            "SELECT id, lease, status, started_at, finished_at, arguments, context, dockerfile, target, image, error, detail,
                    (SELECT count(*) FROM build_vertices WHERE build = id),
                    (SELECT count(*) FROM build_vertices WHERE build = id AND outcome = 'cached'),
                    (SELECT count(*) FROM build_vertices WHERE build = id AND outcome IN ('cached', 'done'))
             FROM builds {rest}"
        );
        let rows = self.store.db().read(|tx| {
            tx.all(&sql, [parameter], |row| {
                let (Text(id), Micros(started_at), Json(arguments)) = (row.get(0)?, row.get(3)?, row.get(5)?);
                let Json(detail) = row.get(11)?;
                let build = NewBuild {
                    id,
                    arguments,
                    context: row.get(6)?,
                    dockerfile: row.get(7)?,
                    target: row.get(8)?,
                    detail,
                };
                let record = BuildRecord {
                    build,
                    status: status_from(&row.get::<_, String>(2)?)?,
                    started_at,
                    finished_at: row.get::<_, Option<Micros>>(4)?.map(|Micros(time)| time),
                    image: row.get::<_, Option<Text<Digest>>>(9)?.map(|Text(digest)| digest),
                    error: row.get(10)?,
                    vertices: row.get(12)?,
                    cached: row.get(13)?,
                    completed: row.get(14)?,
                };
                Ok((record, row.get::<_, String>(1)?))
            })
        })?;
        let mut records = Vec::with_capacity(rows.len());
        for (mut record, lease) in rows {
            if record.status == BuildStatus::Running && !is_live(self.store.layout(), &lease)? {
                record.status = BuildStatus::Aborted;
            }
            records.push(record);
        }
        Ok(records)
    }
}

fn write_vertex(tx: &Tx<'_>, id: &BuildId, position: usize, vertex: &BuildVertex) -> Result<(), DbError> {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    tx.execute(
        "INSERT OR REPLACE INTO build_vertices
             (build, position, name, outcome, key, result, started_at, duration, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (
            id.as_str(),
            i64::try_from(position).unwrap_or(i64::MAX),
            &vertex.name,
            outcome_text(vertex.outcome),
            vertex.key.map(Text),
            vertex.result,
            vertex.started_at.map(Micros),
            vertex.duration.map(micros),
            Json(&vertex.detail),
        ),
    )?;
    Ok(())
}

fn status_text(status: BuildStatus) -> &'static str {
    match status {
        // An aborted build is one that never said how it ended.
        BuildStatus::Running | BuildStatus::Aborted => "running",
        BuildStatus::Succeeded => "succeeded",
        BuildStatus::Failed => "failed",
        BuildStatus::Cancelled => "cancelled",
    }
}

fn status_from(text: &str) -> rusqlite::Result<BuildStatus> {
    match text {
        "running" => Ok(BuildStatus::Running),
        "succeeded" => Ok(BuildStatus::Succeeded),
        "failed" => Ok(BuildStatus::Failed),
        "cancelled" => Ok(BuildStatus::Cancelled),
        _ => Err(rusqlite::Error::InvalidQuery),
    }
}

fn outcome_text(outcome: VertexOutcome) -> &'static str {
    match outcome {
        VertexOutcome::Cached => "cached",
        VertexOutcome::Done => "done",
        VertexOutcome::Failed => "failed",
        VertexOutcome::Cancelled => "cancelled",
    }
}

fn outcome_from(text: &str) -> rusqlite::Result<VertexOutcome> {
    match text {
        "cached" => Ok(VertexOutcome::Cached),
        "done" => Ok(VertexOutcome::Done),
        "failed" => Ok(VertexOutcome::Failed),
        "cancelled" => Ok(VertexOutcome::Cancelled),
        _ => Err(rusqlite::Error::InvalidQuery),
    }
}
