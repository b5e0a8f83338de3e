//! Indexes mounted by the kernel, read by [`Index`], and checked by `fsck.erofs`, beside plain extractions of the same
//! tars. Mounts, owners and devices need root; without it those tests say so and check nothing.

mod attacks;
mod cost;
pub(crate) mod described;
mod dialects;
mod fsck;
mod fuzz;
pub(crate) mod hostile;
mod layers;
mod merged;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_image::layer::{Entry, EntryKind, TarWriter};
use rbuild_image::{ContainerPath, Digest};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::*;
use crate::testing::members::{archive, dir, file, hard, is_root, link};
use crate::view::View;

/// A tar with its index and side blob, in a directory of their own.
struct Layer {
    home: tempfile::TempDir,
    info: IndexInfo,
    side: u64,
}

impl Layer {
    fn of(tar: &[u8]) -> Result<Self, IndexError> {
        Self::over(tar, View::empty())
    }

    fn over(tar: &[u8], parent: View) -> Result<Self, IndexError> {
        let home = tempfile::tempdir().unwrap();
        let mut side = SideBlob::new(File::create_new(home.path().join("side")).unwrap());
        let parent = Arc::new(parent);
        let builder = index_tar(&mut &*tar, Arc::clone(&parent), &mut side);
        std::fs::write(home.path().join("tar"), tar).unwrap();
        let again = File::create_new(home.path().join("again")).unwrap();
        let mut again = SideBlob::new(again);
        let from_file = index_tar_file(&File::open(home.path().join("tar")).unwrap(), parent, &mut again);
        let (builder, from_file) = match (builder, from_file) {
            (Ok(builder), Ok(from_file)) => (builder, from_file),
            (Err(error), Err(other)) => {
                assert_eq!(error.to_string(), other.to_string(), "passed by, or in a file");
                return Err(error);
            }
            (builder, from_file) => panic!("passed by: {builder:?}, in a file: {from_file:?}"),
        };
        let mut devices = vec![Device { bytes: tar.len() as u64, digest: Some(Digest::sha256(tar)) }];
        if side.length() > 0 {
            devices.push(Device { bytes: side.length(), digest: None });
        }
        let mut out = File::create_new(home.path().join("index")).unwrap();
        let other = from_file.finish(&devices, &mut io::sink());
        let info = builder.finish(&devices, &mut out)?;
        assert_eq!((other?.digest, side.length()), (info.digest, again.length()), "passed by, or in a file");
        assert_eq!(info.bytes, out.metadata().unwrap().len());
        Ok(Self { home, info, side: side.length() })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn index(&self) -> Index {
        Index::open(File::open(self.file("index")).unwrap()).unwrap()
    }

    fn devices(&self) -> Vec<PathBuf> {
        let mut devices = vec![self.file("tar")];
        devices.extend((self.side > 0).then(|| self.file("side")));
        devices
    }

    fn mount(&self) -> Mounted {
        Mounted::new(&self.file("index"), &self.devices()).unwrap()
    }
}

/// A mount that has no place: it goes with its descriptor.
struct Mounted(OwnedFd);

impl Mounted {
    fn new(index: &Path, devices: &[PathBuf]) -> io::Result<Self> {
        let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", index)?;
        for device in devices {
            rustix::mount::fsconfig_set_string(context.as_fd(), "device", device)?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
        Ok(Self(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?))
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/.", self.0.as_raw_fd()).into()
    }
}
