//! `clone3(2)` used like `fork(2)`, with namespaces, a pidfd and a cgroup; and `clone(2)` used like `vfork(2)`.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::process::Pid;

use super::check;

pub(crate) const NEW_TIME: u64 = 0x0000_0080;
pub(crate) const NEW_MOUNT: u64 = 0x0002_0000;
pub(crate) const NEW_UTS: u64 = 0x0400_0000;
pub(crate) const NEW_IPC: u64 = 0x0800_0000;
pub(crate) const NEW_PID: u64 = 0x2000_0000;
pub(crate) const NEW_NET: u64 = 0x4000_0000;
const PARENT: u64 = 0x0000_8000;
const PIDFD: u64 = 0x0000_1000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, version 2 (Linux 5.7).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// On which side of the fork the caller is.
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// The child, as the parent's pid namespace numbers it.
        pid: Pid,
        /// A handle that does not suffer from reuse of the number.
        pidfd: OwnedFd,
    },
}

/// Forks into new namespaces (`NEW_*`) and, on cgroup v2, directly into a cgroup.
///
/// Only for processes with a single thread: then the child may do all that the parent could.
pub(crate) fn fork(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    let mut args = CloneArgs { flags: namespaces, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    clone(args)
}

/// Forks a child of this process's own parent, who will reap it.
///
/// Only for processes with a single thread.
pub(crate) fn fork_sibling() -> Result<Forked> {
    // The kernel takes the exit signal of the caller's.
    clone(CloneArgs { flags: PARENT, ..CloneArgs::default() })
}

/// Runs `child` in a new process that uses this one's memory, and stands still until that has executed a program or has ended
/// (`vfork(2)`): nothing is copied and nothing has to be copied when it is written. What the child owns in the end is never
/// dropped; its descriptors are copies of this process's, which still has its own.
///
/// Only for processes with a single thread. A panic in `child` ends it.
pub(crate) fn vfork<F: FnOnce() -> Infallible>(child: F) -> Result<Pid> {
    extern "C" fn enter<F: FnOnce() -> Infallible>(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it is the `Option` below, which its owner does not touch while it stands still.
        let child = unsafe { &mut *child.cast::<Option<F>>() };
        child.take().map_or(125, |child| match child() {})
    }
    const STACK: usize = 1 << 20;
    const GUARD: usize = 1 << 16;
    let mut child = Some(child);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let stack = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        libc::mmap(std::ptr::null_mut(), STACK, protection, kind, -1, 0)
    };
    if stack == libc::MAP_FAILED {
        return Err(Errno::NOMEM);
    }
    // SAFETY: the stack is a fresh mapping of this size that nobody else knows, whose lower end becomes unusable, so that a child
    // that needs more ends instead of writing elsewhere. The function gets the value that it expects, which lives until the call
    // returns; that is when the child no longer uses this memory, so that the stack can go. There is no other thread that
    // could see the memory in between.
    let code = unsafe {
        libc::mprotect(stack, GUARD, libc::PROT_NONE);
        let code = libc::clone(enter::<F>, stack.byte_add(STACK), flags, (&raw mut child).cast());
        let errno = std::io::Error::last_os_error();
        libc::munmap(stack, STACK);
        if code < 0 { Err(Errno::from_io_error(&errno).unwrap_or(Errno::IO)) } else { Ok(code) }
    };
    code.and_then(|pid| Pid::from_raw(pid).ok_or(Errno::SRCH))
}

fn clone(mut args: CloneArgs) -> Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    args.flags |= PIDFD;
    args.pidfd = &raw mut pidfd as u64;
    // SAFETY: the arguments are a valid `clone_args` of the stated size that outlives the call. Neither CLONE_VM nor a
    // stack is given, so the child goes on with a copy of this memory, as after fork; the process has one thread.
    let code = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match check(code)? {
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}
