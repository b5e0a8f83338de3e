//! Loading a device filter and attaching it to a cgroup.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::check;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Others above and below keep their say.
const ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes missing members for zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a device filter of eBPF instructions, which the kernel verifies.
pub(crate) fn load_device_filter(instructions: &[u64]) -> Result<OwnedFd> {
    let attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the attributes are valid for the stated size; instructions and license outlive the call and are only read.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the call has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device filter to a cgroup v2 directory; it goes away with the directory.
pub(crate) fn attach_device_filter(program: &OwnedFd, cgroup: impl AsFd) -> Result<()> {
    let number = |fd: i32| u32::try_from(fd).map_err(|_| Errno::BADF);
    let attributes = Attach {
        target: number(cgroup.as_fd().as_raw_fd())?,
        program: number(program.as_raw_fd())?,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the attributes are valid for the stated size; both descriptors are open for the whole call.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>()) }).map(drop)
}
