//! The side blob: contents that the kernel cannot read where they are in the tar.
//!
//! These are chunks of sparse files that are partly holes, runs of data that do not begin at a multiple of 512, and
//! files of lower layers that a layer only links to. Zeros take no space: the blob is a sparse file itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::BLOCK;

/// A file that takes contents. Empty until the first of them.
#[derive(Debug)]
pub struct SideBlob {
    file: File,
    length: u64,
}

impl SideBlob {
    /// Writes to `file`, which is empty and open for writing.
    pub fn new(file: File) -> Self {
        Self { file, length: 0 }
    }

    /// How long it is; when 0 nothing needs it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Makes room for `bytes`, all zeros until they are written, and says where.
    pub(super) fn reserve(&mut self, bytes: u64) -> io::Result<u64> {
        let offset = self.length;
        let end = offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(BLOCK));
        self.length = end.filter(|end| *end <= i64::MAX as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.set_len(self.length)?;
        Ok(offset)
    }

    /// Takes `size` bytes of `content` and says where they are.
    pub(super) fn take(&mut self, content: &mut dyn Read, size: u64) -> io::Result<u64> {
        let start = self.reserve(size)?;
        let mut buffer = vec![0; 64 << 10];
        let mut at = 0;
        while at < size {
            let room = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
            match content.read(&mut buffer[..room])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    self.write_at(&buffer[..n], start + at)?;
                    at += n as u64;
                }
            }
        }
        Ok(start)
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}
