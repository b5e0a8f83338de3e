//! What an index is told about one member of a layer.

use rbuild_image::ContainerPath;

use crate::view::{FileKind, Timestamp, Xattrs};

/// One member of a layer as its index needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where.
    pub path: ContainerPath,
    /// What.
    pub node: Node,
    /// Permissions with the set-id and sticky bits: `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Timestamp,
    /// Extended attributes; those that a layer may not set are left out.
    pub xattrs: Xattrs,
}

/// The type of a member with what only that type has. Whiteouts are already told from files by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory {
        /// Whether nothing that lower layers have in it shows.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Where its bytes are.
        content: Content,
    },
    /// A symbolic link and its text.
    Symlink(Vec<u8>),
    /// Another name of the file at this path.
    HardLink(ContainerPath),
    /// A device or a named pipe; nothing else is one by its kind alone.
    Special(FileKind),
    /// The path of lower layers is gone.
    Whiteout,
}

/// Where a file's bytes are. All offsets are multiples of [`BLOCK`](super::BLOCK).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There are none.
    Empty,
    /// In one piece in the tar.
    Tar {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        size: u64,
    },
    /// In one piece in the side blob.
    Side {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        size: u64,
    },
    /// In chunks of one size, the last of which may be cut off by the end of the file.
    Chunks {
        /// How long the file is.
        size: u64,
        /// Logarithm of the size of chunks: at least 9.
        chunk_bits: u8,
        /// Where each chunk is.
        chunks: Vec<Chunk>,
    },
}

/// Where one chunk of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Nowhere: it is all zeros.
    Hole,
    /// In the tar, at this offset.
    Tar(u64),
    /// In the side blob, at this offset.
    Side(u64),
}
