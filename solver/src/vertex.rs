//! A vertex: an op, its inputs, and where it came from.

use jiff::Timestamp;
use rbuild_parser::Span;
use serde::{Deserialize, Serialize};

use crate::op::Op;

/// Identifies a vertex within one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VertexId(pub(crate) u32);

impl VertexId {
    /// Position in the graph, from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One step of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What it reads; `None` is an empty tree (`FROM scratch`).
    pub inputs: Vec<Option<VertexId>>,
    /// Where in the Dockerfile it came from.
    pub origin: Origin,
    /// What people see: `[build 2/5] RUN make`.
    pub name: String,
    /// Whether recorded results may be used.
    pub cache_use: CacheUse,
}

/// Where a vertex came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Range in the Dockerfile; `None` where no instruction made it (contexts).
    #[serde(skip)]
    pub span: Option<Span>,
    /// First line of the instruction, 1-based; 0 where there is none.
    pub line: u32,
    /// Stage name, or its number where it has none.
    pub stage: String,
    /// The instruction as people wrote it, after expansion.
    pub text: String,
}

/// Whether a vertex may be answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CacheUse {
    /// Yes.
    Allowed,
    /// By results that were made at this time or later (`--cache-max-age`).
    Since(Timestamp),
    /// It runs again (`--no-cache`); its result is recorded.
    Ignored,
}

impl CacheUse {
    /// Whether a result that was made at `made` may answer.
    pub fn accepts(self, made: Timestamp) -> bool {
        match self {
            Self::Allowed => true,
            Self::Since(oldest) => made >= oldest,
            Self::Ignored => false,
        }
    }
}
