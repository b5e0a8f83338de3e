//! Where each inode of an index will be: decided for all of them before the first byte is written.

use std::collections::BTreeMap;

use rbuild_image::ContainerPath;

use super::directory::{blocks, length, names};
use super::error::{IndexError, Unrepresentable};
use super::format::{
    CHUNK_FORMAT_INDEXES, CHUNK_INDEX, DEVICES, DataLayout, INODE_UNIT, Inode, MAX_CHUNK_BITS, S_IFBLK, S_IFCHR,
    S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, SLOT,
};
use super::tree::{Children, Kind, Node, NodeId, ROOT, State, Tree};
use super::xattrs::XattrTable;

/// Everything that is written, in its place.
pub(super) struct Layout {
    pub(super) tree: Tree,
    pub(super) xattrs: XattrTable,
    pub(super) children: Children,
    pub(super) block_bits: u8,
    /// Inodes in the order in which they lie.
    pub(super) order: Vec<NodeId>,
    /// Number of each node's inode, in units of 32 bytes; 0 for none.
    pub(super) numbers: Vec<u32>,
    /// How many names each node's inode has.
    links: Vec<u32>,
    /// The time of compact inodes.
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
    pub(super) shared: Vec<u8>,
    pub(super) shared_block: u32,
    /// Where blocks of directories and symlinks begin.
    pub(super) data_block: u32,
    pub(super) blocks: u32,
    /// First data block of the few symlinks that have any.
    link_blocks: BTreeMap<NodeId, u32>,
}

/// One inode as it is written.
pub(super) struct Placed {
    pub(super) inode: Inode,
    pub(super) compact: bool,
    pub(super) xattrs: Vec<u8>,
    /// Bytes of a directory or symlink that lie behind the inode.
    pub(super) tail: u64,
    /// Blocks of a directory or symlink that lie elsewhere.
    pub(super) blocks: u64,
    /// How many chunks are described behind the inode.
    pub(super) chunks: u64,
    /// Length of all this.
    pub(super) bytes: u64,
}

impl Layout {
    pub(super) fn new(
        mut tree: Tree,
        mut xattrs: XattrTable,
        block_bits: u8,
        devices: usize,
    ) -> Result<Self, IndexError> {
        tree.forget_names_table();
        for id in 0..tree.nodes.len() {
            if tree.nodes[id].state == State::Opaque {
                let set = xattrs.with_opaque(tree.nodes[id].attributes.xattrs);
                // Nodes are counted in 32 bits.
                tree.nodes[id].attributes.xattrs = set.map_err(|what| fault(&tree, id as NodeId, what))?;
            }
        }
        let children = tree.children();
        let mut layout = Self {
            order: Vec::new(),
            numbers: vec![0; tree.nodes.len()],
            links: vec![0; tree.nodes.len()],
            tree,
            xattrs,
            children,
            block_bits,
            seconds: 0,
            nanoseconds: 0,
            shared: Vec::new(),
            shared_block: 0,
            data_block: 0,
            blocks: 0,
            link_blocks: BTreeMap::new(),
        };
        layout.visit();
        layout.shared = layout.xattrs.share();
        layout.place(devices)?;
        Ok(layout)
    }

    /// The size of a block.
    pub(super) fn block(&self) -> u64 {
        1 << self.block_bits
    }

    /// Puts inodes in order: each directory's entries side by side, directories before what they hold. Counts names
    /// and attributes, and finds the time that most inodes have if there is one that more than half have.
    fn visit(&mut self) {
        let mut lead = 0u64;
        let mut see = |layout: &mut Self, id: NodeId| {
            let attributes = layout.tree.node(id).attributes;
            layout.order.push(id);
            layout.xattrs.count(attributes.xattrs);
            let time = (attributes.seconds, attributes.nanoseconds);
            // Boyer and Moore's majority vote.
            if lead == 0 {
                (layout.seconds, layout.nanoseconds) = time;
            }
            lead = if (layout.seconds, layout.nanoseconds) == time { lead + 1 } else { lead - 1 };
        };
        see(self, ROOT);
        self.links[ROOT as usize] = 2;
        let mut todo = vec![ROOT];
        while let Some(directory) = todo.pop() {
            let first = todo.len();
            for at in 0..self.children.of(directory).len() {
                let id = self.children.of(directory)[at];
                match *self.tree.node(id) {
                    Node { kind: Kind::Directory, .. } => {
                        self.links[id as usize] = 2;
                        self.links[directory as usize] += 1;
                        see(self, id);
                        todo.push(id);
                    }
                    Node { kind, word, .. } => {
                        let inode = if kind == Kind::Link { word } else { id };
                        if self.links[inode as usize] == 0 {
                            see(self, inode);
                        }
                        self.links[inode as usize] += 1;
                    }
                }
            }
            todo[first..].reverse();
        }
    }

    fn place(&mut self, devices: usize) -> Result<(), IndexError> {
        let block = self.block();
        let mut at = DEVICES + SLOT * devices as u64;
        let mut data_blocks = 0;
        for index in 0..self.order.len() {
            let id = self.order[index];
            if matches!(self.tree.node(id).kind, Kind::Directory) {
                let names = names(&self.tree, &self.children, id);
                let mut full = 0;
                let mut last = 0;
                for entries in blocks(&names, 1 << self.block_bits) {
                    full += 1;
                    last = length(entries) as u64;
                }
                self.tree.node_mut(id).size = (full - 1) * block + last;
            }
            let placed = self.placed(id)?;
            at = at.next_multiple_of(INODE_UNIT);
            // What lies behind an inode must not cross a block.
            if placed.tail > 0 && at % block + placed.bytes > block {
                at = at.next_multiple_of(block);
            }
            let too_large = |_| IndexError::TooLarge { what: "units of 32 bytes of index", limit: u32::MAX.into() };
            self.numbers[id as usize] = u32::try_from(at / INODE_UNIT).map_err(too_large)?;
            at += placed.bytes;
            if placed.blocks > 0 {
                let first = u32::try_from(data_blocks).map_err(too_large)?;
                match self.tree.is_directory(id) {
                    true => self.tree.node_mut(id).word = first,
                    false => drop(self.link_blocks.insert(id, first)),
                }
            }
            data_blocks += placed.blocks;
            if id == ROOT {
                if u16::try_from(self.numbers[0]).is_err() {
                    return Err(IndexError::TooLarge { what: "devices", limit: super::MAX_DEVICES as u64 });
                }
                if !self.shared.is_empty() {
                    at = at.next_multiple_of(block);
                    self.shared_block = u32::try_from(at / block).map_err(too_large)?;
                    at += self.shared.len() as u64;
                }
            }
        }
        let first = at.div_ceil(block);
        let too_large = |_| IndexError::TooLarge { what: "blocks of index", limit: u32::MAX.into() };
        self.data_block = u32::try_from(first).map_err(too_large)?;
        self.blocks = u32::try_from(first + data_blocks).map_err(too_large)?;
        Ok(())
    }

    /// The inode of a node. Its first data block counts from the beginning of the data blocks until all are placed.
    pub(super) fn placed(&self, id: NodeId) -> Result<Placed, IndexError> {
        let node = self.tree.node(id);
        let attributes = &node.attributes;
        let xattrs = self.xattrs.body(attributes.xattrs).map_err(|what| fault(&self.tree, id, what))?;
        let (layout, file_type, word, chunks) = match node.kind {
            Kind::Directory => (DataLayout::Inline, S_IFDIR, 0, 0),
            Kind::Symlink => (DataLayout::Inline, S_IFLNK, 0, 0),
            Kind::File | Kind::Link if node.size == 0 => (DataLayout::Plain, S_IFREG, 0, 0),
            Kind::File | Kind::Link => {
                let bits = self.one_chunk_bits(node.size);
                let chunks = node.size.div_ceil(self.block() << bits);
                (DataLayout::Chunks, S_IFREG, u32::from(bits) | u32::from(CHUNK_FORMAT_INDEXES), chunks)
            }
            Kind::Chunked => {
                let list = &self.tree.lists[node.word as usize];
                let format = u32::from(list.bits) | u32::from(CHUNK_FORMAT_INDEXES);
                (DataLayout::Chunks, S_IFREG, format, list.chunks.len() as u64)
            }
            Kind::CharDevice => (DataLayout::Plain, S_IFCHR, node.word, 0),
            Kind::BlockDevice => (DataLayout::Plain, S_IFBLK, node.word, 0),
            Kind::Fifo => (DataLayout::Plain, S_IFIFO, 0, 0),
            Kind::Whiteout => (DataLayout::Plain, S_IFCHR, 0, 0),
        };
        let mut inode = Inode {
            layout,
            mode: file_type | attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            seconds: attributes.seconds,
            nanoseconds: attributes.nanoseconds,
            size: node.size,
            links: self.links[id as usize],
            word,
            xattr_bytes: xattrs.len() as u64,
            number: id.wrapping_add(1),
        };
        let compact = inode.is_compact(self.seconds, self.nanoseconds);
        let mut bytes = inode.encode(compact).1 + xattrs.len() as u64;
        let (mut tail, mut blocks) = (0, 0);
        if layout == DataLayout::Inline {
            tail = node.size % self.block();
            blocks = node.size / self.block();
            if tail == 0 || bytes + tail > self.block() {
                inode.layout = DataLayout::Plain;
                blocks = node.size.div_ceil(self.block());
                tail = 0;
            }
            bytes += tail;
        }
        if chunks > 0 {
            bytes = bytes.next_multiple_of(CHUNK_INDEX) + CHUNK_INDEX * chunks;
        }
        Ok(Placed { inode, compact, xattrs, tail, blocks, chunks, bytes })
    }

    /// The first data block of a directory or symlink that has any, counted from the first of all.
    pub(super) fn first_block(&self, id: NodeId) -> u32 {
        match self.link_blocks.get(&id) {
            Some(block) => *block,
            None => self.tree.node(id).word,
        }
    }

    /// The smallest chunk that holds a whole file, or the largest there is.
    pub(super) fn one_chunk_bits(&self, size: u64) -> u8 {
        let blocks = size.div_ceil(self.block()).max(1);
        // At most 64.
        (blocks.next_power_of_two().trailing_zeros() as u8).min(MAX_CHUNK_BITS)
    }
}

fn fault(tree: &Tree, id: NodeId, what: Unrepresentable) -> IndexError {
    IndexError::Unrepresentable { path: ContainerPath::new(tree.path(id)), what }
}
