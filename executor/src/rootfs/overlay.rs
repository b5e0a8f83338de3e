//! Overlay mounts.
//!
//! Every option that changes what the upper directory looks like is given explicitly, since distributions and modules
//! differ in their defaults: with `redirect_dir` or `metacopy` the upper directory would not be a layer.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::layer_mounts::LayerMounts;
use super::{attach, clone_tree, erofs};
use crate::plan::OverlayMarks;
use crate::spec::{Durability, Lower};

/// With marks in user attributes the kernel takes no other `redirect_dir` than `nofollow`, which makes none either.
fn tunables(marks: OverlayMarks) -> [(&'static str, &'static str); 4] {
    let redirect = match marks {
        OverlayMarks::Trusted => "off",
        OverlayMarks::User => "nofollow",
    };
    [("redirect_dir", redirect), ("metacopy", "off"), ("index", "off"), ("xino", "off")]
}

/// `fsconfig` takes strings of less than 256 bytes.
const LONGEST: usize = 255;

/// A detached overlay of `lowers` (top first) under `upper`. Without lowers it is `upper` itself. Images that are in `kept` are
/// not mounted once more.
pub(crate) fn mount(
    lowers: &[Lower],
    kept: &LayerMounts,
    upper: &Path,
    work: &Path,
    durability: Durability,
    marks: OverlayMarks,
) -> io::Result<OwnedFd> {
    if lowers.is_empty() {
        return Ok(clone_tree(open(upper)?, false)?);
    }
    let overlay = Overlay { upper, work, durability, marks };
    let opened = open_lowers(lowers, kept, marks)?;
    let directories: Option<Vec<&Path>> = opened.iter().map(Opened::directory).collect();
    match (overlay.mount_new(&opened), directories) {
        // The kernel before 6.5 has no lowerdir+; the one before 5.2 no fsopen.
        (Err(Errno::INVAL | Errno::NOSYS), Some(lowers)) => overlay.mount_classic(&lowers),
        // The kernel before 6.15 takes only mounts that have a place.
        (Err(Errno::INVAL), None) => overlay.mount_placed(open_lowers(lowers, &LayerMounts::default(), marks)?),
        (other, _) => Ok(other?),
    }
}

fn open_lowers<'a>(lowers: &'a [Lower], kept: &'a LayerMounts, marks: OverlayMarks) -> io::Result<Vec<Opened<'a>>> {
    let open = |lower: &'a Lower| {
        Ok(match lower {
            Lower::Directory(path) => Opened::Directory(path),
            Lower::Stack(paths) => Opened::Mount(mount_lowers(paths, marks)?),
            Lower::Erofs { index, devices } => match kept.get(index) {
                Some(mount) => Opened::Kept(mount),
                None => Opened::Mount(erofs::mount(index, devices)?),
            },
        })
    };
    lowers.iter().map(open).collect()
}

/// A detached overlay of directories (top first, at least two) that cannot be written.
fn mount_lowers(directories: &[PathBuf], marks: OverlayMarks) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    let mut held = Vec::new();
    for path in directories {
        fsconfig_set_string(&context, "lowerdir+", plain_path(path, &mut held)?)?;
    }
    for (key, value) in tunables(marks) {
        fsconfig_set_string(&context, key, value)?;
    }
    if marks == OverlayMarks::User {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A lower layer at hand.
enum Opened<'a> {
    Directory(&'a Path),
    /// A detached mount.
    Mount(OwnedFd),
    /// One that others use, too.
    Kept(BorrowedFd<'a>),
    /// A mount that has a place, or had.
    Placed(OwnedFd),
}

impl<'a> Opened<'a> {
    fn directory(&self) -> Option<&'a Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Mount(_) | Self::Kept(_) | Self::Placed(_) => None,
        }
    }
}

/// What an overlay is made of besides its lower layers.
#[derive(Clone, Copy)]
struct Overlay<'a> {
    upper: &'a Path,
    work: &'a Path,
    durability: Durability,
    marks: OverlayMarks,
}

impl Overlay<'_> {
    /// Removes the kernel's note that an earlier mount, or an attempt at one, did not sync. Who says AtCommit knows whether
    /// that one ended well.
    fn forget_unsynced(self) {
        if self.durability == Durability::AtCommit {
            drop(std::fs::remove_dir_all(self.work.join("work/incompat/volatile")));
        }
    }

    /// The mount of Linux 6.5: one call per layer, no limit but the kernel's 500 layers.
    fn mount_new(self, lowers: &[Opened<'_>]) -> rustix::io::Result<OwnedFd> {
        self.forget_unsynced();
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        let mut held = Vec::new();
        for lower in lowers {
            match lower {
                Opened::Directory(path) => {
                    fsconfig_set_string(&context, "lowerdir+", plain_path(path, &mut held)?)?;
                }
                Opened::Mount(mount) => fsconfig_set_fd(&context, "lowerdir+", mount)?,
                Opened::Kept(mount) => fsconfig_set_fd(&context, "lowerdir+", mount)?,
                Opened::Placed(mount) => fsconfig_set_string(&context, "lowerdir+", fd_path(mount))?,
            }
        }
        for (key, path) in [("upperdir", self.upper), ("workdir", self.work)] {
            fsconfig_set_string(&context, key, plain_path(path, &mut held)?)?;
        }
        for (key, value) in tunables(self.marks) {
            fsconfig_set_string(&context, key, value)?;
        }
        if self.durability == Durability::AtCommit {
            fsconfig_set_flag(&context, "volatile")?;
        }
        if self.marks == OverlayMarks::User {
            fsconfig_set_flag(&context, "userxattr")?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// The same with every lower mount at a place while the overlay is made: one over the other on the upper directory,
    /// in this process's own mount namespace.
    fn mount_placed(self, lowers: Vec<Opened<'_>>) -> io::Result<OwnedFd> {
        let (upper, work) = (open(self.upper)?, open(self.work)?);
        let (upper_path, work_path) = (PathBuf::from(fd_path(&upper)), PathBuf::from(fd_path(&work)));
        let mut placed = 0;
        let attached = || -> io::Result<Vec<Opened<'_>>> {
            let mut ready = Vec::with_capacity(lowers.len());
            for lower in lowers {
                ready.push(match lower {
                    Opened::Mount(mount) => {
                        attach(&mount, upper.as_fd())?;
                        placed += 1;
                        Opened::Placed(mount)
                    }
                    other => other,
                });
            }
            Ok(ready)
        };
        let lowers = attached();
        let Self { durability, marks, .. } = self;
        let inner = Overlay { upper: &upper_path, work: &work_path, durability, marks };
        let mounted = lowers.and_then(|lowers| Ok(inner.mount_new(&lowers)?));
        for _ in 0..placed {
            rustix::mount::unmount(self.upper, UnmountFlags::DETACH)?;
        }
        mounted
    }

    /// `mount(2)` takes one page of options, in which descriptors are much shorter than paths. It needs a place, which is the
    /// upper directory; the mount is taken off it at once, in this process's own mount namespace.
    fn mount_classic(self, lowers: &[&Path]) -> io::Result<OwnedFd> {
        self.forget_unsynced();
        const PAGE: usize = 4096;
        let mut held = Vec::new();
        let mut short = |path: &Path| -> rustix::io::Result<String> {
            held.push(open(path)?);
            Ok(fd_path(held.last().expect("just pushed")))
        };
        let lower = lowers.iter().map(|path| short(path)).collect::<Result<Vec<_>, _>>()?.join(":");
        let mut options = format!("lowerdir={lower},upperdir={},workdir={}", short(self.upper)?, short(self.work)?);
        for (key, value) in tunables(self.marks) {
            options.push_str(&format!(",{key}={value}"));
        }
        if self.durability == Durability::AtCommit {
            options.push_str(",volatile");
        }
        if self.marks == OverlayMarks::User {
            options.push_str(",userxattr");
        }
        if options.len() >= PAGE {
            return Err(Errno::NAMETOOLONG.into());
        }
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount("overlay", self.upper, "overlay", MountFlags::empty(), options.as_c_str())?;
        let detached = open(self.upper).and_then(|fd| clone_tree(fd, false));
        rustix::mount::unmount(self.upper, UnmountFlags::DETACH)?;
        Ok(detached?)
    }
}

/// Why an overlay could not be mounted, where the kernel only says that something is invalid.
pub(crate) fn explain(error: io::Error, upper: &Path) -> io::Error {
    const OVERLAYFS: rustix::fs::FsWord = 0x794c_7630;
    let nested = || open(upper).and_then(rustix::fs::fstatfs).is_ok_and(|fs| fs.f_type == OVERLAYFS);
    if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) && nested() {
        let upper = upper.display();
        return io::Error::other(format!("{upper} is itself on an overlay file system; keep the store on another one"));
    }
    error
}

/// The path itself where it can be given as an option, else by a descriptor that `held` keeps open. (`upperdir` and
/// `workdir` read backslashes as escapes.)
fn plain_path(path: &Path, held: &mut Vec<OwnedFd>) -> rustix::io::Result<OsString> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= LONGEST && !bytes.contains(&b'\\') {
        return Ok(path.as_os_str().to_owned());
    }
    held.push(open(path)?);
    Ok(fd_path(held.last().expect("just pushed")).into())
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Runs in a mount namespace of a thread of its own.
    fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            crate::sys::process::unshare(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
                .unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            test();
        })
        .join()
        .unwrap();
    }

    /// Detached mounts as lower layers, and such that need a place first.
    #[test]
    fn mounts_are_lower_layers_with_and_without_a_place() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        in_own_namespace(move || {
            for placed in [false, true] {
                let base = temp.path().join(if placed { "placed" } else { "detached" });
                let (upper, work, below) = (base.join("upper"), base.join("work"), base.join("below"));
                for path in [&upper, &work, &below] {
                    fs::create_dir_all(path).unwrap();
                }
                fs::write(below.join("below"), "1").unwrap();
                let tmpfs = |name: &str| {
                    let mount = super::super::new_mount(c"tmpfs", &[], MountAttrFlags::empty()).unwrap();
                    fs::write(format!("{}/{name}", fd_path(&mount)), "2").unwrap();
                    Opened::Mount(mount)
                };
                let lowers = vec![tmpfs("a"), tmpfs("b"), Opened::Directory(&below)];
                let (durability, marks) = (Durability::AtCommit, OverlayMarks::Trusted);
                let overlay = Overlay { upper: &upper, work: &work, durability, marks };
                let mounted = match placed {
                    true => overlay.mount_placed(lowers),
                    false => overlay.mount_new(&lowers).map_err(io::Error::from),
                };
                let mounted = match mounted {
                    // An older kernel, which takes the other way.
                    Err(error) if !placed && error.kind() == io::ErrorKind::InvalidInput => continue,
                    mounted => mounted.unwrap(),
                };
                let mut names: Vec<_> =
                    fs::read_dir(fd_path(&mounted)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                assert_eq!(names, ["a", "b", "below"]);
                fs::write(format!("{}/new", fd_path(&mounted)), "3").unwrap();
                assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "3", "the places are free again");
            }
        });
    }

    #[test]
    fn more_layers_than_overlayfs_takes_are_stacked() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        // Each has its own name, one that all have, and hides what the one below it has; topmost first.
        let mut directories: Vec<PathBuf> = Vec::new();
        for n in 0..900 {
            let path = temp.path().join(format!("l{n}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(format!("own-{n}")), "").unwrap();
            fs::write(path.join("common"), n.to_string()).unwrap();
            if n > 0 {
                let whiteout = path.join(format!("own-{}", n - 1));
                let kind = rustix::fs::FileType::CharacterDevice;
                rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, Mode::empty(), 0).unwrap();
            }
            directories.insert(0, path);
        }
        let (upper, work) = (temp.path().join("upper"), temp.path().join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let below = directories.split_off(499);
        let mut lowers: Vec<Lower> = directories.into_iter().map(Lower::Directory).collect();
        lowers.push(Lower::Stack(below));
        in_own_namespace(move || {
            let mounted =
                mount(&lowers, &LayerMounts::default(), &upper, &work, Durability::AtCommit, OverlayMarks::Trusted)
                    .unwrap();
            let inside = fd_path(&mounted);
            let mut names: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["common", "own-899"]);
            assert_eq!(fs::read_to_string(format!("{inside}/common")).unwrap(), "899");
        });
    }

    /// Both ways of mounting show the same.
    #[test]
    fn the_classic_mount_shows_what_the_new_one_shows() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = temp.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        fs::write(dir("low:er, one").join("a"), "1").unwrap();
        fs::write(dir("lower\\two").join("b"), "2").unwrap();
        let lowers = [dir("low:er, one"), dir("lower\\two")];
        in_own_namespace(move || {
            for (name, classic) in [("new", false), ("classic", true)] {
                let path = |kind: &str| {
                    let path = temp.path().join(format!("{name}{kind}"));
                    fs::create_dir_all(&path).unwrap();
                    path
                };
                let (upper, work) = (path("upper"), path("work"));
                let durability = if classic { Durability::AtCommit } else { Durability::EachSync };
                let overlay = Overlay { upper: &upper, work: &work, durability, marks: OverlayMarks::Trusted };
                let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
                let mounted = if classic {
                    overlay.mount_classic(&lowers).unwrap()
                } else {
                    let opened: Vec<Opened<'_>> = lowers.iter().map(|path| Opened::Directory(path)).collect();
                    overlay.mount_new(&opened).unwrap()
                };
                let inside = fd_path(&mounted);
                assert_eq!(fs::read_to_string(format!("{inside}/a")).unwrap(), "1", "{name}");
                assert_eq!(fs::read_to_string(format!("{inside}/b")).unwrap(), "2", "{name}");
                fs::write(format!("{inside}/c"), "3").unwrap();
                assert_eq!(fs::read_to_string(upper.join("c")).unwrap(), "3", "{name}");
            }
        });
    }
}
