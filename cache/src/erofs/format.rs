//! The bytes of an EROFS image, as the kernel's `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst` have
//! them, as far as an index needs them. Everything is little endian.
//!
//! ```text
//! byte 1024   superblock, 128 bytes; its checksum covers it and what follows up to the end of its block
//!      1152   one slot of 128 bytes per device: the tars, then their side blobs
//!             attributes that several inodes share
//!             inodes at multiples of 32 bytes (their number is offset / 32), the root first; each with its own
//!             attributes and, behind them, where its content lies, or a directory or symlink that fits in its block
//!             blocks of larger directories and symlinks
//! ```
//!
//! Blocks have 512 bytes, because that is how a tar aligns its members and one image has one size of block.

/// Where the superblock begins.
pub(super) const SUPERBLOCK: u64 = 1024;
/// Length of the superblock and of a device slot.
pub(super) const SLOT: u64 = 128;
/// Where the slots of the devices begin.
pub(super) const DEVICES: u64 = SUPERBLOCK + SLOT;
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
pub(super) const COMPAT_CHECKSUM: u32 = 1;
/// The times in inodes are times of modification.
pub(super) const COMPAT_MTIME: u32 = 2;
pub(super) const INCOMPAT_CHUNKED_FILE: u32 = 4;
pub(super) const INCOMPAT_DEVICE_TABLE: u32 = 8;
/// The number of an inode is its offset divided by this.
pub(super) const INODE_UNIT: u64 = 32;
pub(super) const COMPACT: u64 = 32;
pub(super) const EXTENDED: u64 = 64;
/// Length of the header before an inode's attributes.
pub(super) const XATTR_HEADER: u64 = 12;
/// Length of a directory entry without its name.
pub(super) const DIRENT: usize = 12;
/// Length of the record that says where a chunk lies.
pub(super) const CHUNK_INDEX: u64 = 8;
/// The largest chunk is 2 to the power of this, in blocks.
pub(super) const MAX_CHUNK_BITS: u8 = 31;
/// Chunks are described by records of [`CHUNK_INDEX`] bytes.
pub(super) const CHUNK_FORMAT_INDEXES: u16 = 0x20;
/// The block address of a hole.
pub(super) const HOLE: u32 = u32::MAX;
/// The longest name in a directory.
pub(super) const MAX_NAME: usize = 255;
/// The longest symlink that Linux reads.
pub(super) const MAX_LINK: usize = 4095;

pub(super) const S_IFMT: u16 = 0o170_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFIFO: u16 = 0o010_000;

/// Where an inode's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// In blocks of the index.
    Plain,
    /// Whole blocks in the index, the rest behind the inode.
    Inline,
    /// In chunks, anywhere on any device.
    Chunks,
}

impl DataLayout {
    /// The number in `i_format`.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Inline => 2,
            Self::Chunks => 4,
        }
    }

    /// The layout of that number, unless it is one of compressed data.
    pub(super) fn of(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Plain),
            2 => Some(Self::Inline),
            4 => Some(Self::Chunks),
            _ => None,
        }
    }
}

/// What the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Logarithm of the size of blocks.
    pub(super) block_bits: u8,
    pub(super) root: u16,
    pub(super) inodes: u64,
    /// Time of all compact inodes.
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
    pub(super) blocks: u32,
    pub(super) xattr_block: u32,
    pub(super) devices: u16,
}

impl Superblock {
    /// The superblock's bytes, its checksum still missing.
    pub(super) fn encode(&self) -> [u8; SLOT as usize] {
        let mut out = [0; SLOT as usize];
        put(&mut out, 0, &MAGIC.to_le_bytes());
        put(&mut out, 8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        out[12] = self.block_bits;
        put(&mut out, 14, &self.root.to_le_bytes());
        put(&mut out, 16, &self.inodes.to_le_bytes());
        put(&mut out, 24, &self.seconds.to_le_bytes());
        put(&mut out, 32, &self.nanoseconds.to_le_bytes());
        put(&mut out, 36, &self.blocks.to_le_bytes());
        // 40: the inodes' area begins at block 0.
        put(&mut out, 44, &self.xattr_block.to_le_bytes());
        put(&mut out, 80, &(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE).to_le_bytes());
        put(&mut out, 86, &self.devices.to_le_bytes());
        put(&mut out, 88, &((DEVICES / SLOT) as u16).to_le_bytes());
        out
    }

    /// Reads a superblock of the kind that is written here; `None` for any other.
    pub(super) fn decode(bytes: &[u8; SLOT as usize]) -> Option<Self> {
        let expected = u32_at(bytes, 0) == MAGIC
            && u32_at(bytes, 80) == INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE
            && u32_at(bytes, 40) == 0
            && u64::from(u16_at(bytes, 88)) * SLOT == DEVICES
            && (9..=12).contains(&bytes[12])
            // No extension of the superblock, no other size of directory blocks.
            && (bytes[13], bytes[90]) == (0, 0);
        expected.then(|| Self {
            block_bits: bytes[12],
            root: u16_at(bytes, 14),
            inodes: u64_at(bytes, 16),
            seconds: u64_at(bytes, 24).cast_signed(),
            nanoseconds: u32_at(bytes, 32),
            blocks: u32_at(bytes, 36),
            xattr_block: u32_at(bytes, 44),
            devices: u16_at(bytes, 86),
        })
    }
}

/// The checksum of the superblock's block: `block` begins with the superblock and ends with its block.
pub(super) fn checksum(block: &[u8]) -> u32 {
    // The sum starts from that of the two fields before, the magic number and a checksum of 0.
    crc32c(0x5045_b54a, block.get(8..).unwrap_or_default())
}

fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    crc
}

/// One inode without what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) layout: DataLayout,
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
    pub(super) size: u64,
    pub(super) links: u32,
    /// First block, chunk format or device number.
    pub(super) word: u32,
    /// Length of its attributes with their header: 0, or 12 and a multiple of 4.
    pub(super) xattr_bytes: u64,
    /// A running number.
    pub(super) number: u32,
}

impl Inode {
    /// Whether the short form can say it, in an image whose compact inodes are of that time.
    pub(super) fn is_compact(&self, seconds: i64, nanoseconds: u32) -> bool {
        self.uid <= u16::MAX.into()
            && self.gid <= u16::MAX.into()
            && self.links <= u16::MAX.into()
            && self.size <= u32::MAX.into()
            && (self.seconds, self.nanoseconds) == (seconds, nanoseconds)
    }

    /// The inode's bytes in the short or the long form.
    pub(super) fn encode(&self, compact: bool) -> ([u8; EXTENDED as usize], u64) {
        let mut out = [0; EXTENDED as usize];
        let format = self.layout.number() << 1 | u16::from(!compact);
        let xattrs = if self.xattr_bytes == 0 { 0 } else { (self.xattr_bytes - XATTR_HEADER) / 4 + 1 };
        put(&mut out, 0, &format.to_le_bytes());
        // Checked against the limit where the attributes are laid out.
        put(&mut out, 2, &(xattrs as u16).to_le_bytes());
        put(&mut out, 4, &self.mode.to_le_bytes());
        put(&mut out, 16, &self.word.to_le_bytes());
        put(&mut out, 20, &self.number.to_le_bytes());
        if compact {
            // Each fits, or the form would not have been chosen.
            put(&mut out, 6, &(self.links as u16).to_le_bytes());
            put(&mut out, 8, &(self.size as u32).to_le_bytes());
            put(&mut out, 24, &(self.uid as u16).to_le_bytes());
            put(&mut out, 26, &(self.gid as u16).to_le_bytes());
            return (out, COMPACT);
        }
        put(&mut out, 8, &self.size.to_le_bytes());
        put(&mut out, 24, &self.uid.to_le_bytes());
        put(&mut out, 28, &self.gid.to_le_bytes());
        put(&mut out, 32, &self.seconds.to_le_bytes());
        put(&mut out, 40, &self.nanoseconds.to_le_bytes());
        put(&mut out, 44, &self.links.to_le_bytes());
        (out, EXTENDED)
    }

    /// Reads an inode and says how long it is; `bytes` holds at least 32, and 64 if the first bit is set.
    pub(super) fn decode(bytes: &[u8], superblock: &Superblock) -> Option<(Self, u64)> {
        let compact = bytes.first()? & 1 == 0;
        let length = if compact { COMPACT } else { EXTENDED };
        if (bytes.len() as u64) < length {
            return None;
        }
        let format = u16_at(bytes, 0);
        if format >> 4 != 0 {
            return None;
        }
        let xattrs = u64::from(u16_at(bytes, 2));
        let common = Self {
            layout: DataLayout::of(format >> 1 & 7)?,
            mode: u16_at(bytes, 4),
            uid: 0,
            gid: 0,
            seconds: superblock.seconds,
            nanoseconds: superblock.nanoseconds,
            size: 0,
            links: 0,
            word: u32_at(bytes, 16),
            xattr_bytes: if xattrs == 0 { 0 } else { XATTR_HEADER + 4 * (xattrs - 1) },
            number: u32_at(bytes, 20),
        };
        let inode = if compact {
            Self {
                links: u16_at(bytes, 6).into(),
                size: u32_at(bytes, 8).into(),
                uid: u16_at(bytes, 24).into(),
                gid: u16_at(bytes, 26).into(),
                ..common
            }
        } else {
            Self {
                size: u64_at(bytes, 8),
                uid: u32_at(bytes, 24),
                gid: u32_at(bytes, 28),
                seconds: u64_at(bytes, 32).cast_signed(),
                nanoseconds: u32_at(bytes, 40),
                links: u32_at(bytes, 44),
                ..common
            }
        };
        Some((inode, length))
    }
}

/// One entry of a directory block, without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dirent {
    pub(super) inode: u64,
    /// Where in the block the name begins.
    pub(super) name_offset: u16,
    pub(super) file_type: u8,
}

impl Dirent {
    pub(super) fn encode(&self) -> [u8; DIRENT] {
        let mut out = [0; DIRENT];
        put(&mut out, 0, &self.inode.to_le_bytes());
        put(&mut out, 8, &self.name_offset.to_le_bytes());
        out[10] = self.file_type;
        out
    }

    pub(super) fn decode(bytes: &[u8; DIRENT]) -> Self {
        Self { inode: u64_at(bytes, 0), name_offset: u16_at(bytes, 8), file_type: bytes[10] }
    }
}

/// The type of a directory entry whose inode has this mode.
pub(super) fn file_type(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// The kernel's way of writing a device number in 32 bits; `None` when it does not fit there.
pub(super) fn encode_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// Major and minor number of what [`encode_device`] gives.
pub(super) fn decode_device(word: u32) -> (u32, u32) {
    (word >> 8 & 0xfff, word & 0xff | word >> 12 & 0xfff00)
}

/// The beginnings of attribute names that are kept as a number.
const PREFIXES: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];

/// Splits a name into the number of its beginning and the rest.
pub(super) fn split_xattr_name(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(number, prefix)| Some((*number, name.strip_prefix(*prefix)?)))
}

/// The beginning that this number stands for.
pub(super) fn xattr_prefix(number: u8) -> Option<&'static [u8]> {
    PREFIXES.iter().find(|(known, _)| *known == number).map(|(_, prefix)| *prefix)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // The check value of CRC-32C, with the usual complements before and after.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        // The kernel's start value is the sum of the magic number and an empty checksum.
        assert_eq!(crc32c(!0, &u64::from(MAGIC).to_le_bytes()), 0x5045_b54a);
    }

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (8, 256), (4095, 0xfffff)] {
            assert_eq!(decode_device(encode_device(major, minor).unwrap()), (major, minor));
        }
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }

    #[test]
    fn inodes_survive_in_both_forms() {
        let superblock = Superblock {
            block_bits: 9,
            root: 36,
            inodes: 7,
            seconds: -5,
            nanoseconds: 6,
            blocks: 8,
            xattr_block: 2,
            devices: 3,
        };
        assert_eq!(Superblock::decode(&superblock.encode()), Some(superblock));
        let mut inode = Inode {
            layout: DataLayout::Chunks,
            mode: S_IFREG | 0o4755,
            uid: 1000,
            gid: 65_535,
            seconds: -5,
            nanoseconds: 6,
            size: u32::MAX.into(),
            links: 65_535,
            word: 0x21,
            xattr_bytes: 40,
            number: 9,
        };
        assert!(inode.is_compact(-5, 6) && !inode.is_compact(-5, 7));
        let (bytes, length) = inode.encode(true);
        assert_eq!(Inode::decode(&bytes[..length as usize], &superblock), Some((inode, COMPACT)));
        let changes: [fn(&mut Inode); 3] =
            [|inode| inode.uid = 65_536, |inode| inode.size += 1, |inode| inode.links += 1];
        for change in changes {
            let mut other = inode;
            change(&mut other);
            assert!(!other.is_compact(-5, 6));
        }
        (inode.uid, inode.size, inode.seconds) = (u32::MAX - 1, 1 << 40, i64::MIN);
        let (bytes, length) = inode.encode(false);
        assert_eq!(Inode::decode(&bytes[..length as usize], &superblock), Some((inode, EXTENDED)));
        assert_eq!(Inode::decode(&bytes[..32], &superblock), None, "cut off");
    }
}
