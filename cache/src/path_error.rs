//! I/O errors that say what was being done, and to which path.

use std::io;
use std::path::{Path, PathBuf};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct PathError {
    /// What was tried, as a verb: `open`, `rename`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl PathError {
    /// Whether the disk (or the quota) is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl From<PathError> for io::Error {
    fn from(error: PathError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Attaches the action and the path to an I/O result.
pub(crate) trait AtPath<T> {
    /// Turns the error into a [`PathError`].
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> AtPath<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { action, path: path.to_owned(), source: source.into() })
    }
}
