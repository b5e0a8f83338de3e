//! The only unsafe code: system calls that no safe crate offers, behind typed, owned descriptors.
#![expect(unsafe_code, reason = "raw system calls; every block says why it is sound")]

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod fs;
pub(crate) mod keyring;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod signal;

use rustix::io::{Errno, Result};

/// The result of a raw system call made through libc.
fn check(code: libc::c_long) -> Result<libc::c_long> {
    if code < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(code)
}
