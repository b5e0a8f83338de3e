//! Layers copied into one tree, for hosts where nothing can put them over each other.
//!
//! ```text
//! BESIDE WORK:  merged/   the copy, which is the sandbox's root; in the end it becomes the upper directory
//! ```
//!
//! Hard links between files of lower layers are not kept: as on an overlay, what is written through one name does not show
//! under the other. Until the sandbox ended the upper directory is as it was; of a killed one it stays so.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_image::ContainerPath;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::merge::{self, Contents, Part};
use super::prune::{self, Since};
use crate::plan::OverlayMarks;
use crate::root_dir::{DirFd, RootDir};
use crate::stat::Timestamp;

/// A copy that a sandbox uses.
#[derive(Debug)]
pub(crate) struct Copied {
    merged: PathBuf,
    upper: PathBuf,
    contents: Contents,
    /// When all was copied.
    at: Timestamp,
    marks: OverlayMarks,
}

impl Copied {
    /// Copies `lowers` (topmost first) with `upper` over them.
    pub(crate) fn new(lowers: &[PathBuf], upper: &Path, work: &Path, marks: OverlayMarks) -> io::Result<Self> {
        let merged = work.with_file_name("merged");
        // A killed one may have left it.
        remove(&merged)?;
        std::fs::create_dir(&merged)?;
        let mut parts = vec![Part { dir: open(upper)?, upper: true }];
        for lower in lowers {
            parts.push(Part { dir: open(lower)?, upper: false });
        }
        let (target, root) = (open(&merged)?, parts[0].dir.metadata()?);
        let contents = merge::copy(&parts, &target, 0)?;
        target.set_owner(root.uid, root.gid)?;
        target.set_mode(root.mode)?;
        target.set_own_times(root.accessed, root.modified)?;
        let at = settle(work)?;
        Ok(Self { merged, upper: upper.to_owned(), contents, at, marks })
    }

    /// The tree that stands for the overlay.
    pub(crate) fn root(&self) -> &Path {
        &self.merged
    }

    /// Turns the tree into the upper directory. Mount points were made and removed in the directories `visited`.
    pub(crate) fn finish(self, visited: &[ContainerPath]) -> io::Result<()> {
        let root = open(&self.merged)?;
        let since = Since { copied: self.at, visited, marks: self.marks };
        prune::prune(&root, &ContainerPath::root(), &self.contents, since)?;
        rustix::fs::renameat_with(CWD, &self.merged, CWD, &self.upper, RenameFlags::EXCHANGE)?;
        remove(&self.merged)
    }

    /// Gives the copy up: the upper directory stays as it is.
    pub(crate) fn discard(self) -> io::Result<()> {
        remove(&self.merged)
    }
}

fn open(path: &Path) -> io::Result<DirFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(DirFd::from_fd(rustix::fs::open(path, flags, Mode::empty())?))
}

fn remove(path: &Path) -> io::Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let above = RootDir::open(above)?;
    above.open_dir(&ContainerPath::root())?.remove_all(name).map(drop)
}

/// A moment after everything so far and before everything from now on, as the file system keeps time: in steps of some
/// milliseconds.
fn settle(work: &Path) -> io::Result<Timestamp> {
    let marker = work.join("copied");
    let now = || -> io::Result<Timestamp> {
        drop(std::fs::File::create(&marker)?);
        let changed = open(work)?.lstat(OsStr::new("copied"))?.changed;
        std::fs::remove_file(&marker)?;
        Ok(changed)
    };
    let copied = now()?;
    while now()? <= copied {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(copied)
}
