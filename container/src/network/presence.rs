//! Who says that a running container is connected: a locked file for each, held by the process that runs it.
//!
//! An endpoint that another process makes for a running container (`network connect`) has nobody who holds its own file's
//! lock; it names the container, and lives while this file is locked.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rbuild_cache::PathError;

use crate::document::{AtPath, if_present};

/// A running container's mark, until dropped.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    _lock: File,
}

impl Presence {
    pub(super) fn take(networks: &Path, container: &str) -> Result<Self, PathError> {
        let directory = directory(networks);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", &directory),
            _ => {}
        }
        let path = directory.join(container);
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.at("open", &path)?;
            // Others hold it for a moment to look.
            file.lock().at("lock", &path)?;
            // Who swept it away meanwhile took it for a dead one's.
            if same(&path, &file).at("inspect", &path)? {
                return Ok(Self { path, _lock: file });
            }
        }
    }

    /// Whether a container is marked.
    pub(super) fn is_there(networks: &Path, container: &str) -> Result<bool, PathError> {
        let path = directory(networks).join(container);
        let Some(file) = if_present(File::open(&path)).at("open", &path)? else { return Ok(false) };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).at("lock", &path),
        }
    }

    /// Removes the marks of killed processes.
    pub(super) fn sweep(networks: &Path) -> Result<(), PathError> {
        let directory = directory(networks);
        let Some(entries) = if_present(fs::read_dir(&directory)).at("list", &directory)? else { return Ok(()) };
        for entry in entries {
            let path = entry.at("list", &directory)?.path();
            let Some(file) = if_present(File::open(&path)).at("open", &path)? else { continue };
            if file.try_lock().is_ok() && same(&path, &file).at("inspect", &path)? {
                if_present(fs::remove_file(&path)).at("remove", &path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Err(error) = if_present(fs::remove_file(&self.path)) {
            tracing::debug!(%error, "a container's mark is left for the next invocation");
        }
    }
}

fn directory(networks: &Path) -> PathBuf {
    networks.join("connected")
}

/// Whether the path still leads to this file.
fn same(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = file.metadata()?;
    Ok(if_present(fs::symlink_metadata(path))?
        .is_some_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lasts_as_long_as_its_holder() {
        let home = tempfile::tempdir().unwrap();
        let there = |name: &str| Presence::is_there(home.path(), name).unwrap();
        assert!(!there("web"));
        let held = Presence::take(home.path(), "web").unwrap();
        fs::write(home.path().join("connected/dead"), "").unwrap();
        assert!(there("web") && !there("dead"));
        Presence::sweep(home.path()).unwrap();
        assert!(there("web") && !home.path().join("connected/dead").exists());
        drop(held);
        assert!(!there("web"));
        assert_eq!(fs::read_dir(home.path().join("connected")).unwrap().count(), 0);
    }
}
