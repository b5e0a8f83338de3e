//! The store's records as the solver's cache. What is found stays under the build's lease.

use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use rbuild_cache::{
    Among, CacheKey, Candidate, Fate, Lease, Listing, LockError, LockMode, LockName, NewRecord, RecordKey, Recorded,
    ResultId, StepDescription, StepPlace, Store,
};
use rbuild_image::{ContentDigest, Digest};

use crate::cancel::CancelToken;
use crate::key::Key;
use crate::records::{About, Claim, Found, NewStep, Past, RecordFailure, StepCache};

/// Cache records of a store, for one build.
#[derive(Clone, Debug)]
pub struct StoreCache<'a> {
    /// The store.
    pub store: &'a Store,
    /// Keeps what is found and what is made.
    pub lease: &'a Lease,
    /// The build that makes records.
    pub build: Option<&'a str>,
    /// The Dockerfile that is built, as a path or URL: steps are compared with those of the same one first.
    pub project: &'a str,
    /// When the build began: what was recorded since is not what a miss is compared with.
    pub began: Timestamp,
    /// What was recorded until then; asked for once.
    pub recorded: OnceLock<Recorded>,
}

impl StoreCache<'_> {
    fn description(&self, about: &About) -> StepDescription {
        StepDescription {
            definition: cache_key(&about.definition),
            step: CacheKey::new(about.step),
            place: self.place(&about.place),
            subject: about.name.clone(),
            build: self.build.map(str::to_owned),
            recorded_at: self.began,
            text: about.text.clone(),
            reads: about.reads.clone(),
        }
    }

    fn place(&self, place: &StepPlace) -> StepPlace {
        StepPlace { project: self.project.to_owned(), ..place.clone() }
    }
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
                made: record.created_at,
                usage: record.usage,
            })
        });
        Ok(found.collect())
    }

    fn record(&self, keys: &[Key], about: Option<&About>, step: &NewStep) -> Result<ResultId, RecordFailure> {
        let record = NewRecord {
            keys: record_keys(keys),
            snapshot: step.snapshot,
            content_digest: None,
            subject: step.name.clone(),
            build: self.build.map(str::to_owned),
            duration: step.duration,
            description: about.map(|about| self.description(about)),
            usage: step.usage,
        };
        self.store.records().record(&record).map_err(failed("write"))
    }

    fn add_keys(&self, result: ResultId, keys: &[Key], about: Option<&About>) -> Result<(), RecordFailure> {
        let description = about.map(|about| self.description(about));
        self.store.records().add_keys(result, &record_keys(keys), description.as_ref()).map_err(failed("write"))
    }

    fn past(&self) -> Option<&dyn Past> {
        Some(self)
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
                waiting(&format!("the same step, held by {holder}"));
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

impl Past for StoreCache<'_> {
    fn fate(&self, definition: &Key) -> Result<Fate, RecordFailure> {
        self.store.descriptions().fate(&cache_key(definition)).map_err(failed("read"))
    }

    fn find(&self, definition: &Digest) -> Result<Option<StepDescription>, RecordFailure> {
        self.store.descriptions().find(&CacheKey::new(*definition)).map_err(failed("read"))
    }

    fn candidates(&self, among: Among<'_>, limit: usize) -> Result<Vec<Candidate>, RecordFailure> {
        let here = match among {
            Among::Stage(place) | Among::Project(place) | Among::Step(_, place) => self.place(place),
        };
        let among = match among {
            Among::Stage(_) => Among::Stage(&here),
            Among::Project(_) => Among::Project(&here),
            Among::Step(step, _) => Among::Step(step, &here),
        };
        let descriptions = self.store.descriptions();
        let recorded = match self.recorded.get() {
            Some(recorded) => *recorded,
            None => {
                let recorded = descriptions.recorded_before(self.began).map_err(failed("read"))?;
                *self.recorded.get_or_init(|| recorded)
            }
        };
        descriptions.candidates(among, recorded, limit).map_err(failed("read"))
    }

    fn note_reads(&self, definition: &Key, reads: &[(usize, ContentDigest)]) -> Result<(), RecordFailure> {
        self.store.descriptions().note_reads(&cache_key(definition), reads).map_err(failed("write"))
    }

    fn listing(&self, selection: &ContentDigest) -> Result<Option<Listing>, RecordFailure> {
        self.store.descriptions().listing(selection).map_err(failed("read"))
    }

    fn has_listing(&self, selection: &ContentDigest) -> Result<bool, RecordFailure> {
        self.store.descriptions().has_listing(selection).map_err(failed("read"))
    }

    fn keep_listing(&self, selection: &ContentDigest, listing: &Listing) -> Result<(), RecordFailure> {
        self.store.descriptions().keep_listing(selection, listing).map_err(failed("write"))
    }
}

fn cache_key(key: &Key) -> CacheKey {
    CacheKey::new(key.digest)
}

fn record_keys(keys: &[Key]) -> Vec<RecordKey> {
    let record_key = |key: &Key| RecordKey { key: cache_key(key), kind: key.kind, description: String::new() };
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
        let cache = StoreCache {
            store: &store,
            lease: &lease,
            build: Some("b1"),
            project: "p",
            began: Timestamp::UNIX_EPOCH,
            recorded: OnceLock::new(),
        };
        let (definition, content) = (key(KeyKind::Definition, "d"), key(KeyKind::Content, "c"));
        let step = NewStep { snapshot: None, name: "RUN true".into(), duration: Duration::from_millis(5), usage: None };
        let about = About {
            definition,
            step: Digest::sha256("s"),
            place: StepPlace { project: String::new(), stage: "0".into(), line: 2, op: "run".into() },
            name: "RUN true".into(),
            text: "op: run\n".into(),
            reads: vec![],
        };
        let result = cache.record(&[definition], Some(&about), &step).unwrap();
        cache.add_keys(result, &[content], None).unwrap();
        let found = cache.lookup(&[content, definition, key(KeyKind::Step, "s")]).unwrap();
        assert_eq!(found[0], found[1]);
        assert_eq!((found[0].as_ref().unwrap().duration, &found[2]), (Duration::from_millis(5), &None));
        let known = cache.find(&definition.digest).unwrap().unwrap();
        assert_eq!((known.text.as_str(), known.place.project.as_str()), ("op: run\n", "p"));
        assert_eq!(cache.fate(&definition).unwrap().evicted, None);
        assert_eq!(cache.fate(&content).unwrap().description, None);
        store.records().remove(result, "by hand").unwrap();
        let fate = cache.fate(&definition).unwrap();
        assert_eq!((fate.evicted.unwrap().0.as_str(), fate.description), ("by hand", Some(known)));
        let result = cache.record(&[definition], Some(&about), &step).unwrap();
        cache.touch(&[result]).unwrap();
    }

    #[test]
    fn a_claim_waits_says_for_whom_and_gives_up_when_told() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("build -t x .")).unwrap();
        let lease = store.lease("test").unwrap();
        let cache = StoreCache {
            store: &store,
            lease: &lease,
            build: None,
            project: "p",
            began: Timestamp::UNIX_EPOCH,
            recorded: OnceLock::new(),
        };
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
