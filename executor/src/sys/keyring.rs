//! The session keyring.

use rustix::io::Result;

use super::check;

/// Gives the process a new, anonymous session keyring, so that it does not share the caller's.
pub(crate) fn join_new_session() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name: *const libc::c_char = std::ptr::null();
    // SAFETY: a null name asks for an anonymous keyring; nothing is read or written.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name, 0, 0, 0) }).map(drop)
}
