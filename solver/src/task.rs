//! What one thread does for one vertex: pin a source, digest a selection, or carry a step from its content key to its
//! record. Threads decide nothing: they report to the loop.

mod attempt;

use attempt::Attempt;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rbuild_cache::{KeyKind, ResultId};
use rbuild_image::{ContentDigest, Digest};

use crate::cancel::CancelToken;
use crate::event::{Event, EventSink, VertexFailure};
use crate::key::Key;
use crate::miss::MissReason;
use crate::op::Source;
use crate::records::{Found, RecordFailure, StepCache};
use crate::vertex::VertexId;
use crate::worker::{Control, Job, JobError, Pinned, Product, Worker};

/// What all threads of a solve share.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) worker: &'a dyn Worker,
    pub(crate) cache: &'a dyn StepCache,
    pub(crate) events: &'a dyn EventSink,
    pub(crate) cancel: &'a CancelToken,
    pub(crate) began: Instant,
}

impl<'a> Shared<'a> {
    pub(crate) fn control(self) -> Control<'a> {
        Control { events: self.events, cancel: self.cancel, began: self.began }
    }

    /// The answers of the cache, or none and a warning when it cannot be read.
    pub(crate) fn lookup_all(self, keys: &[Key]) -> Vec<Option<Found>> {
        if keys.is_empty() {
            return Vec::new();
        }
        self.or_warn(self.cache.lookup(keys)).unwrap_or_else(|| vec![None; keys.len()])
    }

    pub(crate) fn lookup(self, key: &Key) -> Option<Found> {
        self.lookup_all(std::slice::from_ref(key)).pop().flatten()
    }

    /// What does not work with the cache is told and otherwise without consequence.
    pub(crate) fn or_warn<T>(self, result: Result<T, RecordFailure>) -> Option<T> {
        result.map_err(|error| self.warn(&error)).ok()
    }

    fn warn(self, error: &RecordFailure) {
        tracing::warn!(%error, "cache records");
        let message = format!("{error}: {}; going on without", error.source);
        self.events.emit(Event::Warning { vertex: None, message });
    }
}

/// What threads tell the loop.
pub(crate) enum Report {
    Pinned(VertexId, Result<Pinned, JobError>),
    Selected(VertexId, usize, Result<ContentDigest, JobError>),
    /// It waits for another process and needs no slot meanwhile.
    Waits(VertexId),
    Made(VertexId, Box<Result<Made, JobError>>),
    /// What it made is durable and recorded, where it could be recorded; or could not be kept.
    Kept(VertexId, Result<Option<ResultId>, JobError>),
    /// What another place promised to have was not to be had.
    Gone(VertexId),
    /// Nothing more comes from this vertex's thread; why it ran, if it did.
    Recorded(VertexId, Option<Box<MissReason>>),
}

/// A product and how it came.
pub(crate) struct Made {
    pub(crate) product: Product,
    pub(crate) how: How,
    pub(crate) content: Option<Digest>,
    /// Content of the product, where its readers' keys wait for it.
    pub(crate) identity: Option<ContentDigest>,
}

/// How a vertex got its product.
pub(crate) enum How {
    /// What is recorded of it follows.
    Ran {
        took: Duration,
    },
    Found {
        result: ResultId,
        by: KeyKind,
    },
    /// From another place.
    Fetched {
        result: Option<ResultId>,
    },
}

/// A step as a thread gets it.
pub(crate) struct Step {
    pub(crate) job: Job,
    /// Its inputs for the definition key; `None` for a source whose identity is only known afterwards.
    pub(crate) definition: Option<Definition>,
    /// Whether records under the definition key answer for it.
    pub(crate) trusted: bool,
    /// Digests of what is selected of contexts, by input position.
    pub(crate) selected: BTreeMap<usize, ContentDigest>,
    /// Whether the loop needs the content of the product for the keys of readers.
    pub(crate) identify: bool,
    /// Inputs that ran in this build, by position.
    pub(crate) ran: BTreeMap<usize, VertexId>,
    /// Keys of the ops of all steps of this build.
    pub(crate) siblings: Arc<BTreeSet<Digest>>,
}

/// A definition key and the text it was made of.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) key: Key,
    pub(crate) text: String,
}

pub(crate) fn pin(shared: Shared<'_>, vertex: VertexId, source: &Source, reports: &Sender<Report>) {
    let result = guarded(|| shared.worker.pin(source, shared.control()));
    report(reports, Report::Pinned(vertex, result));
}

pub(crate) fn select(shared: Shared<'_>, job: &Job, input: usize, reports: &Sender<Report>) {
    let result = guarded(|| shared.worker.selection_digest(job, input, shared.control()));
    report(reports, Report::Selected(job.id, input, result));
}

pub(crate) fn step(shared: Shared<'_>, step: &Step, reports: &Sender<Report>) {
    let mut attempt = Attempt::new(shared, step, reports);
    let result = guarded(|| attempt.make());
    report(reports, Report::Made(step.job.id, Box::new(result)));
    // The slot is free again: readers go on while this is made durable and recorded.
    let kept = guarded(|| attempt.keep());
    report(reports, Report::Kept(step.job.id, kept));
    let recorded: Result<(), JobError> = guarded(|| attempt.record_content());
    drop(recorded);
    let miss = guarded(|| Ok(attempt.why_missed())).ok().flatten();
    report(reports, Report::Recorded(step.job.id, miss.map(Box::new)));
}

/// Brings the product of a step from another place; nothing that it reads is there.
pub(crate) fn fetch(shared: Shared<'_>, step: &Step, reports: &Sender<Report>) {
    let result = guarded(|| Attempt::new(shared, step, reports).fetch());
    report(
        reports,
        match result {
            Ok(None) => Report::Gone(step.job.id),
            Ok(Some(made)) => Report::Made(step.job.id, Box::new(Ok(made))),
            Err(error) => Report::Made(step.job.id, Box::new(Err(error))),
        },
    );
    report(reports, Report::Recorded(step.job.id, None));
}

/// A panic in a worker fails its vertex and nothing else.
fn guarded<T>(work: impl FnOnce() -> Result<T, JobError>) -> Result<T, JobError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(JobError::Failed(VertexFailure {
            message: format!("internal error: {}", text.unwrap_or("panic without a message")),
            help: Some("this is a bug in rbuild, please report it".to_owned()),
            exit_code: None,
        }))
    })
}

fn report(reports: &Sender<Report>, what: Report) {
    // The loop outlives its threads and receives until they are done; without it nobody wants the report.
    drop(reports.send(what));
}

/// A job for digesting one selection before its other inputs are known.
pub(crate) fn selection_job(id: VertexId, vertex: &Arc<crate::vertex::Vertex>, input: usize, context: &str) -> Job {
    let mut inputs = vec![Product::Snapshot(None); vertex.inputs.len()];
    inputs[input] = Product::Context(context.to_owned());
    Job { id, vertex: Arc::clone(vertex), inputs }
}
