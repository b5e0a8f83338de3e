//! What happens during a build, as plain data. Every view (terminal, plain, JSON, history) folds this one stream.

use serde::{Deserialize, Serialize};

use crate::miss::MissReason;
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
        #[serde(with = "output")]
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
    /// What the process of a vertex used, told when it ended.
    Used {
        /// Which.
        vertex: VertexId,
        /// Processor time in programs and in the kernel, in nanoseconds.
        processor: u64,
        /// The most memory in use at once, in bytes.
        memory: u64,
        /// The most processes at once, where the host counts them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        processes: Option<u64>,
        /// Bytes read from disks.
        #[serde(default)]
        read: u64,
        /// Bytes written to disks.
        #[serde(default)]
        written: u64,
        /// When.
        at: u64,
    },
    /// The log of the run that made a cached vertex follows: its build's id, and when that build began.
    Recalled {
        /// Which.
        vertex: VertexId,
        /// The build that ran it.
        build: String,
        /// When that build began, in seconds since the epoch.
        began: i64,
    },
    /// Why a vertex ran instead of being answered from the cache; comes at any time after it started.
    Missed {
        /// Which.
        vertex: VertexId,
        /// Why.
        miss: MissReason,
        /// When it was found out.
        at: u64,
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

impl Event {
    /// When it happened, where that is told.
    pub fn at(&self) -> Option<u64> {
        match self {
            Self::Started { at, .. }
            | Self::Cached { at, .. }
            | Self::Log { at, .. }
            | Self::Bytes { at, .. }
            | Self::Waiting { at, .. }
            | Self::Used { at, .. }
            | Self::Missed { at, .. }
            | Self::Done { at, .. }
            | Self::Export { at, .. } => Some(*at),
            Self::Planned { .. } | Self::Warning { .. } | Self::Recalled { .. } => None,
        }
    }
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

/// Output in JSON: a string where it is UTF-8, `{"base64": …}` where it is not.
mod output {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Output<T> {
        Text(T),
        Bytes { base64: String },
    }

    pub(super) fn serialize<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(data) {
            Ok(text) => Output::Text(text),
            Err(_) => Output::Bytes { base64: STANDARD.encode(data) },
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        match Output::<String>::deserialize(deserializer)? {
            Output::Text(text) => Ok(text.into_bytes()),
            Output::Bytes { base64 } => STANDARD.decode(base64).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_survives_json_whatever_its_bytes() {
        for data in [b"plain\n".to_vec(), vec![0xff, 0xfe, b'x'], Vec::new(), "{\"é\"}".as_bytes().to_vec()] {
            let event = Event::Log { vertex: VertexId(3), stream: LogStream::Stderr, data, at: 5 };
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        }
    }
}
