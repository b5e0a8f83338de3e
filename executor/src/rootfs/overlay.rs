//! Overlay mounts.
//!
//! Every option that changes what the upper directory looks like is given explicitly, since distributions and modules
//! differ in their defaults: with `redirect_dir` or `metacopy` the upper directory would not be a layer.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::clone_tree;
use crate::plan::OverlayMarks;
use crate::spec::Durability;

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

/// A detached overlay of `lowers` (top first) under `upper`. Without lowers it is `upper` itself.
pub(crate) fn mount(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    durability: Durability,
    marks: OverlayMarks,
) -> io::Result<OwnedFd> {
    if lowers.is_empty() {
        return Ok(clone_tree(open(upper)?, false)?);
    }
    if durability == Durability::AtCommit {
        // The kernel's note that an earlier mount did not sync. Who says AtCommit knows whether that one ended well.
        drop(std::fs::remove_dir_all(work.join("work/incompat/volatile")));
    }
    match mount_new(lowers, upper, work, durability, marks) {
        // The kernel before 6.5 has no lowerdir+; the one before 5.2 no fsopen.
        Err(Errno::INVAL | Errno::NOSYS) => mount_classic(lowers, upper, work, durability, marks),
        other => Ok(other?),
    }
}

/// The mount of Linux 6.5: one call per layer, no limit but the kernel's 500 layers.
fn mount_new(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    durability: Durability,
    marks: OverlayMarks,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    let mut held = Vec::new();
    for (key, path) in
        lowers.iter().map(|lower| ("lowerdir+", lower.as_path())).chain([("upperdir", upper), ("workdir", work)])
    {
        fsconfig_set_string(&context, key, plain_path(path, &mut held)?)?;
    }
    for (key, value) in tunables(marks) {
        fsconfig_set_string(&context, key, value)?;
    }
    if durability == Durability::AtCommit {
        fsconfig_set_flag(&context, "volatile")?;
    }
    if marks == OverlayMarks::User {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// `mount(2)` takes one page of options, in which descriptors are much shorter than paths. It needs a place, which is the
/// upper directory; the mount is taken off it at once, in this process's own mount namespace.
fn mount_classic(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    durability: Durability,
    marks: OverlayMarks,
) -> io::Result<OwnedFd> {
    const PAGE: usize = 4096;
    let mut held = Vec::new();
    let mut short = |path: &Path| -> rustix::io::Result<String> {
        held.push(open(path)?);
        Ok(fd_path(held.last().expect("just pushed")))
    };
    let lower = lowers.iter().map(|path| short(path)).collect::<Result<Vec<_>, _>>()?.join(":");
    let mut options = format!("lowerdir={lower},upperdir={},workdir={}", short(upper)?, short(work)?);
    for (key, value) in tunables(marks) {
        options.push_str(&format!(",{key}={value}"));
    }
    if durability == Durability::AtCommit {
        options.push_str(",volatile");
    }
    if marks == OverlayMarks::User {
        options.push_str(",userxattr");
    }
    if options.len() >= PAGE {
        return Err(Errno::NAMETOOLONG.into());
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", upper, "overlay", MountFlags::empty(), options.as_c_str())?;
    let detached = open(upper).and_then(|fd| clone_tree(fd, false));
    rustix::mount::unmount(upper, UnmountFlags::DETACH)?;
    Ok(detached?)
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

    /// Both ways of mounting show the same; in a mount namespace of this test's own thread.
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
        std::thread::spawn(move || {
            crate::sys::process::unshare(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
                .unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            for (name, classic) in [("new", false), ("classic", true)] {
                let path = |kind: &str| {
                    let path = temp.path().join(format!("{name}{kind}"));
                    fs::create_dir_all(&path).unwrap();
                    path
                };
                let (upper, work) = (path("upper"), path("work"));
                let mounted = if classic {
                    mount_classic(&lowers, &upper, &work, Durability::AtCommit, OverlayMarks::Trusted).unwrap()
                } else {
                    mount_new(&lowers, &upper, &work, Durability::EachSync, OverlayMarks::Trusted).unwrap()
                };
                let inside = fd_path(&mounted);
                assert_eq!(fs::read_to_string(format!("{inside}/a")).unwrap(), "1", "{name}");
                assert_eq!(fs::read_to_string(format!("{inside}/b")).unwrap(), "2", "{name}");
                fs::write(format!("{inside}/c"), "3").unwrap();
                assert_eq!(fs::read_to_string(upper.join("c")).unwrap(), "3", "{name}");
            }
        })
        .join()
        .unwrap();
    }
}
