//! fuse-overlayfs: a process of the host's answers for the file system.
//!
//! The mount is made here, without a place, and the process gets its other end as standard input. So it dies with the last
//! use of the mount, and the kernel sees to that: whatever is killed, nothing stays mounted and no process stays behind.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::{Pid, PidfdFlags};

use super::merge::{self, Part};
use super::{is_opaque, set_opaque};
use crate::plan::OverlayMarks;
use crate::root_dir::{DirFd, Node};
use crate::spec::Durability;
use crate::stat::FileKind;

/// How long the process may take to write what is left after the last use of its mount, in seconds.
const PATIENCE: i64 = 60;
/// Before the names of whiteouts where device files are not enough for it.
const WHITEOUT: &[u8] = b".wh.";
/// What follows where the directory itself is meant, which an attribute of it says, too.
const OPAQUE: [&[u8]; 2] = [b".opq", b".wh..opq"];

/// A mount by fuse-overlayfs that a sandbox uses.
#[derive(Debug)]
pub(crate) struct FuseOverlay {
    child: Child,
    /// What the process says.
    said: File,
    links: PathBuf,
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    marks: OverlayMarks,
}

impl FuseOverlay {
    /// A detached mount of `lowers` (topmost first) under `upper`.
    pub(crate) fn mount(
        program: &Path,
        lowers: &[PathBuf],
        upper: &Path,
        work: &Path,
        durability: Durability,
        marks: OverlayMarks,
    ) -> io::Result<(OwnedFd, Self)> {
        let device = rustix::fs::open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| io::Error::other(format!("/dev/fuse: {}", io::Error::from(errno))))?;
        let mount = detached(&device)?;
        let links = work.with_file_name("stack");
        let options = link(&links, lowers, upper, work, durability)?;
        let said = File::from(rustix::fs::memfd_create("fuse-overlayfs", MemfdFlags::CLOEXEC)?);
        let child = Command::new(program)
            .args(["-f", "-o"])
            .arg(options)
            .arg("/dev/fd/0")
            .current_dir(&links)
            .stdin(Stdio::from(device))
            .stdout(Stdio::null())
            .stderr(Stdio::from(said.try_clone()?))
            // A signal of the terminal is for the engine.
            .process_group(0)
            .spawn()?;
        let (lowers, upper) = (lowers.to_vec(), upper.to_owned());
        let mut overlay = Self { child, said, links, lowers, upper, marks };
        // The first question is answered when it serves, or not at all.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(mount.as_fd(), c".", flags, Mode::empty()) {
            Ok(_) => Ok((mount, overlay)),
            Err(errno) => {
                drop(mount);
                Err(overlay.failure(&io::Error::from(errno).to_string()))
            }
        }
    }

    /// Waits until everything is written, and makes a layer of it. All uses of the mount have to be over.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.wait()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open =
            |path: &Path| -> io::Result<DirFd> { Ok(DirFd::from_fd(rustix::fs::open(path, flags, Mode::empty())?)) };
        let lowers = self.lowers.iter().map(|path| Ok(Part { dir: open(path)?, upper: false }));
        normalise(&open(&self.upper)?, &lowers.collect::<io::Result<Vec<_>>>()?, self.marks)
    }

    fn wait(&mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("fuse-overlayfs has no process"))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&patience)))? > 0;
        if !ended {
            return Err(self.failure("it did not end with its mount"));
        }
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(self.failure(&status.to_string())),
        }
    }

    /// What went wrong, in its own words where it has any.
    fn failure(&mut self, what: &str) -> io::Error {
        let mut text = String::new();
        let read = self.said.rewind().and_then(|()| (&self.said).take(4096).read_to_string(&mut text));
        let last = text.lines().rfind(|line| !line.trim().is_empty() && !line.contains("argument ignored"));
        match (read, last) {
            (Ok(_), Some(line)) => io::Error::other(format!("fuse-overlayfs: {what}: {line}")),
            _ => io::Error::other(format!("fuse-overlayfs: {what}")),
        }
    }
}

impl Drop for FuseOverlay {
    fn drop(&mut self) {
        // It has ended already, or nobody wants to know what it would still write.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.links));
    }
}

/// A mount without a place, served by whoever reads from `device`.
fn detached(device: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let number = device.as_raw_fd().to_string();
    for (key, value) in [
        ("source", "fuse-overlayfs"),
        ("subtype", "fuse-overlayfs"),
        ("fd", number.as_str()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "allow_other")?;
    fsconfig_set_flag(&context, "default_permissions")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// A directory of links with harmless names, since the program knows no escapes for `:`; and the options that name them.
fn link(links: &Path, lowers: &[PathBuf], upper: &Path, work: &Path, durability: Durability) -> io::Result<OsString> {
    drop(std::fs::remove_dir_all(links));
    std::fs::create_dir(links)?;
    let names: Vec<String> = (0..lowers.len()).map(|number| number.to_string()).collect();
    for (name, path) in
        names.iter().map(String::as_str).zip(lowers.iter().map(PathBuf::as_path)).chain([("u", upper), ("w", work)])
    {
        std::os::unix::fs::symlink(path, links.join(name))?;
    }
    let mut options = format!("lowerdir={},upperdir=u,workdir=w", names.join(":"));
    if durability == Durability::AtCommit {
        options.push_str(",fsync=0");
    }
    Ok(options.into())
}

/// The upper directory as the kernel would have left it: whiteouts are devices, marks are attributes, and both are only where
/// lower layers have something to hide.
fn normalise(dir: &DirFd, lowers: &[Part], marks: OverlayMarks) -> io::Result<()> {
    let times = dir.metadata()?;
    let mut touched = false;
    for entry in dir.list()? {
        let (name, stat) = match entry.name.as_bytes().strip_prefix(WHITEOUT) {
            None => (entry.name.as_os_str(), dir.lstat(&entry.name)?),
            Some(hidden) => {
                dir.unlink(&entry.name)?;
                touched = true;
                let name = OsStr::from_bytes(hidden);
                if OPAQUE.contains(&hidden) || merge::below(lowers, name)?.is_none() {
                    continue;
                }
                make_whiteout(dir, name)?;
                (name, dir.lstat(name)?)
            }
        };
        let below = merge::below(lowers, name)?;
        if merge::is_whiteout(&stat) && below.is_none() {
            dir.unlink(name)?;
            touched = true;
        }
        if stat.kind != FileKind::Directory {
            continue;
        }
        let inner = dir.open_dir(name)?;
        let marked = is_opaque(dir, name)?;
        let opaque = marked || hides_lower(dir, name, &inner)?;
        let merged = below.as_ref().is_some_and(|dirs| !dirs.is_empty()) && !opaque;
        match (below.is_some() && !merged, marked) {
            (true, false) => set_opaque(dir, name, marks)?,
            (false, true) => dir.remove_xattr(name, marks.opaque())?,
            _ => {}
        }
        let below = below.filter(|_| merged).unwrap_or_default();
        normalise(&inner, &below, marks)?;
    }
    if touched {
        dir.set_own_times(times.accessed, times.modified)?;
    }
    Ok(())
}

/// Whether a directory is opaque in one of the program's own manners.
fn hides_lower(dir: &DirFd, name: &OsStr, inner: &DirFd) -> io::Result<bool> {
    let own = OsStr::new("user.fuseoverlayfs.opaque");
    if matches!(dir.get_xattr(name, own), Ok(Some(value)) if value == b"y") {
        return Ok(true);
    }
    match inner.lstat(OsStr::new(".wh..wh..opq")) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn make_whiteout(dir: &DirFd, name: &OsStr) -> io::Result<()> {
    match dir.mknod(name, Node::CharDevice { major: 0, minor: 0 }, 0) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
