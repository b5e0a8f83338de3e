//! Hiding and write-protecting parts of `/proc` and `/sys`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{NO_SUID_DEV_EXEC, attach, clone_tree, new_mount};
use crate::stat::{FileKind, Stat};
use crate::sys::mount::{Depth, set_attributes};

/// What masked paths show instead: a null device and an empty directory that we opened ourselves (rule S-18).
#[derive(Debug)]
pub(crate) struct Masks {
    null: OwnedFd,
    /// The first masked directory's mount; the others are copies of it.
    empty: Option<OwnedFd>,
}

impl Masks {
    /// Opens the host's null device and makes sure that it is one.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = rustix::fs::open(c"/dev/null", flags, Mode::empty())?;
        let stat = Stat::of(&null)?;
        if stat.kind != FileKind::CharDevice || stat.device_file != (1, 3) {
            return Err(io::Error::other("/dev/null of the host is not the null device"));
        }
        Ok(Self { null, empty: None })
    }

    /// Covers `target`.
    pub(crate) fn hide(&mut self, target: &OwnedFd) -> io::Result<()> {
        if Stat::of(target)?.kind != FileKind::Directory {
            return Ok(attach(clone_tree(&self.null, false)?, target.as_fd())?);
        }
        if let Some(empty) = &self.empty {
            return Ok(attach(clone_tree(empty, false)?, target.as_fd())?);
        }
        let attributes = NO_SUID_DEV_EXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let options = [("source", "tmpfs"), ("mode", "755"), ("size", "4k"), ("nr_inodes", "2")];
        let empty = new_mount(c"tmpfs", &options, attributes)?;
        attach(&empty, target.as_fd())?;
        self.empty = Some(empty);
        Ok(())
    }
}

/// Mounts `target` over itself, read-only.
pub(crate) fn write_protect(target: &OwnedFd) -> io::Result<()> {
    let copy = clone_tree(target, true)?;
    set_attributes(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Recursive)?;
    match attach(copy, target.as_fd()) {
        // A process entry that vanished meanwhile.
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}
