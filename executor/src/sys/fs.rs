//! File system calls that no safe crate offers.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::{Errno, Result};

use super::check;

/// `fchmodat2(2)` without following a symlink (Linux 6.6; ENOSYS before).
pub(crate) fn fchmodat2(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    const SYS_FCHMODAT2: libc::c_long = 452;
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open and the name is a C string, both for the whole call.
    let code = unsafe { libc::syscall(SYS_FCHMODAT2, dir.as_raw_fd(), name.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW) };
    check(code).map(drop)
}
