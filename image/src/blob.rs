//! The traits that move blobs: this crate streams, the store keeps.

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
