//! The index over a layer's tar: a small EROFS image that has the layer's names and metadata and says where in the tar
//! each file's bytes are. The kernel mounts the pair in place, and [`Index`] reads it without a mount.
//!
//! [`IndexBuilder`] takes members while the tar passes by; [`index_tar`] and [`index_tar_file`] feed it from a tar;
//! [`merge`] makes one index of many. The same members always make the same bytes. An index is trusted only because it was made here: what it is
//! made from may be hostile, and what [`Index`] reads may be damaged.
//!
//! What it does not do: mount, or decide where files of the store are.

mod builder;
mod directory;
mod error;
mod format;
mod index;
mod layout;
mod member;
mod merge;
mod side;
mod sparse;
mod tar;
mod tree;
mod write;
mod xattrs;

pub use builder::IndexBuilder;
pub use error::{IndexError, Unrepresentable};
pub use index::{Extent, Index, InodeRef};
pub use member::{Chunk, Content, Member, Node};
pub use merge::{Beneath, Part, merge};
pub use side::SideBlob;
pub use tar::{index_tar, index_tar_file};
pub use write::{Device, IndexInfo};

/// Contents in tars and side blobs begin at multiples of this.
pub const BLOCK: u64 = 1 << BLOCK_BITS;
/// How many tars and side blobs one index can point into: the number of its root, which lies behind their slots, has
/// 16 bits.
pub const MAX_DEVICES: usize = 16_000;
/// Logarithm of the size of blocks.
const BLOCK_BITS: u8 = 9;

#[cfg(test)]
pub(crate) use tests::{described, hostile::member as random_member};
#[cfg(test)]
mod tests;
