//! Ending, waiting for and signalling processes, and closing descriptors.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Result;
use rustix::process::Pid;

use super::check;

/// What `wait4(2)` tells about a process that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reaped {
    /// Which process.
    pub(crate) pid: i32,
    /// The raw wait status.
    pub(crate) status: i32,
    /// Processor time in user mode, of the process and what it waited for.
    pub(crate) user: Duration,
    /// Processor time in the kernel.
    pub(crate) system: Duration,
    /// Largest resident set in bytes.
    pub(crate) max_rss: u64,
    /// Bytes read from disks.
    pub(crate) read: u64,
    /// Bytes written to disks.
    pub(crate) written: u64,
}

/// Whether to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// Until a child ended.
    Yes,
    /// Not at all.
    No,
}

/// Reaps `pid`, or any child; `None` when no child has ended yet.
pub(crate) fn wait(pid: Option<Pid>, block: Block) -> Result<Option<Reaped>> {
    let mut status: libc::c_int = 0;
    // SAFETY: all-zero bytes are a valid `rusage`, which holds integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let options = if block == Block::Yes { 0 } else { libc::WNOHANG } | libc::__WALL;
    let pid = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    // SAFETY: both pointers are valid for writing for the whole call.
    let code = unsafe { libc::wait4(pid, &raw mut status, options, &raw mut usage) };
    let pid = check(code.into())?;
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.try_into().unwrap_or(0)) + Duration::from_micros(t.tv_usec.try_into().unwrap_or(0))
    };
    // Both count in units of 512 bytes.
    let bytes = |blocks: libc::c_long| u64::try_from(blocks).unwrap_or(0) * 512;
    Ok((pid != 0).then(|| Reaped {
        pid: i32::try_from(pid).unwrap_or(0),
        status,
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        read: bytes(usage.ru_inblock),
        written: bytes(usage.ru_oublock),
    }))
}

/// Ends the process at once: no destructors, no handlers. For forked children only.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and does not return.
    unsafe { libc::_exit(code) }
}

/// Sends any signal, a real-time one included, to the process behind a pidfd.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open; a null info asks for the default one.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) }).map(drop)
}

/// Sends any signal to a child that has not been reaped.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// What becomes of a range of descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// They are closed now.
    Now,
    /// They are closed by the next `execve`.
    OnExec,
}

/// Closes all descriptors from `first` to `last`. For a forked child that no longer uses the values that own them.
pub(crate) fn close_range(first: u32, last: u32, when: Close) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    let flags = if when == Close::OnExec { CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: takes numbers only; the callers are about to exec or never return to the owners of the descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Closes every descriptor but these, now. For a forked child that no longer uses the values that own the others.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept {
        if first < fd {
            close_range(first, fd - 1, Close::Now)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, Close::Now)
}

/// Leaves the given namespaces for new ones.
pub(crate) fn unshare(namespaces: rustix::thread::UnshareFlags) -> Result<()> {
    // SAFETY: the flags of the callers (cgroup, mount and the like) do not stop sharing descriptors or memory.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}
