//! What distinguishes two file trees, path by path: between two images, or between a container and its image.
//!
//! Both are read as merged views: nothing is mounted, no symlink is followed, special files are never opened.

use std::io::{self, Read};

use rbuild_cache::view::{FileKind, Stat, View};
use rbuild_image::ContainerPath;

/// Read at once while contents are compared.
const CHUNK: usize = 128 * 1024;

/// When two regular files of equal metadata count as different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparing {
    /// When their bytes differ.
    Bytes,
    /// When they are not the very same file: one tree is the other one with changes on top.
    Identity,
}

/// What differs of a path that both trees have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aspect {
    /// One is a file, the other a directory, and so on.
    Type,
    /// The bytes.
    Content,
    /// Where the symlink leads.
    Target,
    /// Permissions.
    Mode,
    /// User or group.
    Owner,
    /// Extended attributes, file capabilities among them.
    Attributes,
    /// The time of the last modification.
    Time,
}

impl Aspect {
    /// Its name in lists.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Content => "content",
            Self::Target => "target",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Attributes => "xattrs",
            Self::Time => "time",
        }
    }
}

/// A path that is not the same in both trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileChange {
    /// Where.
    pub(crate) path: ContainerPath,
    /// What the first tree has there.
    pub(crate) before: Option<Stat>,
    /// What the second tree has there.
    pub(crate) after: Option<Stat>,
    /// What differs where both have something; in the order of [`Aspect`].
    pub(crate) aspects: Vec<Aspect>,
}

/// Calls `visit` for every path that differs, parents before their entries, names in byte order.
pub(crate) fn compare<E: From<io::Error>>(
    before: &View,
    after: &View,
    comparing: Comparing,
    visit: &mut dyn FnMut(FileChange) -> Result<(), E>,
) -> Result<(), E> {
    let root = ContainerPath::root();
    let mut todo = vec![(root.clone(), before.lstat(&root)?, after.lstat(&root)?)];
    while let Some((path, old, new)) = todo.pop() {
        let aspects = match (&old, &new) {
            (Some(old), Some(new)) => aspects(before, after, &path, (old, new), comparing)?,
            _ => Vec::new(),
        };
        if old.is_some() != new.is_some() || !aspects.is_empty() {
            visit(FileChange { path: path.clone(), before: old, after: new, aspects })?;
        }
        let is_directory = |stat: &Option<Stat>| stat.is_some_and(|stat| stat.kind.is_directory());
        let list = |view: &View, wanted: bool| if wanted { view.list(&path) } else { Ok(Vec::new()) };
        let (mut old, mut new) = (
            list(before, is_directory(&old))?.into_iter().peekable(),
            list(after, is_directory(&new))?.into_iter().peekable(),
        );
        let first = todo.len();
        loop {
            let name = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(one), None) | (None, Some(one)) => one.name.clone(),
                (Some(a), Some(b)) => a.name.clone().min(b.name.clone()),
            };
            let a = old.next_if(|entry| entry.name == name).map(|entry| entry.stat);
            let b = new.next_if(|entry| entry.name == name).map(|entry| entry.stat);
            todo.push((path.join(&name), a, b));
        }
        todo[first..].reverse();
    }
    Ok(())
}

fn aspects(
    before: &View,
    after: &View,
    path: &ContainerPath,
    (old, new): (&Stat, &Stat),
    comparing: Comparing,
) -> io::Result<Vec<Aspect>> {
    let mut found = Vec::new();
    let same_file = old.inode == new.inode;
    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
        return Ok(vec![Aspect::Type]);
    }
    let differs = match (old.kind, comparing) {
        (FileKind::File, _) if same_file => false,
        (FileKind::File, Comparing::Identity) => true,
        (FileKind::File, Comparing::Bytes) => old.size != new.size || !same_bytes(before, after, path)?,
        (FileKind::Symlink, _) => !same_file && before.read_link(path)? != after.read_link(path)?,
        // Numbers of devices.
        _ => old.kind != new.kind,
    };
    if differs {
        found.push(if old.kind == FileKind::Symlink { Aspect::Target } else { Aspect::Content });
    }
    if old.mode != new.mode && old.kind != FileKind::Symlink {
        found.push(Aspect::Mode);
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        found.push(Aspect::Owner);
    }
    if !same_file && before.xattrs(path)? != after.xattrs(path)? {
        found.push(Aspect::Attributes);
    }
    if old.mtime != new.mtime {
        found.push(Aspect::Time);
    }
    Ok(found)
}

fn same_bytes(before: &View, after: &View, path: &ContainerPath) -> io::Result<bool> {
    let (mut a, mut b) = (before.open(path)?, after.open(path)?);
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let (m, n) = (fill(&mut a, &mut one)?, fill(&mut b, &mut other)?);
        if one[..m] != other[..n] {
            return Ok(false);
        }
        if m < CHUNK {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match from.read(&mut buffer[at..])? {
            0 => break,
            n => at += n,
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_cache::snapshot::{Content, LayerWriter, Metadata};
    use rbuild_cache::{OpenOptions, SnapshotId, Store};

    struct Trees {
        _home: tempfile::TempDir,
        store: Store,
    }

    impl Trees {
        fn make(&self, parent: Option<SnapshotId>, write: impl FnOnce(&mut LayerWriter)) -> SnapshotId {
            let lease = self.store.lease("test").unwrap();
            let active = self.store.snapshots().prepare(parent, &lease).unwrap();
            let mut writer = active.writer().unwrap();
            write(&mut writer);
            writer.finish().unwrap();
            drop(writer);
            let id = active.commit(&lease).unwrap().id();
            // Kept for the whole test: nothing else leads to it.
            std::mem::forget(lease);
            id
        }

        fn changes(&self, a: SnapshotId, b: SnapshotId, comparing: Comparing) -> Vec<String> {
            let snapshots = self.store.snapshots();
            let (a, b) = (snapshots.view(Some(a)).unwrap(), snapshots.view(Some(b)).unwrap());
            let mut found = Vec::new();
            compare::<io::Error>(&a, &b, comparing, &mut |change| {
                let names: Vec<_> = change.aspects.iter().map(|aspect| aspect.name()).collect();
                let mark = match (change.before, change.after) {
                    (None, _) => "A",
                    (_, None) => "D",
                    _ => "C",
                };
                found.push(format!("{mark} {} {}", change.path, names.join(",")).trim_end().to_owned());
                Ok(())
            })
            .unwrap();
            found
        }
    }

    fn metadata(mode: u32) -> Metadata {
        let mtime = rbuild_cache::view::Timestamp { seconds: 1000, nanoseconds: 0 };
        Metadata { mode, mtime: Some(mtime), ..Metadata::default() }
    }

    fn file(writer: &mut LayerWriter, path: &str, mode: u32, text: &str) {
        writer.file(&ContainerPath::new(path), &metadata(mode), Content::Bytes(text.as_bytes())).unwrap();
    }

    #[test]
    fn every_kind_of_change_is_named() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let trees = Trees { _home: home, store };
        let write = |writer: &mut LayerWriter, changed: bool| {
            let pick = |a: &'static str, b: &'static str| if changed { b } else { a };
            file(writer, "/same", 0o644, "same");
            file(writer, "/content", 0o644, pick("one", "two"));
            file(writer, "/longer", 0o644, pick("one", "one and more"));
            file(writer, "/mode", if changed { 0o755 } else { 0o644 }, "x");
            let link = ContainerPath::new("/link");
            writer.symlink(&link, pick("a", "b").as_bytes(), &metadata(0o777)).unwrap();
            writer.make_directory(&ContainerPath::new(pick("/old", "/new")), &metadata(0o755)).unwrap();
            file(writer, pick("/old/f", "/new/f"), 0o644, "f");
            if changed {
                writer.make_directory(&ContainerPath::new("/type"), &metadata(0o755)).unwrap();
            } else {
                file(writer, "/type", 0o644, "file");
            }
            writer.set_directory_metadata(&ContainerPath::root(), &metadata(0o755)).unwrap();
        };
        let a = trees.make(None, |writer| write(writer, false));
        let b = trees.make(None, |writer| write(writer, true));
        let found = trees.changes(a, b, Comparing::Bytes);
        assert_eq!(
            found,
            [
                "C /content content",
                "C /link target",
                "C /longer content",
                "C /mode mode",
                "A /new",
                "A /new/f",
                "D /old",
                "D /old/f",
                "C /type type"
            ]
        );
        assert!(trees.changes(a, a, Comparing::Bytes).is_empty());
        assert!(trees.changes(a, a, Comparing::Identity).is_empty());
    }

    #[test]
    fn on_one_base_the_very_same_files_are_no_change() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let trees = Trees { _home: home, store };
        let base = trees.make(None, |writer| {
            for name in ["/kept", "/rewritten", "/gone"] {
                file(writer, name, 0o644, "text");
            }
            writer.set_directory_metadata(&ContainerPath::root(), &metadata(0o755)).unwrap();
        });
        let top = trees.make(Some(base), |writer| {
            file(writer, "/rewritten", 0o644, "text");
            writer.remove(&ContainerPath::new("/gone")).unwrap();
        });
        assert_eq!(trees.changes(base, top, Comparing::Identity), ["D /gone", "C /rewritten content"]);
        assert_eq!(trees.changes(base, top, Comparing::Bytes), ["D /gone"]);
    }
}
