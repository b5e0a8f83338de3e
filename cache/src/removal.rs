//! Removal of whole trees that hold whatever a build step left there: any depth, any mode, and mount points that a
//! killed process could not take down.
//!
//! Invariants: never follows a symlink, never leaves the file system it started on (a mount point below is an error,
//! not something to empty), and can be interrupted and repeated at every instant.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Directories deeper than this are first moved up, so that no tree exhausts descriptors or the stack.
const DEPTH: usize = 48;

/// Removes `path` and everything below it; it need not exist. Returns the bytes that this gave back.
pub(crate) fn remove_tree(path: &Path) -> io::Result<u64> {
    let Some(parent) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let parent = match rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    let name = CString::new(name.to_owned().into_vec())?;
    let Some(top) = open_directory(&parent, &name)? else {
        return remove_file(&parent, &name);
    };
    let device = rustix::fs::fstat(&top)?.st_dev;
    let mut tree = Tree { top: top.as_fd().try_clone_to_owned()?, device, moved: 0, freed: 0 };
    loop {
        let before = tree.moved;
        tree.empty(&top, 0)?;
        if tree.moved == before {
            break;
        }
    }
    tree.remove_directory(&parent, &name, &top)?;
    Ok(tree.freed)
}

/// Takes down every mount at or below the directory `path` that this process can see.
pub(crate) fn unmount_below(path: &Path) -> io::Result<()> {
    // The kernel's table has names without symlinks, from the root; the store may have been given by another one.
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let resolved = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    drop(directory);
    let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
    // Later mounts lie on top of earlier ones.
    for point in mount_points_below(&resolved)?.iter().rev() {
        match rustix::mount::unmount(point, flags) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Mount points at or below `path`, in the order in which they were mounted.
fn mount_points_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(unescape).filter(|point| point.starts_with(path)).collect())
}

/// Undoes the kernel's `\040` for blanks and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

struct Tree {
    top: OwnedFd,
    device: u64,
    moved: u64,
    freed: u64,
}

impl Tree {
    fn empty(&mut self, directory: &OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() != FileType::Directory && entry.file_type() != FileType::Unknown {
                self.freed += remove_file(directory, name)?;
                continue;
            }
            let Some(child) = open_directory(directory, name)? else {
                self.freed += remove_file(directory, name)?;
                continue;
            };
            if rustix::fs::fstat(&child)?.st_dev != self.device {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "something is mounted below"));
            }
            if depth >= DEPTH {
                self.move_up(directory, name)?;
                continue;
            }
            self.empty(&child, depth + 1)?;
            self.remove_directory(directory, name, &child)?;
        }
        Ok(())
    }

    fn remove_directory(&mut self, parent: &OwnedFd, name: &CStr, directory: &OwnedFd) -> io::Result<()> {
        let blocks = rustix::fs::fstat(directory)?.st_blocks;
        ignore_absent(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))?;
        self.freed += blocks.unsigned_abs() * 512;
        Ok(())
    }

    fn move_up(&mut self, directory: &OwnedFd, name: &CStr) -> io::Result<()> {
        loop {
            self.moved += 1;
            let target = format!("rbuild-removal-{}", self.moved);
            match rustix::fs::renameat_with(directory, name, &self.top, target, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// Opens a directory for reading, whatever its mode; `None` when the name is something else or gone.
fn open_directory(parent: impl AsFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&parent, name, flags, Mode::empty());
    match opened {
        Ok(directory) => {
            // Entries of a directory without w or x cannot be removed; overlayfs leaves such a one in its work
            // directory. Only for those that do not override permissions.
            let mode = rustix::fs::fstat(&directory)?.st_mode;
            if mode & 0o700 != 0o700 {
                rustix::fs::fchmod(&directory, Mode::RWXU)?;
            }
            Ok(Some(directory))
        }
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(None),
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            Ok(Some(rustix::fs::openat(&parent, name, flags, Mode::empty())?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes what is no directory; its bytes, if that was its last name.
fn remove_file(parent: &OwnedFd, name: &CStr) -> io::Result<u64> {
    let status = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    ignore_absent(rustix::fs::unlinkat(parent, name, AtFlags::empty()))?;
    Ok(if status.st_nlink == 1 { status.st_blocks.unsigned_abs() * 512 } else { 0 })
}

fn ignore_absent(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn removes_deep_and_forbidden_trees_without_following_links() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        fs::write(&outside, "keep").unwrap();
        let top = home.path().join("top");
        fs::create_dir(&top).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("file-link")).unwrap();
        std::os::unix::fs::symlink(home.path(), top.join("dir-link")).unwrap();
        fs::create_dir(top.join("closed")).unwrap();
        fs::write(top.join("closed/inside"), "x").unwrap();
        fs::set_permissions(top.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        // Deeper than PATH_MAX: made from below, by moving one chain under another.
        let mut chain = top.join("deep");
        fs::create_dir(&chain).unwrap();
        for _ in 0..30 {
            let shorter: PathBuf = std::iter::repeat_n("d", 100).collect();
            fs::create_dir_all(home.path().join("next").join(&shorter)).unwrap();
            fs::rename(&chain, home.path().join("next").join(&shorter).join("d")).unwrap();
            fs::rename(home.path().join("next"), top.join("deep")).unwrap();
            chain = top.join("deep");
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "keep");
        remove_tree(&top).unwrap();
        remove_tree(&outside).unwrap();
        assert!(!outside.exists(), "a plain file goes too");
    }

    #[test]
    fn mounts_are_taken_down_before_anything_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().join("real/top");
        fs::create_dir_all(top.join("a b/c")).unwrap();
        std::os::unix::fs::symlink("real", home.path().join("alias")).unwrap();
        let point = top.join("a b/c");
        let flags = rustix::mount::MountFlags::empty();
        if let Err(error) = rustix::mount::mount("tmpfs", &point, "tmpfs", flags, c"size=1m") {
            eprintln!("SKIPPED: needs the right to mount: {error}");
            return;
        }
        rustix::mount::mount("tmpfs", &point, "tmpfs", flags, c"size=1m").unwrap();
        fs::write(point.join("precious"), "x").unwrap();
        let refused = remove_tree(&top).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        assert!(point.join("precious").exists(), "what is mounted is not ours to empty");
        unmount_below(&home.path().join("alias/top")).unwrap();
        remove_tree(&home.path().join("alias/top")).unwrap();
        assert!(!top.exists());
        unmount_below(&top).unwrap();
    }

    #[test]
    fn mount_table_escapes_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c"), PathBuf::from(r"/a b\c"));
    }
}
