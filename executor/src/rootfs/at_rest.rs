//! The files of a sandbox that does not run, with what is mounted in it when it does, where nobody else sees them.
//!
//! Kernels before 6.15 put mounts on each other only where they have a place. So a thread makes itself a mount namespace,
//! puts everything together over its root, and comes back with a copy of that tree which has no place: it lasts for as
//! long as it is held, and the namespace ends with the thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use super::source::{self, Source};
use super::{attach, clone_tree, mount_overlay};
use crate::mount_point::{Leftovers, MountPoints, Shape};
use crate::root_dir::RootDir;
use crate::spec::{Access, BindManner, Mount, MountSource, Rootfs};
use crate::sys::mount::{Depth, set_attributes};
use crate::sys::process::unshare;

/// Files that are mounted for as long as this is held.
#[derive(Debug)]
pub struct RootAtRest {
    root: Option<RootDir>,
    /// Where changes of the root end up.
    backing: PathBuf,
    leftovers: Leftovers,
}

impl RootAtRest {
    /// Mounts a root and what belongs in it, outer mounts first. File systems in memory are left out: what was in them
    /// is gone. `access` is that of the root itself.
    pub fn open(rootfs: &Rootfs, access: Access, mounts: &[Mount]) -> io::Result<Self> {
        let put_together = thread::scope(|scope| {
            let thread = thread::Builder::new().name("root-at-rest".into());
            let thread = thread.spawn_scoped(scope, || put_together(rootfs, access, mounts))?;
            thread.join().expect("it does not panic")
        });
        let (tree, leftovers) = put_together?;
        Ok(Self { root: Some(RootDir::from_fd(tree)), backing: backing(rootfs).to_owned(), leftovers })
    }

    /// The root.
    pub fn root(&self) -> &RootDir {
        self.root.as_ref().expect("it is there until this is dropped")
    }
}

impl Drop for RootAtRest {
    fn drop(&mut self) {
        // The mounts first, then the places that were made for them.
        drop(self.root.take());
        if !self.leftovers.is_empty()
            && let Err(error) = RootDir::open(&self.backing).and_then(|backing| self.leftovers.remove(&backing))
        {
            tracing::warn!(root = %self.backing.display(), %error, "mount points stay behind");
        }
    }
}

fn backing(rootfs: &Rootfs) -> &Path {
    match rootfs {
        Rootfs::Directory(path) => path,
        Rootfs::Overlay { upper, .. } => upper,
    }
}

/// To be called on a thread that ends with it.
fn put_together(rootfs: &Rootfs, access: Access, mounts: &[Mount]) -> io::Result<(OwnedFd, Leftovers)> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::FS)?;
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // All that is of the host is opened while the host's root is in sight.
    let sources: Vec<(&Mount, Source)> = mounts.iter().filter_map(opened).collect::<io::Result<_>>()?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rootfs {
        Rootfs::Directory(path) => clone_tree(rustix::fs::open(path, directory, Mode::empty())?, false)?,
        Rootfs::Overlay { lowers, upper, work } => mount_overlay(lowers, upper, work)?,
    };
    let backing = RootDir::open(backing(rootfs))?;
    attach(&root, rustix::fs::open(c"/", directory, Mode::empty())?.as_fd())?;
    let mut points = MountPoints::new(RootDir::from_fd(root.try_clone()?), backing);
    for (mount, source) in &sources {
        let shape = if source.directory { Shape::Directory } else { Shape::File };
        let place = points.open(&mount.target, shape, mount.mount_point)?;
        attach(&source.mount, place.as_fd())?;
    }
    if access == Access::ReadOnly {
        set_attributes(root.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Single)?;
    }
    Ok((clone_tree(&root, true)?, points.finish()?))
}

/// A mount's source, tied to nothing; `None` where nothing lasts.
fn opened(mount: &Mount) -> Option<io::Result<(&Mount, Source)>> {
    let (path, below) = match &mount.source {
        MountSource::Bind { path } => (path, BindManner::default().below),
        MountSource::Tree { path, manner } => (path, manner.below),
        MountSource::Tmpfs { .. } | MountSource::Memory { .. } => return None,
        MountSource::File { .. } | MountSource::BindInside { .. } | MountSource::Overlay { .. } => {
            return Some(Err(io::ErrorKind::Unsupported.into()));
        }
    };
    let manner = BindManner { below, ..BindManner::default() };
    Some(source::tree(path, manner, mount.access).map(|source| (mount, source)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;

    use rbuild_image::ContainerPath;

    use super::*;
    use crate::spec::{Lower, MountPoint};

    #[test]
    fn what_is_mounted_is_seen_written_and_in_the_way() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for directory in ["lower/etc", "upper", "work", "data/below"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for (file, text) in [("lower/etc/conf", "image"), ("one", "host"), ("two", "inner"), ("data/f", "volume")] {
            fs::write(at(file), text).unwrap();
        }
        let rootfs =
            Rootfs::Overlay { lowers: vec![Lower::Directory(at("lower"))], upper: at("upper"), work: at("work") };
        let mount = |target: &str, source: &str, access, mount_point| Mount {
            target: ContainerPath::new(target),
            source: MountSource::Bind { path: at(source) },
            access,
            mount_point,
        };
        let mounts = [
            mount("/etc/conf", "one", Access::ReadWrite, MountPoint::Kept),
            mount("/etc/hosts", "two", Access::ReadOnly, MountPoint::Removed),
            mount("/v", "data", Access::ReadWrite, MountPoint::Kept),
            mount("/v/below/in", "two", Access::ReadOnly, MountPoint::Kept),
        ];
        let path = |name: &str| ContainerPath::new(name);
        {
            let held = RootAtRest::open(&rootfs, Access::ReadOnly, &mounts).unwrap();
            let read = |name: &str| io::read_to_string(held.root().open_file(&path(name)).unwrap()).unwrap();
            assert_eq!(
                ["/etc/conf", "/etc/hosts", "/v/f", "/v/below/in"].map(read),
                ["host", "inner", "volume", "inner"]
            );
            let etc = held.root().open_dir(&path("/etc")).unwrap();
            let found = ["conf", "hosts"].map(|name| etc.is_mount(OsStr::new(name)).unwrap());
            assert_eq!(found, [true, true]);
            let made =
                |directory: &str| held.root().open_dir(&path(directory)).unwrap().create_file(OsStr::new("new"), 0o600);
            assert_eq!(made("/etc").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
            made("/v").unwrap();
        }
        assert!(at("data/new").exists() && at("data/below/in").exists() && at("upper/v").exists());
        assert!(!at("upper/etc/hosts").exists(), "what was made for the moment is gone");
        assert_eq!(fs::read_to_string(at("one")).unwrap(), "host");
    }
}
