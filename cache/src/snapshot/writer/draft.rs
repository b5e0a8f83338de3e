//! Writing a layer as its tar: everything but contents is kept in memory until the layer is finished, and then the tar,
//! its digests and its index are written in one pass, in the order that tars of layers have.
//!
//! Contents of files are opened when their turn comes, by the threads that read ahead. Streams cannot wait: they are
//! kept in a file beside the tar until then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rbuild_image::layer::{Device, Entry, EntryKind, Timestamp as EntryTime};

use super::content::{Content, OpenContent};
use super::metadata::Metadata;
use super::tree::{NodeId, ROOT, State, Tree};
use crate::snapshot::diff::{DiffError, Planned, PlannedContent};
use crate::snapshot::tar_layer::{self, Written};
use crate::snapshot::xattr;
use crate::view::{FileBytes, FileKind, Part, Timestamp, View};

/// Streams up to this size stay in memory.
const SMALL: u64 = 16 * 1024;

/// A layer that will be a tar.
pub(crate) struct Draft {
    /// The directory that tar and index are made in; made when the layer is finished.
    place: PathBuf,
    /// Says what was made.
    written: Arc<OnceLock<Written>>,
    /// The time of what has none of its own.
    now: Timestamp,
    inodes: Vec<Inode>,
    /// Which inode a name leads to.
    names: HashMap<NodeId, usize>,
    spool: Option<Spool>,
}

struct Inode {
    metadata: Metadata,
    content: Stored,
}

/// Where the bytes of a file are until it is written.
pub(super) enum Stored {
    None,
    Bytes(Vec<u8>),
    Later(OpenContent),
    /// In the spool, as it is or with holes.
    Spooled(Vec<Part>),
}

/// A file that streams are kept in.
struct Spool {
    file: Arc<File>,
    end: u64,
}

impl Draft {
    /// Will make the directory `place`, and tell `written`.
    pub(crate) fn new(place: PathBuf, now: Timestamp, written: Arc<OnceLock<Written>>) -> Self {
        Self { place, written, now, inodes: Vec::new(), names: HashMap::new(), spool: None }
    }

    pub(super) fn inode(&mut self, metadata: &Metadata, content: Stored) -> usize {
        let mtime = metadata.mtime.or(Some(self.now));
        self.inodes.push(Inode { metadata: Metadata { mtime, ..metadata.clone() }, content });
        self.inodes.len() - 1
    }

    pub(super) fn name(&mut self, id: NodeId, inode: usize) {
        self.names.insert(id, inode);
    }

    pub(super) fn link(&mut self, existing: NodeId, new: NodeId) {
        if let Some(inode) = self.names.get(&existing) {
            self.names.insert(new, *inode);
        }
    }

    /// Takes the bytes of a file, or what will open it.
    pub(super) fn store(&mut self, content: Content<'_>) -> io::Result<Stored> {
        match content {
            Content::Bytes([]) | Content::Stream(_, 0) => Ok(Stored::None),
            Content::Bytes(bytes) => Ok(Stored::Bytes(bytes.to_vec())),
            Content::File(open) => Ok(Stored::Later(open)),
            Content::Stream(reader, size) if size <= SMALL => {
                let mut bytes = Vec::new();
                reader.take(size).read_to_end(&mut bytes)?;
                if (bytes.len() as u64) < size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Stored::Bytes(bytes))
            }
            Content::Stream(reader, size) => Ok(Stored::Spooled(vec![self.spool(reader, size)?])),
            Content::Sparse(reader, map, size) => {
                let hole = |length| Part { file: None, offset: 0, length };
                let (mut parts, mut at) = (Vec::new(), 0);
                for run in map.segments() {
                    parts.push(hole(run.offset - at));
                    parts.push(self.spool(reader, run.length)?);
                    at = run.offset + run.length;
                }
                parts.push(hole(size - at));
                Ok(Stored::Spooled(parts))
            }
        }
    }

    fn spool(&mut self, reader: &mut dyn Read, size: u64) -> io::Result<Part> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            None => {
                let path = self.place.with_extension("spool");
                let file = File::options().read(true).write(true).create_new(true).open(path)?;
                self.spool.insert(Spool { file: Arc::new(file), end: 0 })
            }
        };
        let (offset, mut out) = (spool.end, &*spool.file);
        if io::copy(&mut reader.take(size), &mut out)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.flush()?;
        spool.end += size;
        Ok(Part { file: Some(spool.file.clone()), offset, length: size })
    }

    /// Writes everything that `tree` has.
    pub(super) fn finish(&mut self, tree: &Tree, parent: Arc<View>) -> io::Result<()> {
        let mut first_names = HashMap::new();
        let mut planned = Vec::new();
        for (path, id) in tree.in_order() {
            let inode = self.names.get(&id).copied();
            let first = inode.and_then(|inode| first_names.get(&inode).cloned());
            let (mut content, kind) = (
                PlannedContent::None,
                match &tree.node(id).state {
                    State::Gone => continue,
                    State::Whiteout => {
                        planned.push(Planned::whiteout(&path));
                        continue;
                    }
                    State::Directory(_) => EntryKind::Directory,
                    _ if first.is_some() => EntryKind::Hardlink { target: first.unwrap_or_else(|| path.clone()) },
                    State::Symlink(target) => EntryKind::Symlink { target: target.clone() },
                    State::Leaf(kind) => leaf(*kind),
                },
            );
            if let (Some(inode), false) = (inode, matches!(kind, EntryKind::Hardlink { .. })) {
                first_names.insert(inode, path.clone());
                content = self.inodes[inode].open();
            }
            let (metadata, opaque) = match (&tree.node(id).state, inode) {
                (State::Directory(directory), _) => (&directory.metadata, directory.opaque),
                (_, Some(inode)) => (&self.inodes[inode].metadata, false),
                (_, None) => return Err(io::Error::other(format!("{path} has no metadata"))),
            };
            let mode = if matches!(kind, EntryKind::Symlink { .. }) { 0o777 } else { metadata.mode & 0o7777 };
            // Only files carry the attributes that layers have.
            let is_file = matches!(tree.node(id).state, State::Leaf(FileKind::File));
            let xattrs = metadata.xattrs.iter().filter(|(name, _)| is_file && xattr::is_content(name));
            let xattrs = xattrs.map(|(name, value)| (name.clone(), value.clone())).collect();
            let mtime = metadata.mtime.unwrap_or(self.now);
            let mtime = EntryTime { seconds: mtime.seconds, nanoseconds: mtime.nanoseconds };
            let (uid, gid) = (metadata.uid, metadata.gid);
            planned.push(Planned {
                entry: Entry { uid, gid, mtime, xattrs, ..Entry::new(path.clone(), kind, mode) },
                content,
            });
            if opaque {
                planned.push(Planned::opaque(&path));
            }
        }
        let root = tree.directory(ROOT).map(|directory| &directory.metadata);
        let written = tar_layer::write(planned, &self.place, parent, root, &|| true).map_err(|error| match error {
            DiffError::Read(error) | DiffError::Output(error) => error,
            other => io::Error::other(other),
        })?;
        if let Some(spool) = self.spool.take() {
            drop(spool);
            std::fs::remove_file(self.place.with_extension("spool"))?;
        }
        self.written.set(written).map_err(|_| io::Error::other("the layer was finished twice"))
    }
}

fn leaf(kind: FileKind) -> EntryKind {
    match kind {
        FileKind::CharDevice { major, minor } => EntryKind::CharDevice(Device { major, minor }),
        FileKind::BlockDevice { major, minor } => EntryKind::BlockDevice(Device { major, minor }),
        FileKind::Fifo => EntryKind::Fifo,
        _ => EntryKind::file(0),
    }
}

impl Inode {
    /// What opens its bytes; they are given once.
    fn open(&mut self) -> PlannedContent<'static> {
        match std::mem::replace(&mut self.content, Stored::None) {
            Stored::None => PlannedContent::None,
            Stored::Bytes(bytes) => PlannedContent::Found(Box::new(move || Ok(FileBytes::of_bytes(bytes)))),
            Stored::Later(open) => PlannedContent::Found(open),
            Stored::Spooled(parts) => PlannedContent::Found(Box::new(move || Ok(FileBytes::of_parts(parts)))),
        }
    }
}
