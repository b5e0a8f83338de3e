//! Giving a file its owner, mode, attributes and time, in the order in which they do not undo one another.

use std::os::fd::{AsFd, BorrowedFd};

use rbuild_executor::user_namespace::{Powers, powers};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::snapshot::xattr;
use crate::view::{FileKind, Stat, Timestamp, Xattrs};

/// What a new file gets besides its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; `None` is the time of writing.
    pub mtime: Option<Timestamp>,
    /// Extended attributes; those that a layer may not set are left out.
    pub xattrs: Xattrs,
}

impl From<&Stat> for Metadata {
    fn from(stat: &Stat) -> Self {
        Self { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: Some(stat.mtime), xattrs: Xattrs::new() }
    }
}

impl Metadata {
    fn times(&self) -> Option<Timestamps> {
        self.mtime.map(|mtime| Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) },
        })
    }

    /// Where there is but one id, everything belongs to it.
    fn owner(&self) -> (Uid, Gid) {
        match powers() {
            Powers::All | Powers::Mapped => (Uid::from_raw(self.uid), Gid::from_raw(self.gid)),
            Powers::SingleId => (Uid::ROOT, Gid::ROOT),
        }
    }

    /// Applies to an open file. Owner before mode (a chown clears setuid), both before attributes (a chown clears file
    /// capabilities), the time last.
    pub(crate) fn apply_to_file(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let (uid, gid) = self.owner();
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode & 0o7777))?;
        for (name, value) in self.xattrs.iter().filter(|(name, _)| xattr::may_be_applied(name)) {
            ignore_unsupported(rustix::fs::fsetxattr(file, name.as_slice(), value, rustix::fs::XattrFlags::empty()))?;
        }
        match self.times() {
            Some(times) => rustix::fs::futimens(file, &times),
            None => Ok(()),
        }
    }

    /// Applies to `name` in `dir`, which is of `kind` and never followed.
    pub(crate) fn apply_at(&self, dir: impl AsFd, name: &[u8], kind: FileKind) -> Result<(), Errno> {
        let (uid, gid) = self.owner();
        rustix::fs::chownat(dir.as_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileKind::Symlink {
            rustix::fs::chmodat(dir.as_fd(), name, Mode::from_raw_mode(self.mode & 0o7777), AtFlags::empty())?;
        }
        // The kernel allows `user.*` on files and directories only.
        let plain = matches!(kind, FileKind::File | FileKind::Directory);
        for (attribute, value) in self.xattrs.iter().filter(|(attribute, _)| xattr::may_be_applied(attribute)) {
            if plain || !attribute.starts_with(b"user.") {
                ignore_unsupported(xattr::set(dir.as_fd(), name, attribute, value))?;
            }
        }
        match self.times() {
            Some(times) => rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
            None => Ok(()),
        }
    }
}

/// A file system without this kind of attribute is no reason to refuse a layer (containerd decides alike).
fn ignore_unsupported(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOTSUP) => Ok(()),
        other => other,
    }
}
