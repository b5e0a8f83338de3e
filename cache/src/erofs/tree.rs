//! A layer's tree while its index is made: compact, because a layer may have millions of members.
//!
//! Each member is a [`Node`] of 56 bytes in one vector; names, link texts and chunk lists lie in arenas; children are found
//! through one hash table of positions. Taking a name out of the tree leaves its node, which other names may link to.

use std::hash::{BuildHasher, RandomState};

use super::error::IndexError;
use super::xattrs::SetId;

/// Position of a node.
pub(super) type NodeId = u32;
pub(super) const ROOT: NodeId = 0;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// In one piece: the device is in `device`, the first block in `word`.
    File,
    /// In chunks: the list is number `word`.
    Chunked,
    /// Its text is at `word` in the texts.
    Symlink,
    /// The number as it is written is in `word`.
    CharDevice,
    BlockDevice,
    Fifo,
    /// A character device 0:0.
    Whiteout,
    /// Another name of the node `word`, which is none itself.
    Link,
}

/// What every inode has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) xattrs: SetId,
    /// Permissions only.
    pub(super) mode: u16,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    /// Bytes of a file or a symlink's text; of a directory when it is laid out.
    pub(super) size: u64,
    pub(super) word: u32,
    pub(super) parent: NodeId,
    /// Where its name is in the names.
    pub(super) name: u32,
    /// 0 for a file without content, otherwise the device's number from 1.
    pub(super) device: u16,
    pub(super) kind: Kind,
    pub(super) state: State,
}

/// What a name does to lower layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A directory in which those of lower layers show, if there are any; for anything else it means nothing.
    Merges,
    /// A directory under which nothing of lower layers is.
    Hides,
    /// The same, and the directory says so to overlayfs.
    Opaque,
    /// The name was taken out of the tree.
    Gone,
}

/// Where the parts of a file are that is not in one piece.
#[derive(Debug)]
pub(super) struct ChunkList {
    /// Logarithm of the size of a chunk, in blocks.
    pub(super) bits: u8,
    /// Device and first block, or `(0, HOLE)`.
    pub(super) chunks: Box<[(u16, u32)]>,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// Each name behind its length.
    names: Vec<u8>,
    pub(super) texts: Vec<u8>,
    pub(super) lists: Vec<ChunkList>,
    table: Table,
}

impl Tree {
    pub(super) fn new(root: Attributes) -> Self {
        let mut tree =
            Self { nodes: Vec::new(), names: vec![0], texts: Vec::new(), lists: Vec::new(), table: Table::default() };
        tree.nodes.push(Node { attributes: root, ..Node::new(Kind::Directory) });
        tree
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub(super) fn is_directory(&self, id: NodeId) -> bool {
        self.node(id).kind == Kind::Directory
    }

    pub(super) fn name(&self, id: NodeId) -> &[u8] {
        let at = self.node(id).name as usize;
        let length = usize::from(self.names[at]);
        &self.names[at + 1..at + 1 + length]
    }

    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.table.find(self.table.hash(parent, name), |id| self.is_at(id, parent, name))
    }

    /// Adds a child whose name, of at most 255 bytes, `parent` does not have yet.
    pub(super) fn add(&mut self, parent: NodeId, name: &[u8], node: Node) -> Result<NodeId, IndexError> {
        let too_large = |what| move |_| IndexError::TooLarge { what, limit: u32::MAX.into() };
        let id = NodeId::try_from(self.nodes.len()).map_err(too_large("members"))?;
        if id >= REMOVED {
            return Err(IndexError::TooLarge { what: "members", limit: REMOVED.into() });
        }
        let at = u32::try_from(self.names.len()).map_err(too_large("bytes of names"))?;
        self.names.push(u8::try_from(name.len()).expect("names are checked before they come here"));
        self.names.extend_from_slice(name);
        self.nodes.push(Node { parent, name: at, ..node });
        let Self { nodes, names, table, .. } = self;
        table.insert(table.hash(parent, name), id, |id| {
            let node = &nodes[id as usize];
            let at = node.name as usize;
            (node.parent, &names[at + 1..at + 1 + usize::from(names[at])])
        });
        Ok(id)
    }

    /// Takes a name out of the tree, and with a directory everything below it.
    pub(super) fn detach(&mut self, id: NodeId) {
        self.node_mut(id).state = State::Gone;
        let hash = self.table.hash(self.node(id).parent, self.name(id));
        self.table.remove(hash, id);
    }

    pub(super) fn add_text(&mut self, text: &[u8]) -> Result<u32, IndexError> {
        let at = u32::try_from(self.texts.len());
        let at = at.map_err(|_| IndexError::TooLarge { what: "bytes of link targets", limit: u32::MAX.into() })?;
        self.texts.extend_from_slice(text);
        Ok(at)
    }

    /// The text of a symlink.
    pub(super) fn text(&self, node: &Node) -> &[u8] {
        let at = node.word as usize;
        // A text's length was that of a slice.
        &self.texts[at..at + node.size as usize]
    }

    /// All nodes whose names are in the tree, by what holds them, in byte order of their names.
    pub(super) fn children(&self) -> Children {
        let mut starts = vec![0u32; self.nodes.len() + 1];
        for node in self.nodes.iter().skip(1).filter(|node| node.state != State::Gone) {
            starts[node.parent as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut ids = vec![0; starts.last().map_or(0, |all| *all as usize)];
        let mut next = starts.clone();
        for (id, node) in self.nodes.iter().enumerate().skip(1).filter(|(_, node)| node.state != State::Gone) {
            let at = &mut next[node.parent as usize];
            // Nodes are counted in 32 bits.
            ids[*at as usize] = id as NodeId;
            *at += 1;
        }
        drop(next);
        for parent in 0..self.nodes.len() {
            let range = starts[parent] as usize..starts[parent + 1] as usize;
            if range.len() > 1 {
                ids[range].sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
            }
        }
        Children { starts, ids }
    }

    /// Frees what only look-ups by name need.
    pub(super) fn forget_names_table(&mut self) {
        self.table = Table::default();
    }

    /// The path of a node from the root.
    pub(super) fn path(&self, id: NodeId) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut here = id;
        while here != ROOT {
            parts.push(self.name(here));
            here = self.node(here).parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    fn is_at(&self, id: NodeId, parent: NodeId, name: &[u8]) -> bool {
        self.node(id).parent == parent && self.name(id) == name
    }
}

impl Node {
    /// Whether nothing of lower layers shows in this directory.
    pub(super) fn hides(&self) -> bool {
        self.state != State::Merges
    }

    /// A node of this kind, nothing else said.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            attributes: Attributes::default(),
            size: 0,
            word: 0,
            parent: ROOT,
            name: 0,
            device: 0,
            kind,
            state: State::Merges,
        }
    }
}

/// Who is in which directory.
pub(super) struct Children {
    starts: Vec<u32>,
    ids: Vec<NodeId>,
}

impl Children {
    pub(super) fn of(&self, directory: NodeId) -> &[NodeId] {
        let at = directory as usize;
        &self.ids[self.starts[at] as usize..self.starts[at + 1] as usize]
    }
}

/// Node positions by the hash of parent and name: open addressing, four bytes a slot.
///
/// The hash is seeded anew in each process, so nobody can make a layer whose names collide; the order of slots reaches
/// nothing that is written.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<u32>,
    /// Slots that are not empty, removed ones included.
    used: usize,
    seed: RandomState,
}

const EMPTY: u32 = u32::MAX;
const REMOVED: u32 = u32::MAX - 1;

impl Table {
    fn hash(&self, parent: NodeId, name: &[u8]) -> u64 {
        self.seed.hash_one((parent, name))
    }

    fn find(&self, hash: u64, is_it: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                EMPTY => return None,
                REMOVED => {}
                id if is_it(id) => return Some(id),
                _ => {}
            }
            at = (at + 1) & mask;
        }
    }

    fn insert<'n>(&mut self, hash: u64, id: NodeId, key: impl Fn(NodeId) -> (NodeId, &'n [u8])) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let live = self.slots.iter().filter(|slot| **slot < REMOVED).count();
            let old = std::mem::take(&mut self.slots);
            self.slots = vec![EMPTY; ((live + 1) * 2).next_power_of_two().max(16)];
            self.used = 0;
            for id in old.into_iter().filter(|slot| *slot < REMOVED) {
                let (parent, name) = key(id);
                self.put(self.hash(parent, name), id);
            }
        }
        self.put(hash, id);
    }

    fn put(&mut self, hash: u64, id: NodeId) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = id;
        self.used += 1;
    }

    fn remove(&mut self, hash: u64, id: NodeId) {
        let Some(mask) = self.slots.len().checked_sub(1) else { return };
        let mut at = hash as usize & mask;
        while self.slots[at] != EMPTY {
            if self.slots[at] == id {
                self.slots[at] = REMOVED;
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_stays_small() {
        assert_eq!(size_of::<Node>(), 56);
    }

    #[test]
    fn names_are_found_until_they_go() {
        let mut tree = Tree::new(Attributes::default());
        let dir = tree.add(ROOT, b"d", Node::new(Kind::Directory)).unwrap();
        let mut ids = Vec::new();
        for n in 0..1000u32 {
            ids.push(tree.add(dir, n.to_string().as_bytes(), Node::new(Kind::File)).unwrap());
        }
        for (n, id) in ids.iter().enumerate().filter(|(n, _)| n % 3 == 0) {
            tree.detach(*id);
            assert_eq!(tree.child(dir, n.to_string().as_bytes()), None);
        }
        for (n, id) in ids.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
            assert_eq!(tree.child(dir, n.to_string().as_bytes()), Some(*id));
        }
        assert_eq!(tree.child(ROOT, b"1"), None);
        let again = tree.add(dir, b"0", Node::new(Kind::Fifo)).unwrap();
        assert_eq!(tree.child(dir, b"0"), Some(again));
        let children = tree.children();
        assert_eq!(children.of(ROOT), [dir]);
        let names: Vec<_> = children.of(dir).iter().map(|id| tree.name(*id).to_vec()).collect();
        assert!(names.is_sorted() && names.len() == 667);
    }
}
