//! Reads an index without mounting it, and without trusting a byte of it: what does not hold is an [`io::Error`] of kind
//! `InvalidData`, never a panic, an endless loop or a buffer of a size that the file names but does not have.
//!
//! Paths are relative to the root, which is the empty one; no method follows a symlink.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use rbuild_image::Digest;

use super::format::{
    CHUNK_FORMAT_INDEXES, CHUNK_INDEX, DEVICES, DIRENT, DataLayout, Dirent, EXTENDED, HOLE, INODE_UNIT, Inode,
    MAX_CHUNK_BITS, MAX_LINK, MAX_NAME, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, SLOT, SUPERBLOCK,
    Superblock, XATTR_HEADER, checksum, decode_device, u16_at, u32_at, xattr_prefix,
};
use super::write::Device;
use super::xattrs::OPAQUE;
use crate::view::{FileKind, LayerEntry, Stat, Timestamp, Xattrs};

/// What is read at once: inodes that are looked at one after the other mostly lie side by side.
const WINDOW: usize = 32 << 10;

/// An index that is being read. Several threads may use it at once.
#[derive(Debug)]
pub struct Index {
    file: File,
    length: u64,
    /// What tells its inodes from those of other indexes.
    identity: u64,
    superblock: Superblock,
    devices: Vec<Device>,
    window: Mutex<Window>,
}

/// The part of the file that was read last.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// An inode of an index: equal for hard links.
#[derive(Clone, Copy, Debug)]
pub struct InodeRef {
    pub(super) number: u64,
    pub(super) inode: Inode,
    /// Where what follows the inode begins.
    behind: u64,
}

/// A piece of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the bytes are: position among the [devices](Index::devices), or `None` for zeros.
    pub device: Option<usize>,
    /// Where in that device they begin.
    pub offset: u64,
    /// How many there are.
    pub length: u64,
}

impl Index {
    /// Opens an index, which may be damaged.
    pub fn open(file: File) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata()?;
        let length = metadata.len();
        let mut head = [0; SLOT as usize];
        file.read_exact_at(&mut head, SUPERBLOCK).map_err(|_| damaged("it is too short"))?;
        let superblock = Superblock::decode(&head).ok_or_else(|| damaged("its superblock is not one of ours"))?;
        let block = 1u64 << superblock.block_bits;
        let covered = if block > SUPERBLOCK { block - SUPERBLOCK } else { block };
        let mut bytes = vec![0; covered as usize];
        file.read_exact_at(&mut bytes, SUPERBLOCK).map_err(|_| damaged("it is too short"))?;
        if checksum(&bytes) != u32_at(&head, 4) {
            return Err(damaged("its checksum is wrong"));
        }
        if u64::from(superblock.blocks) * block != length {
            return Err(damaged("its length is not what it says"));
        }
        let mut slots = vec![0; usize::from(superblock.devices) * SLOT as usize];
        file.read_exact_at(&mut slots, DEVICES).map_err(|_| damaged("it is too short"))?;
        let device = |slot: &[u8]| {
            let tag = std::str::from_utf8(&slot[..64]).ok();
            let digest = tag.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            Device { bytes: u64::from(u32_at(slot, 64)) * block, digest }
        };
        let devices = slots.chunks_exact(SLOT as usize).map(device).collect();
        let identity = metadata.dev().rotate_left(32) ^ metadata.ino();
        Ok(Self { file, length, identity, superblock, devices, window: Mutex::default() })
    }

    /// The tars and side blobs in which contents are: their lengths are rounded up to whole blocks.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// How many inodes there are, as the index says.
    pub fn inodes(&self) -> u64 {
        self.superblock.inodes
    }

    /// The inode of `path`.
    pub fn lookup(&self, path: &[u8]) -> io::Result<Option<InodeRef>> {
        let mut here = self.root()?;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            if here.kind()? != FileKind::Directory {
                return Ok(None);
            }
            if name == b"." || name == b".." {
                return Ok(None);
            }
            match self.find(&here, name)? {
                Some(number) => here = self.entered(&here, number)?,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// The names in a directory with their inodes, in byte order.
    pub fn list(&self, directory: &InodeRef) -> io::Result<Vec<(Vec<u8>, InodeRef)>> {
        let mut found = Vec::new();
        let mut directories = BTreeSet::new();
        for (name, number) in self.names(directory)? {
            let inode = self.entered(directory, number)?;
            if inode.kind()? == FileKind::Directory && !directories.insert(number) {
                return Err(damaged("a directory has two names"));
            }
            found.push((name, inode));
        }
        Ok(found)
    }

    /// The text of a symlink.
    pub fn read_link(&self, link: &InodeRef) -> io::Result<Vec<u8>> {
        if link.kind()? != FileKind::Symlink {
            return Err(rustix::io::Errno::INVAL.into());
        }
        if link.inode.size > MAX_LINK as u64 {
            return Err(damaged("a symlink is too long"));
        }
        self.content(link, 0, link.inode.size)
    }

    /// The metadata of an inode.
    pub fn stat(&self, of: &InodeRef) -> io::Result<Stat> {
        let inode = &of.inode;
        let mtime = Timestamp { seconds: inode.seconds, nanoseconds: inode.nanoseconds };
        if mtime.nanoseconds >= 1_000_000_000 {
            return Err(damaged("a time has too many nanoseconds"));
        }
        Ok(Stat {
            kind: of.kind()?,
            mode: u32::from(inode.mode & 0o7777),
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            mtime,
            ctime: mtime,
            inode: (self.identity, of.number),
            links: inode.links,
            blocks: inode.size.div_ceil(512),
        })
    }

    /// What a layer with this index says about a path that has this inode.
    pub fn entry(&self, of: &InodeRef) -> io::Result<LayerEntry> {
        let stat = self.stat(of)?;
        Ok(if stat.kind.is_whiteout_device() { LayerEntry::Whiteout } else { LayerEntry::Present(stat) })
    }

    /// The extended attributes of an inode without the marks of overlayfs.
    pub fn xattrs(&self, of: &InodeRef) -> io::Result<Xattrs> {
        let mut xattrs = self.all_xattrs(of)?;
        xattrs.remove(OPAQUE.0);
        Ok(xattrs)
    }

    /// Whether a directory hides those of lower layers.
    pub fn is_opaque(&self, of: &InodeRef) -> io::Result<bool> {
        Ok(self.all_xattrs(of)?.get(OPAQUE.0).is_some_and(|value| value == OPAQUE.1))
    }

    /// Where a regular file's bytes are, in order and without gaps; neighbours are joined.
    pub fn extents(&self, file: &InodeRef) -> io::Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        self.chunks(file, &mut |place, length| {
            let extent = match place {
                Some((device, offset)) => Extent { device: Some(device), offset, length },
                None => Extent { device: None, offset: 0, length },
            };
            match extents.last_mut() {
                Some(last)
                    if last.device == extent.device
                        && (last.device.is_none() || last.offset + last.length == extent.offset) =>
                {
                    last.length += length;
                }
                _ => extents.push(extent),
            }
            Ok(())
        })?;
        Ok(extents)
    }

    pub(super) fn root(&self) -> io::Result<InodeRef> {
        let root = self.inode(self.superblock.root.into())?;
        if root.kind()? == FileKind::Directory { Ok(root) } else { Err(damaged("its root is no directory")) }
    }

    pub(super) fn block(&self) -> u64 {
        1 << self.superblock.block_bits
    }

    /// How a file is divided: logarithm of the size of chunks in blocks, 0 for a file without chunks.
    pub(super) fn chunk_bits(&self, file: &InodeRef) -> u8 {
        // Five bits.
        if file.inode.layout == DataLayout::Chunks { (file.inode.word & 0x1f) as u8 } else { 0 }
    }

    /// Shows each chunk of a file: its device and offset, or `None` for a hole, and its length.
    pub(super) fn chunks(
        &self,
        file: &InodeRef,
        show: &mut dyn FnMut(Option<(usize, u64)>, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        if file.kind()? != FileKind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let inode = &file.inode;
        if inode.size == 0 {
            return Ok(());
        }
        let format = inode.word;
        if inode.layout != DataLayout::Chunks
            || format & !0x3f != 0
            || format & u32::from(CHUNK_FORMAT_INDEXES) == 0
            || inode.size > i64::MAX as u64
        {
            return Err(damaged("a file's content is not in chunks"));
        }
        let bits = self.chunk_bits(file).min(MAX_CHUNK_BITS);
        let chunk = self.block() << bits;
        let count = inode.size.div_ceil(chunk);
        let first = (file.behind + inode.xattr_bytes).next_multiple_of(CHUNK_INDEX);
        let mut left = inode.size;
        for at in 0..count {
            let index: [u8; CHUNK_INDEX as usize] =
                self.array(at.checked_mul(CHUNK_INDEX).and_then(|at| first.checked_add(at)))?;
            let length = left.min(chunk);
            left -= length;
            let (device, block) = (u16_at(&index, 2), u32_at(&index, 4));
            if block == HOLE {
                show(None, length)?;
                continue;
            }
            let position = usize::from(device).checked_sub(1).filter(|at| *at < self.devices.len());
            let position = position.ok_or_else(|| damaged("content lies on a device that it does not have"))?;
            let offset = u64::from(block) * self.block();
            if offset.checked_add(length).is_none_or(|end| end > self.devices[position].bytes) {
                return Err(damaged("content lies beyond the end of its device"));
            }
            show(Some((position, offset)), length)?;
        }
        Ok(())
    }

    /// The inode of an entry of `directory`. A directory must know that it lies there, or walks could go in circles.
    fn entered(&self, directory: &InodeRef, number: u64) -> io::Result<InodeRef> {
        let inode = self.inode(number)?;
        if inode.kind()? == FileKind::Directory {
            if number <= directory.number {
                return Err(damaged("a directory lies before the one that holds it"));
            }
            if self.find(&inode, b"..")? != Some(directory.number) {
                return Err(damaged("a directory lies in another one than it says"));
            }
        }
        Ok(inode)
    }

    pub(super) fn inode(&self, number: u64) -> io::Result<InodeRef> {
        let at = number.checked_mul(INODE_UNIT).filter(|at| *at < self.length);
        let at = at.ok_or_else(|| damaged("an inode lies beyond its end"))?;
        if at < DEVICES + SLOT * self.devices.len() as u64 {
            return Err(damaged("an inode lies in its head"));
        }
        let length = (self.length - at).min(EXTENDED);
        let bytes = self.bytes(at, length)?;
        let (inode, length) =
            Inode::decode(&bytes, &self.superblock).ok_or_else(|| damaged("an inode is not one of ours"))?;
        Ok(InodeRef { number, inode, behind: at + length })
    }

    /// The names in a directory with the numbers of their inodes.
    pub(super) fn names(&self, directory: &InodeRef) -> io::Result<Vec<(Vec<u8>, u64)>> {
        if directory.kind()? != FileKind::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut found: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        for at in 0..directory.inode.size.div_ceil(self.block()) {
            for (name, number) in self.dirents(&self.directory_block(directory, at)?)? {
                if last.as_ref().is_some_and(|last| *last >= name) {
                    return Err(damaged("a directory is out of order"));
                }
                last = Some(name.clone());
                if name != b"." && name != b".." {
                    found.push((name, number));
                }
            }
        }
        Ok(found)
    }

    /// Looks for a name: first for the block that may hold it, as the kernel does.
    fn find(&self, directory: &InodeRef, name: &[u8]) -> io::Result<Option<u64>> {
        if name.len() > MAX_NAME {
            return Ok(None);
        }
        let (mut low, mut high) = (0, directory.inode.size.div_ceil(self.block()));
        while low < high {
            let middle = low + (high - low) / 2;
            let entries = self.dirents(&self.directory_block(directory, middle)?)?;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
                return Err(damaged("a directory has an empty block"));
            };
            match (name.cmp(&first.0), name.cmp(&last.0)) {
                (Ordering::Less, _) => high = middle,
                (_, Ordering::Greater) => low = middle + 1,
                _ => return Ok(entries.into_iter().find(|entry| entry.0 == name).map(|entry| entry.1)),
            }
        }
        Ok(None)
    }

    fn directory_block(&self, directory: &InodeRef, at: u64) -> io::Result<Vec<u8>> {
        let offset = at * self.block();
        self.content(directory, offset, (directory.inode.size - offset).min(self.block()))
    }

    /// The names in one block.
    fn dirents(&self, block: &[u8]) -> io::Result<Vec<(Vec<u8>, u64)>> {
        let bad = || damaged("a directory's block does not hold together");
        let dirent = |at: usize| -> Option<Dirent> {
            let bytes = block.get(at..at + DIRENT)?;
            Some(Dirent::decode(bytes.try_into().ok()?))
        };
        let names_start = usize::from(dirent(0).ok_or_else(bad)?.name_offset);
        if names_start == 0 || names_start % DIRENT != 0 {
            return Err(bad());
        }
        let count = names_start / DIRENT;
        let mut entries = Vec::with_capacity(count.min(block.len() / DIRENT));
        for at in 0..count {
            let entry = dirent(at * DIRENT).ok_or_else(bad)?;
            let start = usize::from(entry.name_offset);
            let name = if at + 1 < count {
                let end = usize::from(dirent((at + 1) * DIRENT).ok_or_else(bad)?.name_offset);
                block.get(start..end).ok_or_else(bad)?
            } else {
                let rest = block.get(start..).ok_or_else(bad)?;
                &rest[..rest.iter().position(|b| *b == 0).unwrap_or(rest.len())]
            };
            if name.is_empty() || name.len() > MAX_NAME || name.contains(&b'/') || name.contains(&0) {
                return Err(bad());
            }
            entries.push((name.to_vec(), entry.inode));
        }
        Ok(entries)
    }

    /// Bytes of a directory or symlink, which must not cross a block unless all of it is in blocks.
    fn content(&self, of: &InodeRef, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let inode = &of.inode;
        let in_blocks = match inode.layout {
            DataLayout::Plain => inode.size,
            DataLayout::Inline => inode.size - inode.size % self.block(),
            DataLayout::Chunks => return Err(damaged("a directory or symlink is in chunks")),
        };
        let start = u64::from(inode.word) * self.block();
        if offset + length <= in_blocks {
            return self.bytes(start.saturating_add(offset), length);
        }
        let mut bytes = match in_blocks.checked_sub(offset) {
            Some(first) if first > 0 => self.bytes(start.saturating_add(offset), first)?,
            _ => Vec::new(),
        };
        let skipped = offset.saturating_sub(in_blocks);
        let tail = of.behind + inode.xattr_bytes + skipped;
        bytes.extend(self.bytes(tail, length - bytes.len() as u64)?);
        Ok(bytes)
    }

    fn all_xattrs(&self, of: &InodeRef) -> io::Result<Xattrs> {
        let mut found = Xattrs::new();
        let length = of.inode.xattr_bytes;
        if length <= XATTR_HEADER {
            return Ok(found);
        }
        let body = self.bytes(of.behind, length)?;
        let shared = usize::from(body[4]);
        let inline = XATTR_HEADER as usize + 4 * shared;
        if inline > body.len() {
            return Err(damaged("an inode refers to more attributes than it has room for"));
        }
        for at in 0..shared {
            let id = u32_at(&body, XATTR_HEADER as usize + 4 * at);
            let at = u64::from(self.superblock.xattr_block) * self.block() + 4 * u64::from(id);
            let head: [u8; 4] = self.array(Some(at))?;
            let (name, value, _) = self.xattr(&self.bytes(at, xattr_length(head))?)?;
            found.insert(name, value);
        }
        let mut rest = &body[inline..];
        while !rest.is_empty() {
            let (name, value, used) = self.xattr(rest)?;
            found.insert(name, value);
            rest = rest.get(used.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(found)
    }

    /// One attribute at the start of `bytes`, and how many bytes it is.
    fn xattr(&self, bytes: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>, usize)> {
        let bad = || damaged("an attribute does not hold together");
        let head: [u8; 4] = bytes.get(..4).and_then(|head| head.try_into().ok()).ok_or_else(bad)?;
        let prefix = xattr_prefix(head[1]).ok_or_else(bad)?;
        let value_start = 4 + usize::from(head[0]);
        let end = value_start + usize::from(u16_at(&head, 2));
        let name = bytes.get(4..value_start).ok_or_else(bad)?;
        let value = bytes.get(value_start..end).ok_or_else(bad)?;
        Ok(([prefix, name].concat(), value.to_vec(), end))
    }

    fn array<const N: usize>(&self, at: Option<u64>) -> io::Result<[u8; N]> {
        let at = at.ok_or_else(|| damaged("something lies beyond its end"))?;
        let bytes = self.bytes(at, N as u64)?;
        bytes.try_into().map_err(|_| damaged("something lies beyond its end"))
    }

    fn bytes(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let end = at.checked_add(length).filter(|end| *end <= self.length);
        let (end, Ok(size)) = (end.ok_or_else(|| damaged("something lies beyond its end"))?, usize::try_from(length))
        else {
            return Err(damaged("something lies beyond its end"));
        };
        if size > WINDOW {
            let mut bytes = vec![0; size];
            self.file.read_exact_at(&mut bytes, at)?;
            return Ok(bytes);
        }
        let mut window = self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let inside = |window: &Window| at >= window.start && end <= window.start + window.bytes.len() as u64;
        if !inside(&window) {
            let start = at - at % 4096;
            let bytes = (self.length - start).min(WINDOW as u64 + 4096);
            // At most the window and a page.
            window.bytes.resize(bytes as usize, 0);
            window.start = start;
            if let Err(error) = self.file.read_exact_at(&mut window.bytes, start) {
                window.bytes.clear();
                return Err(error);
            }
        }
        // Inside the window, whose length is one of memory.
        let from = (at - window.start) as usize;
        Ok(window.bytes[from..from + size].to_vec())
    }
}

impl InodeRef {
    /// What it is.
    pub fn kind(&self) -> io::Result<FileKind> {
        let (major, minor) = decode_device(self.inode.word);
        Ok(match self.inode.mode & S_IFMT {
            S_IFREG => FileKind::File,
            S_IFDIR => FileKind::Directory,
            S_IFLNK => FileKind::Symlink,
            S_IFCHR => FileKind::CharDevice { major, minor },
            S_IFBLK => FileKind::BlockDevice { major, minor },
            S_IFIFO => FileKind::Fifo,
            _ => return Err(damaged("an inode is of no type")),
        })
    }
}

/// Length of an attribute that begins so.
fn xattr_length(head: [u8; 4]) -> u64 {
    4 + u64::from(head[0]) + u64::from(u16_at(&head, 2))
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the layer's index is damaged: {what}"))
}
