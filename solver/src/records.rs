//! What the solver asks of the store's cache records, as a small trait; the store implements it, tests use memory.

use std::time::Duration;

use rbuild_cache::SnapshotId;

use crate::cancel::CancelToken;
use crate::key::Key;

/// One result that may be used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// The product; `None` is the empty tree.
    pub snapshot: Option<SnapshotId>,
    /// What the definition key was made of, line by line: what `cache why` compares.
    pub description: String,
    /// Display name of the vertex that made it.
    pub name: String,
    /// How long it took to make.
    pub duration: Duration,
}

/// The cache could not be read or written; never fails a build by itself.
#[derive(Debug, thiserror::Error)]
#[error("cache records: {doing}")]
pub struct RecordError {
    /// What was being done.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The right to make what a key stands for; dropping it lets others try.
pub struct Claim {
    /// Whether another process had it meanwhile, so that the key should be looked up again.
    pub waited: bool,
    /// Held until the result is recorded.
    pub guard: Box<dyn Send>,
}

/// The cache of results. Calls come from several threads at once.
pub trait StepCache: Sync {
    /// The newest result under a key whose product still exists; it stays for as long as this build needs it.
    fn lookup(&self, key: &Key) -> Result<Option<StepRecord>, RecordError>;

    /// Makes a result known under all of `keys`, replacing what they had. Durable when this returns.
    fn record(&self, keys: &[Key], record: &StepRecord) -> Result<(), RecordError>;

    /// Waits until no other process makes what `key` stands for, telling `waiting` once for whom. Gives up with
    /// `None` when `cancel` says so.
    fn claim(
        &self,
        key: &Key,
        cancel: &CancelToken,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<Option<Claim>, RecordError>;
}
