//! What a monitor and its clients say to each other.

use rbuild_executor::WindowSize;
use serde::{Deserialize, Serialize};

use crate::process_id::ProcessId;

/// What a client wants to be connected to. The descriptors for its outputs travel along, standard output first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The container's input.
    pub input: bool,
    /// Its output; with a terminal all of it.
    pub output: bool,
    /// Its error output.
    pub error: bool,
    /// What becomes of the container when the client is gone.
    pub bond: Bond,
    /// The size of the client's terminal.
    pub window: Option<WindowSize>,
}

/// What becomes of a container when a client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bond {
    /// It dies, unless the client said that it detaches.
    Bound,
    /// It goes on.
    Loose,
}

/// Why a container was not started, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The exit code that stands for it.
    pub code: u8,
}

/// From a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToMonitor {
    /// What is to be executed, in a file that travels along since it may be longer than a message; before anything else, and
    /// only to a process that was started for it.
    Execute,
    /// Connects it; the first message of everybody who wants output or input.
    Attach(AttachRequest),
    /// It goes, and the container stays.
    Detach,
    /// Its input has ended.
    InputEnded,
    /// The record has changed: look at it.
    Wake,
    /// So have its networks: its ports and names are to be served accordingly. It is answered.
    Networks,
}

/// To a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromMonitor {
    /// The host does not allow something.
    Warning(String),
    /// It runs, as this process. The terminal, or the input where that was asked for and there is one, travels along.
    Running { process: ProcessId, terminal: bool },
    /// It was not started.
    NotStarted(StartFailure),
    /// Its ports and names are served as its networks want it, or why not.
    Networks { problem: Option<String> },
    /// It has ended.
    Ended { code: u8, lost_output: Option<String> },
}
