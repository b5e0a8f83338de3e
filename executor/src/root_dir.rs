//! A directory that is the root of every lookup made through it.
//!
//! Invariants: the kernel confines each lookup (`openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`), so that
//! `..` and absolute symlinks stay inside however the tree changes meanwhile; no path string is resolved twice.
//! A [`RootDir`] takes whole [`ContainerPath`]s and follows symlinks in them, inside the root. A [`DirFd`] is one
//! directory that is already open: its operations take a single name and never follow a symlink.
//! Ownership, modes and times are what the caller says, except that the process's umask applies at creation.

mod dir_fd;
mod remove;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rbuild_image::ContainerPath;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use dir_fd::{DirEntry, DirFd, Node};

use crate::stat::{FileKind, Stat};

/// A root directory; every lookup stays below it.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

/// Owner and mode of directories that are created on the way to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDirectory {
    /// Permission bits, whatever the umask.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl RootDir {
    /// Opens a host directory as a root. The path is the caller's own and may lead through symlinks.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Takes an open directory (or a detached mount) as a root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another handle on the same root.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Opens a directory; symlinks are followed inside the root.
    pub fn open_dir(&self, path: &ContainerPath) -> io::Result<DirFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(DirFd::from_fd(self.lookup(path, flags, Mode::empty())?))
    }

    /// Opens a directory that need not be readable, as a place only.
    pub(crate) fn open_dir_path(&self, path: &ContainerPath) -> io::Result<OwnedFd> {
        Ok(self.lookup(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Opens the directory that holds the last component of `path`, and gives that component; `None` for the root.
    pub fn open_parent<'p>(&self, path: &'p ContainerPath) -> io::Result<Option<(DirFd, &'p OsStr)>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        Ok(Some((self.open_dir(&parent)?, OsStr::from_bytes(name))))
    }

    /// Opens a regular file for reading. Never blocks: anything but a regular file is refused.
    pub fn open_file(&self, path: &ContainerPath) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(self.lookup(path, flags, Mode::empty())?);
        match Stat::of(&file)?.kind {
            FileKind::File => Ok(file),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Reads a regular file of at most `limit` bytes.
    pub fn read_regular(&self, path: &ContainerPath, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_file(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(Errno::FBIG.into());
        }
        Ok(content)
    }

    /// Attributes of what `path` leads to.
    pub fn stat(&self, path: &ContainerPath) -> io::Result<Stat> {
        Stat::of(self.lookup(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Attributes of `path` itself, a symlink included.
    pub fn lstat(&self, path: &ContainerPath) -> io::Result<Stat> {
        Stat::of(self.lookup(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Whether `path` leads to something; a dangling symlink does not.
    pub fn exists(&self, path: &ContainerPath) -> io::Result<bool> {
        match self.stat(path) {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The target of the symlink at `path`, as it is written.
    pub fn read_link(&self, path: &ContainerPath) -> io::Result<OsString> {
        let link = self.lookup(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        read_link_of(&link)
    }

    /// The entries of a directory, sorted by name.
    pub fn list(&self, path: &ContainerPath) -> io::Result<Vec<DirEntry>> {
        self.open_dir(path)?.list()
    }

    /// Makes sure that `path` is a directory. Missing ones are created below what exists, symlinks on the way are
    /// followed inside the root. Gives the created ones, outermost first.
    pub fn create_dir_all(&self, path: &ContainerPath, new: NewDirectory) -> io::Result<Vec<ContainerPath>> {
        Ok(self.ensure_dir(path, new)?.1)
    }

    /// Like [`RootDir::create_dir_all`], and gives the opened directory too.
    pub fn ensure_dir(&self, path: &ContainerPath, new: NewDirectory) -> io::Result<(DirFd, Vec<ContainerPath>)> {
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match self.open_dir(path) {
            Err(error) if missing(&error) => {}
            found => return found.map(|dir| (dir, Vec::new())),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NOENT.into());
        };
        let (parent, mut created) = self.ensure_dir(&parent, new)?;
        let name = OsStr::from_bytes(name);
        match parent.create_dir(name, 0o700) {
            Ok(()) => {
                let dir = parent.open_dir(name)?;
                dir.set_owner(new.uid, new.gid)?;
                dir.set_mode(new.mode)?;
                created.push(path.clone());
                Ok((dir, created))
            }
            // Somebody else was faster, or it is a dangling symlink: the second lookup tells.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((self.open_dir(path)?, created)),
            Err(error) => Err(error),
        }
    }

    /// Removes whatever is at `path` (the last component is not followed), with everything below; whether there was
    /// something.
    pub fn remove_all(&self, path: &ContainerPath) -> io::Result<bool> {
        let parent = match self.open_parent(path) {
            Err(error) if is_absent(&error) => return Ok(false),
            other => other?,
        };
        match parent {
            Some((dir, name)) => dir.remove_all(name),
            None => Err(Errno::BUSY.into()),
        }
    }

    /// Opens `path` as a handle without access rights (`O_PATH`), following symlinks inside the root.
    pub fn open_path(&self, path: &ContainerPath) -> io::Result<OwnedFd> {
        Ok(self.lookup(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Opens `path` as a handle without access rights; a symlink at the end is opened itself.
    pub fn open_path_nofollow(&self, path: &ContainerPath) -> io::Result<OwnedFd> {
        Ok(self.lookup(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Where a path leads: the same path with every symlink replaced, for something that exists.
    pub fn resolve(&self, path: &ContainerPath) -> io::Result<ContainerPath> {
        walk::resolve(self, path, walk::Missing::Refuse)
    }

    /// Where a path would lead if what is missing were directories: every symlink replaced, dangling ones included.
    pub fn resolve_missing(&self, path: &ContainerPath) -> io::Result<ContainerPath> {
        walk::resolve(self, path, walk::Missing::Keep)
    }

    fn lookup(&self, path: &ContainerPath, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        open_confined(self.fd.as_fd(), path.relative(), flags, mode)
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `openat2` in a root. The kernel answers EAGAIN when a rename raced with a `..` it had to check; so it is retried.
fn open_confined(root: BorrowedFd<'_>, path: &OsStr, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    const ATTEMPTS: usize = 1000;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat2(root, path, flags, mode, resolve) {
            Err(Errno::AGAIN) => {}
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The text of a symlink that is open with `O_PATH | O_NOFOLLOW`.
fn read_link_of(link: &OwnedFd) -> io::Result<OsString> {
    // With an empty path, readlinkat says ENOENT for what is not a symlink.
    let target = rustix::fs::readlinkat(link, c"", Vec::new())
        .map_err(|errno| if errno == Errno::NOENT { Errno::INVAL } else { errno })?;
    Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
}

/// Whether the error says that there is nothing at a path.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// `fstat`-like attributes of a name in a directory, not following it.
fn lstat_at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Stat> {
    crate::stat::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::Timestamp;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree() -> (tempfile::TempDir, RootDir) {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("etc/deep")).unwrap();
        std::fs::write(root.join("etc/passwd"), "inside").unwrap();
        std::fs::write(temp.path().join("secret"), "outside").unwrap();
        symlink("/etc", root.join("abs")).unwrap();
        symlink("../../../../secret", root.join("up")).unwrap();
        symlink("/nowhere", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let dir = RootDir::open(&root).unwrap();
        (temp, dir)
    }

    fn at(path: &str) -> ContainerPath {
        ContainerPath::new(path)
    }

    const NEW: NewDirectory = NewDirectory { mode: 0o751, uid: 0, gid: 0 };

    #[test]
    fn symlinks_are_followed_inside_and_never_leave() {
        let (_temp, root) = tree();
        assert_eq!(root.read_regular(&at("/abs/passwd"), 100).unwrap(), b"inside");
        assert_eq!(root.read_regular(&at("/up"), 100).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!root.exists(&at("/dangling")).unwrap());
        assert_eq!(root.lstat(&at("/up")).unwrap().kind, FileKind::Symlink);
        assert_eq!(root.read_link(&at("/abs")).unwrap(), "/etc");
        assert_eq!(root.resolve(&at("/abs/deep")).unwrap(), at("/etc/deep"));
        assert!(root.stat(&at("/loop")).is_err());
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let (_temp, root) = tree();
        let etc = root.open_dir(&at("/etc")).unwrap();
        etc.mknod(OsStr::new("fifo"), Node::Fifo, 0o600).unwrap();
        assert_eq!(root.read_regular(&at("/etc/fifo"), 9).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(root.read_regular(&at("/etc"), 9).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(root.read_regular(&at("/etc/passwd"), 5).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(root.read_regular(&at("/proc/self/exe"), 9).is_err());
    }

    #[test]
    fn missing_directories_are_made_below_what_exists() {
        let (temp, root) = tree();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let made = root.create_dir_all(&at("/abs/a/b"), NewDirectory { uid, gid, ..NEW });
        assert_eq!(made.unwrap(), [at("/abs/a"), at("/abs/a/b")]);
        let stat = root.stat(&at("/etc/a/b")).unwrap();
        assert_eq!((stat.kind, stat.mode), (FileKind::Directory, 0o751));
        assert!(root.create_dir_all(&at("/abs/a/b"), NEW).unwrap().is_empty());
        assert!(root.create_dir_all(&at("/etc/passwd/x"), NEW).is_err());
        assert!(root.create_dir_all(&at("/dangling"), NEW).is_err());
        assert!(!temp.path().join("nowhere").exists());
    }

    #[test]
    fn names_with_a_way_out_are_refused() {
        let (_temp, root) = tree();
        let dir = root.open_dir(&at("/etc")).unwrap();
        for name in ["", ".", "..", "a/b", "/etc"] {
            let name = OsStr::new(name);
            assert!(dir.create_dir(name, 0o700).is_err(), "{name:?}");
            assert!(dir.remove_all(name).is_err(), "{name:?}");
            assert!(dir.open_dir(name).is_err(), "{name:?}");
            assert!(dir.set_xattr(name, OsStr::new("user.x"), b"").is_err(), "{name:?}");
        }
    }

    #[test]
    fn removal_takes_everything_and_follows_nothing() {
        let (temp, root) = tree();
        let outside = temp.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        let deep = temp.path().join("root/etc/deep");
        symlink(&outside, deep.join("link")).unwrap();
        for level in 0..300 {
            let dir = deep.join((0..level).map(|_| "d").collect::<std::path::PathBuf>());
            std::fs::create_dir_all(&dir).unwrap();
        }
        std::fs::set_permissions(deep.join("d"), std::fs::Permissions::from_mode(0o000)).unwrap();
        assert!(root.remove_all(&at("/etc/deep")).unwrap());
        assert!(!root.remove_all(&at("/etc/deep")).unwrap());
        assert!(!root.remove_all(&at("/etc/passwd/below")).unwrap());
        assert!(outside.join("kept").exists());
        assert!(root.remove_all(&at("/")).is_err());
    }

    #[test]
    fn attributes_are_set_without_following() {
        let (_temp, root) = tree();
        let dir = root.open_dir(&at("/")).unwrap();
        let name = OsStr::new("f");
        drop(dir.create_file(name, 0o600).unwrap());
        dir.chmod(name, 0o4711).unwrap();
        let (a, m) = (Timestamp { seconds: 5, nanoseconds: 6 }, Timestamp { seconds: -7, nanoseconds: 999_999_999 });
        dir.set_times(name, a, m).unwrap();
        let stat = dir.lstat(name).unwrap();
        assert_eq!((stat.mode, stat.accessed, stat.modified), (0o4711, a, m));
        dir.set_times(OsStr::new("abs"), a, m).unwrap();
        assert_eq!(root.lstat(&at("/abs")).unwrap().modified, m);
        assert_ne!(root.stat(&at("/abs")).unwrap().modified, m);
        assert!(dir.chmod(OsStr::new("abs"), 0o700).is_err());
        dir.hard_link(&dir, name, OsStr::new("g")).unwrap();
        assert_eq!(dir.lstat(OsStr::new("g")).unwrap().links, 2);
        dir.rename(OsStr::new("g"), &root.open_dir(&at("/etc")).unwrap(), OsStr::new("h")).unwrap();
        assert!(root.stat(&at("/etc/h")).unwrap().same_file(&dir.lstat(name).unwrap()));
    }

    #[test]
    fn extended_attributes_come_back() {
        let (_temp, root) = tree();
        let dir = root.open_dir(&at("/etc")).unwrap();
        let (file, user) = (OsStr::new("passwd"), OsStr::new("user.rbuild"));
        match dir.set_xattr(file, user, &[7; 3000]) {
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return,
            done => done.unwrap(),
        }
        assert_eq!(dir.xattrs(file).unwrap(), [(user.to_owned(), vec![7; 3000])]);
        dir.remove_xattr(file, user).unwrap();
        assert_eq!(dir.get_xattr(file, user).unwrap(), None);
    }

    #[test]
    fn a_tree_that_swaps_a_directory_for_a_symlink_shows_nothing_of_the_outside() {
        let (temp, root) = tree();
        let base = temp.path().join("root");
        std::fs::create_dir(base.join("swap")).unwrap();
        symlink(temp.path(), base.join("other")).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (base.join("swap"), base.join("other"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let dir = rustix::fs::CWD;
                    let _ = rustix::fs::renameat_with(dir, &a, dir, &b, rustix::fs::RenameFlags::EXCHANGE);
                }
            });
            for _ in 0..3000 {
                assert!(root.read_regular(&at("/swap/secret"), 100).is_err());
                assert!(root.read_regular(&at("/swap/../swap/secret"), 100).is_err());
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]

        /// Whatever symlinks a tree has, no lookup in it reaches what lies beside it.
        #[test]
        fn no_tree_of_symlinks_leads_out(
            links in proptest::collection::vec(("[ab]", "(/|\\.\\./|a/|b/|d/){0,6}(secret|\\.\\.|a|b|d)"), 0..4),
            path in "(/|\\.\\./|a/|b/|d/){0,6}secret",
        ) {
            let temp = tempfile::tempdir().unwrap();
            std::fs::write(temp.path().join("secret"), "outside").unwrap();
            let base = temp.path().join("root");
            std::fs::create_dir_all(base.join("d")).unwrap();
            for (name, target) in &links {
                drop(symlink(target, base.join(name)));
                drop(symlink(target, base.join("d").join(name)));
            }
            let root = RootDir::open(&base).unwrap();
            proptest::prop_assert!(root.read_regular(&at(&path), 100).is_err());
            if let Ok(made) = root.create_dir_all(&at(&path), NEW) {
                proptest::prop_assert!(made.iter().all(|path| root.lstat(path).is_ok()));
            }
            // Nothing was made beside the root.
            proptest::prop_assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2);
            if let Ok(resolved) = root.resolve(&at(&path)) {
                proptest::prop_assert!(root.stat(&resolved).unwrap().same_file(&root.stat(&at(&path)).unwrap()));
            }
        }
    }
}
