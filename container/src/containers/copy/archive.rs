//! Files become a tar.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rbuild_executor::{FileKind, RootDir, Stat};
use rbuild_image::ContainerPath;
use rbuild_image::layer::{Device, Entry, EntryKind, TarWriter, Timestamp};

use super::CopyError;

/// What becomes of a symlink that is copied itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It stays one.
    Keep,
    /// What it leads to is copied (`-L`).
    Follow,
}

struct Archive<'a> {
    root: &'a RootDir,
    tar: TarWriter<&'a mut dyn Write>,
    /// Where a file with several names was written first, by device and inode.
    names: BTreeMap<((u32, u32), u64), ContainerPath>,
}

/// Writes `path`, called `name`, and everything below it. Sockets are left out, as in every tar.
pub(super) fn write(
    root: &RootDir,
    path: &ContainerPath,
    name: &[u8],
    links: Links,
    out: &mut dyn Write,
) -> Result<(), CopyError> {
    let mut archive = Archive { root, tar: TarWriter::new(out), names: BTreeMap::new() };
    let failed = |source| CopyError::File { action: "read", path: path.clone(), source };
    let path = match links {
        Links::Follow => root.resolve(path).map_err(failed)?,
        Links::Keep => path.clone(),
    };
    archive.add(&path, &ContainerPath::root().join(name))?;
    archive.tar.finish().map(drop).map_err(|source| CopyError::File { action: "archive", path, source })
}

impl Archive<'_> {
    fn add(&mut self, path: &ContainerPath, shown: &ContainerPath) -> Result<(), CopyError> {
        let failed = |source| CopyError::File { action: "read", path: path.clone(), source };
        let stat = match self.root.lstat(path) {
            Ok(stat) => stat,
            // It went while its directory was read.
            Err(error) if super::is_absent(&error) && !self.names.is_empty() => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        self.entry(path, shown, &stat)?;
        if stat.kind == FileKind::Directory {
            let mut entries = self.root.list(path).map_err(failed)?;
            entries.sort();
            for entry in entries {
                let name = entry.name.as_bytes();
                self.add(&path.join(name), &shown.join(name))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &ContainerPath, shown: &ContainerPath, stat: &Stat) -> Result<(), CopyError> {
        let failed = |source| CopyError::File { action: "read", path: path.clone(), source };
        let (major, minor) = stat.device_file;
        let kind = match stat.kind {
            FileKind::Socket => return Ok(()),
            FileKind::File => match self.first_name(shown, stat) {
                Some(target) => EntryKind::Hardlink { target },
                None => EntryKind::file(stat.size),
            },
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink { target: self.root.read_link(path).map_err(failed)?.into_vec() },
            FileKind::CharDevice => EntryKind::CharDevice(Device { major, minor }),
            FileKind::BlockDevice => EntryKind::BlockDevice(Device { major, minor }),
            FileKind::Fifo => EntryKind::Fifo,
        };
        let content = matches!(kind, EntryKind::File { .. });
        let entry = Entry {
            path: shown.clone(),
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: Timestamp { seconds: stat.modified.seconds, nanoseconds: stat.modified.nanoseconds },
            xattrs: self.capabilities(path).map_err(failed)?,
        };
        if !content {
            self.tar.append(&entry, &mut io::empty())?;
            return Ok(());
        }
        let file = self.root.open_file(path).map_err(failed)?;
        // A file that shrinks while it is read is filled up, so that the archive stays whole.
        let mut exact = file.take(stat.size).chain(io::repeat(0)).take(stat.size);
        self.tar.append(&entry, &mut exact)?;
        Ok(())
    }

    /// The one extended attribute that changes what a program may do.
    fn capabilities(&self, path: &ContainerPath) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        const NAME: &str = "security.capability";
        let Some((directory, name)) = self.root.open_parent(path)? else { return Ok(BTreeMap::new()) };
        match directory.get_xattr(name, OsStr::new(NAME)) {
            Ok(value) => Ok(value.map(|value| (NAME.as_bytes().to_vec(), value)).into_iter().collect()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::NotFound) => {
                Ok(BTreeMap::new())
            }
            Err(error) => Err(error),
        }
    }

    fn first_name(&mut self, shown: &ContainerPath, stat: &Stat) -> Option<ContainerPath> {
        if let Some(first) = self.names.get(&identity(stat)) {
            return Some(first.clone());
        }
        if stat.links > 1 {
            self.names.insert(identity(stat), shown.clone());
        }
        None
    }
}

fn identity(stat: &Stat) -> ((u32, u32), u64) {
    (stat.device, stat.inode)
}
