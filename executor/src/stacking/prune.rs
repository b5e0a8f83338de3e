//! A copied tree becomes the upper directory that overlayfs would have left: what did not change goes, what is gone gets a
//! whiteout.
//!
//! What changed is told by the time of the last change of each inode, which no program can set. A directory counts as the one
//! that was copied only if it was not made since, since numbers of inodes are used again.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rbuild_image::ContainerPath;
use rustix::fs::{AtFlags, StatxFlags};

use super::merge::{Contents, Known, Shown};
use super::set_opaque;
use crate::plan::OverlayMarks;
use crate::root_dir::{DirFd, Node};
use crate::stat::{FileKind, Stat, Timestamp};

/// What all levels need to know.
#[derive(Clone, Copy)]
pub(super) struct Since<'a> {
    /// Nothing that was changed later is as it was copied.
    pub(super) copied: Timestamp,
    /// Directories in which mount points were made and removed, which left their other attributes as they were.
    pub(super) visited: &'a [ContainerPath],
    /// How directories are marked.
    pub(super) marks: OverlayMarks,
}

/// What becomes of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
}

/// Prunes a directory; whether anything stays in it.
pub(super) fn prune(dir: &DirFd, path: &ContainerPath, contents: &Contents, since: Since<'_>) -> io::Result<bool> {
    let times = dir.metadata()?;
    let mut stays = false;
    let mut left: Vec<_> = contents.names.iter().filter(|(_, known)| known.in_lower).map(|(name, _)| name).collect();
    for entry in dir.list()? {
        left.retain(|name| **name != entry.name);
        let stat = dir.lstat(&entry.name)?;
        let fate = match contents.names.get(&entry.name) {
            Some(Known { shown: Some(shown), .. }) if is_copy(dir, &entry.name, &stat, shown, since)? => {
                keep(Place { dir, name: &entry.name, path }, &stat, shown, since)?
            }
            known => {
                if stat.kind == FileKind::Directory && known.is_some_and(|known| known.in_lower) {
                    set_opaque(dir, &entry.name, since.marks)?;
                }
                Fate::Stays
            }
        };
        stays |= fate == Fate::Stays;
    }
    for name in left {
        dir.mknod(name, Node::CharDevice { major: 0, minor: 0 }, 0)?;
        stays = true;
    }
    // Removing what did not change must not look like a change.
    dir.set_own_times(times.accessed, times.modified)?;
    Ok(stays)
}

/// A name in a directory.
struct Place<'a> {
    dir: &'a DirFd,
    name: &'a OsStr,
    /// The directory's path in the tree.
    path: &'a ContainerPath,
}

/// What becomes of something that was copied, changed or not.
fn keep(place: Place<'_>, stat: &Stat, shown: &Shown, since: Since<'_>) -> io::Result<Fate> {
    let Place { dir, name, path } = place;
    let mut changed = shown.from_upper || stat.changed > since.copied;
    if stat.kind != FileKind::Directory {
        if !changed {
            dir.unlink(name)?;
        }
        return Ok(if changed { Fate::Stays } else { Fate::Goes });
    }
    let path = path.join(name.as_bytes());
    if changed && !shown.from_upper && since.visited.contains(&path) {
        let seen = |stat: &Stat| (stat.mode, stat.uid, stat.gid, stat.modified);
        changed = seen(stat) != seen(&shown.stat);
    }
    if prune(&dir.open_dir(name)?, &path, &shown.below, since)? || changed {
        if shown.below.opaque {
            set_opaque(dir, name, since.marks)?;
        }
        return Ok(Fate::Stays);
    }
    dir.remove_dir(name)?;
    Ok(Fate::Goes)
}

/// Whether it is the very thing that was copied, however changed.
fn is_copy(dir: &DirFd, name: &OsStr, stat: &Stat, shown: &Shown, since: Since<'_>) -> io::Result<bool> {
    if stat.kind != shown.stat.kind || stat.inode != shown.stat.inode {
        return Ok(false);
    }
    if stat.kind != FileKind::Directory || stat.changed <= since.copied {
        return Ok(true);
    }
    // Where the file system does not tell when it was made, it is taken for a new one: larger, but right.
    Ok(made(dir, name)?.is_some_and(|made| made <= since.copied))
}

fn made(dir: &DirFd, name: &OsStr) -> io::Result<Option<Timestamp>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(dir, name, flags, StatxFlags::BTIME)?;
    let time = Timestamp { seconds: stat.stx_btime.tv_sec, nanoseconds: stat.stx_btime.tv_nsec };
    Ok(StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME).then_some(time))
}
