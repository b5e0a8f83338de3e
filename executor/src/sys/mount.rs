//! `mount_setattr(2)`.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;
use rustix::mount::MountAttrFlags;

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
    const SYS_MOUNT_SETATTR: libc::c_long = 442;
    let attributes = MountAttr { set: set.bits().into(), clear: 0, propagation: 0, userns: 0 };
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
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    check(code).map(drop)
}
