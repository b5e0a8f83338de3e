//! Where a sandboxed process reads and writes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// One of a process's standard descriptors.
#[derive(Debug)]
pub enum StdioFd {
    /// The sandbox's own `/dev/null`.
    Null,
    /// The caller's own descriptor of that number.
    Inherit,
    /// This one; the caller's copy is closed when the process has started.
    Fd(OwnedFd),
    /// The sandbox's terminal; the caller gets its other side.
    Terminal,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Standard input, output and error of a process.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: StdioFd,
    /// Descriptor 1.
    pub stdout: StdioFd,
    /// Descriptor 2.
    pub stderr: StdioFd,
}

impl Stdio {
    /// Reads nothing, writes to nowhere.
    pub fn null() -> Self {
        Self { stdin: StdioFd::Null, stdout: StdioFd::Null, stderr: StdioFd::Null }
    }

    /// The caller's own.
    pub fn inherit() -> Self {
        Self { stdin: StdioFd::Inherit, stdout: StdioFd::Inherit, stderr: StdioFd::Inherit }
    }

    /// All three are the sandbox's terminal.
    pub fn terminal() -> Self {
        Self { stdin: StdioFd::Terminal, stdout: StdioFd::Terminal, stderr: StdioFd::Terminal }
    }

    /// The three as they go over the wire: what each is, and the descriptors that travel along, in order.
    pub(crate) fn wire(&self) -> ([Slot; 3], Vec<BorrowedFd<'_>>) {
        let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let mut fds = Vec::new();
        let mut slots = [Slot::Null; 3];
        for ((slot, fd), own) in slots.iter_mut().zip([&self.stdin, &self.stdout, &self.stderr]).zip(own) {
            *slot = match fd {
                StdioFd::Null => Slot::Null,
                StdioFd::Terminal => Slot::Terminal,
                StdioFd::Inherit => {
                    fds.push(own);
                    Slot::Inherited
                }
                StdioFd::Fd(fd) => {
                    fds.push(fd.as_fd());
                    Slot::Given
                }
            };
        }
        (slots, fds)
    }

    /// Whether any of the three is the terminal.
    pub(crate) fn uses_terminal(&self) -> bool {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().any(|fd| matches!(fd, StdioFd::Terminal))
    }
}

/// A standard descriptor on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Slot {
    Null,
    Terminal,
    /// Travels along and was the caller's own.
    Inherited,
    /// Travels along and was made for the sandbox.
    Given,
}
