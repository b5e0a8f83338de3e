//! What this store knows of a step that goes into a cache elsewhere.

use std::time::Duration;

use jiff::Timestamp;
use rbuild_image::Digest;

use crate::db::{DbError, Micros, Text};
use crate::id::{CacheKey, ResultId};
use crate::index::KeyKind;
use crate::store::Store;

/// A recorded step, as others may find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedStep {
    /// Content keys that lead to it, sorted.
    pub content: Vec<Digest>,
    /// Its op's key.
    pub step: Option<Digest>,
    /// How long it took.
    pub took: Duration,
    /// When it was done.
    pub created_at: Timestamp,
}

impl RecordedStep {
    /// The step that a definition key leads to.
    pub fn of(store: &Store, definition: &CacheKey) -> Result<Option<Self>, DbError> {
        store.db().read(|tx| {
            let sql = "SELECT r.id, r.duration, r.created_at FROM keys k JOIN results r ON r.id = k.result
                       WHERE k.key = ?1";
            let found = tx.first(sql, [Text(definition)], |row| {
                let (id, took, Micros(created_at)): (ResultId, i64, _) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((id, Duration::from_micros(took.unsigned_abs()), created_at))
            })?;
            let Some((result, took, created_at)) = found else { return Ok(None) };
            let sql = "SELECT key FROM keys WHERE result = ?1 AND kind = ?2 ORDER BY key";
            let keys = |kind: KeyKind| tx.all(sql, (result, kind.as_str()), |row| Ok(row.get::<_, Text<Digest>>(0)?.0));
            let (content, step) = (keys(KeyKind::Content)?, keys(KeyKind::Step)?.into_iter().next());
            Ok(Some(Self { content, step, took, created_at }))
        })
    }
}
