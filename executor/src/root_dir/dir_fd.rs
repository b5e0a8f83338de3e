//! One open directory and what can be done to a single name in it.
//!
//! Invariant: a name is one component, checked here; nothing here follows a symlink.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{lstat_at, read_link_of, remove};
use crate::stat::{FileKind, Stat, Timestamp};
use crate::sys;

/// An open directory.
#[derive(Debug)]
pub struct DirFd {
    fd: OwnedFd,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name.
    pub name: OsString,
    /// The type, where the file system keeps it in the directory.
    pub kind: Option<FileKind>,
    /// The inode number.
    pub inode: u64,
}

/// Files without content that `mknod(2)` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket, which nobody listens at.
    Socket,
    /// An empty regular file.
    File,
}

impl DirFd {
    /// Wraps a descriptor of a directory.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another handle on the same directory.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Attributes of the directory itself.
    pub fn metadata(&self) -> io::Result<Stat> {
        Stat::of(&self.fd)
    }

    /// Opens a directory in this one.
    pub fn open_dir(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(&self.fd, one(name)?, flags, Mode::empty())? })
    }

    /// Opens a regular file for reading; never blocks.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        self.open_regular(name, OFlags::RDONLY)
    }

    /// Opens an existing regular file for writing, keeping its content.
    pub fn open_file_write(&self, name: &OsStr) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR)
    }

    fn open_regular(&self, name: &OsStr, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.fd, one(name)?, flags, Mode::empty())?);
        match Stat::of(&file)?.kind {
            FileKind::File => Ok(file),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Opens a name as a handle without access rights (`O_PATH`), a symlink included.
    pub fn open_path(&self, name: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, one(name)?, flags, Mode::empty())?)
    }

    /// Attributes of a name; of the symlink if it is one.
    pub fn lstat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(lstat_at(self.fd.as_fd(), one(name)?)?)
    }

    /// Whether something is mounted at a name.
    pub fn is_mount(&self, name: &OsStr) -> io::Result<bool> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(&self.fd, one(name)?, flags, StatxFlags::empty())?;
        Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    /// The text of a symlink.
    pub fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        read_link_of(&self.open_path(name)?)
    }

    /// All entries, sorted by name.
    pub fn list(&self) -> io::Result<Vec<DirEntry>> {
        // A fresh description: reading must not move the offset of other handles.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&self.fd, c".", flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut raw = RawDir::new(dir, &mut buffer);
        let mut entries = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                entries.push(DirEntry {
                    name: OsString::from_vec(name.to_vec()),
                    kind: FileKind::from_dirent(entry.file_type()),
                    inode: entry.ino(),
                });
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Creates an empty regular file that did not exist, open for reading and writing. The umask applies.
    pub fn create_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, one(name)?, flags, bits(mode))?))
    }

    /// Creates a directory. The umask applies.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.fd, one(name)?, bits(mode))?)
    }

    /// Creates a symlink.
    pub fn symlink(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.fd, one(name)?)?)
    }

    /// Creates a device, pipe, socket or empty file. The umask applies.
    pub fn mknod(&self, name: &OsStr, node: Node, mode: u32) -> io::Result<()> {
        let (kind, device) = match node {
            Node::CharDevice { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Node::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
            Node::File => (FileType::RegularFile, 0),
        };
        Ok(rustix::fs::mknodat(&self.fd, one(name)?, kind, bits(mode), device)?)
    }

    /// Gives `name` here to the file that `from` knows as `from_name`; a symlink is linked itself.
    pub fn hard_link(&self, from: &Self, from_name: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::linkat(&from.fd, one(from_name)?, &self.fd, one(name)?, AtFlags::empty())?)
    }

    /// Renames within one file system; an existing file of the new name is replaced.
    pub fn rename(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, one(name)?, &to.fd, one(to_name)?)?)
    }

    /// Removes a name that is not a directory.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, one(name)?, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, one(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Removes a name and all below it; whether there was something. Does not cross into other file systems.
    pub fn remove_all(&self, name: &OsStr) -> io::Result<bool> {
        remove::remove_all(self.fd.as_fd(), one(name)?)
    }

    /// Sets owner and group of a name; of the symlink if it is one. Clears setuid bits and file capabilities.
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(rustix::fs::chownat(&self.fd, one(name)?, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the permission bits of a name that is not a symlink.
    pub fn chmod(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        let name = one(name)?;
        match sys::fs::fchmodat2(self.fd.as_fd(), name, mode & 0o7777) {
            Err(Errno::NOSYS) => {}
            done => return Ok(done?),
        }
        // Linux before 6.6: through the descriptor's own link, after making sure that it is no symlink.
        let handle = self.open_path(name)?;
        if Stat::of(&handle)?.kind == FileKind::Symlink {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), bits(mode))?)
    }

    /// Sets access and modification time of a name; of the symlink if it is one.
    pub fn set_times(&self, name: &OsStr, accessed: Timestamp, modified: Timestamp) -> io::Result<()> {
        let times = times(accessed, modified);
        Ok(rustix::fs::utimensat(&self.fd, one(name)?, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Names of a name's extended attributes, sorted.
    pub fn list_xattrs(&self, name: &OsStr) -> io::Result<Vec<OsString>> {
        let path = self.proc_path(name)?;
        let raw = grow(|buffer: &mut [u8]| rustix::fs::llistxattr(&path, buffer))?;
        let mut names: Vec<_> =
            raw.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| OsStr::from_bytes(n).to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// The value of an extended attribute; `None` when it is not set.
    pub fn get_xattr(&self, name: &OsStr, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let path = self.proc_path(name)?;
        match grow(|buffer: &mut [u8]| rustix::fs::lgetxattr(&path, attribute, buffer)) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All extended attributes with their values, sorted by name.
    pub fn xattrs(&self, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let mut all = Vec::new();
        for attribute in self.list_xattrs(name)? {
            if let Some(value) = self.get_xattr(name, &attribute)? {
                all.push((attribute, value));
            }
        }
        Ok(all)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, name: &OsStr, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::lsetxattr(self.proc_path(name)?, attribute, value, XattrFlags::empty())?)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, name: &OsStr, attribute: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::lremovexattr(self.proc_path(name)?, attribute)?)
    }

    /// Sets owner and group of the directory itself.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        Ok(rustix::fs::fchown(&self.fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Sets the permission bits of the directory itself.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.fd, bits(mode))?)
    }

    /// Sets access and modification time of the directory itself.
    pub fn set_own_times(&self, accessed: Timestamp, modified: Timestamp) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.fd, &times(accessed, modified))?)
    }

    /// Sets an extended attribute of the directory itself.
    pub fn set_own_xattr(&self, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::fsetxattr(&self.fd, attribute, value, XattrFlags::empty())?)
    }

    /// The value of an extended attribute of the directory itself.
    pub fn get_own_xattr(&self, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
        match grow(|buffer: &mut [u8]| rustix::fs::fgetxattr(&self.fd, attribute, buffer)) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// There is no `*at` call for extended attributes before Linux 6.13; the descriptor's own link pins the directory
    /// and the `l` calls do not follow the name.
    fn proc_path(&self, name: &OsStr) -> rustix::io::Result<Vec<u8>> {
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(one(name)?.as_bytes());
        Ok(path)
    }
}

impl AsFd for DirFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Refuses what is not a single name.
fn one(name: &OsStr) -> rustix::io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    Ok(name)
}

fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn times(accessed: Timestamp, modified: Timestamp) -> Timestamps {
    let spec = |t: Timestamp| Timespec { tv_sec: t.seconds, tv_nsec: t.nanoseconds.into() };
    Timestamps { last_access: spec(accessed), last_modification: spec(modified) }
}

/// Calls with a growing buffer until the answer fits.
fn grow(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(error) => return Err(error),
        }
    }
}
