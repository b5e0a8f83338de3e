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
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::clone_tree;

const OPTIONS: [(&str, &str); 4] = [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"), ("xino", "off")];

/// `fsconfig` takes strings of less than 256 bytes.
const LONGEST: usize = 255;

/// A detached overlay of `lowers` (top first) under `upper`. Without lowers it is `upper` itself.
pub(crate) fn mount(lowers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    if lowers.is_empty() {
        return Ok(clone_tree(open(upper)?, false)?);
    }
    match mount_new(lowers, upper, work) {
        // The kernel before 6.5 has no lowerdir+; the one before 5.2 no fsopen.
        Err(Errno::INVAL | Errno::NOSYS) => mount_classic(lowers, upper, work),
        other => Ok(other?),
    }
}

/// The mount of Linux 6.5: one call per layer, no limit but the kernel's 500 layers.
fn mount_new(lowers: &[PathBuf], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    let mut held = Vec::new();
    for (key, path) in
        lowers.iter().map(|lower| ("lowerdir+", lower.as_path())).chain([("upperdir", upper), ("workdir", work)])
    {
        fsconfig_set_string(&context, key, plain_path(path, &mut held)?)?;
    }
    for (key, value) in OPTIONS {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// `mount(2)` takes one page of options, in which descriptors are much shorter than paths. It needs a place, which is the
/// upper directory; the mount is taken off it at once, in this process's own mount namespace.
fn mount_classic(lowers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    const PAGE: usize = 4096;
    let mut held = Vec::new();
    let mut short = |path: &Path| -> rustix::io::Result<String> {
        held.push(open(path)?);
        Ok(fd_path(held.last().expect("just pushed")))
    };
    let lower = lowers.iter().map(|path| short(path)).collect::<Result<Vec<_>, _>>()?.join(":");
    let mut options = format!("lowerdir={lower},upperdir={},workdir={}", short(upper)?, short(work)?);
    for (key, value) in OPTIONS {
        options.push_str(&format!(",{key}={value}"));
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
