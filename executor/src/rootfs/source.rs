//! What the caller's mounts show, as detached mounts.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{attach, clone_tree, new_mount, overlay};
use crate::plan::PlannedSource;
use crate::root_dir::{DirFd, RootDir};
use crate::spec::{Access, Durability, MountSource};
use crate::stat::{FileKind, Stat};
use crate::sys::mount::{Depth, set_attributes};

/// A detached mount of a source.
pub(crate) struct Source {
    pub(crate) mount: OwnedFd,
    /// Whether its mount point is a directory or a file.
    pub(crate) directory: bool,
}

/// Why there is none: what could not be opened (if that was it), and the error.
pub(crate) type SourceError = (Option<PathBuf>, io::Error);

/// Opens a source. `blob` holds the bytes of files in memory.
pub(crate) fn open(source: &PlannedSource, access: Access, blob: &[u8]) -> Result<Source, SourceError> {
    let source = match source {
        PlannedSource::File { offset, length, mode, uid, gid } => {
            let content = blob.get(*offset..*offset + *length).ok_or((None, Errno::INVAL.into()))?;
            memory_file(content, *mode, *uid, *gid, access).map_err(|error| (None, error))?
        }
        PlannedSource::Spec(MountSource::Tmpfs { size, mode }) => {
            tmpfs(*size, *mode).map_err(|error| (None, error.into()))?
        }
        PlannedSource::Spec(MountSource::Bind { path }) => bind(path).map_err(|e| (Some(path.clone()), e))?,
        PlannedSource::Spec(MountSource::BindInside { root, subpath }) => {
            let inside = RootDir::open(root).and_then(|root| root.open_path(subpath));
            inside.and_then(bind_fd).map_err(|e| (Some(OsStr::from_bytes(subpath.as_bytes()).into()), e))?
        }
        PlannedSource::Spec(MountSource::Overlay { lowers, upper, work, subpath }) => {
            // Its changes are thrown away.
            let whole = overlay::mount(lowers, upper, work, Durability::AtCommit).map_err(|error| (None, error))?;
            if subpath.is_root() {
                Source { mount: whole, directory: true }
            } else {
                part(whole, upper, subpath).map_err(|e| (Some(OsStr::from_bytes(subpath.as_bytes()).into()), e))?
            }
        }
        PlannedSource::Spec(MountSource::File { .. }) => return Err((None, Errno::INVAL.into())),
    };
    if access == Access::ReadOnly {
        set_attributes(source.mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Recursive)
            .map_err(|errno| (None, errno.into()))?;
    }
    Ok(source)
}

fn bind(path: &Path) -> io::Result<Source> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    bind_fd(rustix::fs::open(path, flags, Mode::empty())?)
}

fn bind_fd(source: OwnedFd) -> io::Result<Source> {
    let kind = Stat::of(&source)?.kind;
    if kind == FileKind::Symlink {
        return Err(Errno::LOOP.into());
    }
    Ok(Source { mount: clone_tree(&source, true)?, directory: kind == FileKind::Directory })
}

/// One directory or file of a detached overlay. Kernels before 6.15 only copy mounts that have a place, so there it gets
/// one: over its own upper directory, which goes away with the old root.
fn part(whole: OwnedFd, upper: &Path, subpath: &rbuild_image::ContainerPath) -> io::Result<Source> {
    let inside = RootDir::from_fd(whole.try_clone()?).open_path(subpath)?;
    match bind_fd(inside) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
        other => return other,
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    attach(&whole, rustix::fs::open(upper, flags, Mode::empty())?.as_fd())?;
    bind_fd(RootDir::from_fd(whole).open_path(subpath)?)
}

fn tmpfs(size: Option<u64>, mode: u32) -> rustix::io::Result<Source> {
    let mode = format!("{mode:o}");
    let size = size.map(|bytes| bytes.to_string());
    let mut options = vec![("source", "tmpfs"), ("mode", mode.as_str())];
    if let Some(size) = &size {
        options.push(("size", size));
    }
    // Programs may be built and run there, as in BuildKit.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(Source { mount: new_mount(c"tmpfs", &options, attributes)?, directory: true })
}

/// A file in a tmpfs of its own, whose other names nobody sees. The umask must be 0.
fn memory_file(content: &[u8], mode: u32, uid: u32, gid: u32, access: Access) -> io::Result<Source> {
    let name = OsStr::new("file");
    // Whole pages for the content, one for the directory.
    let size = (content.len() as u64 + 2 * 4096).to_string();
    let size = if access == Access::ReadOnly { size } else { "64m".to_owned() };
    let base = [("source", "tmpfs"), ("mode", "700"), ("size", size.as_str())];
    let mount = match noswap_tmpfs(&base) {
        Ok(mount) => mount,
        // Linux before 6.4 cannot keep a tmpfs out of swap.
        Err(Errno::INVAL) => new_mount(c"tmpfs", &base, MountAttrFlags::empty())?,
        Err(errno) => return Err(errno.into()),
    };
    let dir = DirFd::from_fd(mount.try_clone()?);
    let mut file: File = dir.create_file(name, 0o600)?;
    file.write_all(content)?;
    dir.chown(name, uid, gid)?;
    dir.chmod(name, mode)?;
    drop(file);
    let inside = dir.open_path(name)?;
    // Linux before 6.15 only copies what has a place; /dev/shm, /tmp and the like may be absent, the root never is.
    match bind_fd(inside) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
        other => return other,
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    attach(&mount, rustix::fs::open(c"/proc", flags, Mode::empty())?.as_fd())?;
    let copy = bind_fd(dir.open_path(name)?);
    rustix::mount::unmount(c"/proc", rustix::mount::UnmountFlags::DETACH)?;
    copy
}

fn noswap_tmpfs(options: &[(&str, &str)]) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_set_flag(&context, "noswap")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
