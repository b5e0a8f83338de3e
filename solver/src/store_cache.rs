//! The store's records as the solver's cache. What is found stays under the build's lease.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_cache::{CacheKey, Lease, LockError, LockMode, LockName, NewRecord, RecordKey, ResultId, Store};

use crate::cancel::CancelToken;
use crate::key::Key;
use crate::records::{Claim, Found, NewStep, RecordFailure, StepCache};

/// Cache records of a store, for one build.
#[derive(Clone, Copy, Debug)]
pub struct StoreCache<'a> {
    /// The store.
    pub store: &'a Store,
    /// Keeps what is found and what is made.
    pub lease: &'a Lease,
    /// The build that makes records.
    pub build: Option<&'a str>,
}

impl StepCache for StoreCache<'_> {
    fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, RecordFailure> {
        let keys: Vec<CacheKey> = keys.iter().map(cache_key).collect();
        let found = self.store.records().lookup_all(&keys, self.lease).map_err(failed("read"))?;
        let found = found.into_iter().map(|found| {
            found.map(|record| Found {
                result: record.result,
                snapshot: record.snapshot,
                name: record.subject,
                duration: record.duration,
            })
        });
        Ok(found.collect())
    }

    fn description(&self, key: &Key) -> Result<Option<String>, RecordFailure> {
        self.store.records().description(&cache_key(key)).map_err(failed("read"))
    }

    fn record(&self, keys: &[Key], description: &str, step: &NewStep) -> Result<ResultId, RecordFailure> {
        let record = NewRecord {
            keys: record_keys(keys, description),
            snapshot: step.snapshot,
            content_digest: None,
            subject: step.name.clone(),
            build: self.build.map(str::to_owned),
            duration: step.duration,
        };
        self.store.records().record(&record).map_err(failed("write"))
    }

    fn add_keys(&self, result: ResultId, keys: &[Key], description: &str) -> Result<(), RecordFailure> {
        self.store.records().add_keys(result, &record_keys(keys, description)).map_err(failed("write"))
    }

    fn touch(&self, results: &[ResultId]) -> Result<(), RecordFailure> {
        self.store.records().touch(results).map_err(failed("write"))
    }

    fn claim(
        &self,
        key: &Key,
        cancel: &CancelToken,
        waiting: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<Claim>, RecordFailure> {
        let told = AtomicBool::new(false);
        let on_wait = |state: &rbuild_cache::Waiting<'_>| {
            if !told.swap(true, Ordering::Relaxed) {
                let holder = state.holder.as_ref().map_or("another build".to_owned(), ToString::to_string);
                waiting(&format!("the same step runs in {holder}"));
            }
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match self.store.lock(&LockName::step(&cache_key(key)), LockMode::Exclusive, &on_wait) {
            Ok(guard) => Ok(Some(Claim { guard: Box::new(guard) })),
            Err(LockError::Stopped { .. }) => Ok(None),
            Err(error) => Err(failed("lock")(error)),
        }
    }
}

fn cache_key(key: &Key) -> CacheKey {
    CacheKey::new(key.digest)
}

fn record_keys(keys: &[Key], description: &str) -> Vec<RecordKey> {
    let record_key = |key: &Key| RecordKey { key: cache_key(key), kind: key.kind, description: description.to_owned() };
    keys.iter().map(record_key).collect()
}

fn failed<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl Fn(E) -> RecordFailure {
    move |error| RecordFailure { doing, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use rbuild_cache::{KeyKind, OpenOptions};
    use rbuild_image::Digest;

    use super::*;
    use crate::cancel::CancelReason;

    fn key(kind: KeyKind, text: &str) -> Key {
        Key { kind, digest: Digest::sha256(text) }
    }

    #[test]
    fn what_is_recorded_is_found_under_each_of_its_keys() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("build")).unwrap();
        let lease = store.lease("test").unwrap();
        let cache = StoreCache { store: &store, lease: &lease, build: Some("b1") };
        let (definition, content) = (key(KeyKind::Definition, "d"), key(KeyKind::Content, "c"));
        let step = NewStep { snapshot: None, name: "RUN true".into(), duration: Duration::from_millis(5) };
        let result = cache.record(&[definition], "op: run\n", &step).unwrap();
        cache.add_keys(result, &[content], "op: run\n").unwrap();
        let found = cache.lookup(&[content, definition, key(KeyKind::Step, "s")]).unwrap();
        assert_eq!(found[0], found[1]);
        assert_eq!((found[0].as_ref().unwrap().duration, &found[2]), (Duration::from_millis(5), &None));
        assert_eq!(cache.description(&content).unwrap().as_deref(), Some("op: run\n"));
        cache.touch(&[result]).unwrap();
    }

    #[test]
    fn a_claim_waits_says_for_whom_and_gives_up_when_told() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("build -t x .")).unwrap();
        let lease = store.lease("test").unwrap();
        let cache = StoreCache { store: &store, lease: &lease, build: None };
        let (key, cancel) = (key(KeyKind::Definition, "d"), CancelToken::new());
        let held = cache.claim(&key, &cancel, &|_| panic!("nobody else is here")).unwrap().unwrap();
        let told = Mutex::new(String::new());
        let waiting = |whom: &str| {
            whom.clone_into(&mut told.lock().unwrap());
            cancel.cancel(CancelReason::Interrupt);
        };
        assert!(cache.claim(&key, &cancel, &waiting).unwrap().is_none());
        assert!(told.into_inner().unwrap().contains("build -t x ."));
        drop(held);
        assert!(cache.claim(&key, &cancel, &|_| ()).unwrap().is_some());
    }
}
