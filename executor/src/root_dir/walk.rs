//! Where a path leads inside a root, as a path.

use std::collections::VecDeque;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rbuild_image::ContainerPath;
use rustix::io::Errno;

use super::{RootDir, is_absent};
use crate::stat::FileKind;

/// As the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// What to do about a component that does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The path leads nowhere.
    Refuse,
    /// It is taken for a directory to be.
    Keep,
}

/// Replaces every symlink of `path` by what it leads to, inside `root`. Each step is a confined lookup of its own; the
/// result is for showing and for naming, never a promise about later lookups.
pub(super) fn resolve(root: &RootDir, path: &ContainerPath, missing: Missing) -> io::Result<ContainerPath> {
    let mut links = 0;
    let mut done = ContainerPath::root();
    let mut rest: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
    while let Some(component) = rest.pop_front() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done = done.parent().unwrap_or_else(ContainerPath::root);
                continue;
            }
            _ => {}
        }
        let next = done.join(&component);
        match root.lstat(&next) {
            Ok(stat) if stat.kind == FileKind::Symlink => {}
            Ok(_) => {
                done = next;
                continue;
            }
            Err(error) if missing == Missing::Keep && is_absent(&error) => {
                done = next;
                continue;
            }
            Err(error) => return Err(error),
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = root.read_link(&next)?;
        let target = target.as_bytes();
        if target.starts_with(b"/") {
            done = ContainerPath::root();
        }
        for part in target.split(|b| *b == b'/').rev() {
            rest.push_front(part.to_vec());
        }
    }
    Ok(done)
}
