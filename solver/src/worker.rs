//! Where the plan meets the machine: what the solver asks of it. A fake of twenty lines serves the tests.

use std::sync::Arc;
use std::time::Instant;

use rbuild_cache::{Listing, SnapshotId, StepUsage};
use rbuild_image::{ContentDigest, Digest};

use crate::cancel::CancelToken;
use crate::event::{EventSink, VertexFailure};
use crate::op::Source;
use crate::vertex::{Vertex, VertexId};

/// What a finished vertex gives to those that read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Product {
    /// A committed snapshot; `None` is the empty tree.
    Snapshot(Option<SnapshotId>),
    /// A context directory, read in place, by its name.
    Context(String),
}

/// What a job gave, and what it used for that.
pub struct Executed<'a> {
    /// What it gave. Other jobs can use it.
    pub product: Product,
    /// What it used of the machine.
    pub used: Used<'a>,
}

/// What a job used of the machine.
pub enum Used<'a> {
    /// Nobody measured it.
    Unknown,
    /// This.
    Known(StepUsage),
    /// What is known when the last of the job has gone, which this waits for. Nobody who needs the product does.
    AtEnd(Box<dyn FnOnce() -> Result<StepUsage, JobError> + 'a>),
}

impl From<Product> for Executed<'_> {
    fn from(product: Product) -> Self {
        Self { product, used: Used::Unknown }
    }
}

impl Used<'_> {
    /// Waits until it is known.
    pub(crate) fn usage(self) -> Result<Option<StepUsage>, JobError> {
        match self {
            Self::Unknown => Ok(None),
            Self::Known(usage) => Ok(Some(usage)),
            Self::AtEnd(end) => end().map(Some),
        }
    }
}

impl std::fmt::Debug for Used<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("Unknown"),
            Self::Known(usage) => f.debug_tuple("Known").field(usage).finish(),
            Self::AtEnd(_) => f.write_str("AtEnd"),
        }
    }
}

/// A source with its content fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The source, names replaced by digests (a git commit, …).
    pub source: Source,
    /// What identifies the content, where that is known before fetching: an image's digest, a commit, a checksum,
    /// an ETag. `None` for a context: each reader digests what it selects.
    pub identity: Option<Digest>,
}

/// A vertex that is to be done, with what it reads.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which vertex.
    pub id: VertexId,
    /// What it does.
    pub vertex: Arc<Vertex>,
    /// What it reads, in the order of [`Vertex::inputs`].
    pub inputs: Vec<Product>,
}

/// What the solver hands to a running job.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Takes progress and logs.
    pub events: &'a dyn EventSink,
    /// Asks the job to stop.
    pub cancel: &'a CancelToken,
    /// When the build began; event times count from here.
    pub began: Instant,
}

impl Control<'_> {
    /// The time for an event that happens now.
    pub fn at(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A job that did not finish.
#[derive(Debug)]
pub enum JobError {
    /// It failed; the message is for people.
    Failed(VertexFailure),
    /// It was stopped by the token.
    Cancelled,
}

/// The machine, as the solver sees it. Calls come from several threads at once.
pub trait Worker: Sync {
    /// Fixes a source to content without fetching more than needed for that.
    fn pin(&self, source: &Source, control: Control<'_>) -> Result<Pinned, JobError>;

    /// Digests exactly what `job` reads through input number `input`: paths as they will be, types, modes, owners,
    /// content, links and xattrs of the selected files, no times. Called for contexts before anything runs (the
    /// other inputs are then given as the empty tree), and for snapshots when the definition key missed.
    fn selection_digest(&self, job: &Job, input: usize, control: Control<'_>) -> Result<ContentDigest, JobError>;

    /// The same digest, with the files that it stands for; `None` where they cannot be told. Asked only for steps that
    /// run, so that people can be told later which file made them run again.
    fn selection_listing(
        &self,
        job: &Job,
        input: usize,
        control: Control<'_>,
    ) -> Result<Option<(ContentDigest, Listing)>, JobError> {
        let _ = (job, input, control);
        Ok(None)
    }

    /// Identity of a snapshot's whole root file system: the chain of its layers' content digests.
    fn rootfs_identity(&self, snapshot: Option<&SnapshotId>, control: Control<'_>) -> Result<ContentDigest, JobError>;

    /// Puts the topmost layer of `made`, which depends on nothing below it (`COPY --link`), on `parent`. `None` when
    /// that cannot be done, so that the step runs again.
    fn rebase(
        &self,
        made: &SnapshotId,
        parent: Option<&SnapshotId>,
        control: Control<'_>,
    ) -> Result<Option<Product>, JobError> {
        let _ = (made, parent, control);
        Ok(None)
    }

    /// Does the job. Other jobs of this build can use the product when this returns; durable it is after [`Self::settle`].
    fn exec<'a>(&'a self, job: &Job, control: Control<'a>) -> Result<Executed<'a>, JobError>;

    /// Makes a product durable, and visible to other processes. Asked for before anything names it. It may wait for more to do the
    /// same for, until [`Self::hurry`].
    fn settle(&self, product: &Product) -> Result<(), JobError> {
        let _ = product;
        Ok(())
    }

    /// Nothing runs any more: only what settles is waited for.
    fn hurry(&self) {}

    /// How much memory programs could still get, in bytes; `None` where that cannot be known.
    fn available_memory(&self) -> Option<u64> {
        None
    }
}
