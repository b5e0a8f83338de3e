//! One step from its content key to its record: look once more, claim it, run it, keep the earlier of two equal
//! results, record it.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rbuild_cache::{KeyKind, ResultId, SnapshotId};
use rbuild_image::ContentDigest;

use super::{Definition, How, Made, Report, Shared, Step, report};
use crate::event::Event;
use crate::key::{self, Described, InputIdentity, InputRole, Key};
use crate::miss::MissReason;
use crate::op::{Linking, Op, Source};
use crate::records::{Claim, Found, NewStep};
use crate::vertex::{CacheUse, Vertex};
use crate::worker::{JobError, Product};

/// A step that a thread carries out.
pub(super) struct Attempt<'a> {
    shared: Shared<'a>,
    step: &'a Step,
    reports: &'a Sender<Report>,
    /// The content key, once known.
    content: Option<Key>,
    /// A result that still wants its content key.
    late: Option<ResultId>,
}

/// What the cache was asked before a step runs.
struct Before {
    miss: MissReason,
    rerun: Key,
    earlier: Option<Found>,
}

enum Claimed {
    Mine(Option<Claim>),
    Made(Found),
}

impl<'a> Attempt<'a> {
    pub(super) fn new(shared: Shared<'a>, step: &'a Step, reports: &'a Sender<Report>) -> Self {
        Self { shared, step, reports, content: None, late: None }
    }

    /// Makes or finds the product.
    pub(super) fn make(&mut self) -> Result<Made, JobError> {
        if matches!(self.vertex().op, Op::Source(Source::Image(_))) {
            // The image store is the cache of images: the worker finds what is there.
            let (product, took) = self.execute()?;
            let how = How::Ran { miss: MissReason::NothingRecorded, took, result: None };
            return Ok(Made { product, how, content: None, identity: None });
        }
        let step_key = key::step_key(&self.vertex().op);
        let same_op = self.shared.lookup(&step_key);
        let ran_before = same_op.is_some() || self.shared.cache.elsewhere(&[step_key]).contains(&true);
        if let Some(made) = self.find_by_content(ran_before)? {
            return Ok(made);
        }
        // Held to the end: whoever waits for it finds the record.
        let _claim = match self.claim()? {
            Claimed::Mine(claim) => claim,
            Claimed::Made(found) => return Ok(self.found(&found, KeyKind::Definition)),
        };
        let before = self.before(same_op);
        let (product, took) = self.execute()?;
        let product = self.keep_earlier(product, &before)?;
        let identity = match self.step.identify {
            true => Some(self.identity(snapshot_of(&product))?),
            false => None,
        };
        let result = self.record(&product, took, &before.rerun, identity);
        self.shared.cache.made(self.step.job.id, snapshot_of(&product));
        let how = How::Ran { miss: before.miss, took, result };
        Ok(Made { product, how, content: self.content.map(|key| key.digest), identity })
    }

    /// Brings what another place has under the definition key; from then on it is a record of this store.
    pub(super) fn fetch(&mut self) -> Result<Option<Made>, JobError> {
        let Some(key) = self.definition() else { return Ok(None) };
        let _claim = match self.claim()? {
            Claimed::Mine(claim) => claim,
            Claimed::Made(found) => return Ok(Some(self.found(&found, KeyKind::Definition))),
        };
        let vertex = self.vertex();
        let Some(brought) = self.shared.cache.fetch(&key, self.step.job.id, self.shared.control()) else {
            return if self.shared.cancel.is_cancelled() { Err(JobError::Cancelled) } else { Ok(None) };
        };
        // People know the step as this Dockerfile calls it.
        let brought = NewStep { name: vertex.name.clone(), ..brought };
        let place = key::place_key(&vertex.op, &vertex.origin);
        let keys = [key, key::step_key(&vertex.op), place];
        let result = self.shared.or_warn(self.shared.cache.record(&keys, self.description(), &brought));
        self.shared.cache.made(self.step.job.id, brought.snapshot);
        let product = Product::Snapshot(brought.snapshot);
        Ok(Some(Made { product, how: How::Fetched { result }, content: None, identity: None }))
    }

    /// Makes the result of a step that ran known by the content it was made from.
    pub(super) fn record_content(&mut self) -> Result<(), JobError> {
        let Some(result) = self.late.take() else { return Ok(()) };
        let content = self.content_key()?;
        self.shared.or_warn(self.shared.cache.add_keys(result, &[content], self.description()));
        Ok(())
    }

    fn vertex(&self) -> &'a Vertex {
        &self.step.job.vertex
    }

    fn may_look(&self) -> bool {
        self.vertex().cache_use == CacheUse::Allowed
    }

    fn definition(&self) -> Option<Key> {
        self.step.definition.as_ref().map(|definition| definition.key)
    }

    fn description(&self) -> &'a str {
        self.step.definition.as_ref().map_or("", |definition: &Definition| &definition.text)
    }

    fn found(&self, found: &Found, by: KeyKind) -> Made {
        let content = self.content.map(|key| key.digest);
        let how = How::Found { result: found.result, by };
        Made { product: Product::Snapshot(found.snapshot), how, content, identity: None }
    }

    /// Looks by content. What never ran in any form cannot be found, and is spared the digesting.
    fn find_by_content(&mut self, ran_before: bool) -> Result<Option<Made>, JobError> {
        if !self.may_look() || !ran_before || matches!(self.vertex().op, Op::Source(_)) {
            return Ok(None);
        }
        let key = self.content_key()?;
        self.content = Some(key);
        match self.shared.lookup(&key) {
            Some(found) => self.reuse(&found),
            None => self.fetch_by_content(&key),
        }
    }

    /// Brings what another place has under the content key.
    fn fetch_by_content(&self, key: &Key) -> Result<Option<Made>, JobError> {
        let cache = self.shared.cache;
        if !cache.elsewhere(std::slice::from_ref(key)).contains(&true) {
            return Ok(None);
        }
        let Some(brought) = cache.fetch(key, self.step.job.id, self.shared.control()) else { return Ok(None) };
        let brought = NewStep { name: self.vertex().name.clone(), ..brought };
        let recorded = cache.record(std::slice::from_ref(key), self.description(), &brought);
        let Some(result) = self.shared.or_warn(recorded) else { return Ok(None) };
        cache.made(self.step.job.id, brought.snapshot);
        let NewStep { snapshot, name, duration } = brought;
        self.reuse(&Found { result, snapshot, name, duration })
    }

    /// Takes a result that was found by content. Where its layer depends on nothing below, that is put on this parent.
    fn reuse(&self, found: &Found) -> Result<Option<Made>, JobError> {
        let cache = self.shared.cache;
        if !is_independent(&self.vertex().op) {
            let keys: Vec<Key> = self.definition().into_iter().chain([key::step_key(&self.vertex().op)]).collect();
            self.shared.or_warn(cache.add_keys(found.result, &keys, self.description()));
            return Ok(Some(self.found(found, KeyKind::Content)));
        }
        let (Some(snapshot), Some(Product::Snapshot(parent))) = (&found.snapshot, self.step.job.inputs.first()) else {
            return Ok(None);
        };
        let rebased = self.shared.worker.rebase(snapshot, parent.as_ref(), self.shared.control())?;
        let Some(product) = rebased else { return Ok(None) };
        let new = NewStep { snapshot: snapshot_of(&product), name: found.name.clone(), duration: found.duration };
        let keys: Vec<Key> = self.definition().into_iter().collect();
        self.shared.or_warn(cache.record(&keys, self.description(), &new));
        Ok(Some(Made { product, ..self.found(found, KeyKind::Content) }))
    }

    /// Waits for other processes that make the same; finds their result, or gets the right to make it. A store that
    /// cannot lock only makes two processes do the same work.
    fn claim(&self) -> Result<Claimed, JobError> {
        let Some(key) = self.definition().filter(|_| self.may_look() && self.step.trusted) else {
            return Ok(Claimed::Mine(None));
        };
        let (vertex, events) = (self.step.job.id, self.shared.events);
        let at = || self.shared.control().at();
        let waiting = |whom: &str| {
            events.emit(Event::Waiting { vertex, reason: whom.to_owned(), at: at() });
            report(self.reports, Report::Waits(vertex));
        };
        match self.shared.cache.claim(&key, self.shared.cancel, &waiting) {
            Ok(None) => Err(JobError::Cancelled),
            Ok(Some(claim)) => match self.shared.lookup(&key) {
                Some(found) => Ok(Claimed::Made(found)),
                None => Ok(Claimed::Mine(Some(claim))),
            },
            Err(error) => {
                self.shared.warn(&error);
                Ok(Claimed::Mine(None))
            }
        }
    }

    fn before(&self, same_op: Option<Found>) -> Before {
        let vertex = self.vertex();
        let miss = match self.may_look() {
            false => MissReason::Ignored,
            true => self.why_missed(same_op),
        };
        let rerun = key::rerun_key(&vertex.op, self.step.job.inputs.first().and_then(snapshot_of));
        Before { miss, rerun, earlier: self.shared.lookup(&rerun) }
    }

    /// Compares with what was recorded at the same place, or else for the same op.
    fn why_missed(&self, same_op: Option<Found>) -> MissReason {
        let (op, origin) = (&self.vertex().op, &self.vertex().origin);
        let place = key::place_key(op, origin);
        let nearest = self.shared.lookup(&place).map(|found| (found, place));
        let nearest = nearest.or(same_op.map(|found| (found, key::step_key(op))));
        let nearest = nearest.and_then(|(found, key)| {
            let description = self.shared.or_warn(self.shared.cache.description(&key)).flatten()?;
            Some((found.name, description))
        });
        let nearest = nearest.as_ref().map(|(name, description)| (name.as_str(), description.as_str()));
        MissReason::from_nearest(nearest, self.description())
    }

    fn execute(&self) -> Result<(Product, Duration), JobError> {
        let (job, control) = (&self.step.job, self.shared.control());
        if self.shared.cancel.is_cancelled() {
            return Err(JobError::Cancelled);
        }
        self.shared.events.emit(Event::Started { vertex: job.id, at: control.at() });
        let began = Instant::now();
        let product = self.shared.worker.exec(job, control)?;
        Ok((product, began.elapsed()))
    }

    /// Early cut-off: a step that ran again and gave the same keeps what it gave before.
    fn keep_earlier(&self, product: Product, before: &Before) -> Result<Product, JobError> {
        let (Some(earlier), Product::Snapshot(made)) = (&before.earlier, &product) else { return Ok(product) };
        match self.identity(*made).and_then(|made| Ok(made == self.identity(earlier.snapshot)?)) {
            Ok(true) => Ok(Product::Snapshot(earlier.snapshot)),
            // A step that is done stays done when the build is stopped meanwhile.
            Ok(false) | Err(JobError::Cancelled) => Ok(product),
            Err(error) => Err(error),
        }
    }

    fn identity(&self, snapshot: Option<SnapshotId>) -> Result<ContentDigest, JobError> {
        self.shared.worker.rootfs_identity(snapshot.as_ref(), self.shared.control())
    }

    fn record(
        &mut self,
        product: &Product,
        took: Duration,
        rerun: &Key,
        identity: Option<ContentDigest>,
    ) -> Option<ResultId> {
        let vertex = self.vertex();
        let definition = match (self.definition(), identity, &vertex.op) {
            (None, Some(identity), Op::Source(source)) => Some(key::source_key(source, identity.digest())),
            (definition, ..) => definition,
        };
        let place = key::place_key(&vertex.op, &vertex.origin);
        let keys = definition.into_iter().chain([key::step_key(&vertex.op), place, *rerun]).chain(self.content);
        let keys: Vec<Key> = keys.collect();
        let new = NewStep { snapshot: snapshot_of(product), name: vertex.name.clone(), duration: took };
        let result = self.shared.or_warn(self.shared.cache.record(&keys, self.description(), &new));
        if self.content.is_none() && !matches!(vertex.op, Op::Source(_)) {
            self.late = result;
        }
        result
    }

    /// The key of what the job reads, by content.
    fn content_key(&self) -> Result<Key, JobError> {
        let (job, control) = (&self.step.job, self.shared.control());
        let op = &job.vertex.op;
        let mut inputs = Vec::with_capacity(job.inputs.len());
        for (at, product) in job.inputs.iter().enumerate() {
            let role = key::input_role(op, at);
            inputs.push(match (product, self.step.selected.get(&at)) {
                (Product::Snapshot(None), _) => InputIdentity::Empty,
                (_, _) if at == 0 && is_independent(op) => InputIdentity::Empty,
                (_, Some(selected)) => InputIdentity::Content(*selected),
                (Product::Snapshot(snapshot), None) if role == InputRole::Rootfs => {
                    InputIdentity::Content(self.identity(*snapshot)?)
                }
                _ => InputIdentity::Content(self.shared.worker.selection_digest(job, at, control)?),
            });
        }
        Ok(Described { op, inputs: &inputs }.content_key())
    }
}

fn snapshot_of(product: &Product) -> Option<SnapshotId> {
    match product {
        Product::Snapshot(snapshot) => *snapshot,
        Product::Context(_) => None,
    }
}

fn is_independent(op: &Op) -> bool {
    matches!(op, Op::File(file) if file.linking == Linking::Independent)
}
