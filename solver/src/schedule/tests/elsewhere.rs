//! Results that another place has: brought when they are needed, and only then.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Bench, diamond, image};
use crate::cancel::CancelToken;
use crate::fixture::{Events, FakeWorker, MemoryCache, run, source_context};
use crate::graph::Graph;
use crate::key::Key;
use crate::records::{About, Claim, Found, NewStep, RecordFailure, StepCache};
use crate::schedule::{OnFailure, SolveOptions, Surroundings, solve};
use crate::state::VertexState;
use crate::vertex::VertexId;
use crate::worker::Control;
use rbuild_cache::ResultId;
use rbuild_image::Digest;
use std::time::Instant;

/// A cache of this store in front of that of another one.
#[derive(Default)]
struct TwoPlaces {
    here: MemoryCache,
    there: MemoryCache,
    broken: AtomicBool,
    brought: Mutex<Vec<String>>,
}

impl TwoPlaces {
    fn brought(&self) -> Vec<String> {
        let mut brought = std::mem::take(&mut *self.brought.lock().unwrap());
        brought.sort();
        brought
    }
}

impl StepCache for TwoPlaces {
    fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, RecordFailure> {
        self.here.lookup(keys)
    }

    fn record(&self, keys: &[Key], about: Option<&About>, step: &NewStep) -> Result<ResultId, RecordFailure> {
        self.here.record(keys, about, step)
    }

    fn add_keys(&self, result: ResultId, keys: &[Key], about: Option<&About>) -> Result<(), RecordFailure> {
        self.here.add_keys(result, keys, about)
    }

    fn elsewhere(&self, keys: &[Key]) -> Vec<bool> {
        self.there.lookup(keys).unwrap().iter().map(Option::is_some).collect()
    }

    fn fetch(&self, key: &Key, _: VertexId, _: Control<'_>) -> Option<NewStep> {
        let found = self.there.lookup(std::slice::from_ref(key)).unwrap().pop().flatten()?;
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        self.brought.lock().unwrap().push(found.name.clone());
        Some(NewStep { snapshot: found.snapshot, name: found.name, duration: found.duration, usage: None })
    }

    fn touch(&self, _: &[ResultId]) -> Result<(), RecordFailure> {
        Ok(())
    }

    fn claim(
        &self,
        key: &Key,
        cancel: &CancelToken,
        waiting: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<Claim>, RecordFailure> {
        self.here.claim(key, cancel, waiting)
    }
}

/// Builds the graph once in another place; gives what a new store sees of that.
fn filled(graph: &Graph, target: VertexId) -> (FakeWorker, TwoPlaces) {
    let bench = Bench::new();
    bench.ran(graph, &[target]);
    let Bench { worker, cache, .. } = bench;
    (worker, TwoPlaces { there: cache, ..TwoPlaces::default() })
}

/// Solves; gives what ran, and how many vertices were cached.
fn ran(worker: &FakeWorker, cache: &TwoPlaces, graph: &Graph, target: VertexId) -> (Vec<String>, usize) {
    let (events, cancel) = (Events::default(), CancelToken::new());
    let around = Surroundings { worker, cache, events: &events, cancel: &cancel };
    let options = SolveOptions { limits: super::jobs(4), began: Instant::now(), on_failure: OnFailure::Cancel };
    let solved = solve(graph, &[target], around, options);
    solved.products.expect("nothing fails here");
    let cached = solved.vertices.iter().filter(|vertex| vertex.state == VertexState::Cached).count();
    (worker.ran(), cached)
}

#[test]
fn only_what_is_needed_is_brought() {
    let (graph, target) = diamond();
    let (worker, cache) = filled(&graph, target);
    assert_eq!(ran(&worker, &cache, &graph, target), (vec![], 4));
    assert_eq!(cache.brought(), ["c"], "nobody reads the others");
    // It is a record of this store now.
    assert_eq!(ran(&worker, &cache, &graph, target), (vec![], 4));
    assert!(cache.brought().is_empty());
}

#[test]
fn a_step_that_runs_has_its_inputs_brought() {
    let (graph, target) = diamond();
    let (worker, cache) = filled(&graph, target);
    let mut graph = graph;
    let last = graph.add(run("d", &[Some(VertexId(2)), Some(target)]));
    assert_eq!(ran(&worker, &cache, &graph, last).0, ["d"]);
    assert_eq!(cache.brought(), ["a", "c"]);
}

#[test]
fn a_place_that_does_not_keep_its_promise_costs_time_only() {
    let (graph, target) = diamond();
    let (worker, cache) = filled(&graph, target);
    cache.broken.store(true, Ordering::Relaxed);
    assert_eq!(ran(&worker, &cache, &graph, target).0, ["a", "b", "base", "c"]);
}

#[test]
fn equal_vertices_of_a_broken_place_run_once() {
    let mut graph = Graph::new();
    let context = graph.add(source_context(""));
    let base = graph.add(image("base"));
    let mut twin = image("base");
    twin.cache_use = crate::vertex::CacheUse::Ignored;
    let readers = [base, graph.add(twin)].map(|base| graph.add(run("a", &[Some(base), Some(context)])));
    let target = graph.add(run("end", &readers.map(Some)));
    let (worker, cache) = filled(&graph, target);
    cache.broken.store(true, Ordering::Relaxed);
    assert!(ran(&worker, &cache, &graph, target).0.ends_with(&["end".to_owned()]));
}

#[test]
fn another_way_to_the_same_content_is_found() {
    let (graph, target) = diamond();
    let (worker, cache) = filled(&graph, target);
    let mut changed = Graph::new();
    let mut base = image("base");
    if let crate::op::Op::Source(crate::op::Source::Image(source)) = &mut base.op {
        source.digest = Digest::sha256("the same files under another digest");
    }
    let base = changed.add(base);
    let context = changed.add(source_context(""));
    let a = changed.add(run("a", &[Some(base)]));
    let b = changed.add(run("b", &[Some(base), Some(context)]));
    let c = changed.add(run("c", &[Some(a), Some(b)]));
    assert_eq!(ran(&worker, &cache, &changed, c).0, ["base"]);
    assert_eq!(cache.brought(), ["a", "b", "c"]);
    assert!(target.index() > 0);
}
