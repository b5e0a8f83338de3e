//! The store's cache records as the solver sees them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use rbuild_cache::{
    CacheKey, KeyKind as RecordKind, Lease, LockError, LockMode, LockName, NewRecord, RecordKey, ResultId, Store,
    Waiting,
};
use rbuild_solver::{CancelToken, Claim, Key, KeyKind, RecordError, StepCache, StepRecord};

/// Cache records of one build: what it finds is held by its lease, what it makes is recorded under its id.
pub struct StoreSteps<'a> {
    store: &'a Store,
    lease: &'a Lease,
    build: Option<String>,
    hits: Mutex<BTreeSet<ResultId>>,
}

impl<'a> StoreSteps<'a> {
    /// Records of `store`, held by `lease`.
    pub fn new(store: &'a Store, lease: &'a Lease, build: Option<String>) -> Self {
        Self { store, lease, build, hits: Mutex::default() }
    }

    /// Notes which records were hits, in one transaction; call it after the build.
    pub fn note_hits(&self) {
        let hits: Vec<ResultId> = self.hits.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if let Err(error) = self.store.records().touch(&hits) {
            tracing::warn!(%error, "last use of cache records is not noted");
        }
    }
}

impl StepCache for StoreSteps<'_> {
    fn lookup(&self, key: &Key) -> Result<Option<StepRecord>, RecordError> {
        let (records, cache_key) = (self.store.records(), CacheKey::new(key.digest));
        let Some(record) = records.lookup(&cache_key, self.lease).map_err(error("looking one up"))? else {
            return Ok(None);
        };
        // Only these are compared with; the others answer.
        let description = match key.kind {
            KeyKind::Step | KeyKind::Place => records.description(&cache_key).map_err(error("looking one up"))?,
            KeyKind::Definition | KeyKind::Content | KeyKind::Rerun => {
                self.hits.lock().unwrap_or_else(PoisonError::into_inner).insert(record.result);
                None
            }
        };
        Ok(Some(StepRecord {
            snapshot: record.snapshot,
            description: description.unwrap_or_default(),
            name: record.subject,
            duration: record.duration,
        }))
    }

    fn record(&self, keys: &[Key], record: &StepRecord) -> Result<(), RecordError> {
        let keys = keys.iter().map(|key| RecordKey {
            key: CacheKey::new(key.digest),
            kind: match key.kind {
                KeyKind::Definition => RecordKind::Definition,
                KeyKind::Content => RecordKind::Content,
                KeyKind::Rerun => RecordKind::Rerun,
                KeyKind::Step => RecordKind::Step,
                KeyKind::Place => RecordKind::Place,
            },
            description: record.description.clone(),
        });
        let new = NewRecord {
            keys: keys.collect(),
            snapshot: record.snapshot,
            content_digest: None,
            subject: record.name.clone(),
            build: self.build.clone(),
            duration: record.duration,
        };
        self.store.records().record(&new).map(drop).map_err(error("writing one"))
    }

    fn claim(
        &self,
        key: &Key,
        cancel: &CancelToken,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<Option<Claim>, RecordError> {
        let name = LockName::step(&CacheKey::new(key.digest));
        let free = self.store.try_lock(&name, LockMode::Exclusive).map_err(error("locking a step"))?;
        if let Some(guard) = free {
            // It may have been made since the key was looked up.
            return Ok(Some(Claim { waited: true, guard: Box::new(guard) }));
        }
        waiting(&self.store.holder(&name).map_or_else(
            || "another rbuild process runs this step".to_owned(),
            |holder| format!("another rbuild process runs this step: {holder}"),
        ));
        let on_wait = |_: &Waiting<'_>| match cancel.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        match self.store.lock(&name, LockMode::Exclusive, &on_wait) {
            Ok(guard) => Ok(Some(Claim { waited: true, guard: Box::new(guard) })),
            Err(LockError::Stopped { .. }) => Ok(None),
            Err(failed) => Err(error("waiting for another process")(failed)),
        }
    }
}

fn error<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> RecordError {
    move |source| RecordError { doing, source: Box::new(source) }
}
