//! The content digest of a layer: what it holds, without times and without the order and form of its tar.
//!
//! Two layers with equal content digests make equal root file systems but for modification times, so a step that made
//! the same things again need not be taken for a new one. All numbers are little endian:
//!
//! ```text
//! layer   = BLAKE3 (derived key CONTEXT) of, for each path in byte order, the last entry of that path:
//!             u32 path length, path ("/a/b"), 32 bytes entry
//! entry   = BLAKE3 of:
//!             u8 kind ('f' 'd' 'l' 'h' 'c' 'b' 'p'), u32 mode, u32 uid, u32 gid
//!             'f': u64 size, 32 bytes data, 32 bytes holes
//!             'l', 'h': u32 target length, target      'c', 'b': u32 major, u32 minor
//!             u32 number of xattrs, for each in byte order: u32 name length, name, u32 value length, value
//! data    = BLAKE3 of the file's blocks of 64 KiB (the last may be shorter), without those that are all zeros
//! holes   = BLAKE3 of, for each longest run of blocks that are all zeros: u64 first block, u64 number of blocks
//! ```
//!
//! A file with holes and the same file with zeros in their place have one digest, and a hole costs no hashing. What
//! does not enter: modification times, the tar's order, form and padding, device and inode numbers. The result is held
//! as 32 bytes under the name `sha256`, the only name of that length a [`Digest`] has; since the key is derived for
//! this purpose alone it meets no real SHA-256 digest. Changing anything here needs a new CONTEXT.

use super::entry::{Entry, EntryKind};
use crate::digest::{ContentDigest, Digest};

const CONTEXT: &str = "rbuild 2026 layer content digest v1";
const BLOCK: usize = 64 << 10;

/// What a file's bytes are worth: the pair `data`, `holes` with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileContent {
    size: u64,
    data: [u8; 32],
    holes: [u8; 32],
}

impl FileContent {
    /// Of a file that is held in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = FileHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Takes a file's bytes from its start to its end.
#[derive(Debug)]
pub struct FileHasher {
    data: blake3::Hasher,
    holes: blake3::Hasher,
    /// The part of the current block that has come, unless all of it is zeros.
    block: Vec<u8>,
    /// How many bytes of the current block have come, all of them zeros; 0 when `block` holds them.
    zeros: usize,
    position: u64,
    /// First block and length of the run of zero blocks that ends at the current block.
    run: (u64, u64),
}

impl Default for FileHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl FileHasher {
    /// Begins at the start of a file.
    pub fn new() -> Self {
        let (data, holes) = (blake3::Hasher::new(), blake3::Hasher::new());
        Self { data, holes, block: Vec::new(), zeros: 0, position: 0, run: (0, 0) }
    }

    /// How many bytes have come.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let have = self.block.len() + self.zeros;
            let (piece, rest) = bytes.split_at(bytes.len().min(BLOCK - have));
            if have == 0 && piece.len() == BLOCK {
                self.whole_block(piece);
            } else if self.block.is_empty() && is_zero(piece) {
                self.zeros += piece.len();
            } else {
                self.block.resize(self.block.len() + self.zeros, 0);
                self.zeros = 0;
                self.block.extend_from_slice(piece);
            }
            self.position += piece.len() as u64;
            if self.block.len() + self.zeros == BLOCK {
                self.end_block();
            }
            bytes = rest;
        }
    }

    /// Takes `length` zeros, without looking at each.
    pub fn hole(&mut self, mut length: u64) {
        static ZEROS: [u8; BLOCK] = [0; BLOCK];
        let to_border = (BLOCK - self.block.len() - self.zeros) % BLOCK;
        // Both are less than a block.
        let head = length.min(to_border as u64) as usize;
        self.update(&ZEROS[..head]);
        length -= head as u64;
        let blocks = length / BLOCK as u64;
        if blocks > 0 {
            self.zero_blocks(self.position / BLOCK as u64, blocks);
            self.position += blocks * BLOCK as u64;
        }
        self.update(&ZEROS[..(length % BLOCK as u64) as usize]);
    }

    /// Ends the file.
    pub fn finish(mut self) -> FileContent {
        if self.block.len() + self.zeros > 0 {
            self.end_block();
        }
        self.end_run();
        FileContent {
            size: self.position,
            data: *self.data.finalize().as_bytes(),
            holes: *self.holes.finalize().as_bytes(),
        }
    }

    /// A block that came in one piece; `position` is still at its start.
    fn whole_block(&mut self, block: &[u8]) {
        if is_zero(block) {
            self.zero_blocks(self.position / BLOCK as u64, 1);
        } else {
            self.data.update(block);
        }
    }

    /// The block that was gathered; `position` is at its end.
    fn end_block(&mut self) {
        if self.block.is_empty() {
            self.zero_blocks((self.position - 1) / BLOCK as u64, 1);
        } else {
            self.block.resize(self.block.len() + self.zeros, 0);
            self.data.update(&self.block);
        }
        self.block.clear();
        self.zeros = 0;
    }

    fn zero_blocks(&mut self, first: u64, count: u64) {
        if self.run.1 > 0 && self.run.0 + self.run.1 == first {
            self.run.1 += count;
            return;
        }
        self.end_run();
        self.run = (first, count);
    }

    fn end_run(&mut self) {
        if self.run.1 > 0 {
            self.holes.update(&self.run.0.to_le_bytes());
            self.holes.update(&self.run.1.to_le_bytes());
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// Takes the entries of a layer, in any order.
#[derive(Debug, Default)]
pub struct LayerHasher {
    entries: Vec<(Box<[u8]>, [u8; 32])>,
}

impl LayerHasher {
    /// A layer without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one entry. A regular file comes with its content; without it counts as empty.
    pub fn add(&mut self, entry: &Entry, content: Option<&FileContent>) {
        self.entries.push((entry.path.as_bytes().into(), entry_digest(entry, content)));
    }

    /// How many entries came.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry came.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Ends the layer.
    pub fn finish(mut self) -> ContentDigest {
        self.entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        for (at, (path, digest)) in self.entries.iter().enumerate() {
            // The sort is stable, so the last of equal paths is the one that came last.
            if self.entries.get(at + 1).is_some_and(|next| next.0 == *path) {
                continue;
            }
            text(&mut hasher, path);
            hasher.update(digest);
        }
        ContentDigest::new(Digest::from_sha256(*hasher.finalize().as_bytes()))
    }
}

fn entry_digest(entry: &Entry, content: Option<&FileContent>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let kind = match &entry.kind {
        EntryKind::File { .. } => b'f',
        EntryKind::Directory => b'd',
        EntryKind::Symlink { .. } => b'l',
        EntryKind::Hardlink { .. } => b'h',
        EntryKind::CharDevice(_) => b'c',
        EntryKind::BlockDevice(_) => b'b',
        EntryKind::Fifo => b'p',
    };
    hasher.update(&[kind]);
    for number in [entry.mode, entry.uid, entry.gid] {
        hasher.update(&number.to_le_bytes());
    }
    match &entry.kind {
        EntryKind::File { .. } => {
            let empty = FileContent::of(b"");
            let content = content.unwrap_or(&empty);
            hasher.update(&content.size.to_le_bytes());
            hasher.update(&content.data);
            hasher.update(&content.holes);
        }
        EntryKind::Symlink { target } => text(&mut hasher, target),
        EntryKind::Hardlink { target } => text(&mut hasher, target.as_bytes()),
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
            hasher.update(&device.major.to_le_bytes());
            hasher.update(&device.minor.to_le_bytes());
        }
        EntryKind::Directory | EntryKind::Fifo => {}
    }
    hasher.update(&length(entry.xattrs.len()));
    for (name, value) in &entry.xattrs {
        text(&mut hasher, name);
        text(&mut hasher, value);
    }
    *hasher.finalize().as_bytes()
}

fn text(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&length(bytes.len()));
    hasher.update(bytes);
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("paths, targets and xattrs are bounded far below 4 GiB").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Device, Timestamp};
    use crate::path::ContainerPath;

    fn base() -> Entry {
        let mut entry = Entry::new(ContainerPath::new("/a"), EntryKind::file(1), 0o644);
        entry.xattrs.insert(b"user.x".to_vec(), b"1".to_vec());
        entry
    }

    fn digest(entries: &[(Entry, &[u8])]) -> ContentDigest {
        let mut hasher = LayerHasher::new();
        for (entry, bytes) in entries {
            hasher.add(entry, Some(&FileContent::of(bytes)));
        }
        hasher.finish()
    }

    #[test]
    fn everything_but_times_and_order_counts() {
        let one = digest(&[(base(), b"x")]);
        let mut later = base();
        later.mtime = Timestamp { seconds: 9, nanoseconds: 9 };
        assert_eq!(digest(&[(later, b"x")]), one);
        let device = |minor| EntryKind::CharDevice(Device { major: 0, minor });
        let variants = [
            digest(&[]),
            digest(&[(base(), b"y")]),
            digest(&[(base(), b"x\0")]),
            digest(&[(Entry { mode: 0o600, ..base() }, b"x")]),
            digest(&[(Entry { uid: 1, ..base() }, b"x")]),
            digest(&[(Entry { gid: 1, ..base() }, b"x")]),
            digest(&[(Entry { path: ContainerPath::new("/b"), ..base() }, b"x")]),
            digest(&[(Entry { xattrs: Default::default(), ..base() }, b"x")]),
            digest(&[(Entry { kind: EntryKind::Directory, ..base() }, b"")]),
            digest(&[(Entry { kind: EntryKind::Fifo, ..base() }, b"")]),
            digest(&[(Entry { kind: device(0), ..base() }, b"")]),
            digest(&[(Entry { kind: device(1), ..base() }, b"")]),
            digest(&[(Entry { kind: EntryKind::Symlink { target: b"/x".to_vec() }, ..base() }, b"")]),
            digest(&[(Entry { kind: EntryKind::Hardlink { target: ContainerPath::new("/x") }, ..base() }, b"")]),
        ];
        for (at, variant) in variants.iter().enumerate() {
            assert!(*variant != one && !variants[..at].contains(variant), "variant {at}");
        }
        let other = Entry { path: ContainerPath::new("/a.b"), ..base() };
        let below = Entry { path: ContainerPath::new("/a/b"), ..base() };
        let all = [(base(), &b"x"[..]), (other, b"1"), (below, b"2")];
        let reversed: Vec<_> = all.iter().cloned().rev().collect();
        assert_eq!(digest(&all), digest(&reversed));
        assert_eq!(digest(&[(base(), b"old"), (base(), b"x")]), one, "the last entry of a path counts");
    }

    #[test]
    fn the_digest_never_changes() {
        insta::assert_snapshot!(digest(&[(base(), b"x")]), @"sha256:ef7bc0dd9924e3c8cf102cdff034d777b67781378a8c6e0c17d2ef7822ce75e7");
        let big: Vec<u8> = (0..300_000u32).map(|n| if n / 70_000 == 1 { 0 } else { n as u8 }).collect();
        insta::assert_snapshot!(digest(&[(base(), &big)]), @"sha256:7ffe6728f56a77786ebae44337a5eaf7d5a55e61bf4ff5b481bf1b418c8b0443");
    }

    proptest::proptest! {
        #[test]
        fn holes_and_zeros_and_write_sizes_are_one(
            runs in proptest::collection::vec((0u64..200_000, proptest::bool::ANY, 1usize..100_000), 0..8),
        ) {
            let mut plain = Vec::new();
            let mut hasher = FileHasher::new();
            for (length, is_hole, chunk) in &runs {
                let bytes = vec![if *is_hole { 0 } else { 5 }; usize::try_from(*length).unwrap()];
                if *is_hole {
                    hasher.hole(*length);
                } else {
                    bytes.chunks(*chunk).for_each(|piece| hasher.update(piece));
                }
                plain.extend(bytes);
            }
            proptest::prop_assert_eq!(hasher.position(), plain.len() as u64);
            proptest::prop_assert_eq!(hasher.finish(), FileContent::of(&plain));
        }
    }
}
