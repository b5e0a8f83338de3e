//! What the user database of a step's root file system says, remembered from step to step.
//!
//! `USER` and `HOME` are looked up in files that may lie in any layer below a step. What a step leaves alone is in the next
//! one's root as it was: as long as no layer says anything of `/etc`, nobody looks through all of them again.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_cache::SnapshotId;
use rbuild_cache::view::{FileKind, View};
use rbuild_executor::users::{self, User, UserError};
use rbuild_image::ContainerPath;

/// Where all of them are.
pub(super) const DIRECTORY: &str = "etc";

/// The files of one root file system, as far as they were asked for; `None` for one that is not there.
type Files = Mutex<BTreeMap<ContainerPath, Option<Vec<u8>>>>;

/// The files of the root file systems of a build.
#[derive(Default)]
pub(super) struct UserFiles {
    known: Mutex<BTreeMap<SnapshotId, Arc<Files>>>,
}

/// The files of one root file system.
pub(super) struct Known(Option<Arc<Files>>);

impl UserFiles {
    /// Looks a user up in the root file system `view` of a snapshot.
    pub(super) fn lookup(
        &self,
        snapshot: Option<SnapshotId>,
        view: &View,
        user: &str,
    ) -> (Known, Result<User, UserError>) {
        let files = snapshot.and_then(|snapshot| self.known().get(&snapshot).cloned()).unwrap_or_default();
        let mut plain = true;
        let found = users::lookup_with(
            |path| {
                if let Some(known) = lock(&files).get(path) {
                    return known.clone().ok_or_else(|| io::ErrorKind::NotFound.into());
                }
                let read = view.read_regular(path.as_bytes(), users::MAX_USER_FILE)?;
                // Through a link it may be anywhere.
                plain = plain && is_plain(view, path).unwrap_or(false);
                lock(&files).insert(path.clone(), read.clone());
                read.ok_or_else(|| io::ErrorKind::NotFound.into())
            },
            user,
        );
        (Known(plain.then_some(files)), found)
    }

    /// Says that a snapshot has the same files.
    pub(super) fn same(&self, snapshot: SnapshotId, files: Known) {
        if let Some(files) = files.0 {
            self.known().insert(snapshot, files);
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SnapshotId, Arc<Files>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(files: &Files) -> MutexGuard<'_, BTreeMap<ContainerPath, Option<Vec<u8>>>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a path leads where it says.
fn is_plain(view: &View, path: &ContainerPath) -> io::Result<bool> {
    for path in [&ContainerPath::root().join(DIRECTORY.as_bytes()), path] {
        match view.lstat(path)? {
            None => return Ok(true),
            Some(stat) if stat.kind == FileKind::Symlink => return Ok(false),
            Some(_) => {}
        }
    }
    Ok(true)
}
