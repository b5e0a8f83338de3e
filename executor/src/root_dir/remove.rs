//! Recursive removal by descriptors, without recursion on the stack and without following anything.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{DirFd, lstat_at};
use crate::stat::FileKind;

/// A directory that is being emptied.
struct Level {
    dir: DirFd,
    /// Its name in the level above.
    name: OsString,
    /// Subdirectories that are still to be emptied.
    pending: Vec<OsString>,
}

/// Removes `name` in `dir` with everything below; whether there was something.
pub(super) fn remove_all(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::ISDIR) => {}
        // EPERM is the POSIX answer for a directory; whether it is one is asked, not guessed.
        Err(errno) => match lstat_at(dir, name) {
            Ok(stat) if stat.kind == FileKind::Directory => {}
            _ => return Err(errno.into()),
        },
    }
    let device = lstat_at(dir, name)?.device;
    let mut levels = vec![open_level(dir, name.to_owned())?];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.pending.pop() {
            let fd = level.dir.as_fd();
            match lstat_at(fd, &child) {
                Ok(stat) if stat.device != device => return Err(Errno::XDEV.into()),
                Ok(_) => {}
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let next = open_level(fd, child)?;
            levels.push(next);
            continue;
        }
        let done = levels.pop().expect("the loop holds the last level");
        let parent = levels.last().map_or(dir, |above| above.dir.as_fd());
        match rustix::fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// Opens a directory and removes everything in it that is not a directory.
fn open_level(parent: BorrowedFd<'_>, name: OsString) -> io::Result<Level> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(parent, &name, flags, Mode::empty());
    let fd: OwnedFd = match open() {
        Err(Errno::ACCESS) => {
            // A directory without rights, when we are not root: take them first.
            crate::sys::fs::fchmodat2(parent, &name, 0o700)?;
            open()?
        }
        other => other?,
    };
    let dir = DirFd::from_fd(fd);
    let mut pending = Vec::new();
    for entry in dir.list()? {
        if entry.kind == Some(FileKind::Directory) {
            pending.push(entry.name);
            continue;
        }
        match rustix::fs::unlinkat(&dir, &entry.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM)
                if lstat_at(dir.as_fd(), &entry.name).is_ok_and(|s| s.kind == FileKind::Directory) =>
            {
                pending.push(entry.name);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Level { dir, name, pending })
}
