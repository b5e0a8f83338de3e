//! A process by its number and the time it started, so that a number that was given out again is not mistaken for it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// Names one process of this machine since its boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number, as the host sees it.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now; `None` when none has.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        Ok(start_time(pid)?.map(|started| Self { pid, started }))
    }

    /// A descriptor of the process, unless it is gone. The descriptor is taken first and the start time compared then:
    /// from there on the number cannot pass to another process unnoticed.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            other => other?,
        };
        Ok((start_time(self.pid)? == Some(self.started)).then_some(fd))
    }
}

/// Field 22 of `/proc/PID/stat`, counted behind the last `)` since the program's name may hold anything.
fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let text = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&text);
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed /proc/PID/stat");
    let (_, fields) = text.rsplit_once(')').ok_or_else(malformed)?;
    // The first field behind the name is the third.
    fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).map(Some).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_recognised_by_its_start() {
        let own = ProcessId::of(std::process::id()).unwrap().unwrap();
        assert!(own.started > 0);
        assert!(own.open().unwrap().is_some());
        let other = ProcessId { started: own.started + 1, ..own };
        assert!(other.open().unwrap().is_none(), "the same number, another process");
    }

    #[test]
    fn a_process_that_is_gone_is_none() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap().unwrap();
        child.wait().unwrap();
        assert!(id.open().unwrap().is_none());
        assert_eq!(ProcessId::of(0).unwrap(), None);
        assert!(ProcessId { pid: u32::MAX, started: 1 }.open().unwrap().is_none());
    }
}
