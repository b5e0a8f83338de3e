//! From a tar to the members of an index, while the tar passes by or once it is there.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::sync::Arc;

use rbuild_image::layer::whiteout::{Whiteout, classify};
use rbuild_image::layer::{Device as Number, Entry, EntryKind, Placement, TarReader};

use super::builder::IndexBuilder;
use super::error::{IndexError, Unrepresentable};
use super::member::{Content, Member, Node};
use super::side::SideBlob;
use super::sparse::plan;
use crate::view::{FileKind, Timestamp, View};

/// Reads the uncompressed archive `tar` to its last byte and takes all its members, for a layer on top of `parent`.
/// Contents stay where they are in the tar; what the kernel cannot read there is copied to `side`.
pub fn index_tar(tar: &mut dyn Read, parent: Arc<View>, side: &mut SideBlob) -> Result<IndexBuilder, IndexError> {
    let mut builder = IndexBuilder::over(parent).map_err(IndexError::Read)?;
    let mut reader = TarReader::new(tar);
    while let Some(entry) = reader.next_entry()? {
        let offset = reader.offset();
        builder.add_entry(&entry, offset, &mut reader, side)?;
    }
    // What follows the end of the archive counts for its digest.
    reader.finish().map_err(IndexError::Read)?;
    Ok(builder)
}

/// The same of a tar that is in a file: contents are passed over, not read.
pub fn index_tar_file(tar: &File, parent: Arc<View>, side: &mut SideBlob) -> Result<IndexBuilder, IndexError> {
    let length = tar.metadata().map_err(IndexError::Read)?.len();
    let mut builder = IndexBuilder::over(parent).map_err(IndexError::Read)?;
    let mut start = tar;
    start.rewind().map_err(IndexError::Read)?;
    let mut reader = TarReader::new(BufReader::with_capacity(64 * 1024, tar));
    let mut pass_over = |inner: &mut BufReader<&File>, bytes: u64| {
        // A file may be sought beyond its end: an entry that is cut off would look whole.
        if inner.stream_position()?.saturating_add(bytes) > length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        inner.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)
    };
    while let Some(entry) = reader.next_entry_skipping(&mut pass_over)? {
        let offset = reader.offset();
        builder.add_entry(&entry, offset, &mut reader, side)?;
    }
    Ok(builder)
}

impl IndexBuilder {
    /// Takes one entry of the tar whose content begins at `offset`, which may be a whiteout; reads `content` only if it goes to
    /// `side`.
    pub fn add_entry(
        &mut self,
        entry: &Entry,
        offset: u64,
        content: &mut dyn Read,
        side: &mut SideBlob,
    ) -> Result<(), IndexError> {
        match entry.path.file_name().map_or(Ok(Whiteout::None), classify)? {
            Whiteout::None => self.add_present(entry, offset, content, side),
            Whiteout::Metadata => self.check_parent(&entry.path),
            Whiteout::Opaque => self.hide_all_beside(&entry.path),
            Whiteout::Delete(gone) => {
                self.add(Member { path: entry.path.join("..").join(gone), ..member(entry, Node::Whiteout) })
            }
        }
    }

    /// Takes one entry that is what its kind says, whatever it is called.
    pub fn add_present(
        &mut self,
        entry: &Entry,
        offset: u64,
        content: &mut dyn Read,
        side: &mut SideBlob,
    ) -> Result<(), IndexError> {
        let node = match &entry.kind {
            EntryKind::Directory => Node::Directory { opaque: false },
            EntryKind::Symlink { target } => Node::Symlink(target.clone()),
            EntryKind::Hardlink { target } => {
                self.copy_up(&entry.path, target, side)?;
                Node::HardLink(target.clone())
            }
            EntryKind::CharDevice(Number { major, minor }) => {
                Node::Special(FileKind::CharDevice { major: *major, minor: *minor })
            }
            EntryKind::BlockDevice(Number { major, minor }) => {
                Node::Special(FileKind::BlockDevice { major: *major, minor: *minor })
            }
            EntryKind::Fifo => Node::Special(FileKind::Fifo),
            EntryKind::File { size, sparse: None } => Node::File { content: Content::Tar { offset, size: *size } },
            EntryKind::File { size, sparse: Some(map) } => {
                let fault = || IndexError::Unrepresentable { path: entry.path.clone(), what: Unrepresentable::Sparse };
                let plan = plan(map, *size, offset, side.length()).ok_or_else(fault)?;
                side.reserve(plan.side_bytes).map_err(IndexError::Write)?;
                if plan.side_bytes > 0 {
                    let mut placement = Placement::of(entry);
                    let mut buffer = vec![0; 64 << 10];
                    let mut left = entry.stored_size();
                    while left > 0 {
                        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                        let n = content.read(&mut buffer[..room]).map_err(IndexError::Read)?;
                        if n == 0 {
                            return Err(IndexError::Read(io::ErrorKind::UnexpectedEof.into()));
                        }
                        left -= n as u64;
                        let mut result = Ok(());
                        placement.place(&buffer[..n], |offset, piece| {
                            if result.is_ok() {
                                result = copy_pieces(&plan, offset, piece, side);
                            }
                        });
                        result.map_err(IndexError::Write)?;
                    }
                }
                Node::File { content: plan.content }
            }
        };
        self.add(member(entry, node))
    }
}

fn member(entry: &Entry, node: Node) -> Member {
    Member {
        path: entry.path.clone(),
        node,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: Timestamp { seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds },
        xattrs: entry.xattrs.clone(),
    }
}

fn copy_pieces(plan: &super::sparse::Plan, mut offset: u64, mut piece: &[u8], side: &SideBlob) -> io::Result<()> {
    while !piece.is_empty() {
        let (place, length) = plan.place(offset, piece.len() as u64);
        // At most the length of the piece.
        let (here, rest) = piece.split_at(length as usize);
        if let Some(place) = place {
            side.write_at(here, place)?;
        }
        offset += length;
        piece = rest;
    }
    Ok(())
}
