//! The traits that move blobs: this crate streams, the store keeps.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::descriptor::Descriptor;
use crate::digest::Digest;

/// Where blobs come from.
pub trait BlobSource: Sync {
    /// Opens a blob for reading from its start. `NotFound` when it is not there.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>>;

    /// How many bytes a blob has. `NotFound` when it is not there.
    fn size(&self, digest: &Digest) -> io::Result<u64>;
}

/// Where blobs go.
pub trait BlobSink: Sync {
    /// Whether the blob is there, whole and verified.
    fn contains(&self, digest: &Digest) -> io::Result<bool>;

    /// Begins, or resumes, taking in the blob that `expected` describes. Waits for another writer of the same blob.
    fn begin(&self, expected: &Descriptor) -> io::Result<Box<dyn BlobWriter>>;
}

/// A blob on its way into a sink. Dropped without [`commit`](BlobWriter::commit) nothing becomes visible.
pub trait BlobWriter: Write + Send {
    /// How many bytes are there already: the next write belongs at this offset. Equal to the size when another writer
    /// finished the blob meanwhile.
    fn resume_offset(&self) -> u64;

    /// Verifies size and digest, then makes the blob visible durably.
    fn commit(self: Box<Self>) -> io::Result<()>;
}

/// Copies the blob that `expected` describes from `reader`, which starts at the blob's first byte, into `sink`.
/// Reading stops at the described size plus one byte. Does nothing when the blob is there.
pub fn copy_blob(reader: &mut dyn Read, expected: &Descriptor, sink: &dyn BlobSink) -> io::Result<()> {
    if sink.contains(&expected.digest)? {
        return Ok(());
    }
    let mut writer = sink.begin(expected)?;
    let skip = writer.resume_offset();
    let skipped = io::copy(&mut reader.take(skip), &mut io::sink())?;
    let wanted = expected.size.saturating_add(1).saturating_sub(skipped);
    let copied = io::copy(&mut reader.take(wanted), &mut writer)?;
    let total = skipped + copied;
    if skipped != skip || total != expected.size {
        let more = if total > expected.size { "more" } else { "fewer" };
        let text =
            format!("blob {} has {more} than the {} bytes that its descriptor says", expected.digest, expected.size);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    writer.commit()
}

/// Blobs held in memory, in front of other ones: documents that were just made and are kept nowhere yet.
#[derive(Default)]
pub struct MemoryBlobs<'a> {
    blobs: BTreeMap<Digest, Vec<u8>>,
    behind: Option<&'a dyn BlobSource>,
}

impl<'a> MemoryBlobs<'a> {
    /// No blobs in memory, and those of `behind`.
    pub fn over(behind: &'a dyn BlobSource) -> Self {
        Self { blobs: BTreeMap::new(), behind: Some(behind) }
    }

    /// Adds a blob under its SHA-256 digest, which is returned.
    pub fn insert(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::sha256(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// The blob, when it is in memory.
    pub fn get(&self, digest: &Digest) -> Option<&[u8]> {
        self.blobs.get(digest).map(Vec::as_slice)
    }
}

impl BlobSource for MemoryBlobs<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match (self.blobs.get(digest), self.behind) {
            (Some(bytes), _) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            (None, Some(behind)) => behind.open(digest),
            (None, None) => Err(not_found(digest)),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        match (self.blobs.get(digest), self.behind) {
            (Some(bytes), _) => Ok(bytes.len() as u64),
            (None, Some(behind)) => behind.size(digest),
            (None, None) => Err(not_found(digest)),
        }
    }
}

impl std::fmt::Debug for MemoryBlobs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.blobs.keys()).finish()
    }
}

pub(crate) fn not_found(digest: &Digest) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no blob {digest}"))
}
