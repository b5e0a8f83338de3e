//! Signal dispositions and masks of a process with one thread.

use rustix::io::Result;

use super::check;

/// One past the largest signal number.
const LIMIT: i32 = 65;

/// Gives every signal its default action and unblocks all, as a fresh program expects.
pub(crate) fn reset() -> Result<()> {
    for signal in 1..LIMIT {
        // SAFETY: SIG_DFL installs no code. Numbers without a disposition to set (SIGKILL, SIGSTOP and the two of the C
        // library) are refused, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_mask(libc::SIG_UNBLOCK)
}

/// Blocks every signal that can be.
pub(crate) fn block_all() -> Result<()> {
    set_mask(libc::SIG_BLOCK)
}

fn set_mask(how: libc::c_int) -> Result<()> {
    // SAFETY: the set is filled before it is used; the old mask is not asked for.
    let code = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(how, &raw const all, std::ptr::null_mut())
    };
    check(code.into()).map(drop)
}

/// Takes the next blocked signal, waiting for it: its number.
pub(crate) fn take() -> Result<i32> {
    // SAFETY: the set is filled before it is used; no information beyond the number is asked for.
    let code = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    };
    check(code.into()).map(|signal| i32::try_from(signal).unwrap_or(0))
}
