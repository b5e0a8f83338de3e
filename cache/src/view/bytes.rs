//! The bytes of one regular file of a layer, wherever they lie: a file of its own, or parts of larger ones.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

/// An open regular file, read from its start.
#[derive(Debug)]
pub struct FileBytes {
    source: Source,
    position: u64,
}

#[derive(Debug)]
enum Source {
    Whole(File),
    Parts(Vec<Part>),
    Memory(Vec<u8>),
}

/// A run of bytes.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where the bytes lie; `None`: they are zeros.
    pub file: Option<Arc<File>>,
    /// Where in that file they begin.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
}

impl From<File> for FileBytes {
    fn from(file: File) -> Self {
        Self { source: Source::Whole(file), position: 0 }
    }
}

impl FileBytes {
    /// The bytes of `parts`, one after the other.
    pub fn of_parts(parts: Vec<Part>) -> Self {
        Self { source: Source::Parts(parts), position: 0 }
    }

    /// Bytes in memory.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self { source: Source::Memory(bytes), position: 0 }
    }

    /// The file, where it has nothing but these bytes.
    pub fn whole(&self) -> Option<&File> {
        match &self.source {
            Source::Whole(file) => Some(file),
            Source::Parts(_) | Source::Memory(_) => None,
        }
    }

    /// How many bytes there are.
    pub fn size(&self) -> io::Result<u64> {
        match &self.source {
            Source::Whole(file) => Ok(file.metadata()?.len()),
            Source::Parts(parts) => Ok(parts.iter().map(|part| part.length).sum()),
            Source::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Reads at `offset` without moving; 0 at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let parts = match &self.source {
            Source::Whole(file) => {
                return Ok(rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, offset))?);
            }
            Source::Parts(parts) => parts,
            Source::Memory(bytes) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
                return (&bytes[start..]).read(buffer);
            }
        };
        let mut before = 0;
        for part in parts {
            let inside = offset - before;
            if inside >= part.length {
                before += part.length;
                continue;
            }
            let left = usize::try_from(part.length - inside).unwrap_or(usize::MAX).min(buffer.len());
            let room = &mut buffer[..left];
            let Some(file) = &part.file else {
                room.fill(0);
                return Ok(left);
            };
            return match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *room, part.offset + inside))? {
                0 if left > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                read => Ok(read),
            };
        }
        Ok(0)
    }

    /// Reads everything; `expected` is about how much that is.
    pub(crate) fn read_whole(&self, expected: u64) -> io::Result<Vec<u8>> {
        let expected = usize::try_from(expected).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; expected + 1];
        let mut filled = 0;
        loop {
            if filled == bytes.len() {
                bytes.resize(filled * 2, 0);
            }
            match self.read_at(&mut bytes[filled..], filled as u64)? {
                0 => break,
                read => filled += read,
            }
            // All that was expected came, and there was room for more.
            if filled >= expected && filled < bytes.len() {
                break;
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

impl Read for FileBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_read_as_one_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("large");
        std::fs::write(&path, b"0123456789").unwrap();
        let large = Arc::new(File::open(&path).unwrap());
        let part = |offset, length| Part { file: Some(large.clone()), offset, length };
        let hole = Part { file: None, offset: 0, length: 3 };
        let mut bytes = FileBytes::of_parts(vec![part(7, 2), hole, part(0, 0), part(1, 4)]);
        assert_eq!(bytes.size().unwrap(), 9);
        assert_eq!(bytes.read_whole(9).unwrap(), b"78\0\0\x001234");
        let mut text = Vec::new();
        bytes.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"78\0\0\x001234");
        let mut two = [0; 2];
        assert_eq!(bytes.read_at(&mut two, 6).unwrap(), 2);
        assert_eq!(two, *b"23");
        assert!(bytes.whole().is_none());
        let short = FileBytes::of_parts(vec![part(8, 4)]);
        assert!(short.read_whole(4).is_err(), "a file that lost its end is an error, not a short one");
        assert_eq!(FileBytes::from(File::open(&path).unwrap()).read_whole(3).unwrap(), b"0123456789");
    }
}
