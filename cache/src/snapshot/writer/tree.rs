//! What a layer being written holds so far, in memory: names and types, so that no path is ever resolved on disk.

use std::collections::BTreeMap;

use rbuild_image::ContainerPath;

use super::metadata::Metadata;
use crate::view::FileKind;

/// Position of a node in its tree.
pub(super) type NodeId = usize;

/// The layer's root.
pub(super) const ROOT: NodeId = 0;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: NodeId,
    pub(super) name: Box<[u8]>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Directory(Directory),
    Symlink(Vec<u8>),
    /// A file, device or fifo.
    Leaf(FileKind),
    /// It hides what the parent has under this name.
    Whiteout,
    /// It was removed again from the layer.
    Gone,
}

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) children: BTreeMap<Box<[u8]>, NodeId>,
    /// Set when the layer is finished, since entries made below change the time.
    pub(super) metadata: Metadata,
    /// Whether nothing of the parent shows through: it is new, opaque, or inside such a directory.
    pub(super) hides: bool,
    /// Whether it says that it hides the directories below it.
    pub(super) opaque: bool,
}

impl Directory {
    pub(super) fn new(metadata: Metadata, hides: bool) -> Self {
        Self { children: BTreeMap::new(), metadata, hides, opaque: false }
    }
}

/// Where a path is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In the layer.
    Staged(NodeId),
    /// The layer says nothing: it is what it is in the parent.
    Lower,
    /// Nowhere.
    Absent,
}

#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    pub(super) fn new(root: Directory) -> Self {
        let root = Node { parent: ROOT, name: Box::default(), state: State::Directory(root) };
        Self { nodes: vec![root] }
    }

    pub(super) fn locate(&self, path: &ContainerPath) -> Location {
        let mut here = ROOT;
        for name in path.components() {
            let State::Directory(directory) = &self.nodes[here].state else { return Location::Absent };
            match directory.children.get(name) {
                Some(next) => here = *next,
                None if directory.hides => return Location::Absent,
                None => return Location::Lower,
            }
        }
        match self.nodes[here].state {
            State::Whiteout | State::Gone => Location::Absent,
            _ => Location::Staged(here),
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.nodes[id].state {
            State::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match &mut self.nodes[id].state {
            State::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.directory(parent)?.children.get(name).copied()
    }

    pub(super) fn add(&mut self, parent: NodeId, name: &[u8], state: State) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(Node { parent, name: name.into(), state });
        if let Some(directory) = self.directory_mut(parent) {
            directory.children.insert(name.into(), id);
        }
        id
    }

    /// Takes a node and everything below it out of the tree.
    pub(super) fn detach(&mut self, id: NodeId) {
        let (parent, name) = (self.nodes[id].parent, self.nodes[id].name.clone());
        if let Some(directory) = self.directory_mut(parent) {
            directory.children.remove(&name);
        }
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            if let State::Directory(directory) = std::mem::replace(&mut self.nodes[id].state, State::Gone) {
                todo.extend(directory.children.into_values());
            }
        }
    }

    /// The path of a node relative to the root, without a leading slash.
    pub(super) fn path(&self, id: NodeId) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut here = id;
        while here != ROOT {
            parts.push(&*self.nodes[here].name);
            here = self.nodes[here].parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Everything but the root, directories before their entries, names in byte order: the order of a layer's tar.
    pub(super) fn in_order(&self) -> Vec<(ContainerPath, NodeId)> {
        let mut found = Vec::new();
        let mut todo = vec![(ContainerPath::root(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            if let Some(directory) = self.directory(id) {
                todo.extend(directory.children.iter().rev().map(|(name, child)| (path.join(name), *child)));
            }
            if id != ROOT {
                found.push((path, id));
            }
        }
        found
    }

    /// All directories, entries before what holds them, with their position.
    pub(super) fn directories_inside_out(&self) -> impl Iterator<Item = (NodeId, &Node, &Directory)> {
        self.nodes.iter().enumerate().rev().filter_map(|(id, node)| match &node.state {
            State::Directory(directory) => Some((id, node, directory)),
            _ => None,
        })
    }
}
