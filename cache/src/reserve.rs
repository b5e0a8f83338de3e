//! A few megabytes kept back, so that a full disk can still be emptied: deleting rows writes to the database's log,
//! and taking a lease makes a file.

use std::fs::{self, File};
use std::io;

use rustix::fs::FallocateFlags;

use crate::layout::Layout;
use crate::path_error::{AtPath, PathError};

/// What is kept back. The log of a large collection has about that size.
const SIZE: u64 = 4 << 20;

/// Whether the reserve was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserve {
    Released,
    Untouched,
}

impl Reserve {
    pub(crate) fn is_released(self) -> bool {
        self == Self::Released
    }
}

/// Gives the reserve back to the file system if that has little left.
pub(crate) fn release_if_needed(layout: &Layout) -> Result<Reserve, PathError> {
    let root = layout.root();
    let status = rustix::fs::statvfs(root).at("inspect the file system of", root)?;
    if status.f_bavail.saturating_mul(status.f_frsize) >= SIZE {
        return Ok(Reserve::Untouched);
    }
    match fs::remove_file(layout.reserve()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &layout.reserve()),
        _ => Ok(Reserve::Released),
    }
}

/// Puts a reserve aside, if there is room for it.
pub(crate) fn restore(layout: &Layout) {
    let path = layout.reserve();
    let made = File::create(&path).and_then(|file| Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE)?));
    if let Err(error) = made {
        tracing::debug!(path = %path.display(), %error, "no reserve");
        drop(fs::remove_file(&path));
    }
}
