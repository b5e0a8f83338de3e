//! Vertices, a worker and a cache for tests, without privileges and without a disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rbuild_cache::{Among, CacheKey, Candidate, Fate, Listing, ResultId, SnapshotId, StepDescription, StepUsage};
use rbuild_image::{ContainerPath, ContentDigest, Digest, Platform};

use crate::cancel::CancelToken;
use crate::event::{Event, EventSink, VertexFailure};
use crate::key::Key;
use crate::op::{ContextSource, Op, RunNetwork, RunOp, RunSecurity, Source};
use crate::records::{About, Claim, Found, NewStep, Past, RecordFailure, StepCache};
use crate::vertex::{CacheUse, Origin, Vertex, VertexId};
use crate::worker::{Control, Executed, Job, JobError, Pinned, Product, Used, Worker};

pub(crate) fn run_op(command: &str) -> RunOp {
    RunOp {
        argv: vec!["/bin/sh".into(), "-c".into(), command.into()],
        env: vec!["PATH=/bin".into()],
        arguments: vec![],
        proxy_env: vec![],
        cwd: ContainerPath::root(),
        user: String::new(),
        mounts: vec![],
        network: RunNetwork::Default,
        security: RunSecurity::Sandbox,
        platform: Platform::new("linux", "amd64", None),
        hostname: "buildkitsandbox".into(),
        extra_hosts: vec![],
        shm_size: 64 << 20,
        ulimits: vec![],
    }
}

pub(crate) fn vertex(op: Op, inputs: &[Option<VertexId>], name: &str) -> Vertex {
    Vertex {
        op,
        inputs: inputs.to_vec(),
        origin: Origin { span: None, line: 1, stage: "0".into(), text: name.into() },
        name: name.into(),
        cache_use: CacheUse::Allowed,
    }
}

pub(crate) fn run(command: &str, inputs: &[Option<VertexId>]) -> Vertex {
    vertex(Op::Run(Box::new(run_op(command))), inputs, command)
}

pub(crate) fn source_context(name: &str) -> Vertex {
    vertex(Op::Source(Source::Context(ContextSource { name: name.into() })), &[], "[internal] load build context")
}

/// Runs nothing: a product's content is a digest of the command's first word and of the content of its inputs.
#[derive(Default)]
pub(crate) struct FakeWorker {
    pub(crate) state: Mutex<FakeState>,
    /// How long a command takes, by command; others take none.
    pub(crate) takes: HashMap<String, Duration>,
    /// Commands that fail.
    pub(crate) fails: Vec<String>,
    /// What contexts hold, by name.
    pub(crate) contexts: BTreeMap<String, String>,
    /// Commands whose content is different each time.
    pub(crate) unstable: Vec<String>,
    /// What commands use, by command.
    pub(crate) uses: HashMap<String, StepUsage>,
    /// How much memory there is.
    pub(crate) memory: Option<u64>,
}

#[derive(Default)]
pub(crate) struct FakeState {
    pub(crate) content: Vec<ContentDigest>,
    pub(crate) ran: Vec<String>,
    /// What ran, with the content of what it read: a second run of the same could have been a hit.
    pub(crate) executed: Vec<(String, Vec<String>)>,
    pub(crate) running: usize,
    pub(crate) most_running: usize,
    pub(crate) rebased: usize,
}

impl FakeWorker {
    pub(crate) fn ran(&self) -> Vec<String> {
        let mut ran = std::mem::take(&mut self.state.lock().unwrap().ran);
        ran.sort();
        ran
    }

    fn content_of(&self, product: &Product) -> String {
        match product {
            Product::Snapshot(None) => "empty".into(),
            Product::Snapshot(Some(id)) => self.state.lock().unwrap().content[id.row() as usize].to_string(),
            Product::Context(name) => self.contexts[name].clone(),
        }
    }
}

pub(crate) fn command(vertex: &Vertex) -> String {
    match &vertex.op {
        Op::Run(run) => run.argv.last().cloned().unwrap_or_default(),
        _ => vertex.name.clone(),
    }
}

impl Worker for FakeWorker {
    fn pin(&self, source: &Source, _: Control<'_>) -> Result<Pinned, JobError> {
        let Source::Http(http) = source else { unreachable!("only URLs and repositories are pinned") };
        Ok(Pinned { source: source.clone(), identity: http.checksum })
    }

    fn selection_digest(&self, job: &Job, input: usize, _: Control<'_>) -> Result<ContentDigest, JobError> {
        Ok(ContentDigest::new(Digest::sha256(self.content_of(&job.inputs[input]))))
    }

    fn rootfs_identity(&self, snapshot: Option<&SnapshotId>, _: Control<'_>) -> Result<ContentDigest, JobError> {
        Ok(ContentDigest::new(Digest::sha256(self.content_of(&Product::Snapshot(snapshot.copied())))))
    }

    fn rebase(
        &self,
        made: &SnapshotId,
        parent: Option<&SnapshotId>,
        _: Control<'_>,
    ) -> Result<Option<Product>, JobError> {
        let mut state = self.state.lock().unwrap();
        state.rebased += 1;
        let content = format!("{} on {parent:?}", state.content[made.row() as usize]);
        state.content.push(ContentDigest::new(Digest::sha256(content)));
        Ok(Some(Product::Snapshot(Some(SnapshotId::from_row(state.content.len() as i64 - 1)))))
    }

    fn available_memory(&self) -> Option<u64> {
        self.memory
    }

    fn exec<'a>(&'a self, job: &Job, control: Control<'a>) -> Result<Executed<'a>, JobError> {
        let command = command(&job.vertex);
        let inputs: Vec<String> = job.inputs.iter().map(|input| self.content_of(input)).collect();
        {
            let mut state = self.state.lock().unwrap();
            state.ran.push(command.clone());
            state.executed.push((command.clone(), inputs.clone()));
            state.running += 1;
            state.most_running = state.most_running.max(state.running);
        }
        let end = Instant::now() + self.takes.get(&command).copied().unwrap_or_default();
        while Instant::now() < end && !control.cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut state = self.state.lock().unwrap();
        state.running -= 1;
        if self.fails.contains(&command) {
            let message = format!("{command} did not complete successfully");
            return Err(JobError::Failed(VertexFailure { message, help: None, exit_code: Some(1) }));
        }
        if Instant::now() < end {
            return Err(JobError::Cancelled);
        }
        let salt = if self.unstable.contains(&command) { state.content.len() } else { 0 };
        let word = match &job.vertex.op {
            Op::Run(_) => command.split(' ').next().unwrap_or_default(),
            _ => command.as_str(),
        };
        state.content.push(ContentDigest::new(Digest::sha256(format!("{word} {inputs:?} {salt}"))));
        let product = Product::Snapshot(Some(SnapshotId::from_row(state.content.len() as i64 - 1)));
        let used = match self.uses.get(&command) {
            Some(usage) => Used::AtEnd(Box::new(|| Ok(*usage))),
            None => Used::Unknown,
        };
        Ok(Executed { product, used })
    }
}

/// Records in memory.
#[derive(Default)]
pub(crate) struct MemoryCache {
    pub(crate) records: Mutex<Records>,
    pub(crate) claims: Mutex<HashMap<Key, Arc<()>>>,
}

#[derive(Default)]
pub(crate) struct Records {
    pub(crate) results: Vec<(NewStep, Timestamp)>,
    /// The time.
    pub(crate) now: Timestamp,
    pub(crate) keys: HashMap<Key, ResultId>,
    pub(crate) descriptions: Vec<StepDescription>,
}

impl MemoryCache {
    pub(crate) fn forget(&self, name: &str) {
        let mut records = self.records.lock().unwrap();
        let Records { results, keys, .. } = &mut *records;
        keys.retain(|_, result| results[result.row() as usize].0.name != name);
    }
}

impl StepCache for MemoryCache {
    fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, RecordFailure> {
        let records = self.records.lock().unwrap();
        let found = keys.iter().map(|key| {
            records.keys.get(key).map(|result| {
                let (step, made) = records.results[result.row() as usize].clone();
                let NewStep { snapshot, name, duration, usage } = step;
                Found { result: *result, snapshot, name, duration, made, usage }
            })
        });
        Ok(found.collect())
    }

    fn record(&self, keys: &[Key], about: Option<&About>, step: &NewStep) -> Result<ResultId, RecordFailure> {
        let mut records = self.records.lock().unwrap();
        let result = ResultId::from_row(records.results.len() as i64);
        let now = records.now;
        records.results.push((step.clone(), now));
        records.keys.extend(keys.iter().map(|key| (*key, result)));
        records.descriptions.extend(about.map(described));
        Ok(result)
    }

    fn add_keys(&self, result: ResultId, keys: &[Key], about: Option<&About>) -> Result<(), RecordFailure> {
        let mut records = self.records.lock().unwrap();
        records.keys.extend(keys.iter().map(|key| (*key, result)));
        records.descriptions.extend(about.map(described));
        Ok(())
    }

    fn past(&self) -> Option<&dyn Past> {
        Some(self)
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
        let mut waited = false;
        loop {
            {
                let mut claims = self.claims.lock().unwrap();
                let held = claims.get(key).is_some_and(|held| Arc::strong_count(held) > 1);
                if !held {
                    let mine = Arc::new(());
                    claims.insert(*key, mine.clone());
                    return Ok(Some(Claim { guard: Box::new(mine) }));
                }
            }
            if cancel.is_cancelled() {
                return Ok(None);
            }
            if !waited {
                waiting("another build");
            }
            waited = true;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn described(about: &About) -> StepDescription {
    StepDescription {
        definition: CacheKey::new(about.definition.digest),
        step: CacheKey::new(about.step),
        place: about.place.clone(),
        subject: about.name.clone(),
        build: None,
        recorded_at: Timestamp::UNIX_EPOCH,
        text: about.text.clone(),
        reads: about.reads.clone(),
    }
}

/// Remembers descriptions, no files. All are older than whatever is built next.
impl Past for MemoryCache {
    fn fate(&self, definition: &Key) -> Result<Fate, RecordFailure> {
        Ok(Fate { description: self.find(&definition.digest)?, evicted: None })
    }

    fn find(&self, definition: &Digest) -> Result<Option<StepDescription>, RecordFailure> {
        let records = self.records.lock().unwrap();
        let is_it = |known: &&StepDescription| known.definition.digest() == definition;
        Ok(records.descriptions.iter().rev().find(is_it).cloned())
    }

    fn candidates(&self, among: Among<'_>, limit: usize) -> Result<Vec<Candidate>, RecordFailure> {
        let records = self.records.lock().unwrap();
        let is_one = |known: &&StepDescription| match among {
            Among::Stage(place) => known.place.op == place.op && known.place.stage == place.stage,
            Among::Project(place) => known.place.op == place.op,
            Among::Step(step, place) => known.place.op == place.op && known.step == *step,
        };
        let candidate = |known: &StepDescription| Candidate {
            definition: known.definition,
            step: known.step,
            stage: known.place.stage.clone(),
            line: known.place.line,
        };
        Ok(records.descriptions.iter().rev().filter(is_one).take(limit).map(candidate).collect())
    }

    fn note_reads(&self, _: &Key, _: &[(usize, ContentDigest)]) -> Result<(), RecordFailure> {
        Ok(())
    }

    fn listing(&self, _: &ContentDigest) -> Result<Option<Listing>, RecordFailure> {
        Ok(None)
    }

    fn has_listing(&self, _: &ContentDigest) -> Result<bool, RecordFailure> {
        Ok(false)
    }

    fn keep_listing(&self, _: &ContentDigest, _: &Listing) -> Result<(), RecordFailure> {
        Ok(())
    }
}

/// Keeps events.
#[derive(Default)]
pub(crate) struct Events(pub(crate) Mutex<Vec<Event>>);

impl EventSink for Events {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}
