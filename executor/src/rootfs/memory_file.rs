//! Small files whose bytes live in memory only.
//!
//! All of a sandbox's lie in one tmpfs that is never mounted as a whole: each file is bound by itself, so none of the other
//! names can be seen. It is kept out of swap where the kernel can (rule B-10).

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, unmount,
};

use super::{attach, clone_tree};
use crate::root_dir::DirFd;

/// Room for what a sandbox may write into files that are writable.
const SIZE: &str = "64m";

/// The memory files of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct MemoryFiles {
    tmpfs: Option<OwnedFd>,
    count: usize,
}

/// Attributes of a memory file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl MemoryFiles {
    /// Makes their file system, which the first of them would make else.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        self.tmpfs = Some(tmpfs()?);
        Ok(())
    }

    /// Makes a file and gives a detached mount of it. The umask must be 0.
    pub(crate) fn create(&mut self, content: &[u8], attributes: Attributes) -> io::Result<OwnedFd> {
        let tmpfs = match &self.tmpfs {
            Some(tmpfs) => tmpfs,
            None => self.tmpfs.insert(tmpfs()?),
        };
        let dir = DirFd::from_fd(tmpfs.try_clone()?);
        let name = OsString::from(self.count.to_string());
        self.count += 1;
        dir.create_file(&name, 0o600)?.write_all(content)?;
        dir.chown(&name, attributes.uid, attributes.gid)?;
        dir.chmod(&name, attributes.mode)?;
        match clone_tree(dir.open_path(&name)?, false) {
            Err(Errno::INVAL) => {}
            other => return Ok(other?),
        }
        // Linux before 6.15 only copies what has a place. The host's /proc is one that always exists.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        attach(tmpfs, rustix::fs::open(c"/proc", flags, Mode::empty())?.as_fd())?;
        let copy = clone_tree(dir.open_path(&name)?, false);
        // Detached it would be gone for the next file: that one gets a new tmpfs.
        unmount(c"/proc", UnmountFlags::DETACH)?;
        self.tmpfs = None;
        Ok(copy?)
    }
}

fn tmpfs() -> rustix::io::Result<OwnedFd> {
    match new_tmpfs(true) {
        // Linux before 6.4 cannot keep a tmpfs out of swap.
        Err(Errno::INVAL) => new_tmpfs(false),
        other => other,
    }
}

fn new_tmpfs(noswap: bool) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("source", "tmpfs"), ("mode", "700"), ("size", SIZE)] {
        fsconfig_set_string(&context, key, value)?;
    }
    if noswap {
        fsconfig_set_flag(&context, "noswap")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
