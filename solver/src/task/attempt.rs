//! One step from its content key to its record: look once more, claim it, run it, keep the earlier of two equal
//! results, record it.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rbuild_cache::{Fate, KeyKind, Listing, ResultId, SnapshotId, StepPlace};
use rbuild_image::ContentDigest;

use super::{Definition, How, Made, Report, Shared, Step, report};
use crate::event::Event;
use crate::key::{self, Described, InputIdentity, InputRole, Key, PinnedSource, Text};
use crate::miss::{Miss, MissReason};
use crate::op::{Linking, Op, Source};
use crate::records::{About, Claim, Found, NewStep, Past, RecordFailure};
use crate::vertex::{CacheUse, Vertex};
use crate::worker::{Executed, JobError, Product, Used};

/// A step that a thread carries out.
pub(super) struct Attempt<'a> {
    shared: Shared<'a>,
    step: &'a Step,
    reports: &'a Sender<Report>,
    /// The content key, once known.
    content: Option<Key>,
    /// A result that still wants its content key.
    late: Option<ResultId>,
    /// What was found out about the miss before the step ran.
    miss: Option<Known>,
    /// What was made and has no record yet.
    unrecorded: Option<Unrecorded<'a>>,
    /// Digests of what is selected of snapshots, and what of them is told.
    read: BTreeMap<usize, (ContentDigest, Option<Listing>)>,
}

/// What is known of a miss before a step runs.
enum Known {
    /// The reason.
    Reason(MissReason),
    /// What became of the definition key.
    Fate(Box<Fate>),
}

/// A product that is to be made durable and to be recorded.
struct Unrecorded<'a> {
    product: Product,
    /// Without what it used.
    new: NewStep,
    used: Used<'a>,
    rerun: Key,
    identity: Option<ContentDigest>,
    /// Held to the end: whoever waits for it finds the record.
    _claim: Option<Claim>,
}

/// What the cache was asked before a step runs.
struct Before {
    rerun: Key,
    earlier: Option<Found>,
}

enum Claimed {
    Mine(Option<Claim>),
    Made(Found),
}

impl<'a> Attempt<'a> {
    pub(super) fn new(shared: Shared<'a>, step: &'a Step, reports: &'a Sender<Report>) -> Self {
        Self { shared, step, reports, content: None, late: None, miss: None, unrecorded: None, read: BTreeMap::new() }
    }

    /// Makes or finds the product.
    pub(super) fn make(&mut self) -> Result<Made, JobError> {
        if matches!(self.vertex().op, Op::Source(Source::Image(_))) {
            // The image store is the cache of images: the worker finds what is there.
            self.miss = Some(Known::Reason(MissReason::ImageStore));
            let (Executed { product, .. }, took) = self.execute()?;
            let how = How::Ran { took };
            return Ok(Made { product, how, content: None, identity: None });
        }
        let step_key = key::step_key(&self.vertex().op);
        let same_op = self.shared.lookup(&step_key);
        let ran_before = same_op.is_some() || self.shared.cache.elsewhere(&[step_key]).contains(&true);
        if let Some(made) = self.find_by_content(ran_before)? {
            return Ok(made);
        }
        let claim = match self.claim()? {
            Claimed::Mine(claim) => claim,
            Claimed::Made(found) => return Ok(self.found(&found, KeyKind::Definition)),
        };
        self.miss = self.ask();
        let before = self.before();
        let (Executed { product, used }, took) = self.execute()?;
        let product = self.keep_earlier(product, &before)?;
        let identity = match self.step.identify {
            true => Some(self.identity(snapshot_of(&product))?),
            false => None,
        };
        let (snapshot, name) = (snapshot_of(&product), self.vertex().name.clone());
        let new = NewStep { snapshot, name, duration: took, usage: None };
        let rerun = before.rerun;
        self.unrecorded = Some(Unrecorded { product: product.clone(), new, used, rerun, identity, _claim: claim });
        let how = How::Ran { took };
        Ok(Made { product, how, content: self.content.map(|key| key.digest), identity })
    }

    /// Makes durable what was made just now, then known; what is recorded of it.
    pub(super) fn keep(&mut self) -> Result<Option<ResultId>, JobError> {
        let Some(unrecorded) = self.unrecorded.take() else { return Ok(None) };
        let Unrecorded { product, new, used, rerun, identity, _claim } = unrecorded;
        let new = NewStep { usage: used.usage()?, ..new };
        self.shared.worker.settle(&product)?;
        let result = self.record(&new, &rerun, identity);
        self.shared.cache.made(self.step.job.id, new.snapshot);
        Ok(result)
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
        let (keys, about) = ([key, key::step_key(&vertex.op)], self.about(key));
        let result = self.shared.or_warn(self.shared.cache.record(&keys, Some(&about), &brought));
        self.shared.cache.made(self.step.job.id, brought.snapshot);
        let product = Product::Snapshot(brought.snapshot);
        Ok(Some(Made { product, how: How::Fetched { result }, content: None, identity: None }))
    }

    /// Makes the result of a step that ran known by the content it was made from.
    pub(super) fn record_content(&mut self) -> Result<(), JobError> {
        let Some(result) = self.late.take() else { return Ok(()) };
        let content = self.content_key()?;
        self.shared.or_warn(self.shared.cache.add_keys(result, &[content], None));
        Ok(())
    }

    /// Why the step ran, if it did; keeps what a later miss is to be compared with.
    pub(super) fn why_missed(&mut self) -> Option<MissReason> {
        let known = self.miss.take()?;
        let Some(past) = self.shared.cache.past().filter(|_| !self.shared.cancel.is_cancelled()) else {
            return match known {
                Known::Reason(reason) => Some(reason),
                Known::Fate(_) => None,
            };
        };
        self.shared.or_warn(self.remember(past));
        let fate = match known {
            Known::Reason(reason) => return Some(reason),
            Known::Fate(fate) => *fate,
        };
        let about = self.about(self.definition()?);
        let (siblings, ran, trusted) = (&*self.step.siblings, &self.step.ran, self.step.trusted);
        self.shared.or_warn(Miss { past, fate: &fate, about: &about, siblings, ran, trusted }.explain())
    }

    /// Keeps which files the step read.
    fn remember(&mut self, past: &dyn Past) -> Result<(), RecordFailure> {
        let (job, control) = (&self.step.job, self.shared.control());
        for (input, selection) in &self.step.selected {
            if past.has_listing(selection)? {
                continue;
            }
            // What changed since it was digested is another selection, whose files would explain nothing.
            if let Ok(Some((found, listing))) = self.shared.worker.selection_listing(job, *input, control)
                && found == *selection
            {
                past.keep_listing(selection, &listing)?;
            }
        }
        for (selection, listing) in self.read.values() {
            if let Some(listing) = listing.as_ref().filter(|listing| !listing.files.is_empty()) {
                past.keep_listing(selection, listing)?;
            }
        }
        match self.definition() {
            Some(definition) if !self.read.is_empty() => past.note_reads(&definition, &self.reads()),
            _ => Ok(()),
        }
    }

    fn vertex(&self) -> &'a Vertex {
        &self.step.job.vertex
    }

    fn may_look(&self) -> bool {
        self.vertex().cache_use != CacheUse::Ignored
    }

    fn definition(&self) -> Option<Key> {
        self.step.definition.as_ref().map(|definition| definition.key)
    }

    /// What a definition of this step is made of.
    fn about(&self, definition: Key) -> About {
        let (op, origin) = (&self.vertex().op, &self.vertex().origin);
        let text = match &self.step.definition {
            Some(Definition { text, .. }) => text.clone(),
            None => Text::of(op),
        };
        let (stage, op_name) = (origin.stage.clone(), key::op_name(op).to_owned());
        About {
            definition,
            step: key::step_key(op).digest,
            place: StepPlace { project: String::new(), stage, line: origin.line, op: op_name },
            name: self.vertex().name.clone(),
            text,
            reads: self.reads(),
        }
    }

    fn reads(&self) -> Vec<(usize, ContentDigest)> {
        self.read.iter().map(|(input, (selection, _))| (*input, *selection)).collect()
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
        match self.shared.lookup(&key).filter(|found| self.vertex().cache_use.accepts(found.made)) {
            Some(found) => self.reuse(&found),
            None => self.fetch_by_content(&key),
        }
    }

    /// Brings what another place has under the content key.
    fn fetch_by_content(&self, key: &Key) -> Result<Option<Made>, JobError> {
        let cache = self.shared.cache;
        // How old a result there is nobody knows.
        let asks = self.vertex().cache_use == CacheUse::Allowed;
        if !asks || !cache.elsewhere(std::slice::from_ref(key)).contains(&true) {
            return Ok(None);
        }
        let Some(brought) = cache.fetch(key, self.step.job.id, self.shared.control()) else { return Ok(None) };
        let brought = NewStep { name: self.vertex().name.clone(), ..brought };
        let recorded = cache.record(std::slice::from_ref(key), None, &brought);
        if self.shared.or_warn(recorded).is_none() {
            return Ok(None);
        }
        cache.made(self.step.job.id, brought.snapshot);
        match self.shared.lookup(key) {
            Some(found) => self.reuse(&found),
            None => Ok(None),
        }
    }

    /// Takes a result that was found by content. Where its layer depends on nothing below, that is put on this parent.
    fn reuse(&self, found: &Found) -> Result<Option<Made>, JobError> {
        let cache = self.shared.cache;
        if !is_independent(&self.vertex().op) {
            let keys: Vec<Key> = self.definition().into_iter().chain([key::step_key(&self.vertex().op)]).collect();
            let about = self.definition().map(|definition| self.about(definition));
            self.shared.or_warn(cache.add_keys(found.result, &keys, about.as_ref()));
            return Ok(Some(self.found(found, KeyKind::Content)));
        }
        let (Some(snapshot), Some(Product::Snapshot(parent))) = (&found.snapshot, self.step.job.inputs.first()) else {
            return Ok(None);
        };
        let rebased = self.shared.worker.rebase(snapshot, parent.as_ref(), self.shared.control())?;
        let Some(product) = rebased else { return Ok(None) };
        let Found { name, duration, usage, .. } = found.clone();
        let new = NewStep { snapshot: snapshot_of(&product), name, duration, usage };
        let keys: Vec<Key> = self.definition().into_iter().collect();
        let about = self.definition().map(|definition| self.about(definition));
        self.shared.or_warn(cache.record(&keys, about.as_ref(), &new));
        Ok(Some(Made { product, ..self.found(found, KeyKind::Content) }))
    }

    /// Waits for other processes that make the same; finds their result, or gets the right to make it. A store that
    /// cannot lock only makes two processes do the same work.
    fn claim(&self) -> Result<Claimed, JobError> {
        let Some(key) = self.definition().filter(|_| self.may_look() && self.step.trusted) else {
            return Ok(Claimed::Mine(None));
        };
        let (vertex, shared, reports) = (self.step.job.id, self.shared, self.reports);
        let waiting = |whom: &str| {
            let at = shared.control().at();
            shared.events.emit(Event::Waiting { vertex, reason: whom.to_owned(), at });
            report(reports, Report::Waits(vertex));
        };
        match self.shared.cache.claim(&key, self.shared.cancel, &waiting) {
            Ok(None) => Err(JobError::Cancelled),
            Ok(Some(claim)) => {
                match self.shared.lookup(&key).filter(|found| self.vertex().cache_use.accepts(found.made)) {
                    Some(found) => Ok(Claimed::Made(found)),
                    None => Ok(Claimed::Mine(Some(claim))),
                }
            }
            Err(error) => {
                self.shared.warn(&error);
                Ok(Claimed::Mine(None))
            }
        }
    }

    fn before(&self) -> Before {
        let vertex = self.vertex();
        let rerun = key::rerun_key(&vertex.op, self.step.job.inputs.first().and_then(snapshot_of));
        Before { rerun, earlier: self.shared.lookup(&rerun) }
    }

    /// What must be asked before the record of this run replaces the answer.
    fn ask(&self) -> Option<Known> {
        if !self.may_look() {
            return Some(Known::Reason(MissReason::Ignored));
        }
        if let CacheUse::Since(oldest) = self.vertex().cache_use
            && let Some(found) = self.definition().and_then(|key| self.shared.lookup(&key))
            && found.made < oldest
        {
            return Some(Known::Reason(MissReason::TooOld { made: found.made }));
        }
        let past = self.shared.cache.past()?;
        match self.definition() {
            Some(definition) => self.shared.or_warn(past.fate(&definition)).map(|fate| Known::Fate(Box::new(fate))),
            None => Some(Known::Reason(MissReason::NothingRecorded)),
        }
    }

    fn execute(&self) -> Result<(Executed<'a>, Duration), JobError> {
        let (job, control) = (&self.step.job, self.shared.control());
        if self.shared.cancel.is_cancelled() {
            return Err(JobError::Cancelled);
        }
        self.shared.events.emit(Event::Started { vertex: job.id, at: control.at() });
        let began = Instant::now();
        let executed = self.shared.worker.exec(job, control)?;
        Ok((executed, began.elapsed()))
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

    fn record(&mut self, new: &NewStep, rerun: &Key, identity: Option<ContentDigest>) -> Option<ResultId> {
        let vertex = self.vertex();
        let definition = match (self.definition(), identity, &vertex.op) {
            (None, Some(identity), Op::Source(source)) => {
                Some(PinnedSource { source, identity: identity.digest() }.definition_key())
            }
            (definition, ..) => definition,
        };
        let keys = definition.into_iter().chain([key::step_key(&vertex.op), *rerun]).chain(self.content);
        let keys: Vec<Key> = keys.collect();
        let about = definition.map(|definition| self.about(definition));
        let result = self.shared.or_warn(self.shared.cache.record(&keys, about.as_ref(), new));
        if self.content.is_none() && !matches!(vertex.op, Op::Source(_)) {
            self.late = result;
        }
        result
    }

    /// The key of what the job reads, by content.
    fn content_key(&mut self) -> Result<Key, JobError> {
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
                _ => {
                    let listed = match self.shared.cache.past() {
                        Some(_) => self.shared.worker.selection_listing(job, at, control)?,
                        None => None,
                    };
                    let (selection, listing) = match listed {
                        Some((selection, listing)) => (selection, Some(listing)),
                        None => (self.shared.worker.selection_digest(job, at, control)?, None),
                    };
                    self.read.insert(at, (selection, listing));
                    InputIdentity::Content(selection)
                }
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
