//! Mount points that had to be made, and how the root looks as if they never were (rule B-03).
//!
//! They are made through the sandbox's root, with every step confined. On an overlay that also copies the directories above
//! them into the upper directory, which is the layer. So what was made and what was copied is remembered by inode, and after
//! the sandbox ended it is removed from the backing directory (the upper one, or the root itself): a mount point only if it
//! is the same file and empty, a copied directory only if nobody touched it meanwhile.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rbuild_image::ContainerPath;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::root_dir::{DirFd, Node, RootDir};
use crate::spec::MountPoint;
use crate::stat::{FileKind, Stat, Timestamp};

/// What setting up mounts left in the backing directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leftovers {
    /// Files and directories that were made, outermost first.
    made: Vec<Made>,
    /// Directories that were only copied up, outermost first.
    copied: Vec<Copied>,
    /// Directories whose times changed because something was made in them.
    touched: Vec<Touched>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    path: ContainerPath,
    inode: u64,
    kind: FileKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Copied {
    path: ContainerPath,
    inode: u64,
    /// Its change time when the set-up ended.
    changed: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Touched {
    path: ContainerPath,
    before: (Timestamp, Timestamp),
    /// Its modification time when the set-up ended.
    after: Timestamp,
}

/// Makes mount points in a root and remembers them.
#[derive(Debug)]
pub(crate) struct MountPoints {
    root: RootDir,
    /// Where changes of the root end up.
    backing: RootDir,
    leftovers: Leftovers,
    /// Where something else than the root is mounted by now.
    covered: Vec<ContainerPath>,
    /// How much of what was made the owner knows of.
    told: usize,
}

/// The kind of thing that is going to be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Directory,
    File,
}

impl MountPoints {
    pub(crate) fn new(root: RootDir, backing: RootDir) -> Self {
        Self { root, backing, leftovers: Leftovers::default(), covered: Vec::new(), told: 0 }
    }

    /// Opens the place for a mount, following symlinks inside the root, and makes it if it is missing.
    pub(crate) fn open(&mut self, target: &ContainerPath, shape: Shape, keep: MountPoint) -> io::Result<OwnedFd> {
        let (found, real) = match open_exact(&self.root, target, OFlags::PATH) {
            // No symlink is on the way, which is nearly always so: the place is where it seems to be.
            Ok(found) => (found, target.clone()),
            Err(error) if is_symlink(&error) => match self.root.open_path(target) {
                Ok(found) => (found, self.root.resolve(target)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.open_made(target, shape, keep),
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.open_made(target, shape, keep),
            Err(error) => return Err(error),
        };
        let directory = Stat::of(&found)?.kind == FileKind::Directory;
        match (shape, directory) {
            (Shape::Directory, false) => Err(Errno::NOTDIR.into()),
            (Shape::File, true) => Err(Errno::ISDIR.into()),
            _ => {
                self.covered.push(real);
                Ok(found)
            }
        }
    }

    fn open_made(&mut self, target: &ContainerPath, shape: Shape, keep: MountPoint) -> io::Result<OwnedFd> {
        let real = self.make(target, shape, keep)?;
        let made = open_exact(&self.root, &real, OFlags::PATH)?;
        self.covered.push(real);
        Ok(made)
    }

    /// Whether the last place that was opened is in `/proc`, and none of the files there that programs which imitate them
    /// (lxcfs) put their own over. A link of the image may lead there (CVE-2019-16884).
    pub(crate) fn last_is_in_proc(&self) -> bool {
        const OVER: [&str; 9] =
            ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"];
        let Some(inside) = self.covered.last().and_then(|path| path.as_bytes().strip_prefix(b"/proc")) else {
            return false;
        };
        match inside.strip_prefix(b"/") {
            Some(file) => !OVER.iter().any(|over| over.as_bytes() == file),
            None => inside.is_empty(),
        }
    }

    /// Opens the place for one of the kernel's file systems, which must not be a symlink (rule S-16); `None` if it is.
    pub(crate) fn open_kernel(&mut self, target: &ContainerPath) -> io::Result<Option<OwnedFd>> {
        match open_exact(&self.root, target, OFlags::PATH) {
            Err(error) if is_symlink(&error) && self.root.lstat(target)?.kind == FileKind::Symlink => Ok(None),
            // Whatever else it is, opening it says so.
            Err(_) => self.open(target, Shape::Directory, MountPoint::Kept).map(Some),
            Ok(found) if Stat::of(&found)?.kind == FileKind::Directory => {
                self.covered.push(target.clone());
                Ok(Some(found))
            }
            Ok(_) => Err(Errno::NOTDIR.into()),
        }
    }

    /// Makes a missing mount point: where it is, without symlinks.
    fn make(&mut self, target: &ContainerPath, shape: Shape, keep: MountPoint) -> io::Result<ContainerPath> {
        let real = self.root.resolve_missing(target)?;
        let mut path = ContainerPath::root();
        let mut dir = self.root.open_dir(&path)?;
        let names: Vec<&[u8]> = real.components().collect();
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            let name = OsStr::from_bytes(name);
            let above = path.clone();
            path = above.join(name.as_bytes());
            if dir.lstat(name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                self.make_one(&dir, &above, name, if last { shape } else { Shape::Directory }, keep)?;
            }
            if !last {
                dir = dir.open_dir(name)?;
            }
        }
        Ok(real)
    }

    fn make_one(
        &mut self,
        dir: &DirFd,
        above: &ContainerPath,
        name: &OsStr,
        shape: Shape,
        keep: MountPoint,
    ) -> io::Result<()> {
        // Below another mount nothing reaches the backing directory.
        let tracked = keep == MountPoint::Removed && !self.covered.iter().any(|mount| above.starts_with(mount));
        let before = if tracked { self.before(above)? } else { Vec::new() };
        match shape {
            Shape::Directory => {
                dir.create_dir(name, 0o755)?;
                dir.open_dir(name)?.set_mode(0o755)?;
            }
            Shape::File => dir.mknod(name, Node::File, 0o644)?,
        }
        if tracked {
            self.remember(above, name, before)?;
        }
        Ok(())
    }

    /// What the backing directory has of `dir` and the directories above it.
    fn before(&self, dir: &ContainerPath) -> io::Result<Vec<(ContainerPath, Option<Stat>)>> {
        let mut chain = Vec::new();
        let mut next = Some(dir.clone());
        while let Some(path) = next {
            chain.push((path.clone(), backing_stat(&self.backing, &path)?));
            next = path.parent();
        }
        chain.reverse();
        Ok(chain)
    }

    fn remember(
        &mut self,
        above: &ContainerPath,
        name: &OsStr,
        before: Vec<(ContainerPath, Option<Stat>)>,
    ) -> io::Result<()> {
        let path = above.join(name.as_bytes());
        // Not in the backing directory: the root is something else than was thought, and nothing will be removed.
        let Some(stat) = backing_stat(&self.backing, &path)? else { return Ok(()) };
        for (dir, had) in before {
            let Some(now) = backing_stat(&self.backing, &dir)? else { continue };
            match had {
                None => self.leftovers.copied.push(Copied { path: dir, inode: now.inode, changed: now.changed }),
                Some(had) => {
                    let known = self.leftovers.touched.iter().any(|t| t.path == dir);
                    let own = self.leftovers.made.iter().any(|m| m.path == dir)
                        || self.leftovers.copied.iter().any(|c| c.path == dir);
                    if dir == *above && !known && !own {
                        let before = (had.accessed, had.modified);
                        self.leftovers.touched.push(Touched { path: dir, before, after: now.modified });
                    }
                }
            }
        }
        self.leftovers.made.push(Made { path, inode: stat.inode, kind: stat.kind });
        Ok(())
    }

    /// What was made until now, if that is more than last time: for the owner, who has to remove it should this process be
    /// killed before it comes to [`MountPoints::finish`].
    pub(crate) fn news(&mut self) -> Option<Leftovers> {
        let made = self.leftovers.made.len();
        (std::mem::replace(&mut self.told, made) < made).then(|| self.leftovers.clone())
    }

    /// Everything that is to be removed later, with the times at this moment.
    pub(crate) fn finish(mut self) -> io::Result<Leftovers> {
        for copied in &mut self.leftovers.copied {
            if let Some(now) = backing_stat(&self.backing, &copied.path)? {
                copied.changed = now.changed;
            }
        }
        for touched in &mut self.leftovers.touched {
            if let Some(now) = backing_stat(&self.backing, &touched.path)? {
                touched.after = now.modified;
            }
        }
        Ok(self.leftovers)
    }
}

impl Leftovers {
    pub(crate) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Directories that only changed by what was made in them.
    pub(crate) fn visited(&self) -> Vec<ContainerPath> {
        self.touched.iter().map(|touched| touched.path.clone()).collect()
    }

    /// Removes what was made, as far as it is still what was made.
    pub(crate) fn remove(&self, backing: &RootDir) -> io::Result<()> {
        let untouched: Vec<bool> = self
            .copied
            .iter()
            .map(|copied| {
                let now = backing_stat(backing, &copied.path)?;
                Ok(now.is_some_and(|now| now.inode == copied.inode && now.changed == copied.changed))
            })
            .collect::<io::Result<_>>()?;
        for made in self.made.iter().rev() {
            self.remove_made(backing, made)?;
        }
        for (copied, _) in self.copied.iter().zip(untouched).rev().filter(|(_, untouched)| *untouched) {
            let Some((dir, name)) = parent_in(backing, &copied.path)? else { continue };
            ignore_occupied(dir.remove_dir(&name))?;
        }
        Ok(())
    }

    fn remove_made(&self, backing: &RootDir, made: &Made) -> io::Result<()> {
        let Some((dir, name)) = parent_in(backing, &made.path)? else { return Ok(()) };
        let stat = match dir.lstat(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if stat.inode != made.inode || stat.kind != made.kind {
            return Ok(());
        }
        let times = dir.metadata()?;
        match made.kind {
            FileKind::Directory => ignore_occupied(dir.remove_dir(&name))?,
            _ if stat.size == 0 => dir.unlink(&name)?,
            _ => return Ok(()),
        }
        // Removing must not look like a change of the step's; where the step changed nothing, neither must making.
        let parent = made.path.parent().unwrap_or_else(ContainerPath::root);
        let touched = self.touched.iter().find(|touched| touched.path == parent);
        let (accessed, modified) = match touched {
            Some(touched) if touched.after == times.modified => touched.before,
            _ => (times.accessed, times.modified),
        };
        dir.set_own_times(accessed, modified)
    }
}

/// A directory that something lives in stays.
fn ignore_occupied(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

/// The directory that holds `path` in the backing directory, and the name there; `None` when it is gone.
fn parent_in(backing: &RootDir, path: &ContainerPath) -> io::Result<Option<(DirFd, OsString)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    match open_exact(backing, &parent, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => Ok(Some((DirFd::from_fd(fd), OsStr::from_bytes(name).to_owned()))),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn backing_stat(backing: &RootDir, path: &ContainerPath) -> io::Result<Option<Stat>> {
    match open_exact(backing, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(fd) => Stat::of(fd).map(Some),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing at the path, or something else on the way to it.
fn gone(error: &io::Error) -> bool {
    is_symlink(error) || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A path was not followed because a symlink is on its way.
fn is_symlink(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Opens a path whose components are exactly what they seem: no symlink is followed.
fn open_exact(root: &RootDir, path: &ContainerPath, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path.relative(), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
