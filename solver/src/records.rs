//! What the solver asks of the store's cache records, as a small trait; the store implements it, tests use memory.

use std::time::Duration;

use jiff::Timestamp;
use rbuild_cache::{Among, Candidate, Fate, Listing, ResultId, SnapshotId, StepDescription, StepPlace, StepUsage};
use rbuild_image::{ContentDigest, Digest};

use crate::cancel::CancelToken;
use crate::key::Key;
use crate::vertex::VertexId;
use crate::worker::Control;

/// A result that may be used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub result: ResultId,
    /// The product; `None` is the empty tree.
    pub snapshot: Option<SnapshotId>,
    /// Display name of the vertex that made it.
    pub name: String,
    /// How long it took to make.
    pub duration: Duration,
    /// When it was made.
    pub made: Timestamp,
    /// What making it used, where that was measured.
    pub usage: Option<StepUsage>,
}

/// A result that was made just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStep {
    /// The product; `None` is the empty tree.
    pub snapshot: Option<SnapshotId>,
    /// Display name of the vertex that made it.
    pub name: String,
    /// How long it took to make.
    pub duration: Duration,
    /// What making it used, where that was measured.
    pub usage: Option<StepUsage>,
}

/// What a definition is made of, kept so that a later miss can be compared with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The definition key.
    pub definition: Key,
    /// The key of the op alone.
    pub step: Digest,
    /// Where the step stands; whoever keeps the records fills in the project.
    pub place: StepPlace,
    /// Display name.
    pub name: String,
    /// A line for each field.
    pub text: String,
    /// The digests of what is selected of inputs, as far as they are known.
    pub reads: Vec<(usize, ContentDigest)>,
}

/// The cache could not be read or written; never fails a build by itself.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the build cache")]
pub struct RecordFailure {
    /// What was being done: `read`, `write`, `lock`.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The right to make what a key stands for; dropping it lets others try. Whoever gets one looks again whether the
/// result is there by now.
pub struct Claim {
    /// Held until the result is recorded.
    pub guard: Box<dyn Send>,
}

/// The cache of results. Calls come from several threads at once.
pub trait StepCache: Sync {
    /// For each key the newest result whose product still exists; it then stays as long as this build needs it.
    fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, RecordFailure>;

    /// Makes a result known under all of `keys`, replacing what they had. Durable when this returns.
    fn record(&self, keys: &[Key], about: Option<&About>, step: &NewStep) -> Result<ResultId, RecordFailure>;

    /// Makes further keys lead to a result; `about` says what a new definition among them is made of.
    fn add_keys(&self, result: ResultId, keys: &[Key], about: Option<&About>) -> Result<(), RecordFailure>;

    /// What is remembered of earlier steps, where anything is.
    fn past(&self) -> Option<&dyn Past> {
        None
    }

    /// Which of these keys lead to a result in some other place, from where [`Self::fetch`] brings it. Moves nothing.
    fn elsewhere(&self, keys: &[Key]) -> Vec<bool> {
        vec![false; keys.len()]
    }

    /// Brings the result that a key leads to elsewhere; it then stays as long as this build needs it. `None` when it
    /// cannot be had: the step runs instead, and [`Self::elsewhere`] does not offer it again.
    fn fetch(&self, key: &Key, vertex: VertexId, control: Control<'_>) -> Option<NewStep> {
        let _ = (key, vertex, control);
        None
    }

    /// Tells that a vertex has the product that it will keep. Must not block for long.
    fn made(&self, vertex: VertexId, snapshot: Option<SnapshotId>) {
        let _ = (vertex, snapshot);
    }

    /// Notes that results were used.
    fn touch(&self, results: &[ResultId]) -> Result<(), RecordFailure>;

    /// Waits until no other process makes what `key` stands for, telling `waiting` once for whom. Gives up with
    /// `None` when `cancel` says so.
    fn claim(
        &self,
        key: &Key,
        cancel: &CancelToken,
        waiting: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<Claim>, RecordFailure>;
}

/// What is remembered of earlier steps: what misses are compared with. Asked only for steps that ran.
pub trait Past: Sync {
    /// What became of a definition key.
    fn fate(&self, definition: &Key) -> Result<Fate, RecordFailure>;

    /// What a definition key was made of.
    fn find(&self, definition: &Digest) -> Result<Option<StepDescription>, RecordFailure>;

    /// The latest descriptions that are older than this build, newest first.
    fn candidates(&self, among: Among<'_>, limit: usize) -> Result<Vec<Candidate>, RecordFailure>;

    /// Notes what a step turned out to read.
    fn note_reads(&self, definition: &Key, reads: &[(usize, ContentDigest)]) -> Result<(), RecordFailure>;

    /// The files that a selection held.
    fn listing(&self, selection: &ContentDigest) -> Result<Option<Listing>, RecordFailure>;

    /// Whether the files that a selection held are known.
    fn has_listing(&self, selection: &ContentDigest) -> Result<bool, RecordFailure>;

    /// Keeps the files that a selection holds.
    fn keep_listing(&self, selection: &ContentDigest, listing: &Listing) -> Result<(), RecordFailure>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_being_done() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied).into();
        assert_eq!(RecordFailure { doing: "write", source }.to_string(), "cannot write the build cache");
    }
}
