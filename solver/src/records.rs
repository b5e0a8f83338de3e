//! What the solver asks of the store's cache records, as a small trait; the store implements it, tests use memory.

use std::time::Duration;

use rbuild_cache::{ResultId, SnapshotId};

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

    /// What a key was made of, line by line, if it leads anywhere: what `cache why` compares.
    fn description(&self, key: &Key) -> Result<Option<String>, RecordFailure>;

    /// Makes a result known under all of `keys`, replacing what they had. Durable when this returns.
    fn record(&self, keys: &[Key], description: &str, step: &NewStep) -> Result<ResultId, RecordFailure>;

    /// Makes further keys lead to a result.
    fn add_keys(&self, result: ResultId, keys: &[Key], description: &str) -> Result<(), RecordFailure>;

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
