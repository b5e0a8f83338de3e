//! What is known of one file without reading it: kind, mode, owner, size, time, identity.

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::Errno;

/// A point in time as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch, negative before it.
    pub seconds: i64,
    /// Nanoseconds, always counted forward: 0 to 999 999 999.
    pub nanoseconds: u32,
}

/// The type of a file, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
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
    /// A socket; never part of a layer.
    Socket,
}

impl FileKind {
    /// Whether this is a directory.
    pub fn is_directory(self) -> bool {
        self == Self::Directory
    }

    /// Whether this is overlayfs's whiteout, a character device 0:0.
    pub fn is_whiteout_device(self) -> bool {
        self == Self::CharDevice { major: 0, minor: 0 }
    }
}

/// The metadata of one file; a symlink is never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type.
    pub kind: FileKind,
    /// Permission, setuid, setgid and sticky bits: `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time, kept by the kernel only.
    pub ctime: Timestamp,
    /// Device and inode: equal for hard links of one file.
    pub inode: (u64, u64),
    /// Number of names of the inode on its file system.
    pub links: u32,
    /// Allocated space in blocks of 512 bytes.
    pub blocks: u64,
}

impl Stat {
    /// Reads the metadata of `name` in `dir`, without following a symlink. An empty `name` is `dir` itself.
    pub fn at(dir: impl rustix::fd::AsFd, name: &[u8]) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
        rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS).map(Self::from)
    }
}

impl From<Statx> for Stat {
    fn from(raw: Statx) -> Self {
        let mode = u32::from(raw.stx_mode);
        let (major, minor) = (raw.stx_rdev_major, raw.stx_rdev_minor);
        let kind = match mode & 0o170_000 {
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Symlink,
            0o020_000 => FileKind::CharDevice { major, minor },
            0o060_000 => FileKind::BlockDevice { major, minor },
            0o010_000 => FileKind::Fifo,
            0o140_000 => FileKind::Socket,
            _ => FileKind::File,
        };
        Self {
            kind,
            mode: mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            size: raw.stx_size,
            mtime: Timestamp { seconds: raw.stx_mtime.tv_sec, nanoseconds: raw.stx_mtime.tv_nsec },
            ctime: Timestamp { seconds: raw.stx_ctime.tv_sec, nanoseconds: raw.stx_ctime.tv_nsec },
            inode: (u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor), raw.stx_ino),
            links: raw.stx_nlink,
            blocks: raw.stx_blocks,
        }
    }
}

/// Extended attributes in byte order of their names.
pub type Xattrs = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;
