//! The loop that decides. It runs on the calling thread; all work happens on one thread per task, which reports back.
//!
//! 1. Key every vertex whose inputs are keyed: pin sources, digest what is selected of contexts, compute definition
//!    keys, look them up. A hit has its product at once, without its inputs.
//! 2. Of the misses, want those that a target needs: nothing else is fetched or run. Only while a source must be
//!    fetched for a reader's key is a miss wanted before its readers are keyed, so that a download holds nothing up.
//!    What another place has is wanted without its inputs, and brought from there; should that fail, it is a miss.
//! 3. Start what is wanted and has all its inputs, longest remaining path first, as long as there are slots.
//! 4. Wait for a report; take in its product; go to 1. The first failure cancels the rest.
//!
//! A vertex whose cache use is [`CacheUse::Ignored`] makes everything downstream distrust definition keys: what was
//! recorded under them may come from its earlier product. Those vertices are answered by content only. The same holds
//! downstream of a vertex whose result is too old ([`CacheUse::Since`]), which is found out when it is looked up.

use std::cmp::Reverse;
mod intake;
mod keying;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rbuild_cache::{KeyKind, ResultId};
use rbuild_image::{ContentDigest, Digest};

use crate::cancel::{CancelReason, CancelToken};
use crate::event::{Event, EventSink, PlannedVertex, VertexFailure};
use crate::flight::{Boarding, Flights};
use crate::graph::Graph;
use crate::key::{self, Key};
use crate::miss::MissReason;
use crate::op::{Op, Source};
use crate::pools::{Limits, Need, Pool, Slots};
use crate::prune::needed;
use crate::records::StepCache;
use crate::state::{States, VertexState};
use crate::task::{self, Report, Shared, Step};
use crate::vertex::{Origin, Vertex, VertexId};
use crate::worker::{Job, Pinned, Product, Worker};

/// How to solve.
#[derive(Clone, Copy, Debug)]
pub struct SolveOptions {
    /// How much goes on at the same time.
    pub limits: Limits,
    /// When the build began: event times count from here.
    pub began: Instant,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
}

/// What a failing vertex means for those that do not need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They are cancelled.
    Cancel,
    /// They are finished.
    GoOn,
}

/// The machine, the records, and who listens.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Does the work.
    pub worker: &'a dyn Worker,
    /// Knows earlier results.
    pub cache: &'a dyn StepCache,
    /// Takes events.
    pub events: &'a dyn EventSink,
    /// Stops the solve; a failure cancels it with [`CancelReason::Failure`].
    pub cancel: &'a CancelToken,
}

/// How a solve ended.
#[derive(Debug)]
pub struct Solved {
    /// What the targets gave, in the order they were asked for; or why not.
    pub products: Result<Vec<Product>, SolveError>,
    /// What happened to each needed vertex, in graph order.
    pub vertices: Vec<VertexReport>,
}

/// Why a solve gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// A vertex failed.
    #[error("{name}: {}", failure.message)]
    Failed {
        /// Which.
        vertex: VertexId,
        /// Its display name.
        name: String,
        /// Where it came from.
        origin: Box<Origin>,
        /// Why.
        failure: Box<VertexFailure>,
    },
    /// It was stopped.
    #[error("cancelled")]
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
}

/// What happened to a vertex: for the build's record and for explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexReport {
    /// Which.
    pub vertex: VertexId,
    /// How it ended.
    pub state: VertexState,
    /// Its definition key, where it was found out.
    pub definition: Option<Digest>,
    /// Its content key, where it was needed.
    pub content: Option<Digest>,
    /// Its product, where it has one.
    pub product: Option<Product>,
    /// What is recorded of it: the result that it hit or gave.
    pub result: Option<ResultId>,
    /// Which kind of key answered for it, where one did.
    pub hit: Option<KeyKind>,
    /// Why it ran, where it did.
    pub miss: Option<MissReason>,
    /// How long it ran.
    pub took: Option<Duration>,
}

/// Solves `targets`: afterwards each has a product, or something failed or was cancelled.
pub fn solve(graph: &Graph, targets: &[VertexId], around: Surroundings<'_>, options: SolveOptions) -> Solved {
    let Surroundings { worker, cache, events, cancel } = around;
    let shared = Shared { worker, cache, events, cancel, began: options.began };
    std::thread::scope(|scope| {
        let (sender, reports) = channel();
        Loop::new(graph, targets, shared, options, scope, sender).run(&reports)
    })
}

/// Durations that are assumed for what never ran here.
fn assumed_duration(op: &Op) -> Duration {
    Duration::from_millis(match op {
        Op::Source(Source::Context(_)) => 0,
        Op::File(_) => 100,
        Op::Source(_) => 3_000,
        Op::Run(_) => 10_000,
    })
}

/// Work that must happen before keys are known.
enum Early {
    Pin(VertexId),
    Select(VertexId, usize),
}

struct Loop<'scope, 'env> {
    graph: &'env Graph,
    targets: &'env [VertexId],
    needed: Vec<VertexId>,
    shared: Shared<'env>,
    on_failure: OnFailure,
    scope: &'scope Scope<'scope, 'env>,
    sender: Sender<Report>,
    states: States,
    vertices: Vec<Progress>,
    readers: Vec<Vec<VertexId>>,
    /// Whether some vertex has a result that is too old, which those that read it must not trust either.
    distrust: bool,
    /// Vertices whose inputs are keyed and whose selections are digested.
    to_key: VecDeque<VertexId>,
    /// Misses that nobody has looked at yet.
    fresh: Vec<VertexId>,
    /// Misses whose readers have no keys yet.
    undecided: Vec<VertexId>,
    /// Whether a source is fetched for the sake of keys.
    keys_are_slow: bool,
    early: VecDeque<Early>,
    /// Selections of each context that are still to be digested, and whether its start was told.
    selections_left: BTreeMap<VertexId, (usize, bool)>,
    ready: BinaryHeap<(Duration, Reverse<VertexId>)>,
    remaining: Option<Vec<Duration>>,
    /// Keys of the ops of all steps, once one of them runs.
    siblings: Option<Arc<BTreeSet<Digest>>>,
    flights: Flights,
    slots: Slots,
    /// Threads that have not said their last word.
    threads: usize,
    failure: Option<(VertexId, VertexFailure)>,
    /// Results that were used.
    used: Vec<ResultId>,
}

/// What the loop knows of one vertex.
#[derive(Default)]
struct Progress {
    /// Inputs without a key, and contexts whose selection is not digested.
    unkeyed: usize,
    /// Inputs without a product, once wanted.
    missing: usize,
    /// Digests of what is selected of contexts, by input position.
    selected: BTreeMap<usize, ContentDigest>,
    pinned: Option<Pinned>,
    definition: Option<Key>,
    trusted: bool,
    /// Whether another place was asked for its product.
    asked: bool,
    /// Whether it has it; that needs no inputs.
    elsewhere: bool,
    /// What it took the last time it ran, once misses are known.
    need: Option<Need>,
    /// What it has of the slots; nothing while and after it waits for another process.
    slot: Option<Need>,
    product: Option<Product>,
    content: Option<Digest>,
    result: Option<ResultId>,
    /// Vertices that took its product instead of making the same.
    twins: Vec<VertexId>,
    hit: Option<KeyKind>,
    miss: Option<MissReason>,
    took: Option<Duration>,
}

impl<'scope, 'env> Loop<'scope, 'env> {
    fn new(
        graph: &'env Graph,
        targets: &'env [VertexId],
        shared: Shared<'env>,
        options: SolveOptions,
        scope: &'scope Scope<'scope, 'env>,
        sender: Sender<Report>,
    ) -> Self {
        let needed = needed(graph, targets);
        let mut states = States::new(graph.len());
        let mut readers = vec![Vec::new(); graph.len()];
        for id in &needed {
            states.set(*id, VertexState::Unkeyed);
            for input in graph.inputs(*id) {
                readers[input.index()].push(*id);
            }
        }
        Self {
            graph,
            targets,
            needed,
            shared,
            on_failure: options.on_failure,
            scope,
            sender,
            states,
            vertices: std::iter::repeat_with(Progress::default).take(graph.len()).collect(),
            readers,
            distrust: false,
            to_key: VecDeque::new(),
            fresh: Vec::new(),
            undecided: Vec::new(),
            keys_are_slow: false,
            early: VecDeque::new(),
            selections_left: BTreeMap::new(),
            ready: BinaryHeap::new(),
            remaining: None,
            siblings: None,
            flights: Flights::default(),
            slots: Slots::new(options.limits),
            threads: 0,
            failure: None,
            used: Vec::new(),
        }
    }

    fn run(mut self, reports: &Receiver<Report>) -> Solved {
        self.announce();
        self.begin();
        loop {
            self.key();
            self.want();
            self.start();
            if self.threads == 0 {
                break;
            }
            if self.slots.are_free() {
                self.shared.worker.hurry();
            }
            let report = reports.recv().expect("the loop holds a sender itself");
            self.take_in(report);
            for report in reports.try_iter() {
                self.take_in(report);
            }
        }
        self.finish()
    }

    fn announce(&self) {
        let planned = |id: &VertexId| {
            let vertex = self.vertex(*id);
            let (name, origin) = (vertex.name.clone(), vertex.origin.clone());
            PlannedVertex { vertex: *id, name, origin, inputs: self.graph.inputs(*id) }
        };
        self.shared.events.emit(Event::Planned { vertices: self.needed.iter().map(planned).collect() });
    }

    /// Of the fresh misses, wants what targets need and what readers without a key may need.
    fn want(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        if self.remaining.is_none() {
            self.remaining = Some(self.remaining_paths());
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.sort_unstable();
        for id in fresh.into_iter().rev() {
            let any_reader = |state| self.readers[id.index()].iter().any(|reader| self.states.get(*reader) == state);
            let undecided = any_reader(VertexState::Unkeyed) && !matches!(self.vertex(id).op, Op::Source(_));
            let needed = self.targets.contains(&id) || any_reader(VertexState::Wanted);
            if self.states.get(id) != VertexState::Missed {
                continue;
            }
            if needed || (undecided && self.keys_are_slow) {
                self.want_with_inputs(id);
            } else if undecided {
                self.undecided.push(id);
            }
        }
    }

    fn want_with_inputs(&mut self, id: VertexId) {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            if self.states.get(id) != VertexState::Missed {
                continue;
            }
            self.states.set(id, VertexState::Wanted);
            let inputs = if self.is_promised(id) { Vec::new() } else { self.graph.inputs(id) };
            let missing: Vec<VertexId> = inputs.into_iter().filter(|input| self.of(*input).product.is_none()).collect();
            self.vertices[id.index()].missing = missing.len();
            if missing.is_empty() {
                self.make_ready(id);
            }
            stack.extend(missing);
        }
    }

    fn make_ready(&mut self, id: VertexId) {
        self.states.set(id, VertexState::Ready);
        let remaining = self.remaining.as_ref().map_or(Duration::MAX, |remaining| remaining[id.index()]);
        self.ready.push((remaining, Reverse(id)));
    }

    /// For each vertex the longest way from its start to the end of the build, by remembered durations.
    fn remaining_paths(&mut self) -> Vec<Duration> {
        let mut remaining = vec![Duration::ZERO; self.graph.len()];
        let mut needs = Vec::new();
        let open = |id: &&VertexId| !self.states.get(**id).is_final();
        let keys: Vec<_> = self.needed.iter().filter(open).map(|id| key::step_key(&self.vertex(*id).op)).collect();
        let mut known = self.shared.lookup_all(&keys);
        for id in self.needed.iter().rev() {
            let after = self.readers[id.index()].iter().map(|reader| remaining[reader.index()]).max();
            let mut own = Duration::ZERO;
            if open(&id) {
                let (op, found) = (&self.vertex(*id).op, known.pop().flatten());
                own = found.as_ref().map_or(assumed_duration(op), |found| found.duration);
                needs.push((*id, Need::measured(op, found.and_then(|found| found.usage), own)));
            }
            remaining[id.index()] = own + after.unwrap_or_default();
        }
        for (id, need) in needs {
            self.vertices[id.index()].need = Some(need);
        }
        remaining
    }

    /// Starts what may start.
    fn start(&mut self) {
        if self.shared.cancel.is_cancelled() || self.targets.iter().all(|id| self.of(*id).product.is_some()) {
            return;
        }
        for _ in 0..self.early.len() {
            let Some(early) = self.early.pop_front() else { break };
            let pool = match early {
                Early::Pin(_) => Pool::Network,
                Early::Select(..) => Pool::Work,
            };
            if self.slots.take(&Need::slot(pool), || None) {
                self.start_early(early);
            } else {
                self.early.push_back(early);
            }
        }
        let mut full = Vec::new();
        while let Some((remaining, Reverse(id))) = self.ready.pop() {
            let need = self.need(id);
            if self.parks(id) {
                continue;
            }
            let worker = self.shared.worker;
            if self.slots.take(&need, || worker.available_memory()) {
                self.vertices[id.index()].slot = Some(need);
                self.start_step(id);
            } else {
                self.flights.land(id);
                full.push((remaining, Reverse(id)));
            }
        }
        self.ready.extend(full);
    }

    /// Whether another vertex with the same key runs, whose product this one will take.
    fn parks(&mut self, id: VertexId) -> bool {
        let progress = self.of(id);
        let Some(key) = progress.definition.filter(|_| progress.trusted) else {
            return false;
        };
        let parks = self.flights.board(id, key.digest) == Boarding::Waits;
        if parks {
            self.states.set(id, VertexState::Parked);
        }
        parks
    }

    fn start_early(&mut self, early: Early) {
        let (shared, sender) = (self.shared, self.sender.clone());
        match early {
            Early::Pin(id) => {
                let vertex = Arc::clone(self.vertex(id));
                self.spawn(move || match &vertex.op {
                    Op::Source(source) => task::pin(shared, id, source, &sender),
                    Op::Run(_) | Op::File(_) => unreachable!("only sources are pinned"),
                });
            }
            Early::Select(id, at) => {
                let vertex = Arc::clone(self.vertex(id));
                let context = vertex.inputs[at].expect("only contexts are selected from before keys are known");
                let name = self.context_name(context).expect("checked when it was queued").to_owned();
                if let Some((_, told)) = self.selections_left.get_mut(&context)
                    && !std::mem::replace(told, true)
                {
                    self.shared.events.emit(Event::Started { vertex: context, at: self.at() });
                }
                let job = task::selection_job(id, &vertex, at, &name);
                self.spawn(move || task::select(shared, &job, at, &sender));
            }
        }
    }

    fn start_step(&mut self, id: VertexId) {
        self.states.set(id, VertexState::Running);
        let mut vertex = Arc::clone(self.vertex(id));
        if let Some(pinned) = &self.of(id).pinned {
            vertex = Arc::new(Vertex { op: Op::Source(pinned.source.clone()), ..Vertex::clone(&vertex) });
        }
        let elsewhere = self.of(id).elsewhere;
        let product = |input: &Option<VertexId>| match input {
            None => Product::Snapshot(None),
            Some(_) if elsewhere => Product::Snapshot(None),
            Some(input) => self.of(*input).product.clone().expect("a vertex is ready when its inputs are there"),
        };
        let inputs = vertex.inputs.iter().map(product).collect();
        let definition = self.definition(id, &vertex.op);
        let siblings = self.siblings();
        let ran = vertex.inputs.iter().enumerate().filter_map(|(at, input)| Some((at, (*input)?)));
        let ran = ran.filter(|(_, input)| {
            self.states.get(*input) == VertexState::Completed && !matches!(self.vertex(*input).op, Op::Source(_))
        });
        let ran = ran.collect();
        let progress = self.of(id);
        let step = Step {
            job: Job { id, vertex, inputs },
            definition,
            trusted: progress.trusted,
            selected: progress.selected.clone(),
            identify: progress.definition.is_none(),
            ran,
            siblings,
        };
        let (shared, sender) = (self.shared, self.sender.clone());
        match elsewhere {
            true => self.spawn(move || task::fetch(shared, &step, &sender)),
            false => self.spawn(move || task::step(shared, &step, &sender)),
        }
    }

    fn siblings(&mut self) -> Arc<BTreeSet<Digest>> {
        if let Some(siblings) = &self.siblings {
            return Arc::clone(siblings);
        }
        let steps = self.needed.iter().map(|id| &self.vertex(*id).op).filter(|op| !matches!(op, Op::Source(_)));
        let siblings = Arc::new(steps.map(|op| key::step_key(op).digest).collect());
        self.siblings = Some(Arc::clone(&siblings));
        siblings
    }

    fn spawn(&mut self, work: impl FnOnce() + Send + 'scope) {
        self.threads += 1;
        self.scope.spawn(work);
    }

    /// What is left needs no run, or cannot have one.
    fn finish(mut self) -> Solved {
        self.shared.or_warn(self.shared.cache.touch(&self.used));
        let whole = self.targets.iter().all(|id| self.of(*id).product.is_some());
        for id in self.needed.clone() {
            match self.states.get(id) {
                state if state.is_final() => {}
                VertexState::Missed if whole => {
                    self.tell_cached(id);
                    self.states.set(id, VertexState::Cached);
                }
                _ => self.states.set(id, VertexState::Cancelled),
            }
        }
        let count = |state| self.states.count(state);
        tracing::debug!(
            completed = count(VertexState::Completed),
            cached = count(VertexState::Cached),
            failed = count(VertexState::Failed),
            cancelled = count(VertexState::Cancelled),
            "solved"
        );
        let vertices = std::mem::take(&mut self.vertices);
        let product = |id: &VertexId| vertices[id.index()].product.clone();
        let products = match (self.targets.iter().map(product).collect::<Option<Vec<_>>>(), self.failure.take()) {
            (Some(products), None) => Ok(products),
            (_, Some((vertex, failure))) => Err(SolveError::Failed {
                vertex,
                name: self.vertex(vertex).name.clone(),
                origin: Box::new(self.vertex(vertex).origin.clone()),
                failure: Box::new(failure),
            }),
            (None, None) => {
                Err(SolveError::Cancelled { reason: self.shared.cancel.reason().unwrap_or(CancelReason::Interrupt) })
            }
        };
        let report = |(id, progress): (VertexId, Progress)| VertexReport {
            vertex: id,
            state: self.states.get(id),
            definition: progress.definition.map(|definition| definition.digest),
            content: progress.content,
            product: progress.product,
            result: progress.result,
            hit: progress.hit,
            miss: progress.miss,
            took: progress.took,
        };
        let all = self.graph.ids().zip(vertices);
        let vertices = all.filter(|(id, _)| self.states.get(*id) != VertexState::Unneeded).map(report).collect();
        Solved { products, vertices }
    }

    fn tell_cached(&self, id: VertexId) {
        self.shared.events.emit(Event::Cached { vertex: id, at: self.at() });
    }

    /// What a vertex takes to be run, or to be fetched.
    fn need(&self, id: VertexId) -> Need {
        let progress = self.of(id);
        match progress.elsewhere {
            true => Need::slot(Pool::Network),
            false => progress.need.unwrap_or(Need::slot(Pool::of(&self.vertex(id).op))),
        }
    }

    fn vertex(&self, id: VertexId) -> &'env Arc<Vertex> {
        self.graph.vertex(id)
    }

    fn of(&self, id: VertexId) -> &Progress {
        &self.vertices[id.index()]
    }

    fn context_name(&self, id: VertexId) -> Option<&'env str> {
        match &self.vertex(id).op {
            Op::Source(Source::Context(context)) => Some(&context.name),
            _ => None,
        }
    }

    fn at(&self) -> u64 {
        self.shared.control().at()
    }
}

#[cfg(test)]
mod tests;
