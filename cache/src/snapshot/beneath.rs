//! Opening below a directory descriptor without following any symlink.
//!
//! `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`; where the kernel or a filter refuses
//! that call, a walk of one `O_NOFOLLOW` open per component gives the same answer.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opens the directory `path` below `root`; an empty path is `root` itself.
pub(crate) fn open_dir(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens `path` below `root` with `flags`; no component may be a symlink.
pub(crate) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) => return walk(root, path, flags),
            other => return other,
        }
    }
}

/// The same by one open per component.
fn walk(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::fs::openat(root.as_fd(), c".", directory, Mode::empty())?;
    let mut parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").peekable();
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(Errno::XDEV);
        }
        if parts.peek().is_none() {
            return rustix::fs::openat(&here, part, flags, Mode::empty());
        }
        here = rustix::fs::openat(&here, part, directory, Mode::empty())?;
    }
    rustix::fs::openat(&here, c".", flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_refuse_symlinks_and_climbing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("a/link")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for (path, good) in
            [("", true), ("a", true), ("a/b", true), ("a/link", false), ("out/etc", false), ("..", false)]
        {
            assert_eq!(open(&root, path.as_bytes(), flags).is_ok(), good, "{path}");
            assert_eq!(walk(&root, path.as_bytes(), flags).is_ok(), good, "walk {path}");
        }
    }
}
