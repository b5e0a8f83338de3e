//! What a live invocation keeps from collection.
//!
//! A lease is one locked file, `leases/ID`: a line that says whose it is, then one line per thing held, appended with a
//! single `write`, one line or several. It lives exactly as long as its lock is held, so the lease of a killed process is void at once, and
//! nothing ever expires by the clock. Holding costs no transaction: a fully cached build of ten thousand steps takes
//! ten thousand holds.
//!
//! The rule for users is **hold, then look, then use** (R-22). Collection works against it in two transactions:
//!
//! ```text
//! user                              collection
//! append "snapshot 7" to lease      T1: mark from roots and leases; rows that are not reached become doomed
//! read row 7                        T2: read the leases and mark again; spare what is reached now,
//!   sound  -> use it                    delete the other doomed rows
//!   doomed -> rescue it, in a       then delete files
//!             transaction: use it
//!   gone   -> a miss
//! ```
//!
//! If the user sees a sound row, T1 had not committed, so T2 will see his line. If he sees a doomed one, T2 may have
//! read the leases before his line; then his rescue waits for T2's end and finds nothing. Else T2 sees his line, and
//! the row is his. Inside a writing transaction the mark means nothing: T2 is not running.
//!
//! `tmp/ID/` belongs to the lease: unfinished things live there, and go with it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rbuild_image::Digest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::failpoint;
use crate::id::SnapshotId;
use crate::layout::Layout;
use crate::lock::{leads_to, read_whole};
use crate::path_error::{AtPath, PathError};
use crate::removal::{remove_tree, unmount_below};

/// Something that a lease holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// A blob, present or about to be.
    Blob(Digest),
    /// A snapshot and all its parents.
    Snapshot(SnapshotId),
    /// A directory below `layers/` whose row does not exist yet.
    Layer(String),
    /// Something outside the store that must be taken down when the process dies: a control group, a network
    /// interface. Interpreted by the [`Reap`] that the store was opened with.
    Outside {
        /// Which kind of thing.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// Takes down what dead invocations left outside the store.
pub trait Reap: Send + Sync {
    /// Takes one thing down; it may be gone already. On failure the lease stays for the next attempt.
    fn reap(&self, kind: &str, name: &str) -> io::Result<()>;
}

/// Whose lease it is: the first line of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Identifier, 16 hex digits.
    pub id: String,
    /// What for.
    pub purpose: String,
    /// Process id.
    pub pid: u32,
    /// Command line, shortened.
    pub command: String,
    /// Since when.
    pub since: Timestamp,
}

/// A lease that another process may hold, as seen by a collection.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveHolds {
    pub(crate) holds: BTreeSet<Hold>,
    /// Start of the oldest live lease.
    pub(crate) oldest: Option<Timestamp>,
}

/// Purpose of the lease of a process that is done with the store, and waits to take down something outside. Whoever needs the
/// store for itself may kill it: what it would have taken down is taken down as any dead process's.
pub const WAITING: &str = "waiting";

/// Keeps what it holds from collection, until dropped.
pub struct Lease {
    info: LeaseInfo,
    layout: Layout,
    path: PathBuf,
    file: File,
    held: Mutex<BTreeSet<Hold>>,
    names: AtomicU64,
}

impl Lease {
    pub(crate) fn begin(layout: &Layout, purpose: &str, command: &str, now: Timestamp) -> Result<Self, PathError> {
        loop {
            let id = random_id().at("read randomness for", &layout.leases())?;
            let path = layout.leases().join(&id);
            let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path).at("create", &path)?;
            // Between creation and lock it looks like a dead one, and a sweep may remove it: then once more.
            match file.try_lock() {
                Ok(()) if leads_to(&path, &file).at("inspect", &path)? => {}
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
            let info = LeaseInfo {
                id,
                purpose: purpose.to_owned(),
                pid: std::process::id(),
                command: command.to_owned(),
                since: now,
            };
            failpoint::hit("lease-begin").and_then(|()| (&file).write_all(&line(&info))).at("write", &path)?;
            return Ok(Self {
                info,
                layout: layout.clone(),
                path,
                file,
                held: Mutex::default(),
                names: AtomicU64::new(0),
            });
        }
    }

    /// Whose lease it is.
    pub fn info(&self) -> &LeaseInfo {
        &self.info
    }

    /// Keeps something, from now on. Only then look whether it is there.
    pub fn hold(&self, what: Hold) -> Result<(), PathError> {
        self.hold_all([what])
    }

    /// Keeps several things for the price of one.
    pub fn hold_all(&self, what: impl IntoIterator<Item = Hold>) -> Result<(), PathError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let new: BTreeSet<Hold> = what.into_iter().filter(|what| !held.contains(what)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let lines: Vec<u8> = new.iter().flat_map(line).collect();
        failpoint::hit("lease-hold").and_then(|()| (&self.file).write_all(&lines)).at("write", &self.path)?;
        held.extend(new);
        Ok(())
    }

    /// Whether this lease holds something.
    pub fn holds(&self, what: &Hold) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(what)
    }

    /// The directory that belongs to this lease; removed with it. On the store's file system, mode 0700.
    pub fn scratch(&self) -> Result<PathBuf, PathError> {
        let path = self.layout.scratch(&self.info.id);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("create", &path),
            _ => Ok(path),
        }
    }

    /// A new name inside [`Self::scratch`], never given out before.
    pub fn scratch_name(&self, prefix: &str) -> Result<PathBuf, PathError> {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        Ok(self.scratch()?.join(format!("{prefix}-{number}")))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What cannot be removed now keeps its lease file, and the next invocation tries again.
        if let Err(error) = end(&self.layout, &self.info.id, &self.path) {
            tracing::debug!(lease = self.info.id, %error, "left for the next invocation");
        }
    }
}

/// Reaps what dead invocations left; returns how many leases were found dead. Costs one `readdir` and one `flock` per
/// lease, when nobody died.
pub(crate) fn sweep(layout: &Layout, reaper: Option<&dyn Reap>) -> Result<usize, PathError> {
    let mut dead = 0;
    for path in files(&layout.leases())? {
        let Some((mut file, true)) = probe(&path)? else { continue };
        dead += 1;
        let name = path.file_name().expect("listed files have names").to_string_lossy().into_owned();
        let (_, holds) = parse(&read_whole(&mut file).at("read", &path)?);
        let reaped = holds.iter().try_for_each(|hold| match (hold, reaper) {
            (Hold::Outside { kind, name }, Some(reaper)) => reaper.reap(kind, name),
            (Hold::Outside { .. }, None) => Err(io::ErrorKind::Unsupported.into()),
            _ => Ok(()),
        });
        match reaped.and_then(|()| end(layout, &name, &path)) {
            Ok(()) => tracing::debug!(lease = name, "reaped"),
            Err(error) => tracing::debug!(lease = name, %error, "not reaped yet"),
        }
    }
    Ok(dead)
}

/// What all live leases hold, of this process and of others.
pub(crate) fn live(layout: &Layout) -> Result<LiveHolds, PathError> {
    let mut all = LiveHolds::default();
    for path in files(&layout.leases())? {
        let Some((mut file, false)) = probe(&path)? else { continue };
        let (info, holds) = parse(&read_whole(&mut file).at("read", &path)?);
        all.holds.extend(holds);
        let since = info.map(|info| info.since);
        all.oldest = match (all.oldest, since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(all)
}

/// All live leases.
pub(crate) fn list(layout: &Layout) -> Result<Vec<LeaseInfo>, PathError> {
    let mut all = Vec::new();
    for path in files(&layout.leases())? {
        let Some((mut file, false)) = probe(&path)? else { continue };
        all.extend(parse(&read_whole(&mut file).at("read", &path)?).0);
    }
    all.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.id.cmp(&b.id)));
    Ok(all)
}

/// Kills the process of a live lease; `false` where that is not for sure the process that it names, or it does not end.
pub(crate) fn kill_holder(layout: &Layout, info: &LeaseInfo) -> bool {
    let path = layout.leases().join(&info.id);
    let Some(process) = i32::try_from(info.pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return false };
    // The number may be another process's by now, or of another namespace.
    let has_it = |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|leads| leads == path);
    let descriptors = fs::read_dir(format!("/proc/{}/fd", info.pid));
    if !descriptors.is_ok_and(|all| all.flatten().any(has_it)) {
        return false;
    }
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    pidfd_send_signal(&process, Signal::KILL).is_ok()
        && poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)) == Ok(1)
}

/// Whether a lease is alive: its lock is held.
pub(crate) fn is_live(layout: &Layout, id: &str) -> Result<bool, PathError> {
    Ok(matches!(probe(&layout.leases().join(id))?, Some((_, false))))
}

/// Opens a lease file and tells whether its owner is dead; then the file is locked, so that only one reaps it.
fn probe(path: &Path) -> Result<Option<(File, bool)>, PathError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at("open", path)?,
    };
    match file.try_lock() {
        Ok(()) => Ok(leads_to(path, &file).at("inspect", path)?.then_some((file, true))),
        Err(TryLockError::WouldBlock) => Ok(Some((file, false))),
        Err(TryLockError::Error(error)) => Err(error).at("lock", path),
    }
}

/// Removes what a lease left, then its file. The caller has the lock.
fn end(layout: &Layout, id: &str, path: &Path) -> io::Result<()> {
    let scratch = layout.scratch(id);
    if fs::symlink_metadata(&scratch).is_ok() {
        unmount_below(&scratch)?;
        remove_tree(&scratch)?;
    }
    fs::remove_file(path)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, PathError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        paths.push(entry.at("list", directory)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("leases are plain data");
    line.push(b'\n');
    line
}

/// A last line without its end was being written: its owner has not looked yet.
fn parse(text: &[u8]) -> (Option<LeaseInfo>, Vec<Hold>) {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let info = lines.next().and_then(|line| serde_json::from_slice(line).ok());
    (info, lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

fn random_id() -> io::Result<String> {
    let mut raw = [0; 8];
    getrandom::fill(&mut raw).map_err(io::Error::other)?;
    Ok(hex::encode(raw))
}
