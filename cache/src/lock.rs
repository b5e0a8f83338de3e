//! Who may do what at once: advisory locks between processes and threads, one file each below `locks/`.
//!
//! - A lock is a held `flock`; the kernel frees it when the process dies, so nothing is ever "stale".
//! - The file's text says who holds it, for those who wait; it decides nothing.
//! - The last holder removes the file while it still has the lock. Whoever locked a removed file notices that the
//!   name leads elsewhere and starts again.
//!
//! Does not order locks: who takes several must take them in an order of his own.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rbuild_image::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use crate::id::CacheKey;
use crate::path_error::{AtPath, PathError};

/// Longest pause between two attempts: how late a waiter takes over.
const PAUSE: Duration = Duration::from_millis(20);

/// The name of a lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName(String);

impl LockName {
    /// For bringing in a blob.
    pub fn blob(digest: &Digest) -> Self {
        Self(format!("blob-{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// For unpacking a layer.
    pub fn layer(diff_id: &DiffId) -> Self {
        Self(format!("layer-{}", diff_id.digest().hex()))
    }

    /// For doing a step.
    pub fn step(key: &CacheKey) -> Self {
        Self(format!("step-{}", key.digest().hex()))
    }

    /// For anything else: a kind, and a name that may hold any characters.
    pub fn other(kind: &'static str, name: &str) -> Self {
        Self(format!("{kind}-{}", Digest::sha256(name).hex()))
    }

    /// What a holder is busy with, in words: `blob sha256:0123456789ab`.
    pub fn subject(&self) -> String {
        let (kind, rest) = self.0.split_once('-').unwrap_or((&self.0, ""));
        let hex = rest.rsplit('-').next().unwrap_or(rest);
        let algorithm = rest.split_once('-').map_or("sha256", |(algorithm, _)| algorithm);
        format!("{kind} {algorithm}:{}", hex.get(..12).unwrap_or(hex))
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many may hold a lock at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Any number of shared holders.
    Shared,
    /// One.
    Exclusive,
}

/// Who holds a lock, as he said himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id, in the holder's pid namespace.
    pub pid: u32,
    /// What it is doing.
    pub command: String,
    /// Since when it holds the lock.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({}), since {:.0}", self.pid, self.command, self.since)
    }
}

/// What a waiter knows.
#[derive(Clone, Debug)]
pub struct Waiting<'a> {
    /// The lock.
    pub name: &'a LockName,
    /// Who holds it, when that can be read.
    pub holder: Option<Holder>,
    /// For how long already.
    pub waited: Duration,
}

/// Called again and again while waiting; `Break` gives up.
pub type OnWait<'a> = &'a (dyn Fn(&Waiting<'_>) -> ControlFlow<()> + Sync);

/// Waits for as long as it takes, without a word.
pub fn wait_silently(_: &Waiting<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A lock that was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The waiter was told to stop.
    #[error("stopped waiting for {}{}", name.subject(), held_by(holder.as_ref()))]
    Stopped {
        /// The lock.
        name: LockName,
        /// Who had it.
        holder: Option<Holder>,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] PathError),
}

fn held_by(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(", held by {holder}")).unwrap_or_default()
}

impl From<LockError> for io::Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Stopped { .. } => Self::new(io::ErrorKind::Interrupted, error),
            LockError::File(error) => error.into(),
        }
    }
}

/// A held lock; freed on drop.
#[derive(Debug)]
pub struct LockGuard {
    file: File,
    path: PathBuf,
    mode: LockMode,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // While others share the lock the file must stay: theirs would be a lock that nobody finds.
        let last = self.mode == LockMode::Exclusive || self.file.try_lock().is_ok();
        if last && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "lock file stays");
        }
    }
}

/// Makes locks in one directory.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    directory: PathBuf,
    command: String,
}

impl Locks {
    pub(crate) fn new(directory: PathBuf, command: String) -> Self {
        Self { directory, command }
    }

    /// Takes a lock if it is free.
    pub(crate) fn try_lock(
        &self,
        name: &LockName,
        mode: LockMode,
        now: Timestamp,
    ) -> Result<Option<LockGuard>, PathError> {
        let path = self.directory.join(&name.0);
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)?;
            let taken = match mode {
                LockMode::Shared => file.try_lock_shared(),
                LockMode::Exclusive => file.try_lock(),
            };
            match taken {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
            if leads_to(&path, &file).at("inspect", &path)? {
                let mut guard = LockGuard { file, path, mode };
                guard.sign(&self.command, now)?;
                return Ok(Some(guard));
            }
        }
    }

    /// Takes a lock, waiting for whoever has it.
    pub(crate) fn lock(
        &self,
        name: &LockName,
        mode: LockMode,
        now: &dyn Fn() -> Timestamp,
        on_wait: OnWait<'_>,
    ) -> Result<LockGuard, LockError> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(500);
        loop {
            if let Some(guard) = self.try_lock(name, mode, now())? {
                return Ok(guard);
            }
            let waiting = Waiting { name, holder: self.holder(name), waited: start.elapsed() };
            if on_wait(&waiting).is_break() {
                return Err(LockError::Stopped { name: name.clone(), holder: waiting.holder });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// Who holds a lock, as far as that can be read.
    pub(crate) fn holder(&self, name: &LockName) -> Option<Holder> {
        let text = fs::read(self.directory.join(&name.0)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Removes the files of locks that nobody holds: those of the killed.
    pub(crate) fn remove_unheld(&self) -> Result<(), PathError> {
        for entry in fs::read_dir(&self.directory).at("list", &self.directory)? {
            let path = entry.at("list", &self.directory)?.path();
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() && leads_to(&path, &file).at("inspect", &path)? {
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        Ok(())
    }
}

impl LockGuard {
    fn sign(&mut self, command: &str, now: Timestamp) -> Result<(), PathError> {
        let holder = Holder { pid: std::process::id(), command: command.to_owned(), since: now };
        let text = serde_json::to_vec(&holder).expect("a holder is plain data");
        self.file.rewind().and_then(|()| self.file.set_len(0)).at("truncate", &self.path)?;
        match self.file.write_all(&text) {
            // The lock is held all the same; a full disk must not keep anybody from pruning it.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            other => other.at("write", &self.path),
        }
    }
}

/// Whether `path` still names this open file.
pub(crate) fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok(named.ino() == open.ino() && named.dev() == open.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a whole small file from its start.
pub(crate) fn read_whole(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}
