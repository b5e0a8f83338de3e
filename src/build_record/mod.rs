//! The record of a build: who built what, when, and how each step went; written without a daemon, by the build itself.
//!
//! - A row in the store's database says that a build runs, and later how it ended (`rbuild_cache::Builds`). One whose
//!   process died needs no last word: its lease is dead.
//! - The journal, `logs/BUILD/events.jsonl`, has every event, output included. It is only appended to, so that what a
//!   killed build said can be read as well. A build in which nothing runs writes it once, at its end.
//! - Neither is synced: a power cut may lose the newest builds (docs/store-format.md). Nothing here ever fails a build.
//!
//! Values of secrets never get here: `progress::Mask` takes them out of the output, and arguments whose names say that
//! they are secret are recorded as `****`.

mod git;
mod inputs;
mod journal;
mod read;
mod recall;
mod vertices;

use std::time::Instant;

use rbuild_cache::{BuildEnd, BuildId, BuildStatus, HistoryLimits, Lease, NewBuild, Store};
use rbuild_image::Digest;
use rbuild_solver::VertexReport;

use crate::cli::report::{Failure, printable, story};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::progress::{Mask, View};
use crate::request::BuildRequest;
use crate::timings::PhaseTime;

pub(crate) use git::checkout;
pub use inputs::{BuildInputs, NameValue};
pub(crate) use journal::{Journal, Replay, replay};
pub use read::{BuildInfo, RecordedStep, StepState, find, list, open};
pub(crate) use recall::recall;
pub use vertices::StepDetail;

/// What becomes known while a build goes on.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The build's identity, where it is recorded.
    pub(crate) build: Option<BuildId>,
    /// Digest of the Dockerfile's text.
    pub(crate) dockerfile_digest: Option<Digest>,
    /// What was built for.
    pub(crate) platforms: Vec<String>,
    /// How the solver left each vertex.
    pub(crate) vertices: Vec<VertexReport>,
    /// Ids of the images that were made, in the order of the platforms.
    pub(crate) images: Vec<Digest>,
    /// What rbuild itself spent its time with.
    pub(crate) phases: Vec<PhaseTime>,
}

/// Writes the record of one build.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    store: &'a Store,
    id: BuildId,
    inputs: BuildInputs,
    began: jiff::Timestamp,
    limits: HistoryLimits,
    mask: Mask,
}

impl<'a> Recorder<'a> {
    /// Writes that a build begins. `None`, after a warning, when that cannot be written.
    pub(crate) fn begin(
        engine: &Engine,
        store: &'a Store,
        lease: &Lease,
        request: &BuildRequest,
        began: jiff::Timestamp,
    ) -> Option<Self> {
        let clock = Instant::now();
        let limits = engine.history_limits().map_err(|failure| warn(failure.message())).ok()?;
        let inputs = BuildInputs::of(request, engine.settings());
        let id = BuildId::random().map_err(|error| warn(&error.to_string())).ok()?;
        let build = NewBuild {
            id: id.clone(),
            arguments: engine.settings().arguments.iter().map(|word| inputs::without_credentials(word)).collect(),
            context: inputs.context.clone(),
            dockerfile: inputs.dockerfile.clone(),
            target: inputs.target.clone(),
            detail: inputs.to_detail(),
        };
        if let Err(error) = store.builds().begin(&build, lease) {
            warn(Failure::from(error).message());
            return None;
        }
        tracing::debug!(took = ?clock.elapsed(), "build begun");
        Some(Self { store, id, inputs, began, limits, mask: engine.mask().clone() })
    }

    /// The build's identity.
    pub(crate) fn id(&self) -> &BuildId {
        &self.id
    }

    /// A journal for the build's events.
    pub(crate) fn journal(&self) -> Journal {
        // One build does not push all others out.
        Journal::new(self.store.builds().files(&self.id), &self.id, self.began, self.limits.bytes / 8)
    }

    /// Writes how the build ended.
    pub(crate) fn finish<T>(
        mut self,
        result: &Result<T, Failure>,
        view: &View,
        journal: Option<Journal>,
        notes: &Notes,
    ) {
        let clock = Instant::now();
        let status = match result {
            Ok(_) => BuildStatus::Succeeded,
            Err(failure) if failure.exit() == Exit::Interrupted => BuildStatus::Cancelled,
            Err(_) => BuildStatus::Failed,
        };
        self.inputs.complete(notes, &view.warnings, result.as_ref().err());
        let log_bytes = journal.map_or(0, |journal| {
            let closed = journal.close();
            closed.map_err(|error| warn(Failure::from(error).message())).unwrap_or(0)
        });
        let end = BuildEnd {
            status,
            image: notes.images.first().copied(),
            error: result.as_ref().err().map(|failure| self.mask.text(failure.message())),
            vertices: vertices::rows(self.store, self.began, view, &notes.vertices),
            detail: self.inputs.to_detail(),
            log_bytes,
        };
        let builds = self.store.builds();
        if let Err(error) = builds.finish(&self.id, &end) {
            return warn(Failure::from(error).message());
        }
        if let Err(error) = builds.trim(self.limits) {
            warn(Failure::from(error).message());
        }
        tracing::debug!(took = ?clock.elapsed(), "build recorded");
    }
}

fn warn(message: &str) {
    story(&format!("WARNING: the history of builds cannot be written: {}\n", printable(message)));
}
