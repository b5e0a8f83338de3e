//! Reading a layer directory whole: every name with its metadata, marks translated, in the order of a layer's tar.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io;

use rayon::prelude::*;
use rustix::io::Errno;

use super::layer_dir::{LayerDir, names};
use super::{beneath, overlay, xattr};
use crate::view::{FileBytes, FileKind, Stat, Xattrs};

/// One name in a layer directory.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    /// Relative to the layer's root, without a leading slash; never empty.
    pub(super) path: Vec<u8>,
    pub(super) stat: Stat,
    /// A directory that hides those below it.
    pub(super) opaque: bool,
    /// Attributes that are content.
    pub(super) xattrs: Xattrs,
    /// The target, for a symlink.
    pub(super) target: Vec<u8>,
}

impl Scanned {
    pub(super) fn is_whiteout(&self) -> bool {
        self.stat.kind.is_whiteout_device()
    }
}

/// How much is read of each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Only what `statx` says.
    Stat,
    /// Also marks, attributes and link targets.
    Full,
}

/// Everything below the layer's root, directories before their entries. Works level by level, so that neither stack nor
/// descriptors depend on the depth.
pub(super) fn scan(layer: &LayerDir, detail: Detail) -> io::Result<Vec<Scanned>> {
    let mut found = Vec::new();
    let mut level = vec![Vec::new()];
    while !level.is_empty() {
        let listed: Vec<Vec<Scanned>> =
            level.par_iter().map(|path| scan_directory(layer, path, detail)).collect::<io::Result<_>>()?;
        level = listed
            .iter()
            .flatten()
            .filter(|entry| entry.stat.kind.is_directory())
            .map(|entry| entry.path.clone())
            .collect();
        found.extend(listed.into_iter().flatten());
    }
    found.par_sort_unstable_by(|a, b| compare_paths(&a.path, &b.path));
    Ok(found)
}

fn scan_directory(layer: &LayerDir, path: &[u8], detail: Detail) -> io::Result<Vec<Scanned>> {
    let dir = beneath::open_dir(layer.fd()?, path)?;
    let mut entries = Vec::new();
    for name in names(&dir)? {
        let stat = Stat::at(&dir, &name)?;
        if stat.kind == FileKind::Socket {
            continue; // No layer can hold one.
        }
        let (mut opaque, mut xattrs, mut target) = (false, Xattrs::new(), Vec::new());
        match stat.kind {
            _ if detail == Detail::Stat => {}
            FileKind::Directory => opaque = overlay::is_opaque(&dir, &name)?,
            // Only files carry the attributes that layers have.
            FileKind::File => xattrs = xattr::read(&dir, &name, xattr::is_content)?,
            FileKind::Symlink => target = rustix::fs::readlinkat(&dir, name.as_slice(), Vec::new())?.into_bytes(),
            _ => {}
        }
        let mut whole = path.to_vec();
        if !whole.is_empty() {
            whole.push(b'/');
        }
        whole.extend_from_slice(&name);
        entries.push(Scanned { path: whole, stat, opaque, xattrs, target });
    }
    Ok(entries)
}

/// Bytes that the entries of a layer take on disk, hard links counted once.
pub(super) fn disk_usage(entries: &[Scanned]) -> u64 {
    let mut seen = HashSet::new();
    entries
        .iter()
        .filter(|entry| entry.stat.links < 2 || entry.stat.kind.is_directory() || seen.insert(entry.stat.inode))
        .map(|entry| entry.stat.blocks * 512)
        .sum()
}

/// Byte order of names, directory by directory: the order of a depth-first walk, which BuildKit's layers have.
pub(crate) fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// The file's bytes, opened without following anything.
pub(super) fn open_file(layer: &LayerDir, path: &[u8]) -> Result<FileBytes, Errno> {
    use rustix::fs::OFlags;
    beneath::open(layer.fd()?, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
        .map(|fd| std::fs::File::from(fd).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_right_before_its_entries() {
        let mut paths = ["a.txt", "a/b", "b", "a", "a/b/c", "a/b-", "a-"];
        paths.sort_by(|a, b| compare_paths(a.as_bytes(), b.as_bytes()));
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a/b-", "a-", "a.txt", "b"]);
    }
}
