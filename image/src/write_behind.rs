//! Files that are synced soon: their bytes are on the way to the disk while more are made.
//!
//! A file of some hundred megabytes is made in memory and then waited for, as long again. So the kernel is asked for each
//! piece, when it is whole, to begin writing it; nobody waits for that, and the sync in the end finds little left.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::fd::AsFd;

use rustix::fs::Advice;

/// So much is begun at once.
const PIECE: u64 = 8 << 20;

/// How far the writing of a file has been begun.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begun(u64);

impl Begun {
    /// Of a file whose first bytes are there already.
    pub fn at(offset: u64) -> Self {
        Self(offset)
    }

    /// Begins what became whole, now that the file has `written` bytes.
    pub fn reach(&mut self, file: impl AsFd, written: u64) {
        let whole = written.saturating_sub(self.0) / PIECE * PIECE;
        let Some(length) = NonZeroU64::new(whole) else { return };
        // Linux begins to write what is dirty in the range before it drops what is not. Advice may be refused.
        let _refused = rustix::fs::fadvise(file, self.0, Some(length), Advice::DontNeed);
        self.0 += whole;
    }
}

/// A new file whose writing begins while it grows.
#[derive(Debug)]
pub struct WriteBehind {
    file: File,
    written: u64,
    begun: Begun,
}

impl WriteBehind {
    /// Of an empty file.
    pub fn new(file: File) -> Self {
        Self { file, written: 0, begun: Begun::default() }
    }
}

impl Write for WriteBehind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.written += n as u64;
        self.begun.reach(&self.file, self.written);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_behind_is_what_was_written() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let mut file = WriteBehind::new(File::create_new(&path).unwrap());
        let bytes: Vec<u8> = (0..20_000_003_u32).map(|n| (n % 251) as u8).collect();
        for piece in bytes.chunks(300_007) {
            file.write_all(piece).unwrap();
        }
        assert_eq!(file.begun.0, 2 * PIECE);
        drop(file);
        assert!(std::fs::read(&path).unwrap() == bytes);
    }

    #[test]
    fn only_whole_pieces_are_begun_each_once() {
        let mut begun = Begun::at(5);
        let file = tempfile::tempfile().unwrap();
        for (written, want) in [(5, 5), (PIECE, 5), (PIECE + 5, PIECE + 5), (3 * PIECE + 6, 3 * PIECE + 5)] {
            begun.reach(&file, written);
            assert_eq!(begun.0, want, "{written}");
        }
    }
}
