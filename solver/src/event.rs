//! What happens during a build, as plain data. Every view (terminal, plain, JSON, history) folds this one stream.

use serde::{Deserialize, Serialize};

use crate::vertex::{Origin, VertexId};

/// Takes events; called from several threads, must not block for long.
pub trait EventSink: Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// One thing that happened. Times are nanoseconds since the build began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The plan is known.
    Planned {
        /// The vertices that the target needs, in graph order.
        vertices: Vec<PlannedVertex>,
    },
    /// A vertex runs.
    Started {
        /// Which.
        vertex: VertexId,
        /// When.
        at: u64,
    },
    /// A vertex was answered from the cache.
    Cached {
        /// Which.
        vertex: VertexId,
        /// When.
        at: u64,
    },
    /// Output of a vertex.
    Log {
        /// Which.
        vertex: VertexId,
        /// Stream.
        stream: LogStream,
        /// Bytes as they came, not cut at lines.
        data: Vec<u8>,
        /// When.
        at: u64,
    },
    /// A transfer went on.
    Bytes {
        /// Which vertex it is for; `None` for exports.
        vertex: Option<VertexId>,
        /// What is moved, e.g. a short digest.
        item: String,
        /// Bytes moved so far.
        current: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
        /// When.
        at: u64,
    },
    /// A vertex waits for something that another process holds.
    Waiting {
        /// Which.
        vertex: VertexId,
        /// For what and whom.
        reason: String,
        /// When.
        at: u64,
    },
    /// Something that people should know; never ends a build.
    Warning {
        /// Which vertex it is about.
        vertex: Option<VertexId>,
        /// What.
        message: String,
    },
    /// A vertex ended.
    Done {
        /// Which.
        vertex: VertexId,
        /// How.
        outcome: Outcome,
        /// When.
        at: u64,
    },
    /// Work after the last vertex (export, naming) goes on or ended.
    Export {
        /// What is done: `exporting layers`, `writing image sha256:…`, `naming to docker.io/library/x`.
        step: String,
        /// Whether it is done.
        done: bool,
        /// When.
        at: u64,
    },
}

/// What people are told of a vertex before it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedVertex {
    /// Which.
    pub vertex: VertexId,
    /// Display name.
    pub name: String,
    /// Where it came from.
    pub origin: Origin,
    /// What it reads.
    pub inputs: Vec<VertexId>,
}

/// A log stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a vertex ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It has a product.
    Completed,
    /// It failed.
    Failed {
        /// Why.
        failure: VertexFailure,
    },
    /// It was stopped.
    Cancelled,
}

/// Why a vertex failed, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VertexFailure {
    /// Lower-case sentence without the Dockerfile's position.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Exit code of the process, where one ended by itself.
    pub exit_code: Option<i32>,
}
