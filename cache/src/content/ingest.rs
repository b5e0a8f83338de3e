//! One blob on its way in, as a stream: resumable, verified, made visible whole.
//!
//! The partial file has the blob's name and lives outside any lease, so that the next attempt, of this process or
//! another one, goes on where this one stopped. The blob's lock says whose turn it is; with the last process's death
//! the next waiter takes over. What does not match its digest is thrown away entirely: nobody can tell which byte was
//! wrong.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use rbuild_image::write_behind::Begun;
use rbuild_image::{Algorithm, BlobWriter, Digest};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use sha2::Digest as _;

use super::{held_size, name, remove_if_there, sync_directories};
use crate::db::DbError;
use crate::failpoint;
use crate::lock::{LockError, LockGuard, LockMode, LockName, OnWait};
use crate::path_error::{AtPath, PathError};
use crate::store::Store;

/// Why a blob did not get in.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Other bytes than its name says.
    #[error("content does not match its digest: want {want}, got {got}")]
    Digest {
        /// Its name.
        want: Digest,
        /// What came.
        got: Digest,
    },
    /// More or fewer bytes than announced.
    #[error("blob {digest} should have {want} bytes, got {got}")]
    Size {
        /// Its name.
        digest: Digest,
        /// What was announced.
        want: u64,
        /// What came.
        got: u64,
    },
    /// Somebody else is bringing it in, and waiting was not wanted.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
}

impl From<IngestError> for io::Error {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Digest { .. } | IngestError::Size { .. } => Self::new(io::ErrorKind::InvalidData, error),
            IngestError::Lock(error) => error.into(),
            IngestError::Db(error) => error.into(),
            IngestError::File(error) => error.into(),
        }
    }
}

/// A blob on its way in.
pub(super) enum Ingest {
    /// This process writes it.
    Ours(Box<Partial>),
    /// It is there: nothing is left to do.
    Done { size: u64 },
}

pub(super) struct Partial {
    store: Store,
    digest: Digest,
    want: u64,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
    behind: Begun,
    resumed: u64,
    /// Freed last: fields drop in order.
    _lock: LockGuard,
}

impl Ingest {
    /// Waits for the blob's lock; then the blob is there, or it is ours to bring in.
    pub(super) fn begin(store: &Store, digest: Digest, want: u64, on_wait: OnWait<'_>) -> Result<Self, IngestError> {
        let lock = store.lock(&LockName::blob(&digest), LockMode::Exclusive, on_wait)?;
        if let Some(size) = held_size(store, &digest)? {
            return Ok(Self::Done { size });
        }
        // Whoever was killed between the rename and the row left the whole file without a name: it goes on from there.
        let (unnamed, path) = (store.layout().blob(&digest), store.layout().partial(&digest));
        match rustix::fs::renameat_with(CWD, &unnamed, CWD, &path, RenameFlags::NOREPLACE) {
            Err(Errno::NOENT | Errno::EXIST) => {}
            other => other.at("rename", &unnamed)?,
        }
        Self::write_under(store, digest, want, lock)
    }

    /// The same for a blob that is named already and damaged: its file is replaced.
    pub(super) fn replace(store: &Store, digest: Digest, want: u64, on_wait: OnWait<'_>) -> Result<Self, IngestError> {
        let lock = store.lock(&LockName::blob(&digest), LockMode::Exclusive, on_wait)?;
        Self::write_under(store, digest, want, lock)
    }

    fn write_under(store: &Store, digest: Digest, want: u64, lock: LockGuard) -> Result<Self, IngestError> {
        store.grows_by(want);
        let path = store.layout().partial(&digest);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut length = hasher.take_all(&mut file).at("read", &path)?;
        if length > want {
            file.set_len(0).and_then(|()| file.rewind()).at("truncate", &path)?;
            hasher = Hasher::new(digest.algorithm());
            length = 0;
        }
        let store = store.clone();
        let (resumed, behind) = (length, Begun::at(length));
        let partial = Partial { store, digest, want, path, file, hasher, length, behind, resumed, _lock: lock };
        Ok(Self::Ours(Box::new(partial)))
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Ours(partial) => partial.write(bytes),
            Self::Done { .. } if bytes.is_empty() => Ok(0),
            Self::Done { size } => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the blob is complete with {size} bytes")))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Ingest {
    fn resume_offset(&self) -> u64 {
        match self {
            Self::Ours(partial) => partial.resumed,
            Self::Done { size } => *size,
        }
    }

    fn commit(self: Box<Self>) -> io::Result<()> {
        match *self {
            Self::Ours(partial) => Ok(partial.commit()?),
            Self::Done { .. } => Ok(()),
        }
    }
}

impl Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One byte too many is taken, so that commit can tell; no more, so that a liar cannot fill the disk.
        if self.length > self.want {
            return Err(IngestError::Size { digest: self.digest, want: self.want, got: self.length }.into());
        }
        let room = usize::try_from(self.want - self.length + 1).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        let written = self.file.write(bytes).at("write", &self.path)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        self.behind.reach(&self.file, self.length);
        Ok(written)
    }

    fn commit(mut self: Box<Self>) -> Result<(), IngestError> {
        if self.length < self.want {
            return Err(IngestError::Size { digest: self.digest, want: self.want, got: self.length });
        }
        let got = self.hasher.finish();
        if self.length > self.want || got != self.digest {
            remove_if_there(&self.path)?;
            return Err(match self.length > self.want {
                true => IngestError::Size { digest: self.digest, want: self.want, got: self.length },
                false => IngestError::Digest { want: self.digest, got },
            });
        }
        failpoint::hit("ingest-sync").and_then(|()| self.file.sync_all()).at("sync", &self.path)?;
        let target = self.store.layout().blob(&self.digest);
        failpoint::hit("ingest-rename").and_then(|()| fs::rename(&self.path, &target)).at("rename", &self.path)?;
        failpoint::hit("ingest-sync-directory").at("sync", &target)?;
        sync_directories(&self.store, std::iter::once(self.digest))?;
        failpoint::hit("ingest-name").at("name", &target)?;
        name(&self.store, &[(self.digest, self.length)])?;
        failpoint::hit("ingest-done").at("name", &target)?;
        Ok(())
    }
}

/// Either hash function, in steps.
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(&mut self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_sha256(hasher.finalize_reset().into()),
            Self::Sha512(hasher) => {
                let text = format!("sha512:{}", hex::encode(hasher.finalize_reset()));
                text.parse().expect("64 bytes in hex are a SHA-512 digest")
            }
        }
    }

    /// Takes in a whole file; how many bytes it has. Leaves it positioned at its end.
    fn take_all(&mut self, file: &mut File) -> io::Result<u64> {
        let mut buffer = vec![0; 256 * 1024];
        file.seek(SeekFrom::Start(0))?;
        let mut length = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(length),
                Ok(read) => {
                    self.update(&buffer[..read]);
                    length += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The digest of a file's bytes, and how many there are.
pub(crate) fn digest_file(file: &mut File, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let length = hasher.take_all(file)?;
    Ok((hasher.finish(), length))
}
