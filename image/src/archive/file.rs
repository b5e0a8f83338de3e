//! The members of an archive that is being written. In a file that can seek, a blob's header follows when the blob is whole:
//! its place is left free before the bytes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::oci_layout::blob_name;
use super::{ArchiveError, doing};
use crate::descriptor::Descriptor;
use crate::digest::{Algorithm, Digest};
use crate::layer::{Entry, EntryKind, TarWriteError, TarWriter};
use crate::path::ContainerPath;
use crate::write_behind::Begun;

/// What tars are made of.
const BLOCK: u64 = 512;
/// Bytes that are moved at once.
const PIECE: u64 = 1 << 20;

/// Writes members, directories before what is in them.
#[derive(Debug)]
pub(super) struct Members<W: Write> {
    tar: TarWriter<W>,
    blobs: BTreeSet<Digest>,
    directories: BTreeSet<&'static str>,
    /// Where the blob that was begun has its header, and how many bytes it has by now.
    begun: Option<(u64, u64)>,
    behind: Begun,
}

impl<W: Write> Members<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            tar: TarWriter::new(out),
            blobs: BTreeSet::new(),
            directories: BTreeSet::new(),
            begun: None,
            behind: Begun::default(),
        }
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest)
    }

    /// Writes a blob of exactly the size that its descriptor says.
    pub(super) fn blob(&mut self, blob: &Descriptor, content: &mut dyn Read) -> Result<(), ArchiveError> {
        self.directories_for(blob.digest.algorithm()).map_err(failed)?;
        self.tar.append(&blob_entry(&blob.digest, blob.size), content).map_err(failed)?;
        self.blobs.insert(blob.digest);
        Ok(())
    }

    /// Writes a document.
    pub(super) fn document(&mut self, name: &str, bytes: &[u8], mode: u32) -> Result<(), ArchiveError> {
        let entry = Entry::new(ContainerPath::new(name), EntryKind::file(bytes.len() as u64), mode);
        let mut content = bytes;
        self.tar.append(&entry, &mut content).map_err(failed)
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.tar.finish()
    }

    fn directories_for(&mut self, algorithm: Algorithm) -> Result<(), TarWriteError> {
        let own = match algorithm {
            Algorithm::Sha256 => "blobs/sha256",
            Algorithm::Sha512 => "blobs/sha512",
        };
        for directory in ["blobs", own] {
            if self.directories.insert(directory) {
                let entry = Entry::new(ContainerPath::new(directory), EntryKind::Directory, 0o755);
                self.tar.append(&entry, &mut io::empty())?;
            }
        }
        Ok(())
    }
}

impl Members<BufWriter<File>> {
    /// Leaves room for the header of a blob that is to come.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.abandon()?;
        self.directories_for(Algorithm::Sha256).map_err(io::Error::other)?;
        let out = self.tar.inner_mut();
        let at = out.stream_position()?;
        out.write_all(&[0; BLOCK as usize])?;
        self.begun = Some((at, 0));
        Ok(())
    }

    pub(super) fn more(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((at, size)) = &mut self.begun else { return Err(io::ErrorKind::InvalidInput.into()) };
        let out = self.tar.inner_mut();
        let written = out.write(bytes)?;
        *size += written as u64;
        self.behind.reach(out.get_ref(), (*at + BLOCK + *size).saturating_sub(out.buffer().len() as u64));
        Ok(written)
    }

    pub(super) fn end(&mut self, digest: &Digest, size: u64) -> io::Result<()> {
        let Some((at, written)) = self.begun else { return Err(io::ErrorKind::InvalidInput.into()) };
        if written != size {
            return Err(io::Error::other(format!("a blob has {written} bytes where {size} were announced")));
        }
        if !self.blobs.insert(*digest) {
            return self.abandon();
        }
        let header = self.tar.header(&blob_entry(digest, size)).map_err(io::Error::other)?;
        let out = self.tar.inner_mut();
        out.write_all(&vec![0; (size.next_multiple_of(BLOCK) - size) as usize])?;
        out.flush()?;
        let room = header.len() as u64;
        if room > BLOCK {
            // Sizes from 8 GiB on need more words.
            move_up(out.get_ref(), at + BLOCK, size.next_multiple_of(BLOCK), room - BLOCK)?;
            out.seek(SeekFrom::End(0))?;
        }
        out.get_ref().write_all_at(&header, at)?;
        self.begun = None;
        Ok(())
    }

    pub(super) fn abandon(&mut self) -> io::Result<()> {
        let Some((at, _)) = self.begun.take() else { return Ok(()) };
        let out = self.tar.inner_mut();
        out.flush()?;
        out.get_ref().set_len(at)?;
        out.seek(SeekFrom::Start(at))?;
        Ok(())
    }
}

fn blob_entry(digest: &Digest, size: u64) -> Entry {
    Entry::new(ContainerPath::new(blob_name(digest)), EntryKind::file(size), 0o444)
}

fn failed(error: TarWriteError) -> ArchiveError {
    doing("write the archive")(io::Error::other(error))
}

/// Moves what is at `from` up by `distance` bytes.
fn move_up(file: &File, from: u64, length: u64, distance: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE as usize];
    let mut left = length;
    while left > 0 {
        let piece = left.min(PIECE);
        left -= piece;
        let bytes = &mut buffer[..piece as usize];
        file.read_exact_at(bytes, from + left)?;
        file.write_all_at(bytes, from + left + distance)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::media_type::MediaType;

    fn file() -> BufWriter<File> {
        BufWriter::new(tempfile::tempfile().unwrap())
    }

    fn bytes_of(out: BufWriter<File>) -> Vec<u8> {
        let mut file = out.into_inner().unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_blob_of_unknown_digest_is_written_as_a_known_one() {
        let (mut early, mut late) = (Members::new(Vec::new()), Members::new(file()));
        for length in [0, 1, 511, 512, 513, 100_000] {
            let bytes = vec![length as u8; length];
            let blob = Descriptor::of(MediaType::OciLayer, &bytes);
            early.blob(&blob, &mut bytes.as_slice()).unwrap();
            late.begin().unwrap();
            for piece in bytes.chunks(777) {
                assert_eq!(late.more(piece).unwrap(), piece.len());
            }
            late.end(&blob.digest, blob.size).unwrap();
            assert!(late.has(&blob.digest));
            // What is there, is wrong or is given up leaves nothing.
            for given_up in [true, false] {
                late.begin().unwrap();
                late.more(&bytes).unwrap();
                assert!(late.end(&blob.digest, blob.size + 1).is_err());
                match given_up {
                    true => late.abandon().unwrap(),
                    false => late.end(&blob.digest, blob.size).unwrap(),
                }
            }
        }
        early.document("index.json", b"{}", 0o644).unwrap();
        late.document("index.json", b"{}", 0o644).unwrap();
        assert!(early.finish().unwrap() == bytes_of(late.finish().unwrap()));
        assert!(Members::new(file()).more(b"x").is_err(), "nothing was begun");
    }

    #[test]
    fn bytes_move_up_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("f");
        let bytes: Vec<u8> = (0..3 * PIECE as u32 + 5).map(|n| (n % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        move_up(&file, 7, bytes.len() as u64 - 7, 1024).unwrap();
        let moved = fs::read(&path).unwrap();
        assert!(moved[7 + 1024..] == bytes[7..] && moved[..7] == bytes[..7]);
    }
}
