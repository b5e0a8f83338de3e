//! What a build would do, without doing it: the plan of a Dockerfile, and which of its steps the cache has. Nothing runs,
//! nothing is fetched beyond what planning needs, nothing is written.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;
use rbuild_cache::{ResultId, SnapshotId};
use rbuild_image::ContentDigest;
use rbuild_solver::{
    About, CancelToken, Claim, Control, Event, EventSink, Executed, Found, Job, JobError, Key, Limits, NewStep,
    OnFailure, Op, Pinned, RecordFailure, SolveOptions, Source, StepCache, StoreCache, Surroundings, VertexId,
    VertexState, Worker, solve,
};

use super::{GraphView, Node, NodeState};
use crate::build::{Prepared, prepare};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::request::BuildRequest;
use crate::timings::Timings;
use crate::worker::{EngineWorker, Parts};

/// Plans a request; hits are looked up.
pub(crate) fn plan(engine: &Engine, request: &BuildRequest) -> Result<GraphView, Failure> {
    let store = engine.store()?;
    let lease = store.lease("graph")?;
    let began = Instant::now();
    let Prepared { source, plan, contexts, .. } = prepare(engine, store, &lease, request, &Timings::since(began))?;
    let worker = EngineWorker::new(Parts {
        engine,
        store,
        lease: &lease,
        contexts,
        allow: &request.allow,
        resources: &request.resources,
        secrets: &request.secrets,
        // Nothing runs that could ask an agent.
        ssh: &[],
        began,
        last_program: None,
    })?;
    let (worker, cache) = (
        Looking { worker },
        LookOnly {
            cache: StoreCache {
                store,
                lease: &lease,
                build: None,
                project: "",
                began: Timestamp::UNIX_EPOCH,
                recorded: OnceLock::new(),
            },
        },
    );
    let targets: Vec<VertexId> = plan.platforms.iter().filter_map(|platform| platform.rootfs).collect();
    let options =
        SolveOptions { limits: Limits { jobs: 4, processors: None, transfers: 4 }, began, on_failure: OnFailure::GoOn };
    let around = Surroundings { worker: &worker, cache: &cache, events: &Nobody, cancel: engine.cancel() };
    let solved = solve(&plan.graph, &targets, around, options);
    let positions: BTreeMap<VertexId, usize> =
        solved.vertices.iter().enumerate().map(|(at, report)| (report.vertex, at)).collect();
    let mut states: Vec<NodeState> = solved.vertices.iter().map(|report| state(report.state)).collect();
    for (at, report) in solved.vertices.iter().enumerate().rev() {
        let mut readers = plan.graph.readers(report.vertex).into_iter().filter_map(|id| positions.get(&id)).peekable();
        // What only hits read is not needed.
        if readers.peek().is_some() && readers.all(|reader| states[*reader] == NodeState::Hit) {
            states[at] = NodeState::Hit;
        }
    }
    let nodes = solved.vertices.iter().enumerate().map(|(at, report)| {
        let vertex = plan.graph.vertex(report.vertex);
        Node {
            number: at + 1,
            name: vertex.name.clone(),
            stage: vertex.origin.stage.clone(),
            line: vertex.origin.line,
            state: states[at],
            took_ns: None,
            critical: false,
            inputs: plan.graph.inputs(report.vertex).iter().filter_map(|id| positions.get(id).copied()).collect(),
        }
    });
    Ok(GraphView::new(format!("plan of {}", source.name()), None, nodes.collect()))
}

fn state(found: VertexState) -> NodeState {
    match found {
        VertexState::Cached | VertexState::Completed => NodeState::Hit,
        _ => NodeState::Miss,
    }
}

/// Digests what is selected, and otherwise does nothing.
struct Looking<'a> {
    worker: EngineWorker<'a>,
}

impl Worker for Looking<'_> {
    fn pin(&self, source: &Source, control: Control<'_>) -> Result<Pinned, JobError> {
        match source {
            // Their state is only known from their servers.
            Source::Http(_) | Source::Git(_) => Err(JobError::Cancelled),
            Source::Image(_) | Source::Context(_) => self.worker.pin(source, control),
        }
    }

    fn selection_digest(&self, job: &Job, input: usize, control: Control<'_>) -> Result<ContentDigest, JobError> {
        self.worker.selection_digest(job, input, control)
    }

    fn rootfs_identity(&self, snapshot: Option<&SnapshotId>, control: Control<'_>) -> Result<ContentDigest, JobError> {
        self.worker.rootfs_identity(snapshot, control)
    }

    fn exec<'a>(&'a self, job: &Job, control: Control<'a>) -> Result<Executed<'a>, JobError> {
        match &job.vertex.op {
            Op::Source(Source::Context(_)) => self.worker.exec(job, control),
            Op::Source(Source::Image(image)) if self.worker.has_image(image) => self.worker.exec(job, control),
            _ => Err(JobError::Cancelled),
        }
    }
}

/// Answers, and records nothing.
struct LookOnly<'a> {
    cache: StoreCache<'a>,
}

impl StepCache for LookOnly<'_> {
    fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, RecordFailure> {
        self.cache.lookup(keys)
    }

    fn record(&self, _keys: &[Key], _about: Option<&About>, step: &NewStep) -> Result<ResultId, RecordFailure> {
        let source = format!("{} was made by a plan", step.name).into();
        Err(RecordFailure { doing: "write", source })
    }

    fn add_keys(&self, _result: ResultId, _keys: &[Key], _about: Option<&About>) -> Result<(), RecordFailure> {
        Ok(())
    }

    fn touch(&self, _results: &[ResultId]) -> Result<(), RecordFailure> {
        Ok(())
    }

    fn claim(
        &self,
        _key: &Key,
        _cancel: &CancelToken,
        _waiting: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<Claim>, RecordFailure> {
        Ok(Some(Claim { guard: Box::new(()) }))
    }
}

/// Nobody listens: nothing happens.
struct Nobody;

impl EventSink for Nobody {
    fn emit(&self, _event: Event) {}
}
