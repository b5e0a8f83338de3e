//! Remembers the digests of files in build contexts, so that an unchanged context costs one `stat` per file.
//!
//! A file is taken for unchanged when device, inode, size, mode, mtime and ctime are; ctime cannot be set back by
//! `touch`. A file that was written so shortly before the scan that a later write could leave the same times is not
//! remembered (the "racy git" problem).
//!
//! One row per directory, packed, so that loading a tree is one query and storing writes what changed:
//!
//! ```text
//! 1, then per file, sorted by name:
//!   name length u16 | name | dev u64 | ino u64 | size u64 | mtime i64 ns | ctime i64 ns | mode u32 | digest 32 bytes
//! ```
//!
//! All little endian. What cannot be read is treated as absent: this is a memory, not a truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::db::{DbError, Durability, Micros};
use crate::store::Store;

/// First byte of a packed directory.
const PACKING: u8 = 1;
/// Bytes of an entry besides its name.
const FIXED: usize = 2 + 8 * 5 + 4 + 32;
/// How coarse file times may be: kernels before 6.13 stamp files with a clock of up to 10 ms.
const TICK: Duration = Duration::from_millis(10);

/// The BLAKE3 digest of a regular file's bytes. Never leaves this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileDigest([u8; 32]);

impl FileDigest {
    /// Digests everything that `reader` gives.
    pub fn of(mut reader: impl Read) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self(hasher.finalize().into())),
                Ok(read) => drop(hasher.update(&buffer[..read])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The raw digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{self}")
    }
}

/// What tells one state of a file from another without reading it. Must be taken *before* the file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Time of the last write, in nanoseconds since the epoch.
    pub mtime: i64,
    /// Time of the last change of content, mode, owner or name.
    pub ctime: i64,
    /// Type and permissions.
    pub mode: u32,
}

impl From<&std::fs::Metadata> for FileStamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }
}

impl From<&rustix::fs::Statx> for FileStamp {
    fn from(statx: &rustix::fs::Statx) -> Self {
        Self {
            dev: rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor),
            ino: statx.stx_ino,
            size: statx.stx_size,
            mtime: nanoseconds(statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec.into()),
            ctime: nanoseconds(statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec.into()),
            mode: statx.stx_mode.into(),
        }
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

type Entry = (FileStamp, FileDigest);
type Directory = BTreeMap<Box<[u8]>, Entry>;

/// What is remembered of one tree. Shared by the threads that scan it.
#[derive(Debug)]
pub struct FileIndex {
    store: Store,
    root: Vec<u8>,
    /// Files changed from here on are not remembered.
    horizon: i64,
    known: BTreeMap<Box<[u8]>, Directory>,
    learned: Mutex<Learned>,
}

#[derive(Debug, Default)]
struct Learned {
    entries: BTreeMap<Box<[u8]>, Directory>,
    seen: BTreeMap<Box<[u8]>, BTreeSet<Box<[u8]>>>,
}

impl Store {
    /// Loads what is remembered of the tree at `root`, an absolute path. Must be called before the tree is scanned.
    pub fn file_index(&self, root: &Path) -> Result<FileIndex, DbError> {
        let name = root.as_os_str().as_bytes().to_vec();
        let rows = self.db().read(|tx| {
            let sql = "SELECT i.directory, i.entries FROM file_index i JOIN file_roots r ON r.id = i.root
                       WHERE r.path = ?1";
            tx.all(sql, [&name], |row| Ok((row.get_ref(0)?.as_blob()?.into(), unpack(row.get_ref(1)?.as_blob()?))))
        })?;
        let start = nanoseconds_of(self.now());
        let horizon = start.saturating_sub(i64::try_from(TICK.as_nanos()).expect("a tick is short"));
        Ok(FileIndex {
            store: self.clone(),
            root: name,
            horizon,
            known: rows.into_iter().collect(),
            learned: Mutex::default(),
        })
    }
}

impl FileIndex {
    /// The digest of the file at `path`, relative to the root, if it is still in the state of `stamp`.
    pub fn get(&self, path: &[u8], stamp: &FileStamp) -> Option<FileDigest> {
        let (directory, name) = split(path);
        let found = self.known.get(directory).and_then(|entries| entries.get(name));
        let digest = found.filter(|(known, _)| known == stamp).map(|(_, digest)| *digest)?;
        self.learned().seen.entry(directory.into()).or_default().insert(name.into());
        Some(digest)
    }

    /// Remembers a digest, unless the file changed too shortly before.
    pub fn insert(&self, path: &[u8], stamp: FileStamp, digest: FileDigest) {
        let (directory, name) = split(path);
        if stamp.mtime.max(stamp.ctime) >= self.horizon || name.len() > usize::from(u16::MAX) {
            return;
        }
        self.learned().entries.entry(directory.into()).or_default().insert(name.into(), (stamp, digest));
    }

    /// Writes back what was learned, in one transaction; nothing when nothing was.
    pub fn save(self) -> Result<(), DbError> {
        let Self { store, root, mut known, learned, .. } = self;
        let Learned { entries, seen } = learned.into_inner().unwrap_or_else(PoisonError::into_inner);
        let now = Micros(store.now());
        if entries.is_empty() {
            return Ok(());
        }
        store.db().write(Durability::Lazy, |tx| {
            let id: i64 = tx.one(
                "INSERT INTO file_roots (path, used_at) VALUES (?1, ?2)
                 ON CONFLICT (path) DO UPDATE SET used_at = excluded.used_at RETURNING id",
                (&root, now),
                |row| row.get(0),
            )?;
            for (name, new) in entries {
                let mut directory = known.remove(&name).unwrap_or_default();
                let seen = seen.get(&name);
                let live = new.len() + seen.map_or(0, BTreeSet::len);
                // Other scans may select other files, so the unseen stay; but not for ever.
                if directory.len() > 2 * live + 16 {
                    directory.retain(|file, _| seen.is_some_and(|seen| seen.contains(file)));
                }
                directory.extend(new);
                tx.execute(
                    "INSERT OR REPLACE INTO file_index (root, directory, entries) VALUES (?1, ?2, ?3)",
                    (id, &*name, pack(&directory)),
                )?;
            }
            Ok(())
        })
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds_of(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn pack(directory: &Directory) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + directory.keys().map(|name| name.len() + FIXED).sum::<usize>());
    out.push(PACKING);
    for (name, (stamp, digest)) in directory {
        let length = u16::try_from(name.len()).expect("longer names are not inserted");
        out.extend(length.to_le_bytes());
        out.extend(&**name);
        for word in [stamp.dev, stamp.ino, stamp.size] {
            out.extend(word.to_le_bytes());
        }
        for time in [stamp.mtime, stamp.ctime] {
            out.extend(time.to_le_bytes());
        }
        out.extend(stamp.mode.to_le_bytes());
        out.extend(digest.0);
    }
    out
}

fn unpack(bytes: &[u8]) -> Directory {
    let mut directory = Directory::new();
    let Some((&PACKING, mut rest)) = bytes.split_first() else { return directory };
    while let Some((name, entry, tail)) = unpack_one(rest) {
        directory.insert(name.into(), entry);
        rest = tail;
    }
    directory
}

fn unpack_one(bytes: &[u8]) -> Option<(&[u8], Entry, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let (dev, rest) = rest.split_first_chunk()?;
    let (ino, rest) = rest.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (mtime, rest) = rest.split_first_chunk()?;
    let (ctime, rest) = rest.split_first_chunk()?;
    let (mode, rest) = rest.split_first_chunk()?;
    let (digest, rest) = rest.split_first_chunk()?;
    let stamp = FileStamp {
        dev: u64::from_le_bytes(*dev),
        ino: u64::from_le_bytes(*ino),
        size: u64::from_le_bytes(*size),
        mtime: i64::from_le_bytes(*mtime),
        ctime: i64::from_le_bytes(*ctime),
        mode: u32::from_le_bytes(*mode),
    };
    Some((name, (stamp, FileDigest(*digest)), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::TestStore;

    fn stamp(time: Timestamp) -> FileStamp {
        let time = nanoseconds_of(time);
        FileStamp { dev: 1, ino: 2, size: 3, mtime: time, ctime: time, mode: 0o100_644 }
    }

    #[test]
    fn an_unchanged_file_is_known_and_a_changed_one_is_not() {
        let home = TestStore::new();
        let root = Path::new("/project");
        let old = stamp(home.clock.now() - Duration::from_secs(60));
        let digest = FileDigest::of(&b"content"[..]).unwrap();
        let index = home.store.file_index(root).unwrap();
        index.insert(b"src/main.rs", old, digest);
        index.insert(b"README", old, digest);
        index.save().unwrap();

        let index = home.reopen().file_index(root).unwrap();
        assert_eq!(index.get(b"src/main.rs", &old), Some(digest));
        assert_eq!(index.get(b"README", &old), Some(digest));
        assert_eq!(index.get(b"main.rs", &old), None);
        for changed in [
            FileStamp { dev: 9, ..old },
            FileStamp { ino: 9, ..old },
            FileStamp { size: 9, ..old },
            FileStamp { mtime: old.mtime + 1, ..old },
            FileStamp { ctime: old.ctime + 1, ..old },
            FileStamp { mode: 0o100_755, ..old },
        ] {
            assert_eq!(index.get(b"README", &changed), None, "{changed:?}");
        }
        assert_eq!(home.store.file_index(Path::new("/other")).unwrap().get(b"README", &old), None);
    }

    #[test]
    fn a_file_changed_during_or_shortly_before_the_scan_is_not_remembered() {
        let home = TestStore::new();
        let (root, digest) = (Path::new("/project"), FileDigest::of(&b""[..]).unwrap());
        let now = home.clock.now();
        let index = home.store.file_index(root).unwrap();
        let young = [now - Duration::from_millis(9), now, now + Duration::from_secs(3600)].map(stamp);
        for (name, stamp) in [b"a", b"b", b"c"].iter().zip(young) {
            index.insert(*name, stamp, digest);
        }
        let only_ctime = FileStamp { ctime: nanoseconds_of(now), ..stamp(now - Duration::from_secs(9)) };
        index.insert(b"d", only_ctime, digest);
        index.save().unwrap();
        let index = home.store.file_index(root).unwrap();
        for (name, stamp) in [b"a", b"b", b"c", b"d"].iter().zip(young.into_iter().chain([only_ctime])) {
            assert_eq!(index.get(*name, &stamp), None);
        }
    }

    #[test]
    fn entries_of_vanished_files_do_not_pile_up() {
        let home = TestStore::new();
        let (root, digest) = (Path::new("/project"), FileDigest::of(&b""[..]).unwrap());
        let old = stamp(home.clock.now() - Duration::from_secs(60));
        for round in 0..200 {
            let index = home.store.file_index(root).unwrap();
            index.get(b"stays", &old);
            index.insert(
                if round == 0 { b"stays".to_vec() } else { format!("gone-{round}").into_bytes() }.as_slice(),
                old,
                digest,
            );
            index.save().unwrap();
        }
        let index = home.store.file_index(root).unwrap();
        assert!(index.get(b"stays", &old).is_some());
        assert!(index.known[&b""[..]].len() < 40);
    }

    proptest! {
        #[test]
        fn packing_round_trips(files in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 0..300),
            (any::<[u64; 3]>(), any::<[i64; 2]>(), any::<u32>(), any::<[u8; 32]>()), 0..20,
        )) {
            let directory: Directory = files.into_iter().map(|(name, ([dev, ino, size], [mtime, ctime], mode, digest))| {
                (name.into(), (FileStamp { dev, ino, size, mtime, ctime, mode }, FileDigest(digest)))
            }).collect();
            prop_assert_eq!(unpack(&pack(&directory)), directory);
        }

        #[test]
        fn damaged_rows_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            unpack(&bytes);
        }
    }
}
