//! The loop against a worker that runs nothing.

mod elsewhere;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::fixture::{Events, FakeWorker, MemoryCache, command, run, source_context, vertex};
use crate::key::{Described, InputIdentity};
use crate::miss::Change;
use crate::op::{FileOp, HttpSource, ImageSource, Linking};
use crate::vertex::CacheUse;

const MS: Duration = Duration::from_millis(1);

fn jobs(jobs: usize) -> Limits {
    Limits { jobs, processors: None, transfers: 2 }
}

struct Bench {
    worker: FakeWorker,
    cache: MemoryCache,
    events: Events,
    cancel: CancelToken,
    limits: Limits,
}

impl Bench {
    fn new() -> Self {
        let mut worker = FakeWorker::default();
        worker.contexts.insert(String::new(), "one".to_owned());
        Self {
            worker,
            cache: MemoryCache::default(),
            events: Events::default(),
            cancel: CancelToken::new(),
            limits: jobs(4),
        }
    }

    fn solve(&self, graph: &Graph, targets: &[VertexId]) -> Solved {
        let around =
            Surroundings { worker: &self.worker, cache: &self.cache, events: &self.events, cancel: &self.cancel };
        let options = SolveOptions { limits: self.limits, began: Instant::now(), on_failure: OnFailure::Cancel };
        solve(graph, targets, around, options)
    }

    /// Solves, and says what ran, sorted.
    fn ran(&self, graph: &Graph, targets: &[VertexId]) -> Vec<String> {
        let solved = self.solve(graph, targets);
        solved.products.expect("nothing fails here");
        self.worker.ran()
    }
}

fn image(name: &str) -> Vertex {
    let source = ImageSource {
        reference: name.parse().unwrap(),
        digest: Digest::sha256(name),
        platform: "linux/amd64".parse().unwrap(),
    };
    vertex(Op::Source(Source::Image(Box::new(source))), &[], name)
}

fn http(url: &str, checksum: Option<Digest>) -> Vertex {
    let source = HttpSource { url: url.to_owned(), checksum, filename: "f".to_owned() };
    vertex(Op::Source(Source::Http(source)), &[], url)
}

/// base ← a ← c → target; base ← b ← c; the context is read by `b`.
fn diamond() -> (Graph, VertexId) {
    let mut graph = Graph::new();
    let base = graph.add(image("base"));
    let context = graph.add(source_context(""));
    let a = graph.add(run("a", &[Some(base)]));
    let b = graph.add(run("b", &[Some(base), Some(context)]));
    let c = graph.add(run("c", &[Some(a), Some(b)]));
    (graph, c)
}

#[test]
fn a_second_build_runs_and_fetches_nothing() {
    let bench = Bench::new();
    let (graph, target) = diamond();
    assert_eq!(bench.ran(&graph, &[target]), ["a", "b", "base", "c"]);
    assert_eq!(bench.ran(&graph, &[target]), [""; 0]);
    let cached = bench.events.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Cached { .. })).count();
    assert_eq!(cached, 4, "all but the context are told to be cached");
}

#[test]
fn independent_steps_run_at_once_and_never_more_than_allowed() {
    let mut bench = Bench::new();
    let mut graph = Graph::new();
    let steps: Vec<_> = (0..12).map(|at| Some(graph.add(run(&format!("s{at}"), &[])))).collect();
    let target = graph.add(run("all", &steps));
    for at in 0..12 {
        bench.worker.takes.insert(format!("s{at}"), 40 * MS);
    }
    bench.limits = jobs(3);
    assert_eq!(bench.ran(&graph, &[target]).len(), 13);
    assert_eq!(bench.worker.state.lock().unwrap().most_running, 3);
}

#[test]
fn the_longest_way_starts_first_once_durations_are_known() {
    let mut bench = Bench::new();
    bench.limits = jobs(1);
    bench.worker.takes.insert("slow".to_owned(), 30 * MS);
    let plan = |salt: &str| {
        let mut graph = Graph::new();
        let base = graph.add(image(salt));
        let steps = ["quick1", "quick2", "slow"].map(|name| Some(graph.add(run(name, &[Some(base)]))));
        let target = graph.add(run("end", &steps));
        (graph, target)
    };
    let (graph, target) = plan("first");
    bench.ran(&graph, &[target]);
    bench.worker.ran();
    let (graph, target) = plan("second");
    bench.solve(&graph, &[target]).products.unwrap();
    assert_eq!(bench.worker.state.lock().unwrap().ran[..2], ["second", "slow"]);
}

#[test]
fn what_no_target_needs_is_neither_planned_nor_run() {
    let bench = Bench::new();
    let mut graph = Graph::new();
    let used = graph.add(run("used", &[]));
    graph.add(run("unused", &[Some(used)]));
    let solved = bench.solve(&graph, &[used]);
    assert_eq!((bench.worker.ran(), solved.vertices.len()), (vec!["used".to_owned()], 1));
}

#[test]
fn a_changed_context_runs_its_readers_only() {
    let mut bench = Bench::new();
    let (graph, target) = diamond();
    bench.ran(&graph, &[target]);
    bench.worker.contexts.insert(String::new(), "two".to_owned());
    assert_eq!(bench.ran(&graph, &[target]), ["b", "base", "c"], "the base is needed again, a is not");
    bench.worker.contexts.insert(String::new(), "one".to_owned());
    assert_eq!(bench.ran(&graph, &[target]), [""; 0], "the first results are still there");
}

#[test]
fn a_step_that_gives_the_same_again_changes_nothing_downstream() {
    let bench = Bench::new();
    let plan = |first: &str| {
        let mut graph = Graph::new();
        let a = graph.add(run(first, &[]));
        let b = graph.add(run("b", &[Some(a)]));
        let target = graph.add(run("c", &[Some(b)]));
        (graph, target)
    };
    let (graph, target) = plan("make -j1");
    let before = bench.solve(&graph, &[target]).products.unwrap();
    assert_eq!(bench.worker.ran(), ["b", "c", "make -j1"]);
    // Another command, the same content: its readers hit by content.
    let (graph, target) = plan("make -j2");
    let after = bench.solve(&graph, &[target]).products.unwrap();
    assert_eq!((bench.worker.ran(), before), (vec!["make -j2".to_owned()], after));
}

#[test]
fn no_cache_runs_again_keeps_equal_results_and_is_recorded() {
    let bench = Bench::new();
    let plan = |cache_use| {
        let mut graph = Graph::new();
        let a = graph.add(Vertex { cache_use, ..run("a", &[]) });
        let target = graph.add(run("b", &[Some(a)]));
        (graph, target)
    };
    let (graph, target) = plan(CacheUse::Allowed);
    let first = bench.solve(&graph, &[target]).products.unwrap();
    bench.worker.ran();
    let (fresh, fresh_target) = plan(CacheUse::Ignored);
    let second = bench.solve(&fresh, &[fresh_target]);
    assert_eq!(bench.worker.ran(), ["a"], "b hits by content");
    assert_eq!(second.vertices[0].miss, Some(MissReason::Ignored));
    assert_eq!(first, second.products.unwrap());
}

#[test]
fn a_fresh_result_that_differs_replaces_the_old_one_for_later_builds() {
    let mut bench = Bench::new();
    bench.worker.unstable.push("a".to_owned());
    let plan = |cache_use| {
        let mut graph = Graph::new();
        let a = graph.add(Vertex { cache_use, ..run("a", &[]) });
        let target = graph.add(run("b", &[Some(a)]));
        (graph, target)
    };
    let (graph, target) = plan(CacheUse::Allowed);
    let old = bench.solve(&graph, &[target]).products.unwrap();
    let (fresh, fresh_target) = plan(CacheUse::Ignored);
    let new = bench.solve(&fresh, &[fresh_target]).products.unwrap();
    assert_ne!(old, new);
    bench.worker.ran();
    assert_eq!(bench.solve(&graph, &[target]).products.unwrap(), new, "the stale result of b does not come back");
    assert_eq!(bench.worker.ran(), [""; 0]);
}

#[test]
fn what_is_too_old_runs_again_and_all_downstream_of_it_is_suspect() {
    let mut bench = Bench::new();
    bench.worker.unstable.push("a".to_owned());
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    let plan = |cache_use| {
        let mut graph = Graph::new();
        let a = graph.add(Vertex { cache_use, ..run("a", &[]) });
        let b = graph.add(Vertex { cache_use, ..run("b", &[Some(a)]) });
        let other = graph.add(Vertex { cache_use, ..run("other", &[]) });
        let target = graph.add(Vertex { cache_use, ..run("end", &[Some(b), Some(other)]) });
        (graph, target)
    };
    let build = |second, cache_use| {
        bench.cache.records.lock().unwrap().now = at(second);
        let (graph, target) = plan(cache_use);
        let solved = bench.solve(&graph, &[target]);
        (bench.worker.ran(), solved)
    };
    assert_eq!(build(100, CacheUse::Allowed).0, ["a", "b", "end", "other"]);
    bench.cache.forget("b");
    bench.cache.forget("end");
    assert_eq!(build(200, CacheUse::Allowed).0, ["b", "end"]);
    assert_eq!(build(300, CacheUse::Since(at(100))).0, [""; 0], "a result of that very time is new enough");
    // `b` and `end` are young, but stand on an old `a`.
    let (ran, solved) = build(400, CacheUse::Since(at(150)));
    assert_eq!(ran, ["a", "b", "end", "other"]);
    let miss: Vec<_> = solved.vertices.iter().map(|report| report.miss.clone()).collect();
    assert_eq!(miss[0], Some(MissReason::TooOld { made: at(100) }));
    let product = solved.products.unwrap();
    let (ran, solved) = build(500, CacheUse::Allowed);
    assert_eq!((ran, solved.products.unwrap()), (vec![], product), "the new results are what ordinary builds see");
    assert_eq!(build(600, CacheUse::Since(at(150))).0, [""; 0]);
}

#[test]
fn an_old_step_that_gives_the_same_again_repeats_only_what_is_old() {
    let bench = Bench::new();
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    let build = |second, cache_use| {
        bench.cache.records.lock().unwrap().now = at(second);
        let mut graph = Graph::new();
        let a = graph.add(Vertex { cache_use, ..run("a", &[]) });
        let target = graph.add(Vertex { cache_use, ..run("b", &[Some(a)]) });
        let product = bench.solve(&graph, &[target]).products.unwrap();
        (bench.worker.ran(), product)
    };
    let (_, first) = build(100, CacheUse::Allowed);
    bench.cache.forget("b");
    let (ran, second) = build(200, CacheUse::Allowed);
    assert_eq!(ran, ["b"]);
    let (ran, third) = build(300, CacheUse::Since(at(150)));
    assert_eq!((ran, &third), (vec!["a".to_owned()], &second), "b is young and hits by content");
    assert_ne!(first, second);
}

#[test]
fn steps_that_need_much_memory_do_not_run_together_when_it_does_not_suffice() {
    let most = |memory| {
        let mut bench = Bench::new();
        let plan = |salt: &str| {
            let mut graph = Graph::new();
            let base = graph.add(image(salt));
            let steps: Vec<_> = (0..4).map(|at| Some(graph.add(run(&format!("large{at}"), &[Some(base)])))).collect();
            let target = graph.add(run("end", &steps));
            (graph, target)
        };
        for at in 0..4 {
            let usage = rbuild_cache::StepUsage { processor: MS, memory_peak: 400 << 20 };
            bench.worker.uses.insert(format!("large{at}"), usage);
            bench.worker.takes.insert(format!("large{at}"), 60 * MS);
        }
        bench.worker.memory = Some(memory);
        let (graph, target) = plan("first");
        bench.ran(&graph, &[target]);
        bench.worker.state.lock().unwrap().most_running = 0;
        // Their readers' keys are new, what they used is remembered.
        let (graph, target) = plan("second");
        assert_eq!(bench.ran(&graph, &[target]).len(), 6);
        bench.worker.state.lock().unwrap().most_running
    };
    assert_eq!((most(16 << 30), most(1 << 30), most(100 << 20)), (4, 2, 1));
}

#[test]
fn the_first_failure_stops_the_rest_and_is_not_recorded() {
    let mut bench = Bench::new();
    bench.worker.fails.push("bad".to_owned());
    bench.worker.takes.insert("slow".to_owned(), 20_000 * MS);
    let mut graph = Graph::new();
    let good = graph.add(run("good", &[]));
    let bad = graph.add(run("bad", &[Some(good)]));
    let slow = graph.add(run("slow", &[]));
    let target = graph.add(run("end", &[Some(bad), Some(slow)]));
    let began = Instant::now();
    let solved = bench.solve(&graph, &[target]);
    assert!(began.elapsed() < 10_000 * MS, "the slow step was stopped");
    let Err(SolveError::Failed { vertex, failure, .. }) = solved.products else { panic!("it fails") };
    assert_eq!((vertex, failure.exit_code), (bad, Some(1)));
    let states: Vec<_> = solved.vertices.iter().map(|report| report.state).collect();
    use VertexState::{Cancelled, Completed, Failed};
    assert_eq!(states, [Completed, Failed, Cancelled, Cancelled]);
    assert_eq!(bench.cancel.reason(), Some(CancelReason::Failure));

    let bench = Bench { cancel: CancelToken::new(), worker: FakeWorker::default(), ..bench };
    bench.worker.state.lock().unwrap().content.push(ContentDigest::new(Digest::sha256("good")));
    assert_eq!(bench.ran(&graph, &[bad]), ["bad"], "what had succeeded is kept, what failed is not");
}

#[test]
fn independent_steps_are_finished_when_asked() {
    let mut bench = Bench::new();
    bench.worker.fails.push("bad".to_owned());
    let mut graph = Graph::new();
    let bad = graph.add(run("bad", &[]));
    let other = graph.add(run("other", &[]));
    let more = graph.add(run("more", &[Some(other)]));
    let around =
        Surroundings { worker: &bench.worker, cache: &bench.cache, events: &bench.events, cancel: &bench.cancel };
    let options = SolveOptions { limits: jobs(1), began: Instant::now(), on_failure: OnFailure::GoOn };
    let solved = solve(&graph, &[bad, more], around, options);
    assert!(matches!(solved.products, Err(SolveError::Failed { .. })));
    assert_eq!(bench.worker.ran(), ["bad", "more", "other"]);
}

#[test]
fn a_cancelled_solve_says_so_and_starts_nothing() {
    let bench = Bench::new();
    let (graph, target) = diamond();
    bench.cancel.cancel(CancelReason::Interrupt);
    let solved = bench.solve(&graph, &[target]);
    assert!(matches!(solved.products, Err(SolveError::Cancelled { reason: CancelReason::Interrupt })));
    assert_eq!(bench.worker.ran(), [""; 0]);
}

#[test]
fn a_panicking_worker_fails_its_vertex() {
    let bench = Bench::new();
    let mut graph = Graph::new();
    let target = graph.add(run("a", &[None]));
    let unknown = graph.add(run("b", &[Some(target)]));
    // A record that names a snapshot which the worker does not know makes it panic.
    let step = key::step_key(&graph.vertex(target).op);
    let definition = Described { op: &graph.vertex(target).op, inputs: &[InputIdentity::Empty] }.definition_key();
    let snapshot = Some(rbuild_cache::SnapshotId::from_row(99));
    let record = crate::records::NewStep { snapshot, name: "a".to_owned(), duration: MS, usage: None };
    bench.cache.record(&[step, definition], None, &record).unwrap();
    let solved = bench.solve(&graph, &[unknown]);
    let Err(SolveError::Failed { failure, .. }) = solved.products else { panic!("it fails") };
    assert!(failure.message.starts_with("internal error: index out of bounds"), "{}", failure.message);
}

#[test]
fn a_source_without_identity_is_fetched_and_then_known_by_content() {
    let bench = Bench::new();
    let plan = |checksum| {
        let mut graph = Graph::new();
        let file = graph.add(http("http://x/f", checksum));
        let target = graph.add(run("a", &[None, Some(file)]));
        (graph, target)
    };
    let (graph, target) = plan(None);
    assert_eq!(bench.ran(&graph, &[target]), ["a", "http://x/f"]);
    assert_eq!(bench.ran(&graph, &[target]), ["http://x/f"]);
    let (graph, target) = plan(Some(Digest::sha256("f")));
    assert_eq!(bench.ran(&graph, &[target]), ["http://x/f"], "its readers hit by content");
    assert_eq!(bench.ran(&graph, &[target]), [""; 0]);
}

#[test]
fn a_slow_source_holds_up_only_what_reads_it() {
    let mut bench = Bench::new();
    bench.worker.takes.insert("http://x/f".to_owned(), 400 * MS);
    bench.worker.takes.insert("other".to_owned(), 400 * MS);
    let mut graph = Graph::new();
    let file = graph.add(http("http://x/f", None));
    let a = graph.add(run("a", &[None, Some(file)]));
    let other = graph.add(run("other", &[]));
    let target = graph.add(run("end", &[Some(a), Some(other)]));
    bench.ran(&graph, &[target]);
    assert_eq!(bench.worker.state.lock().unwrap().most_running, 2);
}

#[test]
fn a_lost_parent_is_not_made_again_for_a_child_that_is_there() {
    let bench = Bench::new();
    let (graph, target) = diamond();
    bench.ran(&graph, &[target]);
    bench.cache.forget("a");
    assert_eq!(bench.ran(&graph, &[target]), [""; 0]);
    bench.cache.forget("c");
    assert_eq!(bench.ran(&graph, &[target]), ["a", "base", "c"]);
}

#[test]
fn equal_keys_of_different_vertices_run_once() {
    let mut bench = Bench::new();
    bench.worker.takes.insert("a".to_owned(), 20 * MS);
    let mut graph = Graph::new();
    // The same image by two names: two vertices, one key.
    let mut renamed = image("base");
    if let Op::Source(Source::Image(source)) = &mut renamed.op {
        source.reference = "other".parse().unwrap();
    }
    let bases = [graph.add(image("base")), graph.add(renamed)];
    let steps = bases.map(|base| Some(graph.add(run("a", &[Some(base)]))));
    let target = graph.add(run("end", &steps));
    let ran = bench.ran(&graph, &[target]);
    assert_eq!(ran.iter().filter(|name| *name == "a").count(), 1, "{ran:?}");
}

#[test]
fn a_linked_layer_is_put_on_a_new_base_without_running_again() {
    let bench = Bench::new();
    let plan = |base: &str| {
        let mut graph = Graph::new();
        let base = graph.add(run(base, &[]));
        let context = graph.add(source_context(""));
        let link = Op::File(FileOp { actions: vec![], linking: Linking::Independent });
        let target = graph.add(vertex(link, &[Some(base), Some(context)], "COPY --link"));
        (graph, target)
    };
    let (graph, target) = plan("old");
    let old = bench.solve(&graph, &[target]).products.unwrap();
    bench.worker.ran();
    let (graph, target) = plan("new");
    let new = bench.solve(&graph, &[target]).products.unwrap();
    assert_ne!(old, new);
    assert_eq!((bench.worker.ran(), bench.worker.state.lock().unwrap().rebased), (vec!["new".to_owned()], 1));
    assert_eq!(bench.solve(&graph, &[target]).products.unwrap(), new);
    assert_eq!(bench.worker.state.lock().unwrap().rebased, 1, "the second time the definition is known");
}

#[test]
fn a_miss_names_what_changed() {
    let bench = Bench::new();
    let plan = |command: &str| {
        let mut graph = Graph::new();
        let target = graph.add(run(command, &[]));
        (graph, target)
    };
    let (graph, target) = plan("make");
    assert_eq!(bench.solve(&graph, &[target]).vertices[0].miss, Some(MissReason::NothingRecorded));
    let (graph, target) = plan("make all");
    let Some(MissReason::Changed { changes, .. }) = bench.solve(&graph, &[target]).vertices[0].miss.clone() else {
        panic!("something changed")
    };
    assert_eq!(changes, [Change::Command { before: "make".to_owned(), after: "make all".to_owned() }]);
}

#[test]
fn two_builds_of_the_same_step_share_it() {
    let mut bench = Bench::new();
    bench.worker.takes.insert("a".to_owned(), 400 * MS);
    let (graph, target) = diamond();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| bench.solve(&graph, &[target]).products.unwrap());
        }
    });
    let ran = bench.worker.ran();
    assert_eq!(ran.iter().filter(|name| *name == "a").count(), 1, "{ran:?}");
    let events = bench.events.0.lock().unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::Waiting { reason, .. } if reason == "another build")));
}

#[test]
fn waiting_for_another_build_takes_no_slot() {
    let mut bench = Bench::new();
    bench.worker.takes.insert("b".to_owned(), 100 * MS);
    bench.limits = jobs(1);
    let mut graph = Graph::new();
    let a = graph.add(run("a", &[]));
    let b = graph.add(run("b", &[]));
    // Another build has `a` and keeps it until this one has done `b`, which needs the only slot.
    let key = Described { op: &graph.vertex(a).op, inputs: &[] }.definition_key();
    let held = bench.cache.claim(&key, &bench.cancel, &|_| ()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            while !bench.worker.state.lock().unwrap().ran.contains(&"b".to_owned()) {
                assert!(began.elapsed() < 20_000 * MS, "b waits for the slot of a");
                std::thread::sleep(MS);
            }
            drop(held);
        });
        bench.solve(&graph, &[a, b]).products.unwrap();
    });
    assert_eq!(bench.worker.ran(), ["a", "b"]);
}

#[test]
fn ten_thousand_cached_vertices_take_well_under_a_second_and_near_linear_time() {
    let time = |size: usize| {
        let bench = Bench::new();
        let mut graph = Graph::new();
        let mut row: Vec<Option<VertexId>> = vec![Some(graph.add(image("base")))];
        for at in 0..size {
            let inputs = [row[row.len() - 1 - at % row.len().min(3)], row[row.len() / 2]];
            let id = graph.add(run(&format!("s{at}"), &inputs));
            row.push(Some(id));
        }
        let target = graph.add(run("end", &row));
        bench.solve(&graph, &[target]).products.unwrap();
        bench.worker.ran();
        let began = Instant::now();
        let solved = bench.solve(&graph, &[target]);
        let took = began.elapsed();
        assert!(solved.products.is_ok() && bench.worker.ran().is_empty());
        took
    };
    let (small, large) = (time(1_000), time(10_000));
    assert!(large < Duration::from_secs(10), "unoptimised code on a busy machine took {large:?} for 10,000 vertices");
    assert!(large < small * 60, "{small:?} for 1,000, {large:?} for 10,000");
}

/// A random graph: for each vertex which earlier ones it reads.
fn random_graph(shape: &[(u8, Vec<u8>)]) -> (Graph, VertexId) {
    let mut graph = Graph::new();
    let context = graph.add(source_context(""));
    let mut ids = vec![context];
    for (at, (word, reads)) in shape.iter().enumerate() {
        let inputs: BTreeSet<VertexId> = reads.iter().map(|read| ids[usize::from(*read) % ids.len()]).collect();
        let inputs: Vec<Option<VertexId>> = std::iter::once(None).chain(inputs.into_iter().map(Some)).collect();
        ids.push(graph.add(run(&format!("w{} {}", word % 8, at % 5), &inputs)));
    }
    let all: Vec<_> = ids.iter().skip(1).copied().map(Some).collect();
    let target = graph.add(run("end", &all));
    (graph, target)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_incremental_build_equals_one_from_scratch_and_runs_nothing_that_could_have_hit(
        shape in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..4)), 1..40),
        rounds in prop::collection::vec(
            (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 0..3_u8), 1..4,
        ),
    ) {
        let mut bench = Bench::new();
        let (mut shape, mut before) = (shape, BTreeSet::new());
        let (graph, target) = random_graph(&shape);
        bench.solve(&graph, &[target]).products.unwrap();
        for (edits, context) in rounds {
            before.extend(std::mem::take(&mut bench.worker.state.lock().unwrap().executed));
            for (at, word) in edits {
                let at = at.index(shape.len());
                shape[at].0 = word;
            }
            bench.worker.contexts.insert(String::new(), format!("context {context}"));
            let (graph, target) = random_graph(&shape);
            bench.worker.ran();
            let product = bench.solve(&graph, &[target]).products.unwrap();
            let incremental = bench.worker.ran();
            let could_have_hit: Vec<_> =
                bench.worker.state.lock().unwrap().executed.iter().filter(|one| before.contains(*one)).cloned().collect();
            prop_assert_eq!(could_have_hit, vec![]);
            let content = |bench: &Bench, product: &[Product]| match &product[0] {
                Product::Snapshot(Some(id)) => bench.worker.state.lock().unwrap().content[id.row() as usize],
                other => panic!("{other:?}"),
            };
            let mut scratch = Bench::new();
            scratch.worker.contexts = bench.worker.contexts.clone();
            let from_scratch = scratch.solve(&graph, &[target]).products.unwrap();
            prop_assert_eq!(content(&bench, &product), content(&scratch, &from_scratch));
            prop_assert!(incremental.len() <= scratch.worker.ran().len());
            prop_assert!(bench.solve(&graph, &[target]).products.is_ok());
            prop_assert_eq!(bench.worker.ran(), Vec::<String>::new());
        }
    }
}

#[test]
fn results_do_not_depend_on_parallelism() {
    let shape: Vec<(u8, Vec<u8>)> = (0..60u8).map(|at| (at.wrapping_mul(7), vec![at / 2, at / 3 + 1, at])).collect();
    let (graph, target) = random_graph(&shape);
    let mut seen = BTreeMap::new();
    for at_once in [1, 2, 16] {
        let bench = Bench { limits: jobs(at_once), ..Bench::new() };
        let solved = bench.solve(&graph, &[target]);
        let keys: Vec<_> = solved.vertices.iter().map(|report| report.definition).collect();
        seen.insert((keys, bench.worker.ran()), at_once);
    }
    assert_eq!(seen.len(), 1);
    assert_eq!(command(graph.vertex(target)), "end");
}
