//! Whether a layer's index, and the side blob that belongs to it, are those that were made.
//!
//! They are derived from the tar, so nothing waits for them to reach the disk. A power cut may leave them short, empty or
//! with holes. Each row therefore says in which boot of the machine they were made; in a later one they are compared with
//! their digests once, when they are first used. What was read back whole after a boot is on the disk, and is not looked at
//! again; anything else is made once more from the tar, which was synced.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rbuild_image::{Digest, Hashing};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::layer_row::LayerRow;
use super::links::Chain;
use super::seen::Facts;
use super::store::{SnapshotError, Snapshots};
use super::tar_layer::{self, Files};
use super::writer::Metadata;
use crate::db::{Durability, Text};
use crate::view::Timestamp;

/// What a side blob is read and compared in.
const BLOCK: u64 = 4096;

/// What is known of a layer's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexRow {
    /// Digest of its bytes.
    pub(super) digest: Digest,
    /// Digest of the side blob, where there is one.
    pub(super) side: Option<Digest>,
    /// In which boot they were made, unless they were read back in a later one.
    pub(super) boot: Option<String>,
}

/// What a layer that was made here gives the root directory. Its tar has no entry for that, as those that BuildKit makes
/// have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootMetadata {
    mode: u32,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanoseconds: u32,
}

impl From<&Metadata> for RootMetadata {
    fn from(metadata: &Metadata) -> Self {
        let Timestamp { seconds, nanoseconds } = metadata.mtime.unwrap_or_default();
        Self { mode: metadata.mode, uid: metadata.uid, gid: metadata.gid, seconds, nanoseconds }
    }
}

impl From<RootMetadata> for Metadata {
    fn from(root: RootMetadata) -> Self {
        let mtime = Some(Timestamp { seconds: root.seconds, nanoseconds: root.nanoseconds });
        Self { mode: root.mode, uid: root.uid, gid: root.gid, mtime, ..Self::default() }
    }
}

/// Whether files are what a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexState {
    /// They are.
    Whole,
    /// They are not there; they are made again when they are needed.
    Missing,
    /// They are something else.
    Damaged,
}

/// Compares the files of the layer in `layer` with what they must be.
pub(crate) fn index_state(layer: &Path, index: &Digest, side: Option<&Digest>) -> io::Result<IndexState> {
    let files = Files::of(layer);
    let digests = || -> io::Result<bool> {
        let mut hashing = Hashing::new(io::sink());
        io::copy(&mut File::open(&files.index)?, &mut hashing)?;
        Ok(hashing.finish().1 == *index
            && match side {
                Some(side) => side_digest(&File::open(&files.side)?)? == *side,
                None => true,
            })
    };
    match digests() {
        Ok(true) => Ok(IndexState::Whole),
        Ok(false) => Ok(IndexState::Damaged),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(IndexState::Missing),
        Err(error) => Err(error),
    }
}

/// Digest of a side blob: of its length and of every block that is not all zeros, with its place. Holes cost nothing, and
/// where the file system has them makes no difference.
pub(super) fn side_digest(file: &File) -> io::Result<Digest> {
    let size = file.metadata()?.len();
    let mut hashing = Hashing::new(io::sink());
    hashing.write_all(&size.to_le_bytes())?;
    let mut block = [0; BLOCK as usize];
    let (mut at, mut next) = (0, 0);
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            other => other?,
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Err(Errno::INVAL) => size,
            other => other?,
        };
        // Blocks of the file system may be smaller than ours.
        next = next.max(start / BLOCK * BLOCK);
        while next < end {
            let length = usize::try_from((size - next).min(BLOCK)).expect("at most a block");
            file.read_exact_at(&mut block[..length], next)?;
            if block[..length].iter().any(|byte| *byte != 0) {
                hashing.write_all(&next.to_le_bytes())?;
                hashing.write_all(&block[..length])?;
            }
            next += BLOCK;
        }
        at = end;
    }
    Ok(hashing.finish().1)
}

impl Snapshots {
    /// Makes sure of the indexes of `chain`, the lowest first: what is missing, or was not read back whole after a boot of
    /// the machine, is made again from the tar.
    pub(super) fn ensure_indexes(&self, chain: &Chain) -> Result<(), SnapshotError> {
        let unknown: Vec<Chain> = chain.each().take_while(|one| !one.is_indexed()).collect();
        for one in unknown.iter().rev() {
            let Some(row) = one.top() else { continue };
            let seen = self.store.snapshotting().seen();
            if row.kind == tar_layer::NAME && seen.of(row).is_none() {
                match self.sound_index(row)? {
                    Some(facts) => seen.note(row, facts),
                    None => self.index_again(row, &one.below())?,
                }
            }
            one.note_indexed();
        }
        Ok(())
    }

    /// What is asked of a layer whose index is sound.
    fn sound_index(&self, row: &LayerRow) -> Result<Option<Facts>, SnapshotError> {
        let layer = self.path(row);
        let Some(known) = &row.index else { return Ok(None) };
        let there = Facts::of(&Files::of(&layer)).ok().filter(|facts| known.side.is_none() || facts.has_side);
        if there.is_none() || known.boot.is_none() || known.boot.as_deref() == self.store.snapshotting().boot() {
            return Ok(there);
        }
        // What cannot be read is made again, too.
        let sound = matches!(index_state(&layer, &known.digest, known.side.as_ref()), Ok(IndexState::Whole));
        if sound {
            self.store.db().write(Durability::Lazy, |tx| {
                let sql = "UPDATE layers SET index_boot = NULL WHERE id = ?1 AND index_digest = ?2";
                tx.execute(sql, (row.id, Text(known.digest)))
            })?;
        }
        Ok(there.filter(|_| sound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_blob_is_the_same_with_and_without_holes() {
        let home = tempfile::tempdir().unwrap();
        let make = |name: &str, writes: &[(u64, &[u8])], length: u64| {
            let file = File::options().read(true).write(true).create_new(true).open(home.path().join(name)).unwrap();
            file.set_len(length).unwrap();
            writes.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
            side_digest(&file).unwrap()
        };
        let zeros = [0; 20_000];
        let holes = make("holes", &[(5000, b"x"), (1 << 20, b"end")], (1 << 20) + 512);
        assert_eq!(holes, make("zeros", &[(0, &zeros), (5000, b"x"), (1 << 20, b"end")], (1 << 20) + 512));
        for (position, writes) in [[(5001, b"x"), (1 << 20, b"e")], [(5000, b"y"), (1 << 20, b"e")]].iter().enumerate()
        {
            let writes: Vec<(u64, &[u8])> = writes.iter().map(|(offset, bytes)| (*offset, &bytes[..])).collect();
            assert_ne!(holes, make(&format!("other-{position}"), &writes, (1 << 20) + 512));
        }
        assert_ne!(holes, make("short", &[(5000, b"x")], (1 << 20) + 512), "its end is missing");
        assert_ne!(make("none", &[], 512), make("longer", &[], 1024), "the length counts");
    }
}
