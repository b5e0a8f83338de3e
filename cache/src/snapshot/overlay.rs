//! How a layer directory says "not here any more": overlayfs's whiteouts and opaque marks.
//!
//! A whiteout is a character device 0:0. An opaque directory has the attribute `trusted.overlay.opaque` = `y`
//! (`user.overlay.opaque` where the store's owner may not write trusted attributes; such layers are mounted with
//! `userxattr`). overlayfs ignores an opaque mark on a layer's root, so that one is never written: see
//! [`super::writer::LayerWriter::hide_all`].

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, makedev};
use rustix::io::Errno;

use super::xattr;

const TRUSTED_OPAQUE: &[u8] = b"trusted.overlay.opaque";
const USER_OPAQUE: &[u8] = b"user.overlay.opaque";

/// Whether the directory `name` in `dir` hides the directories below it.
///
/// `y` is opaque; `x`, which newer kernels write, only announces whiteouts kept as attributes below.
pub(crate) fn is_opaque(dir: impl AsFd, name: &[u8]) -> Result<bool, Errno> {
    for attribute in [TRUSTED_OPAQUE, USER_OPAQUE] {
        if xattr::get(dir.as_fd(), name, attribute)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Marks the directory `name` in `dir` opaque.
pub(crate) fn set_opaque(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match xattr::set(dir.as_fd(), name, TRUSTED_OPAQUE, b"y") {
        Err(Errno::PERM) => xattr::set(dir, name, USER_OPAQUE, b"y"),
        other => other,
    }
}

/// Makes the whiteout `name` in `dir`.
pub(crate) fn make_whiteout(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
}
