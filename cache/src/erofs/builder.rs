//! Takes the members of a layer in the order of its tar, as an extraction would: the last member of a path wins.
//!
//! Rules are those of unpacking into a directory ([`crate::snapshot`]): parents are found by the same piece (see
//! `view/parents.rs`); a directory over a directory changes only its metadata;
//! one over anything else is opaque; whiteouts hide lower layers wherever they stand in the archive. Directories of the
//! parent that get new entries are repeated with their own metadata.

use std::io;
use std::sync::Arc;

use rbuild_image::ContainerPath;
use rbuild_image::layer::whiteout;
use rustix::io::Errno;

use super::BLOCK;
use super::error::{IndexError, Unrepresentable, place, refuse};
use super::format::{HOLE, MAX_CHUNK_BITS, MAX_LINK, MAX_NAME, decode_device, encode_device};
use super::member::{Chunk, Content, Member, Node as MemberNode};
use super::side::SideBlob;
use super::tree::{Attributes, ChunkList, Kind, Node, NodeId, ROOT, State, Tree};
use super::xattrs::XattrTable;
use crate::snapshot::layer_may_set;
use crate::view::{FileKind, LastLink, LayerTree, Lookup, Parents, Stat, Timestamp, View, Xattrs, resolve_member};

/// The device number of the tar, and of the side blob behind it.
pub(super) const TAR: u16 = 1;
pub(super) const SIDE: u16 = 2;

/// Takes members and becomes the index over their tar. See the module for the rules.
pub struct IndexBuilder {
    pub(super) tree: Tree,
    pub(super) xattrs: XattrTable,
    parent: Arc<View>,
    depends_on_parent: bool,
    parents: Parents,
}

impl std::fmt::Debug for IndexBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members = self.tree.nodes.len();
        f.debug_struct("IndexBuilder").field("members", &members).finish_non_exhaustive()
    }
}

impl Default for IndexBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl IndexBuilder {
    /// The index of a layer with nothing below it; its root has mode 0755 of 0:0 until a member says otherwise.
    pub fn new() -> Self {
        let root = Attributes { mode: 0o755, ..Attributes::default() };
        Self {
            tree: Tree::new(root),
            xattrs: XattrTable::default(),
            parent: Arc::new(View::empty()),
            depends_on_parent: false,
            parents: Parents::default(),
        }
    }

    /// The index of a layer on top of `parent`, whose symlinks and directories decide where members go.
    pub fn over(parent: Arc<View>) -> io::Result<Self> {
        let mut builder = Self::new();
        if let Some(stat) = parent.lstat(&ContainerPath::root())? {
            builder.tree.node_mut(ROOT).attributes = attributes_of(&stat);
        }
        builder.parent = parent;
        Ok(builder)
    }

    /// Whether the index could differ on another parent.
    pub fn depends_on_parent(&self) -> bool {
        self.depends_on_parent
    }

    /// Takes one member.
    pub fn add(&mut self, member: Member) -> Result<(), IndexError> {
        if member.uid == u32::MAX || member.gid == u32::MAX {
            return Err(unrepresentable(&member.path, Unrepresentable::Owner));
        }
        let Some(name) = member.path.file_name() else {
            let MemberNode::Directory { opaque } = member.node else {
                return Err(refuse("replace", &member.path, Errno::ISDIR));
            };
            self.tree.node_mut(ROOT).attributes = self.attributes(&member)?;
            return if opaque { self.hide_all_at(&member.path) } else { Ok(()) };
        };
        let path = self.parent_of(&member.path)?.join(name);
        match &member.node {
            MemberNode::Directory { opaque } => {
                self.parents.forget();
                self.directory(&path, &member)?;
                if *opaque { self.hide_all_at(&path) } else { Ok(()) }
            }
            MemberNode::Whiteout => self.hide(&path),
            MemberNode::Special(kind) if kind.is_whiteout_device() => {
                tracing::debug!(%path, "a character device 0:0 is left out");
                Ok(())
            }
            MemberNode::HardLink(target) => {
                let target = resolve_member(self, target, LastLink::Keep)?.0;
                self.hard_link(&target, &path)
            }
            _ => self.leaf(&path, &member),
        }
    }

    /// Hides everything that lower layers have in the directory `path`; what this layer has there stays.
    pub fn hide_all(&mut self, path: &ContainerPath) -> Result<(), IndexError> {
        self.hide_all_beside(&path.join(whiteout::OPAQUE))
    }

    /// The same for the directory that holds `mark`.
    pub(super) fn hide_all_beside(&mut self, mark: &ContainerPath) -> Result<(), IndexError> {
        let directory = self.parent_of(mark)?;
        self.hide_all_at(&directory)
    }

    /// Makes the directory of an entry that is otherwise left out.
    pub(super) fn check_parent(&mut self, path: &ContainerPath) -> Result<(), IndexError> {
        self.parent_of(path).map(drop)
    }

    /// Brings into this layer what a hard link at `path` is to lead to, if it is a lower layer's: its content goes to
    /// `side`.
    pub(super) fn copy_up(
        &mut self,
        path: &ContainerPath,
        target: &ContainerPath,
        side: &mut SideBlob,
    ) -> Result<(), IndexError> {
        self.parent_of(path)?;
        let (target, _) = resolve_member(self, target, LastLink::Keep)?;
        if !matches!(self.locate(&target), Location::Lower) {
            return Ok(());
        }
        self.depends_on_parent = true;
        let look_up = |error| place("look up", &target)(error);
        let view = self.parent.clone();
        let Some(stat) = view.lstat(&target).map_err(look_up)? else { return Ok(()) };
        let node = match stat.kind {
            FileKind::Directory | FileKind::Socket => return Ok(()),
            FileKind::File => {
                let mut file = view.open(&target).map_err(look_up)?;
                let offset = side.take(&mut file, stat.size).map_err(look_up)?;
                MemberNode::File { content: Content::Side { offset, size: stat.size } }
            }
            FileKind::Symlink => MemberNode::Symlink(view.read_link(&target).map_err(look_up)?),
            kind => MemberNode::Special(kind),
        };
        let xattrs = view.xattrs(&target).map_err(look_up)?;
        let Stat { mode, uid, gid, mtime, .. } = stat;
        let member = Member { path: target.clone(), node, mode, uid, gid, mtime, xattrs };
        self.leaf(&target, &member)
    }

    fn parent_of(&mut self, path: &ContainerPath) -> Result<ContainerPath, IndexError> {
        let mut parents = std::mem::take(&mut self.parents);
        let found = parents.of(self, path);
        self.parents = parents;
        found
    }

    fn attributes(&mut self, member: &Member) -> Result<Attributes, IndexError> {
        // As the kernel has it: `user.*` on files and directories only.
        let plain = matches!(member.node, MemberNode::Directory { .. } | MemberNode::File { .. });
        let kept = |name: &[u8]| layer_may_set(name) && (plain || !name.starts_with(b"user."));
        let wanted: Xattrs = member
            .xattrs
            .iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let xattrs = self.xattrs.intern(&wanted).map_err(|what| unrepresentable(&member.path, what))?;
        Ok(Attributes {
            seconds: member.mtime.seconds,
            nanoseconds: member.mtime.nanoseconds,
            uid: member.uid,
            gid: member.gid,
            xattrs,
            // Twelve bits.
            mode: (member.mode & 0o7777) as u16,
        })
    }

    fn directory(&mut self, path: &ContainerPath, member: &Member) -> Result<(), IndexError> {
        let attributes = self.attributes(member)?;
        let parent = self.stage_parent(path)?;
        let name = path.file_name().unwrap_or_default();
        let state = match self.tree.child(parent, name) {
            Some(existing) if self.tree.is_directory(existing) => {
                self.tree.node_mut(existing).attributes = attributes;
                return Ok(());
            }
            Some(existing) => {
                // It replaced, or hid, whatever the parent has there.
                self.tree.detach(existing);
                State::Opaque
            }
            None if self.lower_kind(parent, path)? == Some(FileKind::Directory) => State::Merges,
            None => State::Hides,
        };
        self.add_node(parent, path, Node { attributes, state, ..Node::new(Kind::Directory) })?;
        Ok(())
    }

    fn leaf(&mut self, path: &ContainerPath, member: &Member) -> Result<(), IndexError> {
        let node = self.leaf_node(path, member)?;
        self.make_room(path);
        let parent = self.stage_parent(path)?;
        self.uncover(parent, path);
        self.add_node(parent, path, node).map(drop)
    }

    fn leaf_node(&mut self, path: &ContainerPath, member: &Member) -> Result<Node, IndexError> {
        let mut attributes = self.attributes(member)?;
        if matches!(member.node, MemberNode::Symlink(_)) {
            // Linux has no others.
            attributes.mode = 0o777;
        }
        let fault = |what| unrepresentable(path, what);
        let device = |major, minor| encode_device(major, minor).ok_or_else(|| fault(Unrepresentable::Device));
        let node = match &member.node {
            MemberNode::File { content } => self.content(path, content)?,
            MemberNode::Symlink(text) => {
                if text.is_empty() || text.len() > MAX_LINK {
                    return Err(fault(Unrepresentable::LinkTarget));
                }
                let word = self.tree.add_text(text)?;
                Node { word, size: text.len() as u64, ..Node::new(Kind::Symlink) }
            }
            MemberNode::Special(FileKind::CharDevice { major, minor }) => {
                Node { word: device(*major, *minor)?, ..Node::new(Kind::CharDevice) }
            }
            MemberNode::Special(FileKind::BlockDevice { major, minor }) => {
                Node { word: device(*major, *minor)?, ..Node::new(Kind::BlockDevice) }
            }
            MemberNode::Special(FileKind::Fifo) => Node::new(Kind::Fifo),
            _ => return Err(refuse("create", path, Errno::INVAL)),
        };
        Ok(Node { attributes, ..node })
    }

    fn content(&mut self, path: &ContainerPath, content: &Content) -> Result<Node, IndexError> {
        let block = |offset: u64| {
            let block = u32::try_from(offset / BLOCK).ok().filter(|block| *block != HOLE);
            block.filter(|_| offset.is_multiple_of(BLOCK))
        };
        let fault = || unrepresentable(path, Unrepresentable::Content);
        match content {
            Content::Empty | Content::Tar { size: 0, .. } | Content::Side { size: 0, .. } => Ok(Node::new(Kind::File)),
            Content::Tar { offset, size } | Content::Side { offset, size } => {
                let end = offset.checked_add(*size).and_then(|end| block(end.next_multiple_of(BLOCK)));
                let (Some(word), Some(_)) = (block(*offset), end) else { return Err(fault()) };
                let device = if matches!(content, Content::Tar { .. }) { TAR } else { SIDE };
                Ok(Node { word, size: *size, device, ..Node::new(Kind::File) })
            }
            Content::Chunks { size, chunk_bits, chunks } => {
                let bits = chunk_bits.checked_sub(9).filter(|bits| *bits <= MAX_CHUNK_BITS).ok_or_else(fault)?;
                if size.div_ceil(1 << chunk_bits) != chunks.len() as u64 || *size > i64::MAX as u64 {
                    return Err(fault());
                }
                let place = |chunk: &Chunk| match chunk {
                    Chunk::Hole => Some((0, HOLE)),
                    Chunk::Tar(offset) => Some((TAR, block(*offset)?)),
                    Chunk::Side(offset) => Some((SIDE, block(*offset)?)),
                };
                let chunks = chunks.iter().map(place).collect::<Option<_>>().ok_or_else(fault)?;
                self.chunked(*size, ChunkList { bits, chunks })
            }
        }
    }

    /// A file in chunks.
    pub(super) fn chunked(&mut self, size: u64, list: ChunkList) -> Result<Node, IndexError> {
        let word = u32::try_from(self.tree.lists.len());
        let word = word.map_err(|_| IndexError::TooLarge { what: "sparse files", limit: u32::MAX.into() })?;
        self.tree.lists.push(list);
        Ok(Node { word, size, ..Node::new(Kind::Chunked) })
    }

    fn hard_link(&mut self, target: &ContainerPath, path: &ContainerPath) -> Result<(), IndexError> {
        if target != path {
            self.make_room(path);
        }
        match Lookup::kind(self, target).map_err(place("look up", target))? {
            Some(kind) if !kind.is_directory() => {}
            Some(_) => return Err(refuse("hard-link", target, Errno::ISDIR)),
            None => return Err(refuse("hard-link", target, Errno::NOENT)),
        }
        if target == path {
            return Ok(());
        }
        let source = match self.locate(target) {
            Location::Staged(id) => id,
            Location::Lower | Location::Absent => return Err(refuse("hard-link", target, Errno::XDEV)),
        };
        let source = match self.tree.node(source) {
            Node { kind: Kind::Link, word, .. } => *word,
            _ => source,
        };
        let parent = self.stage_parent(path)?;
        self.uncover(parent, path);
        self.add_node(parent, path, Node { word: source, ..Node::new(Kind::Link) }).map(drop)
    }

    /// Drops what this layer has at `path`; a file or link hides what the parent has there by itself.
    fn make_room(&mut self, path: &ContainerPath) {
        self.parents.forget_below(path);
        if let Location::Staged(id) = self.locate(path)
            && id != ROOT
        {
            self.tree.detach(id);
        }
    }

    /// Drops a whiteout of `path`: what comes in its place hides what the parent has there, too.
    fn uncover(&mut self, parent: NodeId, path: &ContainerPath) {
        let existing = self.tree.child(parent, path.file_name().unwrap_or_default());
        if let Some(whiteout) = existing.filter(|id| self.tree.node(*id).kind == Kind::Whiteout) {
            self.tree.detach(whiteout);
        }
    }

    /// Hides what any parent has at `path`; what this layer has there stays.
    fn hide(&mut self, path: &ContainerPath) -> Result<(), IndexError> {
        let parent = self.stage_parent(path)?;
        match self.tree.child(parent, path.file_name().unwrap_or_default()) {
            None => self.add_node(parent, path, Node::new(Kind::Whiteout)).map(drop),
            Some(existing) if self.tree.is_directory(existing) => self.hide_all_at(path),
            Some(_) => Ok(()),
        }
    }

    fn hide_all_at(&mut self, path: &ContainerPath) -> Result<(), IndexError> {
        let id = self.stage_directory(path)?;
        if id == ROOT {
            // overlayfs does not look for the mark on a layer's root.
            self.depends_on_parent = true;
            let parent = self.parent.clone();
            for entry in parent.list(path).map_err(place("list", path))? {
                if self.tree.child(ROOT, &entry.name).is_none() {
                    self.add_node(ROOT, &path.join(&entry.name), Node::new(Kind::Whiteout))?;
                }
            }
            self.tree.node_mut(id).state = State::Hides;
        } else {
            self.tree.node_mut(id).state = State::Opaque;
        }
        Ok(())
    }

    fn stage_parent(&mut self, path: &ContainerPath) -> Result<NodeId, IndexError> {
        match path.parent() {
            Some(parent) => self.stage_directory(&parent),
            None => Ok(ROOT),
        }
    }

    /// Makes the existing directory `path` part of the layer.
    fn stage_directory(&mut self, path: &ContainerPath) -> Result<NodeId, IndexError> {
        let mut here = ROOT;
        let mut end = 0;
        for name in path.components() {
            end += 1 + name.len();
            here = match self.tree.child(here, name) {
                Some(next) if self.tree.is_directory(next) => next,
                Some(next) => {
                    let gone = self.tree.node(next).kind == Kind::Whiteout;
                    return Err(refuse("enter", path, if gone { Errno::NOENT } else { Errno::NOTDIR }));
                }
                None => {
                    let so_far = ContainerPath::new(&path.as_bytes()[..end]);
                    match self.lower_kind(here, &so_far)? {
                        Some(FileKind::Directory) => self.copy_up_directory(here, &so_far)?,
                        Some(_) => return Err(refuse("enter", &so_far, Errno::NOTDIR)),
                        None => return Err(refuse("enter", &so_far, Errno::NOENT)),
                    }
                }
            };
        }
        Ok(here)
    }

    fn copy_up_directory(&mut self, parent: NodeId, path: &ContainerPath) -> Result<NodeId, IndexError> {
        self.depends_on_parent = true;
        let stat = self.parent.lstat(path).map_err(place("look up", path))?;
        let attributes = stat.as_ref().map(attributes_of).unwrap_or_default();
        self.add_node(parent, path, Node { attributes, ..Node::new(Kind::Directory) })
    }

    /// What the parent shows at `path`, whose directory `staged` is in the layer and which itself is not.
    fn lower_kind(&self, staged: NodeId, path: &ContainerPath) -> Result<Option<FileKind>, IndexError> {
        if self.tree.node(staged).hides() {
            return Ok(None);
        }
        Lookup::kind(&*self.parent, path).map_err(place("look up", path))
    }

    fn add_node(&mut self, parent: NodeId, path: &ContainerPath, node: Node) -> Result<NodeId, IndexError> {
        let name = path.file_name().unwrap_or_default();
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(unrepresentable(path, Unrepresentable::Name));
        }
        self.tree.add(parent, name, node)
    }

    fn locate(&self, path: &ContainerPath) -> Location {
        let mut here = ROOT;
        for name in path.components() {
            if !self.tree.is_directory(here) {
                return Location::Absent;
            }
            match self.tree.child(here, name) {
                Some(next) => here = next,
                None if self.tree.node(here).hides() => return Location::Absent,
                None => return Location::Lower,
            }
        }
        match self.tree.node(here).kind {
            Kind::Whiteout => Location::Absent,
            _ => Location::Staged(here),
        }
    }

    /// The inode that a name leads to.
    fn inode(&self, id: NodeId) -> &Node {
        match self.tree.node(id) {
            Node { kind: Kind::Link, word, .. } => self.tree.node(*word),
            node => node,
        }
    }
}

/// Where a path is found.
enum Location {
    /// In the layer.
    Staged(NodeId),
    /// The layer says nothing: it is what it is in the parent.
    Lower,
    /// Nowhere.
    Absent,
}

impl Lookup for IndexBuilder {
    fn kind(&self, path: &ContainerPath) -> io::Result<Option<FileKind>> {
        let id = match self.locate(path) {
            Location::Lower => return Lookup::kind(&*self.parent, path),
            Location::Absent => return Ok(None),
            Location::Staged(id) => id,
        };
        let node = self.inode(id);
        let (major, minor) = decode_device(node.word);
        Ok(Some(match node.kind {
            Kind::Directory => FileKind::Directory,
            Kind::File | Kind::Chunked => FileKind::File,
            Kind::Symlink => FileKind::Symlink,
            Kind::CharDevice => FileKind::CharDevice { major, minor },
            Kind::BlockDevice => FileKind::BlockDevice { major, minor },
            Kind::Fifo => FileKind::Fifo,
            Kind::Whiteout | Kind::Link => return Ok(None),
        }))
    }

    fn read_link(&self, path: &ContainerPath) -> io::Result<Vec<u8>> {
        match self.locate(path) {
            Location::Lower => self.parent.read_link(path),
            Location::Absent => Err(Errno::NOENT.into()),
            Location::Staged(id) => match self.inode(id) {
                node if node.kind == Kind::Symlink => Ok(self.tree.text(node).to_vec()),
                _ => Err(Errno::INVAL.into()),
            },
        }
    }
}

impl LayerTree for IndexBuilder {
    type Error = IndexError;

    fn note_dependence(&mut self) {
        self.depends_on_parent = true;
    }

    fn make_directories(&mut self, path: &ContainerPath) -> Result<(), IndexError> {
        let mut missing = Vec::new();
        let mut here = path.clone();
        loop {
            match Lookup::kind(self, &here).map_err(place("look up", &here))? {
                Some(FileKind::Directory) => break,
                Some(_) => return Err(refuse("create directory", &here, Errno::NOTDIR)),
                None => {}
            }
            missing.push(here.clone());
            match here.parent() {
                Some(parent) => here = parent,
                None => break,
            }
        }
        for path in missing.iter().rev() {
            let parent = self.stage_parent(path)?;
            let hidden = self.tree.child(parent, path.file_name().unwrap_or_default());
            if let Some(whiteout) = hidden {
                // What it hid must stay hidden under the new directory.
                self.tree.detach(whiteout);
            }
            let attributes = Attributes { mode: 0o755, ..Attributes::default() };
            let state = if hidden.is_some() { State::Opaque } else { State::Hides };
            self.add_node(parent, path, Node { attributes, state, ..Node::new(Kind::Directory) })?;
        }
        Ok(())
    }

    fn below_whiteout(path: &ContainerPath) -> IndexError {
        IndexError::BelowWhiteout { path: path.clone() }
    }

    fn unresolved(path: &ContainerPath, source: io::Error) -> IndexError {
        place("resolve", path)(source)
    }
}

fn attributes_of(stat: &Stat) -> Attributes {
    let Timestamp { seconds, nanoseconds } = stat.mtime;
    // Twelve bits.
    let mode = (stat.mode & 0o7777) as u16;
    Attributes { seconds, nanoseconds, uid: stat.uid, gid: stat.gid, xattrs: 0, mode }
}

fn unrepresentable(path: &ContainerPath, what: Unrepresentable) -> IndexError {
    IndexError::Unrepresentable { path: path.clone(), what }
}
