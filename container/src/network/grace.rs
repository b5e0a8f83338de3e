//! The moment that a bridge outlives its last endpoint.
//!
//! The kernel takes longer to remove a bridge than a short container lives, and the next one wants it again. So a container that
//! ends leaves the bridge of its networks warm; when its end is known to whoever waits for it, its monitor goes on for the
//! moment and removes what nobody has taken up. One process for each network does so, the *keeper*; the others end at once.
//!
//! ```text
//! networks/ID/ warm      bridge and rules are whole, and nobody has them; removed by whoever joins
//!              keeper    held by the process that takes them down
//! ```
//!
//! - Who is keeper, and that one stops to be it, is decided under the network's lock: a network that nobody has is kept by
//!   somebody, or by the lease of a dead one.
//! - No clock is asked: a network is idle when its mark is the same before and after a pause.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rbuild_cache::PathError;

use super::error::NetworkError;
use super::live::Live;
use super::record::NetworkId;
use super::store;
use crate::document::{AtPath, if_present};

const WARM: &str = "warm";
const KEEPER: &str = "keeper";

/// Says that bridge and rules are whole, while nobody has them. Under the network's lock.
pub(super) fn leave_warm(directory: &Path) -> Result<(), PathError> {
    let path = directory.join(WARM);
    // A new file each time, by which the keeper sees that somebody was here.
    if_present(fs::remove_file(&path)).at("remove", &path)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map(drop).at("create", &path)
}

/// Whether bridge and rules were left whole; from now on nobody relies on that. Under the network's lock.
pub(super) fn take_warm(directory: &Path) -> Result<bool, PathError> {
    let path = directory.join(WARM);
    Ok(if_present(fs::remove_file(&path)).at("remove", &path)?.is_some())
}

/// Takes a network down that nobody has for a moment, unless another process is there to do it. Returns then.
pub(super) fn outlast(networks: &Path, owner: &str, id: &NetworkId, linger: Duration) -> Result<(), NetworkError> {
    let directory = networks.join(id.as_str());
    let mut keeper = None;
    let mut before = None;
    let mut bridge = id.bridge();
    loop {
        let live = match Live::lock(&directory, id, owner) {
            // The whole store may be gone; what it had on this host goes, too.
            Err(NetworkError::NotFound { .. }) => {
                return super::live::take_down_lost(&directory, owner, id, &bridge);
            }
            other => other?,
        };
        if !live.endpoints()?.is_empty() {
            // Whoever leaves last looks for a keeper.
            drop((keeper, live));
            return Ok(());
        }
        if keeper.is_none() {
            keeper = become_keeper(&directory)?;
        }
        if keeper.is_none() {
            return Ok(());
        }
        if let Some(network) = store::load(&directory)? {
            bridge = network.bridge();
        }
        let mark = mark(&directory)?;
        if mark.is_none() || mark == before {
            let done = live.take_down(&bridge);
            drop((keeper, live));
            return done;
        }
        before = mark;
        drop(live);
        std::thread::sleep(linger);
    }
}

fn become_keeper(directory: &Path) -> Result<Option<File>, PathError> {
    let path = directory.join(KEEPER);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).at("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).at("lock", &path),
    }
}

/// What is different whenever somebody else left the network warm.
fn mark(directory: &Path) -> Result<Option<(u64, i64, i64)>, PathError> {
    let path = directory.join(WARM);
    let found = if_present(fs::symlink_metadata(&path)).at("inspect", &path)?;
    Ok(found.map(|file| (file.ino(), file.mtime(), file.mtime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_taken_once_and_a_new_one_is_another() {
        let home = tempfile::tempdir().unwrap();
        assert!(!take_warm(home.path()).unwrap());
        leave_warm(home.path()).unwrap();
        let first = mark(home.path()).unwrap();
        assert!(first.is_some());
        assert_eq!(mark(home.path()).unwrap(), first);
        std::thread::sleep(Duration::from_millis(20));
        leave_warm(home.path()).unwrap();
        assert_ne!(mark(home.path()).unwrap(), first);
        assert!(take_warm(home.path()).unwrap() && !take_warm(home.path()).unwrap());
    }

    #[test]
    fn there_is_one_keeper() {
        let home = tempfile::tempdir().unwrap();
        let held = become_keeper(home.path()).unwrap();
        assert!(held.is_some() && become_keeper(home.path()).unwrap().is_none());
        drop(held);
        assert!(become_keeper(home.path()).unwrap().is_some());
    }
}
