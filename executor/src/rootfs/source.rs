//! What the caller's mounts show, as detached mounts.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::layer_mounts::LayerMounts;
use super::memory_file::{Attributes, MemoryFiles};
use super::{attach, clone_tree, new_mount, overlay};
use crate::plan::{PlannedSource, SetupPlan};
use crate::root_dir::RootDir;
use crate::spec::{Access, BindManner, Durability, MountSource, MountsBelow, Propagation, TmpfsOptions};
use crate::stat::{FileKind, Stat};
use crate::sys::mount::{Depth, set_attributes, set_propagation};

/// A detached mount of a source.
pub(crate) struct Source {
    pub(crate) mount: OwnedFd,
    /// Whether its mount point is a directory or a file.
    pub(crate) directory: bool,
}

/// Why there is none: what could not be opened (if that was it), and the error.
pub(crate) type SourceError = (Option<PathBuf>, io::Error);

/// Opens a source of the plan.
pub(crate) fn open(
    source: &PlannedSource,
    access: Access,
    plan: &SetupPlan,
    memory: &mut MemoryFiles,
    ready: &mut [Option<OwnedFd>],
    kept: &LayerMounts,
) -> Result<Source, SourceError> {
    let source = match source {
        PlannedSource::File { offset, length, mode, uid, gid } => {
            let content = plan.blob.get(*offset..*offset + *length).ok_or((None, Errno::INVAL.into()))?;
            let attributes = Attributes { mode: *mode, uid: *uid, gid: *gid };
            let mount = memory.create(content, attributes).map_err(|error| (None, error))?;
            Source { mount, directory: false }
        }
        PlannedSource::Spec(MountSource::Tmpfs { size, mode }) => {
            tmpfs(*size, *mode).map_err(|error| (None, error.into()))?
        }
        PlannedSource::Spec(MountSource::Bind { path }) => bind(path).map_err(|e| (Some(path.clone()), e))?,
        // Taken before, while the host's mounts were in sight.
        PlannedSource::Spec(MountSource::Tree { path, .. }) => {
            return Err((Some(path.clone()), Errno::INVAL.into()));
        }
        PlannedSource::Spec(MountSource::Memory { size, mode, options }) => {
            memory_directory(*size, *mode, options).map_err(|error| (None, error.into()))?
        }
        PlannedSource::Spec(MountSource::BindInside { root, subpath }) => {
            let inside = RootDir::open(root).and_then(|root| root.open_path(subpath));
            inside.and_then(bind_fd).map_err(|e| (Some(OsStr::from_bytes(subpath.as_bytes()).into()), e))?
        }
        PlannedSource::Ready { mount, upper, subpath } => {
            let whole = ready.get_mut(*mount).and_then(Option::take).ok_or((None, Errno::INVAL.into()))?;
            whole_or_part(whole, upper, subpath)?
        }
        PlannedSource::Spec(MountSource::Overlay { lowers, upper, work, subpath }) => {
            // Its changes are thrown away.
            let whole = overlay::mount(lowers, kept, upper, work, Durability::AtCommit, plan.overlay_marks)
                .map_err(|error| (None, error))?;
            whole_or_part(whole, upper, subpath)?
        }
        PlannedSource::Spec(MountSource::File { .. }) => return Err((None, Errno::INVAL.into())),
    };
    protect(&source, access).map_err(|errno| (None, errno.into()))?;
    Ok(source)
}

/// Write-protects a source that is read only, with what is mounted in it.
fn protect(source: &Source, access: Access) -> rustix::io::Result<()> {
    if access == Access::ReadWrite {
        return Ok(());
    }
    set_attributes(source.mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Recursive)
}

/// Opens a host directory or file as a mount that is tied to the host's as asked. To be called while the mounts of this
/// namespace are still those of the host: a copy has the ties of what is copied.
pub(crate) fn tree(path: &Path, manner: BindManner, access: Access) -> io::Result<Source> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())?;
    let kind = Stat::of(&opened)?.kind;
    if kind == FileKind::Symlink {
        return Err(Errno::LOOP.into());
    }
    let mount = clone_tree(&opened, manner.below == MountsBelow::Shown)?;
    let tie = match manner.propagation {
        Propagation::Private => Some(MountPropagationFlags::PRIVATE),
        Propagation::Slave => Some(MountPropagationFlags::DOWNSTREAM),
        Propagation::Shared => None,
    };
    if let Some(tie) = tie {
        set_propagation(mount.as_fd(), tie)?;
    }
    let source = Source { mount, directory: kind == FileKind::Directory };
    protect(&source, access)?;
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

fn whole_or_part(whole: OwnedFd, upper: &Path, subpath: &rbuild_image::ContainerPath) -> Result<Source, SourceError> {
    if subpath.is_root() {
        return Ok(Source { mount: whole, directory: true });
    }
    part(whole, upper, subpath).map_err(|e| (Some(OsStr::from_bytes(subpath.as_bytes()).into()), e))
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

fn memory_directory(size: Option<u64>, mode: u32, asked: &TmpfsOptions) -> rustix::io::Result<Source> {
    let mode = format!("{mode:o}");
    let size = size.map(|bytes| bytes.to_string());
    let mut options = vec![("source", "tmpfs"), ("mode", mode.as_str())];
    options.extend(size.as_deref().map(|size| ("size", size)));
    options.extend(asked.kernel.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !asked.exec);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !asked.suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !asked.dev);
    Ok(Source { mount: new_mount(c"tmpfs", &options, attributes)?, directory: true })
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
