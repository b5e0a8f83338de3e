//! What `statx(2)` says about a file, as plain data.

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::Result;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// The kind in the type bits of a mode, if they name one.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The kind in a directory entry's type, if the file system fills it in.
    pub(crate) fn from_dirent(kind: rustix::fs::FileType) -> Option<Self> {
        use rustix::fs::FileType;
        Some(match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// A point in time as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The type.
    pub kind: FileKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes in use; fewer than `size` asks for when the file is sparse.
    pub blocks: u64,
    /// Number of names.
    pub links: u32,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of content.
    pub modified: Timestamp,
    /// Last change of attributes or content.
    pub changed: Timestamp,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Inode number on that device.
    pub inode: u64,
    /// Major and minor number of a device file.
    pub device_file: (u32, u32),
}

impl Stat {
    /// Attributes of what `fd` refers to.
    pub fn of(fd: impl AsFd) -> std::io::Result<Self> {
        Ok(statx(fd, c"", AtFlags::EMPTY_PATH)?)
    }

    /// Whether both are the same file.
    pub fn same_file(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }
}

/// `statx(2)` of the basic attributes.
pub(crate) fn statx(dir: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> Result<Stat> {
    let raw: Statx = rustix::fs::statx(dir, name, flags | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)?;
    let time = |t: rustix::fs::StatxTimestamp| Timestamp { seconds: t.tv_sec, nanoseconds: t.tv_nsec };
    Ok(Stat {
        kind: FileKind::from_mode(raw.stx_mode.into()).ok_or(rustix::io::Errno::INVAL)?,
        mode: u32::from(raw.stx_mode) & 0o7777,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        links: raw.stx_nlink,
        accessed: time(raw.stx_atime),
        modified: time(raw.stx_mtime),
        changed: time(raw.stx_ctime),
        device: (raw.stx_dev_major, raw.stx_dev_minor),
        inode: raw.stx_ino,
        device_file: (raw.stx_rdev_major, raw.stx_rdev_minor),
    })
}
