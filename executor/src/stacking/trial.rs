//! Whether a way of stacking works, by doing it with a tiny layer in a directory that goes away again.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

use super::merge::is_whiteout;
use super::{FuseOverlay, is_opaque, set_opaque};
use crate::plan::OverlayMarks;
use crate::root_dir::{DirFd, Node};
use crate::rootfs::layer_mounts::LayerMounts;
use crate::rootfs::overlay;
use crate::spec::{Durability, Lower};

/// Directories of a trial.
struct Trial {
    base: PathBuf,
}

/// The directories of the trial's only layer: one is replaced, one removed.
const NAME: &str = "d";
const GONE: &str = "gone";

impl Trial {
    fn new(place: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let base = place.join(format!("trial-{}-{number}", std::process::id()));
        std::fs::create_dir(&base)?;
        let trial = Self { base };
        for name in ["lower", "lower/d", "lower/gone", "upper", "work"] {
            std::fs::create_dir(trial.path(name))?;
        }
        Ok(trial)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    fn upper(&self) -> io::Result<DirFd> {
        open(&self.path("upper"))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.base) {
            tracing::debug!(%error, place = %self.base.display(), "a trial is left behind");
        }
    }
}

fn open(path: &Path) -> io::Result<DirFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(DirFd::from_fd(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Replaces one directory of the layer, and removes the other, through the mount: needs whiteouts and opaque marks.
fn replace(mount: OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = DirFd::from_fd(rustix::fs::openat(mount.as_fd(), c".", flags, Mode::empty())?);
    root.remove_dir(OsStr::new(NAME))?;
    root.create_dir(OsStr::new(NAME), 0o755)?;
    root.remove_dir(OsStr::new(GONE))
}

fn marked(trial: &Trial) -> io::Result<()> {
    let upper = trial.upper()?;
    if !upper.lstat(OsStr::new(GONE)).is_ok_and(|stat| is_whiteout(&stat)) {
        return Err(io::Error::other("it leaves no whiteouts on this file system"));
    }
    match is_opaque(&upper, OsStr::new(NAME))? {
        true => Ok(()),
        false => Err(io::Error::other("it keeps no opaque marks on this file system")),
    }
}

pub(super) fn overlayfs(place: &Path, marks: OverlayMarks) -> io::Result<()> {
    let trial = Trial::new(place)?;
    let (upper, work) = (trial.path("upper"), trial.path("work"));
    let (lowers, kept) = ([Lower::Directory(trial.path("lower"))], LayerMounts::default());
    let mount = overlay::mount(&lowers, &kept, &upper, &work, Durability::AtCommit, marks);
    replace(mount.map_err(|error| overlay::explain(error, &upper))?)?;
    marked(&trial)
}

pub(super) fn fuse_overlayfs(program: &Path, place: &Path, marks: OverlayMarks) -> io::Result<()> {
    let trial = Trial::new(place)?;
    let (lowers, upper, work) = ([trial.path("lower")], trial.path("upper"), trial.path("work"));
    let (mount, mut overlay) = FuseOverlay::mount(program, &lowers, &upper, &work, Durability::AtCommit, marks)?;
    replace(mount)?;
    overlay.settle()?;
    marked(&trial)
}

/// Whether whiteouts and opaque marks can be made at all: nothing else can say that a file is gone.
pub(super) fn marks(place: &Path, marks: OverlayMarks) -> io::Result<()> {
    let trial = Trial::new(place)?;
    let upper = trial.upper()?;
    let whiteout = Node::CharDevice { major: 0, minor: 0 };
    let made = upper.mknod(OsStr::new(GONE), whiteout, 0);
    made.map_err(|error| io::Error::other(format!("no whiteout can be made on this file system: {error}")))?;
    upper.create_dir(OsStr::new(NAME), 0o755)?;
    let marked = set_opaque(&upper, OsStr::new(NAME), marks);
    marked.map_err(|error| io::Error::other(format!("no opaque mark can be set on this file system: {error}")))
}

/// Whether files of the place can share their blocks.
pub(super) fn reflinks(place: &Path) -> bool {
    let shared = || -> io::Result<()> {
        let trial = Trial::new(place)?;
        std::fs::write(trial.path("from"), [1; 4096])?;
        let (from, to) = (std::fs::File::open(trial.path("from"))?, std::fs::File::create(trial.path("to"))?);
        Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
    };
    shared().is_ok()
}
