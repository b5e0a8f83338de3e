//! `mount_setattr(2)`.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::check;

/// `struct mount_attr` (Linux 5.12).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Whether a change reaches the mounts below, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Only this mount.
    Single,
    /// All mounts of the tree.
    Recursive,
}

/// Sets attributes of the mount that `mount` is the root of.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, set: MountAttrFlags, depth: Depth) -> Result<()> {
    change(mount, &MountAttr { set: set.bits().into(), clear: 0, propagation: 0, userns: 0 }, depth)
}

/// Sets where mounts below a mount are seen, for all mounts of the tree.
pub(crate) fn set_propagation(mount: BorrowedFd<'_>, propagation: MountPropagationFlags) -> Result<()> {
    let attributes = MountAttr { set: 0, clear: 0, propagation: propagation.bits().into(), userns: 0 };
    change(mount, &attributes, Depth::Recursive)
}

fn change(mount: BorrowedFd<'_>, attributes: &MountAttr, depth: Depth) -> Result<()> {
    const SYS_MOUNT_SETATTR: libc::c_long = 442;
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the descriptor is open, the path is an empty C string, the struct is valid and of the stated size.
    let code = unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    check(code).map(drop)
}
