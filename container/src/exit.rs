//! How a container's process ended, and the exit code that stands for it.

use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// The end of a container's process, or of the attempt to start it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerExit {
    /// It exited with this code.
    Code(u8),
    /// A signal ended it.
    Signal(Signal),
    /// The kernel ended it because the container had used up its memory.
    OutOfMemory,
    /// There is no such program.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// It could not be started for another reason.
    Failed,
    /// The process that ran it ended without saying how the container did.
    Lost,
}

/// rbuild itself failed.
const ENGINE_ERROR: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Docker's code for containers that it finds dead after its own restart.
const LOST: u8 = 255;

impl ContainerExit {
    /// The exit code as `docker run` would give it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => u8::try_from(128 + signal.number()).expect("signals end at 64"),
            Self::OutOfMemory => u8::try_from(128 + Signal::KILL.number()).expect("signals end at 64"),
            Self::NotFound => NOT_FOUND,
            Self::NotExecutable => NOT_EXECUTABLE,
            Self::Failed => ENGINE_ERROR,
            Self::Lost => LOST,
        }
    }

    /// Whether memory ran out.
    pub fn out_of_memory(&self) -> bool {
        *self == Self::OutOfMemory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dockers() {
        for (exit, want) in [
            (ContainerExit::Code(0), 0),
            (ContainerExit::Code(255), 255),
            (ContainerExit::Signal(Signal::TERM), 143),
            (ContainerExit::Signal(Signal::from_number(64).unwrap()), 192),
            (ContainerExit::OutOfMemory, 137),
            (ContainerExit::NotFound, 127),
            (ContainerExit::NotExecutable, 126),
            (ContainerExit::Failed, 125),
            (ContainerExit::Lost, 255),
        ] {
            assert_eq!(exit.code(), want, "{exit:?}");
        }
    }
}
