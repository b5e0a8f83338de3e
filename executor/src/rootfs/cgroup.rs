//! `/sys/fs/cgroup`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::{NO_SUID_DEV_EXEC, attach, clone_tree, new_mount};
use crate::root_dir::DirFd;
use crate::spec::Access;
use crate::sys::mount::{Depth, set_attributes};

/// The unified hierarchy as the sandbox's cgroup namespace shows it.
pub(crate) fn unified(access: Access) -> rustix::io::Result<OwnedFd> {
    new_mount(c"cgroup2", &[("source", "cgroup")], attributes(access))
}

/// A tmpfs at `target` with the sandbox's own v1 groups, one directory each.
pub(crate) fn controllers(target: &OwnedFd, groups: &[(String, PathBuf)], access: Access) -> io::Result<()> {
    let options = [("source", "tmpfs"), ("mode", "755"), ("size", "4k")];
    let tmpfs = new_mount(c"tmpfs", &options, NO_SUID_DEV_EXEC)?;
    let dir = DirFd::from_fd(tmpfs.try_clone()?);
    for (name, _) in groups {
        dir.create_dir(OsStr::new(name), 0o755)?;
    }
    attach(&tmpfs, target.as_fd())?;
    for (name, group) in groups {
        let source = rustix::fs::open(group, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let copy = clone_tree(source, false)?;
        set_attributes(copy.as_fd(), attributes(access), Depth::Single)?;
        attach(copy, dir.open_path(OsStr::new(name))?.as_fd())?;
    }
    Ok(set_attributes(tmpfs.as_fd(), attributes(access), Depth::Single)?)
}

fn attributes(access: Access) -> MountAttrFlags {
    match access {
        Access::ReadOnly => NO_SUID_DEV_EXEC | MountAttrFlags::MOUNT_ATTR_RDONLY,
        Access::ReadWrite => NO_SUID_DEV_EXEC,
    }
}
