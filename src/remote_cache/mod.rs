//! Caches in other places, for one build: looked in when the store has no answer, written to while steps run.
//!
//! Nothing here ends a build by itself, unless the user asked for that (`ignore-error=false`). Caches are looked in only
//! when the user names them (rule B-11), in the order given.

mod export;
mod import;
mod pack;
mod report;
pub mod spec;

use rbuild_cache::{ResultId, SnapshotId};
use rbuild_solver::{
    About, CancelToken, Claim, Control, Found, Key, KeyKind, NewStep, Past, RecordFailure, StepCache, StoreCache,
    VertexId,
};

pub(crate) use export::{ExportParts, Exports, base_images};
pub(crate) use import::Imports;

/// The store's records, with those of other places behind them.
#[derive(Clone)]
pub(crate) struct SharedCache<'a> {
    pub(crate) local: StoreCache<'a>,
    pub(crate) imports: &'a Imports<'a>,
    pub(crate) exports: &'a Exports<'a>,
}

impl StepCache for SharedCache<'_> {
    fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, RecordFailure> {
        self.local.lookup(keys)
    }

    fn record(&self, keys: &[Key], about: Option<&About>, step: &NewStep) -> Result<ResultId, RecordFailure> {
        let result = self.local.record(keys, about, step)?;
        // What was brought is found by content, too, from now on.
        let also = keys.iter().flat_map(|key| self.imports.take_also(&key.digest));
        let also: Vec<Key> = also.map(|digest| Key { kind: KeyKind::Content, digest }).collect();
        if !also.is_empty() {
            self.local.add_keys(result, &also, None)?;
        }
        Ok(result)
    }

    fn add_keys(&self, result: ResultId, keys: &[Key], about: Option<&About>) -> Result<(), RecordFailure> {
        self.local.add_keys(result, keys, about)
    }

    fn past(&self) -> Option<&dyn Past> {
        self.local.past()
    }

    fn elsewhere(&self, keys: &[Key]) -> Vec<bool> {
        keys.iter().map(|key| self.imports.knows(&key.digest)).collect()
    }

    fn fetch(&self, key: &Key, vertex: VertexId, control: Control<'_>) -> Option<NewStep> {
        self.imports.fetch(&key.digest, vertex, control)
    }

    fn made(&self, vertex: VertexId, snapshot: Option<SnapshotId>) {
        self.exports.offer(vertex, snapshot);
    }

    fn touch(&self, results: &[ResultId]) -> Result<(), RecordFailure> {
        self.local.touch(results)
    }

    fn claim(
        &self,
        key: &Key,
        cancel: &CancelToken,
        waiting: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<Claim>, RecordFailure> {
        self.local.claim(key, cancel, waiting)
    }
}
