//! Mounts of a sandbox as detached mounts: made without a place, then moved to a descriptor that the kernel confined.

pub(crate) mod at_rest;
pub(crate) mod cgroup;
pub(crate) mod device;
pub(crate) mod erofs;
pub(crate) mod layer_mounts;
pub(crate) mod mask;
pub(crate) mod memory_file;
pub(crate) mod overlay;
pub(crate) mod source;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

use self::layer_mounts::LayerMounts;
use crate::plan::OverlayMarks;
use crate::root_dir::RootDir;
use crate::spec::{Durability, Lower, Rootfs};
use crate::sys::mount::{Depth, set_attributes};
use crate::user_namespace::{Powers, powers};

/// Attributes of the kernel's file systems in a sandbox.
pub(crate) const NO_SUID_DEV_EXEC: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// The files of a sandbox that does not run, mounted where nobody else sees them for as long as this is held.
pub fn open_rootfs(rootfs: &Rootfs) -> io::Result<RootDir> {
    match rootfs {
        Rootfs::Directory(path) => RootDir::open(path),
        Rootfs::Overlay { lowers, upper, work } => Ok(RootDir::from_fd(mount_overlay(lowers, upper, work)?)),
    }
}

/// An overlay that is mounted nowhere yet, marked as this process may.
fn mount_overlay(lowers: &[Lower], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let marks = if powers() == Powers::All { OverlayMarks::Trusted } else { OverlayMarks::User };
    let mount = overlay::mount(lowers, &LayerMounts::default(), upper, work, Durability::EachSync, marks);
    mount.map_err(|error| overlay::explain(error, upper))
}

/// A new file system, mounted nowhere yet.
pub(crate) fn new_mount(kind: &CStr, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A copy of the mount at `path`, mounted nowhere yet; with those below it when `recursive`.
pub(crate) fn clone_tree(path: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(path, c"", flags)
}

/// The host's `/sys` with all that is mounted in it, read-only.
pub(crate) fn host_sys() -> Result<OwnedFd> {
    let sys = rustix::fs::open(c"/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let copy = clone_tree(sys, true)?;
    set_attributes(copy.as_fd(), NO_SUID_DEV_EXEC | MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Recursive)?;
    Ok(copy)
}

/// Puts a detached mount at an open place.
pub(crate) fn attach(mount: impl AsFd, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}
