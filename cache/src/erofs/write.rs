//! Writes an index from its first byte to its last.

use std::io::{self, Write};

use rbuild_image::{Digest, Hashing};

use super::builder::IndexBuilder;
use super::directory::{blocks, encode, names};
use super::error::IndexError;
use super::format::{
    CHUNK_INDEX, HOLE, INODE_UNIT, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, SLOT, SUPERBLOCK, Superblock,
    checksum,
};
use super::layout::{Layout, Placed};
use super::tree::{Kind, NodeId, ROOT};
use super::{BLOCK_BITS, MAX_DEVICES};

/// A file that holds contents: a tar or a side blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// How long it is.
    pub bytes: u64,
    /// What it must be; kept in the index when it is a SHA-256.
    pub digest: Option<Digest>,
}

/// What is known of an index when its last byte is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// How many inodes it has.
    pub inodes: u64,
}

impl IndexBuilder {
    /// Writes the index of all members to `out`. `devices` are the tar and, if anything lies there, the side blob. The
    /// same members make the same bytes.
    pub fn finish(self, devices: &[Device], out: &mut dyn Write) -> Result<IndexInfo, IndexError> {
        self.finish_with_blocks(BLOCK_BITS, devices, out)
    }

    /// The same with blocks of another size, which the addresses of contents then count in.
    pub(super) fn finish_with_blocks(
        self,
        block_bits: u8,
        devices: &[Device],
        out: &mut dyn Write,
    ) -> Result<IndexInfo, IndexError> {
        if devices.len() > MAX_DEVICES {
            return Err(IndexError::TooLarge { what: "devices", limit: MAX_DEVICES as u64 });
        }
        let layout = Layout::new(self.tree, self.xattrs, block_bits, devices.len())?;
        let mut writer =
            Writer { out: Hashing::new(io::BufWriter::with_capacity(1 << 16, out)), at: 0, layout: &layout };
        writer.heads(devices).map_err(IndexError::Write)?;
        for id in &layout.order {
            let placed = layout.placed(*id)?;
            writer.inode(*id, &placed).map_err(IndexError::Write)?;
            if *id == ROOT {
                writer.shared().map_err(IndexError::Write)?;
            }
        }
        for id in &layout.order {
            let blocks = layout.placed(*id)?.blocks;
            if blocks > 0 {
                writer.data(*id, blocks).map_err(IndexError::Write)?;
            }
        }
        writer.fill_to(u64::from(layout.blocks) * layout.block()).map_err(IndexError::Write)?;
        let (mut out, digest, bytes) = writer.out.finish();
        out.flush().map_err(IndexError::Write)?;
        Ok(IndexInfo { digest, bytes, inodes: layout.order.len() as u64 })
    }
}

struct Writer<'l, W> {
    out: W,
    at: u64,
    layout: &'l Layout,
}

impl<W: Write> Writer<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn fill_to(&mut self, end: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        debug_assert!(self.at <= end, "{} is beyond {end}", self.at);
        while self.at < end {
            let n = (end - self.at).min(ZEROS.len() as u64);
            self.put(&ZEROS[..n as usize])?;
        }
        Ok(())
    }

    /// The superblock and the slots of the devices. The checksum covers what shares their first block, inodes too.
    fn heads(&mut self, devices: &[Device]) -> io::Result<()> {
        let layout = self.layout;
        let superblock = Superblock {
            block_bits: layout.block_bits,
            // Checked when it was placed.
            root: layout.numbers[ROOT as usize] as u16,
            inodes: layout.order.len() as u64,
            seconds: layout.seconds,
            nanoseconds: layout.nanoseconds,
            blocks: layout.blocks,
            xattr_block: layout.shared_block,
            // Checked against the limit.
            devices: devices.len() as u16,
        };
        let mut head = superblock.encode().to_vec();
        for device in devices {
            let mut slot = [0; SLOT as usize];
            if let Some(hex) = device.digest.as_ref().map(Digest::hex).filter(|hex| hex.len() == 64) {
                slot[..64].copy_from_slice(hex.as_bytes());
            }
            let blocks = u32::try_from(device.bytes.div_ceil(layout.block())).unwrap_or(u32::MAX);
            slot[64..68].copy_from_slice(&blocks.to_le_bytes());
            head.extend(slot);
        }
        // The checksum covers the superblock's block, without what precedes it there.
        let covered = if layout.block() > SUPERBLOCK { layout.block() - SUPERBLOCK } else { layout.block() };
        let mut block = Vec::new();
        let mut inner = Writer { out: &mut block, at: SUPERBLOCK, layout };
        inner.put(&head)?;
        for id in &layout.order {
            if inner.at >= SUPERBLOCK + covered {
                break;
            }
            let placed = layout.placed(*id).map_err(io::Error::other)?;
            inner.inode(*id, &placed)?;
            if *id == ROOT {
                inner.shared()?;
            }
        }
        if inner.at < SUPERBLOCK + covered {
            // The index ends before its block does, or blocks of directories follow at once.
            inner.fill_to(SUPERBLOCK + covered)?;
        }
        block.truncate(covered as usize);
        head[4..8].copy_from_slice(&checksum(&block).to_le_bytes());
        self.fill_to(SUPERBLOCK)?;
        self.put(&head)
    }

    fn shared(&mut self) -> io::Result<()> {
        let layout = self.layout;
        if layout.shared.is_empty() {
            return Ok(());
        }
        self.fill_to(u64::from(layout.shared_block) * layout.block())?;
        self.put(&layout.shared)
    }

    fn inode(&mut self, id: NodeId, placed: &Placed) -> io::Result<()> {
        let layout = self.layout;
        self.fill_to(u64::from(layout.numbers[id as usize]) * INODE_UNIT)?;
        let node = layout.tree.node(id);
        let mut inode = placed.inode;
        if placed.blocks > 0 {
            inode.word = layout.data_block + layout.first_block(id);
        }
        let (bytes, length) = inode.encode(placed.compact);
        // 32 or 64.
        self.put(&bytes[..length as usize])?;
        self.put(&placed.xattrs)?;
        if placed.tail > 0 {
            let content = self.content(id);
            let tail = content.len() - placed.tail as usize;
            self.put(&content[tail..])?;
        }
        if placed.chunks > 0 {
            self.fill_to(self.at.next_multiple_of(CHUNK_INDEX))?;
            if node.kind == Kind::Chunked {
                for (device, block) in &layout.tree.lists[node.word as usize].chunks {
                    self.chunk(*device, *block)?;
                }
            } else {
                let step = 1u64 << layout.one_chunk_bits(node.size);
                for at in 0..placed.chunks {
                    // The end of the content was checked to be inside 32 bits.
                    self.chunk(node.device, (u64::from(node.word) + at * step) as u32)?;
                }
            }
        }
        Ok(())
    }

    fn chunk(&mut self, device: u16, block: u32) -> io::Result<()> {
        let mut index = [0; CHUNK_INDEX as usize];
        index[2..4].copy_from_slice(&device.to_le_bytes());
        index[4..].copy_from_slice(&block.to_le_bytes());
        if block == HOLE {
            index = [0xff; CHUNK_INDEX as usize];
        }
        self.put(&index)
    }

    /// The blocks of a directory or symlink that are not behind its inode.
    fn data(&mut self, id: NodeId, blocks: u64) -> io::Result<()> {
        let layout = self.layout;
        let first = u64::from(layout.data_block + layout.first_block(id));
        self.fill_to(first * layout.block())?;
        let content = self.content(id);
        let end = content.len().min((blocks * layout.block()) as usize);
        self.put(&content[..end])?;
        self.fill_to((first + blocks) * layout.block())
    }

    /// All bytes of a directory or symlink.
    fn content(&self, id: NodeId) -> Vec<u8> {
        let layout = self.layout;
        let node = layout.tree.node(id);
        if node.kind == Kind::Symlink {
            return layout.tree.text(node).to_vec();
        }
        let names = names(&layout.tree, &layout.children, id);
        let mut content: Vec<u8> = Vec::new();
        for entries in blocks(&names, 1 << layout.block_bits) {
            content.resize(content.len().next_multiple_of(1 << layout.block_bits), 0);
            content.extend(encode(entries, |inode| {
                let mode = match layout.tree.node(inode).kind {
                    Kind::Directory => S_IFDIR,
                    Kind::File | Kind::Chunked | Kind::Link => S_IFREG,
                    Kind::Symlink => S_IFLNK,
                    Kind::CharDevice | Kind::Whiteout => S_IFCHR,
                    Kind::BlockDevice => S_IFBLK,
                    Kind::Fifo => S_IFIFO,
                };
                (layout.numbers[inode as usize].into(), mode)
            }));
        }
        content
    }
}
