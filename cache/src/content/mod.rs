//! Blobs: content named by its digest, verified before it is visible, immutable after.
//!
//! The way in, in this order: private file, verified; sync of the file; rename; sync of the directory; row.
//! All of it under the blob's lock, which also keeps a collection from removing a file that is being named again.

mod adopt;
mod ingest;
mod put;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rbuild_image::{BlobSink, BlobSource, BlobWriter, Descriptor, Digest};

use crate::db::{DbError, Durability, Micros, Text, Tx};
use crate::lease::{Hold, Lease};
use crate::lock::OnWait;
use crate::path_error::{AtPath, PathError};
use crate::store::Store;

pub use ingest::IngestError;
pub(crate) use ingest::digest_file;

/// Why a blob cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It is not in the store.
    #[error("blob {digest} is not in the store")]
    Missing {
        /// Which one.
        digest: Digest,
    },
    /// It is larger than the reader allows.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here")]
    TooLarge {
        /// Which one.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
}

impl From<BlobError> for io::Error {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Missing { .. } => Self::new(io::ErrorKind::NotFound, error),
            BlobError::TooLarge { .. } => Self::new(io::ErrorKind::FileTooLarge, error),
            BlobError::Db(error) => error.into(),
            BlobError::File(error) => error.into(),
        }
    }
}

/// A blob, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Since when it is here.
    pub created_at: Timestamp,
}

/// Reads blobs.
#[derive(Clone, Copy, Debug)]
pub struct Blobs<'a> {
    store: &'a Store,
}

impl Store {
    /// The blobs, for reading what something keeps: an image, a lease.
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs { store: self }
    }

    /// The blobs, for taking in: `lease` keeps what is asked for and what is written.
    pub fn blobs_for<'a>(&'a self, lease: &'a Lease, on_wait: OnWait<'a>) -> LeasedBlobs<'a> {
        LeasedBlobs { store: self, lease, on_wait }
    }
}

impl Blobs<'_> {
    /// Opens a blob's file.
    pub fn open_file(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.store.layout().blob(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Missing { digest: *digest }),
            other => Ok(other.at("open", &path)?),
        }
    }

    /// Opens the file of a blob that is being brought in, or was just now. What it holds is not verified; who brings it
    /// says how much of it counts.
    pub fn open_arriving(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.store.layout().partial(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_file(digest),
            other => Ok(other.at("open", &path)?),
        }
    }

    /// Reads a small blob whole.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let mut file = self.open_file(digest)?;
        let path = self.store.layout().blob(digest);
        let size = file.metadata().at("inspect", &path)?.len();
        if size > limit {
            return Err(BlobError::TooLarge { digest: *digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes).at("read", &path)?;
        Ok(bytes)
    }

    /// How many bytes a blob has.
    pub fn len(&self, digest: &Digest) -> Result<u64, BlobError> {
        let found = self.store.db().read(|tx| size(tx, digest))?;
        found.ok_or(BlobError::Missing { digest: *digest })
    }

    /// All blobs, by digest.
    pub fn list(&self) -> Result<Vec<BlobInfo>, DbError> {
        self.store.db().read(|tx| {
            tx.all("SELECT digest, size, created_at FROM blobs WHERE doomed = 0 ORDER BY digest", [], |row| {
                let (Text(digest), Micros(created_at)) = (row.get(0)?, row.get(2)?);
                Ok(BlobInfo { digest, size: row.get(1)?, created_at })
            })
        })
    }
}

impl BlobSource for Blobs<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.open_file(digest)?))
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        Ok(self.len(digest)?)
    }
}

/// Reads and takes in blobs on behalf of a lease.
#[derive(Clone, Copy)]
pub struct LeasedBlobs<'a> {
    store: &'a Store,
    lease: &'a Lease,
    on_wait: OnWait<'a>,
}

impl LeasedBlobs<'_> {
    /// Takes in bytes that are at hand; durable when this returns.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, IngestError> {
        Ok(self.put_all(&[bytes])?[0])
    }

    /// Takes in several documents for the price of one: their digests, in the order given.
    pub fn put_all(&self, documents: &[&[u8]]) -> Result<Vec<Digest>, IngestError> {
        put::put_all(self.store, self.lease, self.on_wait, documents)
    }

    /// Takes in a whole file of this file system under the digest that its writer found out; the file keeps its name, too,
    /// and must not change any more.
    pub fn adopt(&self, file: &Path, digest: &Digest, size: u64) -> Result<(), IngestError> {
        adopt::adopt(self.store, self.lease, self.on_wait, file, digest, size)
    }

    /// Whether the lease has a blob now: holds it, then looks.
    pub fn has(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.lease.hold(Hold::Blob(*digest))?;
        Ok(held_size(self.store, digest)?.is_some())
    }
}

impl BlobSource for LeasedBlobs<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.store.blobs().open(digest)
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        self.store.blobs().size(digest)
    }
}

impl BlobSink for LeasedBlobs<'_> {
    fn contains(&self, digest: &Digest) -> io::Result<bool> {
        Ok(self.has(digest)?)
    }

    fn begin(&self, expected: &Descriptor) -> io::Result<Box<dyn BlobWriter>> {
        self.lease.hold(Hold::Blob(expected.digest))?;
        Ok(Box::new(ingest::Ingest::begin(self.store, expected.digest, expected.size, self.on_wait)?))
    }
}

/// Takes in a blob that is named already and damaged. A lease holds it.
pub(crate) fn begin_replacing(
    store: &Store,
    digest: Digest,
    size: u64,
    on_wait: OnWait<'_>,
) -> Result<Box<dyn BlobWriter>, IngestError> {
    Ok(Box::new(ingest::Ingest::replace(store, digest, size, on_wait)?))
}

fn size(tx: &Tx<'_>, digest: &Digest) -> Result<Option<u64>, DbError> {
    tx.first("SELECT size FROM blobs WHERE digest = ?1", [Text(*digest)], |row| row.get(0))
}

/// Whether a blob has a row.
pub(crate) fn blob_is_named(tx: &Tx<'_>, digest: &Digest) -> Result<bool, DbError> {
    Ok(size(tx, digest)?.is_some())
}

/// The size of a blob that a live lease holds already, if it is there and will stay.
fn held_size(store: &Store, digest: &Digest) -> Result<Option<u64>, DbError> {
    let sql = "SELECT size, doomed FROM blobs WHERE digest = ?1";
    let found = store.db().read(|tx| tx.first(sql, [Text(digest)], |row| Ok((row.get(0)?, row.get(1)?))))?;
    match found {
        Some((_, true)) => store.rescue_blob(digest),
        other => Ok(other.map(|(size, _)| size)),
    }
}

/// Names durable files. What a collection had its eye on is spared.
pub(crate) fn name(store: &Store, blobs: &[(Digest, u64)]) -> Result<(), DbError> {
    let now = store.now();
    store.db().write(Durability::Lazy, |tx| {
        for (digest, size) in blobs {
            tx.execute(
                "INSERT INTO blobs (digest, size, created_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (digest) DO UPDATE SET doomed = 0",
                (Text(*digest), size, Micros(now)),
            )?;
        }
        Ok(())
    })
}

/// Syncs the content directories of these digests.
fn sync_directories(store: &Store, digests: impl Iterator<Item = Digest>) -> Result<(), PathError> {
    let mut directories: Vec<PathBuf> = digests.map(|digest| store.layout().blobs(digest.algorithm())).collect();
    directories.sort();
    directories.dedup();
    for directory in directories {
        File::open(&directory).and_then(|directory| directory.sync_all()).at("sync", &directory)?;
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), PathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}
