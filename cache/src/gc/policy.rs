//! What a collection may take, and how much of it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::id::ResultId;
use crate::path_error::{AtPath, PathError};

/// For how long tombstones and unused file digests are remembered.
const MEMORY: Duration = Duration::from_secs(60 * 24 * 3600);

/// Which cache records and mounts may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneScope {
    /// None: only what nothing keeps.
    Garbage,
    /// Those whose layers no image or container shares, and cache mounts.
    Cache,
    /// All of them; images and containers keep their layers all the same.
    All,
}

/// Which images may go. Those that a container or a live process uses stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageScope {
    /// None.
    None,
    /// Those without a tag.
    Dangling,
    /// All.
    Unused,
}

/// Kinds of things that the cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PruneKind {
    /// Results of steps.
    Record,
    /// Cache mounts.
    Mount,
}

/// Narrows what may go; everything must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PruneFilter {
    /// This record.
    Record(ResultId),
    /// Steps whose name, or mounts whose id, contains this text.
    Subject(String),
    /// Only things of this kind.
    Kind(PruneKind),
}

/// What a collection may take, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    /// How tombstones name this rule: `prune --all`, `keep 10 GB`.
    pub rule: String,
    /// Which cache records and mounts may go.
    pub scope: PruneScope,
    /// Which images may go.
    pub images: ImageScope,
    /// Only what was last used before.
    pub unused_since: Option<Timestamp>,
    /// Only what matches.
    pub filters: Vec<PruneFilter>,
    /// Stop when the cache has no more bytes than this.
    pub keep_bytes: Option<u64>,
    /// Stop when the file system has this many bytes free.
    pub min_free: Option<u64>,
    /// For how long tombstones and unused file digests are remembered.
    pub memory: Duration,
}

/// When enough is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ceiling {
    /// The cache may keep this many bytes.
    pub(super) keep: Option<u64>,
    /// At least this many bytes must go.
    pub(super) lacking: Option<u64>,
}

impl GcPolicy {
    /// Takes everything in `scope`.
    pub fn new(rule: impl Into<String>, scope: PruneScope) -> Self {
        Self {
            rule: rule.into(),
            scope,
            images: ImageScope::None,
            unused_since: None,
            filters: Vec::new(),
            keep_bytes: None,
            min_free: None,
            memory: MEMORY,
        }
    }

    /// Takes only what nothing keeps.
    pub fn garbage() -> Self {
        Self::new("unused", PruneScope::Garbage)
    }

    pub(super) fn ceiling(&self, root: &Path) -> Result<Ceiling, PathError> {
        let lacking = match self.min_free {
            None => None,
            Some(wanted) => {
                let status = rustix::fs::statvfs(root).at("inspect the file system of", root)?;
                Some(wanted.saturating_sub(status.f_bavail.saturating_mul(status.f_frsize)))
            }
        };
        Ok(Ceiling { keep: self.keep_bytes, lacking })
    }

    pub(super) fn takes_record(&self, id: ResultId, subject: &str, used_at: Timestamp) -> bool {
        let matches = |filter: &PruneFilter| match filter {
            PruneFilter::Record(wanted) => *wanted == id,
            PruneFilter::Subject(text) => subject.contains(text),
            PruneFilter::Kind(kind) => *kind == PruneKind::Record,
        };
        self.scope != PruneScope::Garbage && self.is_old(used_at) && self.filters.iter().all(matches)
    }

    pub(super) fn takes_mount(&self, id: &str, used_at: Timestamp) -> bool {
        let matches = |filter: &PruneFilter| match filter {
            PruneFilter::Record(_) => false,
            PruneFilter::Subject(text) => id.contains(text),
            PruneFilter::Kind(kind) => *kind == PruneKind::Mount,
        };
        self.scope != PruneScope::Garbage && self.is_old(used_at) && self.filters.iter().all(matches)
    }

    pub(super) fn is_old(&self, used_at: Timestamp) -> bool {
        self.unused_since.is_none_or(|since| used_at < since)
    }
}
