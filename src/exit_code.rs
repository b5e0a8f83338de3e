//! Exit codes, as Docker's users know them.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything asked for was done.
    Success,
    /// 1: a build or another command failed.
    Failure,
    /// 2: the command line was wrong.
    Usage,
    /// 125: `run` could not start a container.
    Engine,
    /// The container's own status, 126 (cannot execute) and 127 (not found) included.
    Container(u8),
    /// 130: interrupted by the user.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Engine => 125,
            Exit::Container(code) => code,
            Exit::Interrupted => 130,
        })
    }
}
