//! What a layer holds, as one digest that does not depend on times.
//!
//! ```text
//! SHA-256 over, per entry in the layer's order:
//!   kind letter, then each of these as length (u64, little endian) and bytes:
//!     path · detail (link target, device numbers; empty otherwise) · BLAKE3 of the content (empty without one)
//!   then mode, uid, gid as u32 and size as u64, little endian,
//!   then the number of attributes as u64 and each name and value as length and bytes
//! ```
//!
//! The first line is `rbuild layer content 1`; a change of the rules changes it.

use rbuild_image::layer::{Entry, EntryKind};
use rbuild_image::{ContentDigest, Digest};
use sha2::Digest as _;

pub(super) struct ContentHasher(sha2::Sha256);

impl ContentHasher {
    pub(super) fn new() -> Self {
        Self(sha2::Sha256::new_with_prefix("rbuild layer content 1\n"))
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn add(&mut self, entry: &Entry, content: Option<&blake3::Hash>) {
        let (kind, detail): (u8, Vec<u8>) = match &entry.kind {
            EntryKind::File { .. } => (b'f', Vec::new()),
            EntryKind::Directory => (b'd', Vec::new()),
            EntryKind::Symlink { target } => (b'l', target.clone()),
            EntryKind::Hardlink { target } => (b'h', target.as_bytes().to_vec()),
            EntryKind::CharDevice(device) => (b'c', format!("{}:{}", device.major, device.minor).into_bytes()),
            EntryKind::BlockDevice(device) => (b'b', format!("{}:{}", device.major, device.minor).into_bytes()),
            EntryKind::Fifo => (b'p', Vec::new()),
        };
        self.0.update([kind]);
        self.field(entry.path.as_bytes());
        self.field(&detail);
        self.field(content.map_or(&[][..], |hash| hash.as_bytes()));
        for number in [entry.mode, entry.uid, entry.gid] {
            self.0.update(number.to_le_bytes());
        }
        let size = if let EntryKind::File { size, .. } = &entry.kind { *size } else { 0 };
        self.0.update(size.to_le_bytes());
        self.0.update((entry.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &entry.xattrs {
            self.field(name);
            self.field(value);
        }
    }

    pub(super) fn finish(self) -> ContentDigest {
        ContentDigest::new(Digest::from_sha256(self.0.finalize().into()))
    }
}
