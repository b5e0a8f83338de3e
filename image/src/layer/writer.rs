//! A layer on its way out: tar, diff id, size and content digest in one pass.

use std::io::{self, Read, Write};

use super::content_digest::{FileHasher, LayerHasher};
use super::entry::{Entry, EntryKind, Placement};
use super::tar_writer::{TarWriteError, TarWriter};
use crate::digest::{ContentDigest, DiffId, Hashing};

/// What is known about a layer when its last byte is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Length of the tar.
    pub size: u64,
    /// What the layer holds, without times.
    pub content_digest: ContentDigest,
    /// How many entries it has.
    pub entries: u64,
}

/// Writes a layer and sums it up on the way.
#[derive(Debug)]
pub struct LayerWriter<W> {
    tar: TarWriter<Hashing<W>>,
    content: LayerHasher,
}

impl<W: Write> LayerWriter<W> {
    /// Writes to `inner`; to [`io::sink`] when only the summary is wanted.
    pub fn new(inner: W) -> Self {
        Self { tar: TarWriter::new(Hashing::new(inner)), content: LayerHasher::new() }
    }

    /// Writes one entry with exactly [`Entry::stored_size`] bytes of `content`: for a sparse file only its data.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), TarWriteError> {
        let EntryKind::File { size, .. } = entry.kind else {
            self.tar.append(entry, content)?;
            self.content.add(entry, None);
            return Ok(());
        };
        let mut hasher = FileHasher::new();
        let mut placement = Placement::of(entry);
        self.tar.append_observed(entry, content, &mut |bytes| {
            placement.place(bytes, |offset, piece| {
                hasher.hole(offset - hasher.position());
                hasher.update(piece);
            });
        })?;
        hasher.hole(size - hasher.position());
        self.content.add(entry, Some(&hasher.finish()));
        Ok(())
    }

    /// Ends the layer.
    pub fn finish(self) -> io::Result<(W, LayerSummary)> {
        let entries = self.content.len() as u64;
        let (inner, digest, size) = self.tar.finish()?.finish();
        let content_digest = self.content.finish();
        Ok((inner, LayerSummary { diff_id: DiffId::new(digest), size, content_digest, entries }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::layer::{Segment, SparseMap};
    use crate::path::ContainerPath;

    fn layer(entries: &[(Entry, Vec<u8>)]) -> (Vec<u8>, LayerSummary) {
        let mut writer = LayerWriter::new(Vec::new());
        for (entry, content) in entries {
            writer.append(entry, &mut content.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn the_summary_is_of_the_bytes() {
        let directory = Entry::new(ContainerPath::new("/d"), EntryKind::Directory, 0o755);
        let file = Entry::new(ContainerPath::new("/d/f"), EntryKind::file(3), 0o644);
        let (tar, summary) = layer(&[(directory, vec![]), (file, b"abc".to_vec())]);
        assert_eq!(summary.diff_id.digest(), &Digest::sha256(&tar));
        assert_eq!((summary.size, summary.entries), (tar.len() as u64, 2));
    }

    #[test]
    fn sparse_and_plain_files_have_one_content_digest() {
        let size = 300_000;
        let segments = [Segment { offset: 65_536, length: 512 }, Segment { offset: 131_072, length: 1024 }];
        let kind = EntryKind::File { size, sparse: SparseMap::new(segments, size) };
        let sparse = Entry::new(ContainerPath::new("/f"), kind, 0o644);
        let data: Vec<u8> = (0..1536u32).map(|n| (n % 255 + 1) as u8).collect();
        let mut whole = vec![0; 300_000];
        whole[65_536..66_048].copy_from_slice(&data[..512]);
        whole[131_072..132_096].copy_from_slice(&data[512..]);
        let plain = Entry::new(ContainerPath::new("/f"), EntryKind::file(size), 0o644);
        let (_, sparse) = layer(&[(sparse, data)]);
        let (_, plain) = layer(&[(plain, whole)]);
        assert_eq!(sparse.content_digest, plain.content_digest);
        assert_ne!(sparse.diff_id, plain.diff_id);
    }
}
