//! Repositories: a name is fixed to a commit before anything else, and the commit is fetched when its tree is needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_solver::{Control, GitSource, JobError, Pinned, Product, Source};

use super::EngineWorker;
use super::failure::of_failure;
use crate::fetch::{PinnedCommit, checkout};

/// What names stand for in this build: each is asked for once.
#[derive(Debug, Default)]
pub(super) struct Commits(Mutex<BTreeMap<Asked, Slot>>);

/// Remote, name, checksum, and whether the name is left aside.
type Asked = (String, String, Option<String>, bool);

/// Whoever holds the lock asks; the others wait for it.
type Slot = Arc<Mutex<Option<PinnedCommit>>>;

/// Fixes a source to a commit.
pub(super) fn pin(worker: &EngineWorker<'_>, source: &GitSource, control: Control<'_>) -> Result<Pinned, JobError> {
    let pinned = pinned(worker, source, control)?;
    let identity = pinned.identity(source);
    let source = GitSource { commit: Some(pinned.commit), ..source.clone() };
    Ok(Pinned { source: Source::Git(source), identity: Some(identity) })
}

/// Gives a snapshot with the tree.
pub(super) fn exec(worker: &EngineWorker<'_>, source: &GitSource, control: Control<'_>) -> Result<Product, JobError> {
    let pinned = pinned(worker, source, control)?;
    let snapshot = checkout(worker.fetching(), source, &pinned).map_err(|failure| of_failure(&failure, control))?;
    Ok(Product::Snapshot(Some(snapshot)))
}

fn pinned(worker: &EngineWorker<'_>, source: &GitSource, control: Control<'_>) -> Result<PinnedCommit, JobError> {
    let key = (source.remote.clone(), source.reference.clone(), source.checksum.clone(), source.fetch_by_commit);
    let slot: Slot = {
        let mut slots = worker.commits.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    };
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pinned) = &*slot {
        return Ok(pinned.clone());
    }
    let pinned = crate::fetch::pin(worker.fetching(), source).map_err(|failure| of_failure(&failure, control))?;
    *slot = Some(pinned.clone());
    Ok(pinned)
}
