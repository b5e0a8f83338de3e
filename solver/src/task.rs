//! What one thread does for one vertex: pin a source, digest a selection, or carry a step from its content key to its
//! record. Threads decide nothing: they report to the loop.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rbuild_cache::{KeyKind, ResultId};
use rbuild_image::{ContentDigest, Digest};

use crate::cancel::CancelToken;
use crate::event::{Event, EventSink, VertexFailure};
use crate::key::{self, Described, InputIdentity, InputRole, Key};
use crate::miss::MissReason;
use crate::op::{Linking, Op, Source};
use crate::records::{Claim, Found, NewStep, RecordFailure, StepCache};
use crate::vertex::{CacheUse, VertexId};
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
    Made(VertexId, Box<Result<Made, JobError>>),
    /// Nothing more comes from this vertex's thread.
    Recorded,
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
    Ran { miss: MissReason, took: Duration },
    Found(ResultId),
}

impl Made {
    fn found(found: &Found, content: Option<Digest>) -> Self {
        let product = Product::Snapshot(found.snapshot);
        Self { product, how: How::Found(found.result), content, identity: None }
    }
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
    let mut late = None;
    let result = guarded(|| make(shared, step, &mut late));
    report(reports, Report::Made(step.job.id, Box::new(result)));
    // The claim ended with `make`, the slot with the report: readers go on while the content key is worked out.
    if let Some(result) = late
        && let Ok(content) = guarded(|| content_key(shared, step))
    {
        shared.or_warn(shared.cache.add_keys(result, &[content], &text_of(step.definition.as_ref())));
    }
    report(reports, Report::Recorded);
}

/// Makes or finds the product. A result that still wants its content key is left in `late`.
fn make(shared: Shared<'_>, step: &Step, late: &mut Option<ResultId>) -> Result<Made, JobError> {
    let vertex = &step.job.vertex;
    let control = shared.control();
    if matches!(vertex.op, Op::Source(Source::Image(_))) {
        // The image store is the cache of images: the worker finds what is there.
        let (product, took) = execute(shared, &step.job)?;
        let how = How::Ran { miss: MissReason::NothingRecorded, took };
        return Ok(Made { product, how, content: None, identity: None });
    }
    let step_key = key::step_key(&vertex.op);
    let place_key = key::place_key(&vertex.op, &vertex.origin);
    let allowed = vertex.cache_use == CacheUse::Allowed;
    let same_op = shared.lookup(&step_key);
    let definition = step.definition.as_ref();

    let mut content = None;
    if allowed && same_op.is_some() && !matches!(vertex.op, Op::Source(_)) {
        let key = content_key(shared, step)?;
        content = Some(key.digest);
        if let Some(found) = shared.lookup(&key)
            && let Some(made) = reuse(shared, step, &found, content)?
        {
            return Ok(made);
        }
    }
    // Held to the end: whoever waits for it finds the record.
    let _claim = match definition.filter(|_| allowed && step.trusted) {
        Some(definition) => match claim(shared, step.job.id, &definition.key)? {
            Claimed::Mine(claim) => claim,
            Claimed::Made(found) => return Ok(Made::found(&found, content)),
        },
        None => None,
    };
    let miss = match allowed {
        false => MissReason::Ignored,
        true => {
            let nearest = shared.lookup(&place_key).map(|found| (found, place_key));
            let nearest = nearest.or(same_op.map(|found| (found, step_key)));
            let nearest = nearest
                .and_then(|(found, key)| Some((found.name, shared.or_warn(shared.cache.description(&key)).flatten()?)));
            let nearest = nearest.as_ref().map(|(name, description)| (name.as_str(), description.as_str()));
            MissReason::from_nearest(nearest, &text_of(definition))
        }
    };
    let parent = match step.job.inputs.first() {
        Some(Product::Snapshot(parent)) => *parent,
        _ => None,
    };
    let rerun_key = key::rerun_key(&vertex.op, parent);
    let earlier = shared.lookup(&rerun_key);

    let (mut product, took) = execute(shared, &step.job)?;
    if let (Some(earlier), Product::Snapshot(made)) = (&earlier, &product) {
        let identity = |snapshot: &Option<_>| shared.worker.rootfs_identity(snapshot.as_ref(), control);
        match identity(made).and_then(|made| Ok(made == identity(&earlier.snapshot)?)) {
            Ok(true) => product = Product::Snapshot(earlier.snapshot),
            // A step that is done stays done when the build is stopped meanwhile.
            Ok(false) | Err(JobError::Cancelled) => {}
            Err(error) => return Err(error),
        }
    }
    let snapshot = match &product {
        Product::Snapshot(snapshot) => *snapshot,
        Product::Context(_) => None,
    };
    let mut definition = definition.cloned();
    let identity = match step.identify {
        true => Some(shared.worker.rootfs_identity(snapshot.as_ref(), control)?),
        false => None,
    };
    if let (None, Some(identity), Op::Source(source)) = (&definition, identity, &vertex.op) {
        definition = Some(Definition { key: key::source_key(source, identity.digest()), text: String::new() });
    }
    let text = text_of(definition.as_ref());
    let new = NewStep { snapshot, name: vertex.name.clone(), duration: took };
    let keys = definition.map(|definition| definition.key).into_iter().chain([step_key, place_key, rerun_key]);
    let keys: Vec<Key> = keys.chain(content.map(|digest| Key { kind: KeyKind::Content, digest })).collect();
    let result = shared.or_warn(shared.cache.record(&keys, &text, &new));
    if content.is_none() && !matches!(vertex.op, Op::Source(_)) {
        *late = result;
    }
    Ok(Made { product, how: How::Ran { miss, took }, content, identity })
}

enum Claimed {
    Mine(Option<Claim>),
    Made(Found),
}

/// Waits for other processes that make the same; finds their result, or gets the right to make it. A store that
/// cannot lock only makes two processes do the same work.
fn claim(shared: Shared<'_>, vertex: VertexId, key: &Key) -> Result<Claimed, JobError> {
    let at = || shared.control().at();
    let waiting = |whom: &str| shared.events.emit(Event::Waiting { vertex, reason: whom.to_owned(), at: at() });
    match shared.cache.claim(key, shared.cancel, &waiting) {
        Ok(None) => Err(JobError::Cancelled),
        Ok(Some(claim)) => match shared.lookup(key) {
            Some(found) => Ok(Claimed::Made(found)),
            None => Ok(Claimed::Mine(Some(claim))),
        },
        Err(error) => {
            shared.warn(&error);
            Ok(Claimed::Mine(None))
        }
    }
}

fn execute(shared: Shared<'_>, job: &Job) -> Result<(Product, Duration), JobError> {
    let control = shared.control();
    if shared.cancel.is_cancelled() {
        return Err(JobError::Cancelled);
    }
    shared.events.emit(Event::Started { vertex: job.id, at: control.at() });
    let began = Instant::now();
    let product = shared.worker.exec(job, control)?;
    Ok((product, began.elapsed()))
}

/// Takes a result that was found by content. Where its layer depends on nothing below, that is put on this parent.
fn reuse(shared: Shared<'_>, step: &Step, found: &Found, content: Option<Digest>) -> Result<Option<Made>, JobError> {
    let definition = step.definition.as_ref();
    let definition_key = definition.map(|definition| definition.key);
    let mut made = Made::found(found, content);
    if !is_independent(&step.job.vertex.op) {
        let keys: Vec<Key> = definition_key.into_iter().chain([key::step_key(&step.job.vertex.op)]).collect();
        shared.or_warn(shared.cache.add_keys(found.result, &keys, &text_of(definition)));
        return Ok(Some(made));
    }
    let (Some(snapshot), Some(Product::Snapshot(parent))) = (&found.snapshot, step.job.inputs.first()) else {
        return Ok(None);
    };
    let Some(product) = shared.worker.rebase(snapshot, parent.as_ref(), shared.control())? else { return Ok(None) };
    if let Product::Snapshot(snapshot) = product {
        let new = NewStep { snapshot, name: found.name.clone(), duration: found.duration };
        let keys: Vec<Key> = definition_key.into_iter().collect();
        shared.or_warn(shared.cache.record(&keys, &text_of(definition), &new));
    }
    made.product = product;
    Ok(Some(made))
}

fn is_independent(op: &Op) -> bool {
    matches!(op, Op::File(file) if file.linking == Linking::Independent)
}

/// The key of what the job reads, by content.
fn content_key(shared: Shared<'_>, step: &Step) -> Result<Key, JobError> {
    let job = &step.job;
    let mut inputs = Vec::with_capacity(job.inputs.len());
    for (at, product) in job.inputs.iter().enumerate() {
        let role = key::input_role(&job.vertex.op, at);
        inputs.push(match (product, step.selected.get(&at)) {
            (Product::Snapshot(None), _) => InputIdentity::Empty,
            (_, _) if at == 0 && is_independent(&job.vertex.op) => InputIdentity::Empty,
            (_, Some(selected)) => InputIdentity::Content(*selected),
            (Product::Snapshot(snapshot), None) if role == InputRole::Rootfs => {
                InputIdentity::Content(shared.worker.rootfs_identity(snapshot.as_ref(), shared.control())?)
            }
            _ => InputIdentity::Content(shared.worker.selection_digest(job, at, shared.control())?),
        });
    }
    Ok(Described { op: &job.vertex.op, inputs: &inputs }.content_key())
}

fn text_of(definition: Option<&Definition>) -> String {
    definition.map(|definition| definition.text.clone()).unwrap_or_default()
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
