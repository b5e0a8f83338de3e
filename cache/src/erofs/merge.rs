//! One index over several tars: what overlayfs would show of the layers, in one mount.
//!
//! Directories are merged while they are read, so only the tree of the result is in memory. Hard links stay links inside
//! their layer. What is merged may itself be merged: who asks says where each part's devices are among the result's.

use std::collections::HashMap;
use std::io::{self, Write};

use rbuild_image::ContainerPath;

use super::builder::IndexBuilder;
use super::error::{IndexError, place, refuse};
use super::format::{HOLE, encode_device};
use super::index::{Index, InodeRef};
use super::tree::{Attributes, ChunkList, Kind, Node, NodeId, ROOT, State};
use super::write::{Device, IndexInfo};
use super::{BLOCK, MAX_DEVICES};
use crate::view::{FileKind, Stat, Xattrs};

/// What lies below the layers that are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beneath {
    /// Nothing: whiteouts have done their work and are left out.
    Nothing,
    /// Other layers, for which whiteouts and opaque directories are kept.
    Layers,
}

/// One layer, or several that are merged already.
#[derive(Debug)]
pub struct Part {
    /// Its index.
    pub index: Index,
    /// The position of each of its [devices](Index::devices) among those of the result.
    pub devices: Vec<usize>,
}

/// Writes to `out` one index of `parts`, the lowest first, that shows what all of them make together. The result has as many
/// devices as the parts name.
pub fn merge(parts: &[Part], beneath: Beneath, out: &mut dyn Write) -> Result<IndexInfo, IndexError> {
    let devices = devices_of(parts)?;
    let mut merger = Merger { parts, beneath, builder: IndexBuilder::new(), linked: HashMap::new() };
    merger.run()?;
    merger.builder.finish(&devices, out)
}

/// The devices of the result, each as the part that has it describes it.
fn devices_of(parts: &[Part]) -> Result<Vec<Device>, IndexError> {
    let count = parts.iter().flat_map(|part| &part.devices).max().map_or(0, |last| last + 1);
    if count > MAX_DEVICES {
        return Err(IndexError::TooLarge { what: "devices", limit: MAX_DEVICES as u64 });
    }
    let mut devices = vec![Device::default(); count];
    for part in parts {
        if part.devices.len() != part.index.devices().len() {
            let wrong = io::Error::new(io::ErrorKind::InvalidData, "an index has other devices than its layers");
            return Err(IndexError::Read(wrong));
        }
        for (position, device) in part.devices.iter().zip(part.index.devices()) {
            devices[*position] = device.clone();
        }
    }
    Ok(devices)
}

struct Merger<'p> {
    parts: &'p [Part],
    beneath: Beneath,
    builder: IndexBuilder,
    /// The node of each inode that has several names, by part and number.
    linked: HashMap<(usize, u64), NodeId>,
}

/// A directory to be merged: its node, its path, and the layers it is made of, topmost first.
struct Pending {
    node: NodeId,
    path: ContainerPath,
    parts: Vec<(usize, InodeRef)>,
}

impl Merger<'_> {
    fn run(&mut self) -> Result<(), IndexError> {
        let path = ContainerPath::root();
        let look_up = |error| place("read", &path)(error);
        let mut parts = Vec::new();
        for (layer, part) in self.parts.iter().enumerate().rev() {
            parts.push((layer, part.index.root().map_err(look_up)?));
        }
        if let Some((layer, root)) = parts.first() {
            let attributes = self.attributes(*layer, root).map_err(look_up)?;
            self.builder.tree.node_mut(ROOT).attributes = attributes;
        }
        let mut todo = vec![Pending { node: ROOT, path: path.clone(), parts }];
        while let Some(directory) = todo.pop() {
            self.directory(directory, &mut todo)?;
        }
        Ok(())
    }

    /// Takes the names of a directory in byte order from all its parts at once.
    fn directory(&mut self, directory: Pending, todo: &mut Vec<Pending>) -> Result<(), IndexError> {
        let Pending { node, path, parts } = directory;
        let mut lists = Vec::with_capacity(parts.len());
        for (layer, inode) in &parts {
            let names = self.parts[*layer].index.list(inode).map_err(place("read", &path))?;
            lists.push((*layer, names.into_iter().peekable()));
        }
        loop {
            let next = lists.iter_mut().filter_map(|(_, names)| names.peek().map(|(name, _)| name)).min();
            let Some(name) = next.cloned() else { return Ok(()) };
            let mut found = Vec::new();
            for (layer, names) in &mut lists {
                if let Some((_, inode)) = names.next_if(|(other, _)| *other == name) {
                    found.push((*layer, inode));
                }
            }
            self.name(node, &path.join(&name), &name, found, todo)?;
        }
    }

    /// Decides what a name is that the layers in `found`, topmost first, have.
    fn name(
        &mut self,
        parent: NodeId,
        path: &ContainerPath,
        name: &[u8],
        mut found: Vec<(usize, InodeRef)>,
        todo: &mut Vec<Pending>,
    ) -> Result<(), IndexError> {
        let look_up = |error| place("read", path)(error);
        let Some(&(layer, top)) = found.first() else { return Ok(()) };
        let kind = top.kind().map_err(look_up)?;
        if kind.is_whiteout_device() {
            if self.beneath == Beneath::Layers {
                self.builder.tree.add(parent, name, Node::new(Kind::Whiteout))?;
            }
            return Ok(());
        }
        if kind.is_directory() {
            let mut parts = 0;
            let mut closed = false;
            for (layer, inode) in &found {
                if !inode.kind().map_err(look_up)?.is_directory() {
                    closed = true;
                    break;
                }
                parts += 1;
                if self.parts[*layer].index.is_opaque(inode).map_err(look_up)? {
                    closed = true;
                    break;
                }
            }
            found.truncate(parts);
            let state = if closed && self.beneath == Beneath::Layers { State::Opaque } else { State::Merges };
            let attributes = self.attributes(layer, &top).map_err(look_up)?;
            let node = Node { attributes, state, ..Node::new(Kind::Directory) };
            let node = self.builder.tree.add(parent, name, node)?;
            todo.push(Pending { node, path: path.clone(), parts: found });
            return Ok(());
        }
        if let Some(first) = self.linked.get(&(layer, top.number)) {
            self.builder.tree.add(parent, name, Node { word: *first, ..Node::new(Kind::Link) })?;
            return Ok(());
        }
        let node = self.leaf(layer, &top, path)?;
        let id = self.builder.tree.add(parent, name, node)?;
        if top.inode.links > 1 {
            self.linked.insert((layer, top.number), id);
        }
        Ok(())
    }

    fn leaf(&mut self, layer: usize, inode: &InodeRef, path: &ContainerPath) -> Result<Node, IndexError> {
        let look_up = |error| place("read", path)(error);
        let index = &self.parts[layer].index;
        let attributes = self.attributes(layer, inode).map_err(look_up)?;
        let node = match inode.kind().map_err(look_up)? {
            FileKind::Symlink => {
                let text = index.read_link(inode).map_err(look_up)?;
                Node { word: self.builder.tree.add_text(&text)?, size: text.len() as u64, ..Node::new(Kind::Symlink) }
            }
            FileKind::File => self.content(layer, inode, path)?,
            FileKind::CharDevice { major, minor } => {
                Node { word: encode_device(major, minor).unwrap_or_default(), ..Node::new(Kind::CharDevice) }
            }
            FileKind::BlockDevice { major, minor } => {
                Node { word: encode_device(major, minor).unwrap_or_default(), ..Node::new(Kind::BlockDevice) }
            }
            FileKind::Fifo => Node::new(Kind::Fifo),
            FileKind::Directory | FileKind::Socket => return Err(refuse("read", path, rustix::io::Errno::INVAL)),
        };
        Ok(Node { attributes, ..node })
    }

    fn content(&mut self, layer: usize, file: &InodeRef, path: &ContainerPath) -> Result<Node, IndexError> {
        let Part { index, devices } = &self.parts[layer];
        let mut chunks = Vec::new();
        index
            .chunks(file, &mut |place, _| {
                chunks.push(match place {
                    None => (0, HOLE),
                    Some((device, offset)) => {
                        let block = u32::try_from(offset / BLOCK).map_err(|_| io::ErrorKind::FileTooLarge)?;
                        // Fewer than there may be.
                        (devices[device] as u16 + 1, block)
                    }
                });
                Ok(())
            })
            .map_err(place("read", path))?;
        let size = file.inode.size;
        match chunks[..] {
            [] => Ok(Node::new(Kind::File)),
            [(device, block)] if block != HOLE => Ok(Node { word: block, size, device, ..Node::new(Kind::File) }),
            _ => self.builder.chunked(size, ChunkList { bits: index.chunk_bits(file), chunks: chunks.into() }),
        }
    }

    fn attributes(&mut self, layer: usize, inode: &InodeRef) -> io::Result<Attributes> {
        let index = &self.parts[layer].index;
        let Stat { mode, uid, gid, mtime, .. } = index.stat(inode)?;
        let xattrs: Xattrs = index.xattrs(inode)?;
        let xattrs = self.builder.xattrs.intern(&xattrs).map_err(io::Error::other)?;
        let (seconds, nanoseconds) = (mtime.seconds, mtime.nanoseconds);
        // Twelve bits.
        Ok(Attributes { seconds, nanoseconds, uid, gid, xattrs, mode: mode as u16 })
    }
}
