//! A process that outlives the one that started it: a session of its own, and nothing of the caller's left in it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::sys::process::{Close, close_range};

/// Makes this process the only one of a new session, without a terminal, with `/` as its directory and `/dev/null` as its
/// standard streams; gives what was its standard input.
///
/// All other descriptors are closed, so that no file, pipe or lock of the caller's is kept by accident. To be called first thing
/// in a process that was started for this, before it has opened anything.
pub fn begin_session() -> io::Result<OwnedFd> {
    close_range(3, u32::MAX, Close::Now)?;
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Who leads a group already leads its session, or is in nobody's way.
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::process::chdir(c"/")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(control)
}
