//! File steps in a store of their own, on a base image and a context like those of the corpus.

mod contents;
mod places;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::snapshot::{Committed, Content, LayerWriter, Metadata, Snapshot};
use rbuild_cache::view::{FileKind, View};
use rbuild_cache::{Lease, OpenOptions, SnapshotId, Store};
use rbuild_image::{ContainerPath, ContentDigest};
use rbuild_parser::Ignore;
use rbuild_solver::{CopyAction, FileAction, FileOp, Linking, MakeDirAction, Unpack, WriteAction};

use super::{ContextTree, FileError, SourceTree, digest, write_layer};

/// Owners and whiteouts need root; without it these tests say so and check nothing.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED {test}: needs root");
    }
    root
}

fn path(text: &str) -> ContainerPath {
    ContainerPath::new(text)
}

struct Bench {
    home: tempfile::TempDir,
    store: Store,
    lease: Lease,
    base: SnapshotId,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        fs::create_dir(home.path().join("context")).unwrap();
        let active = store.snapshots().prepare(None, &lease).unwrap();
        write_base(&mut active.writer().unwrap());
        let base = active.commit(&lease).unwrap().id();
        Self { home, store, lease, base }
    }

    fn context_path(&self) -> PathBuf {
        self.home.path().join("context")
    }

    /// Makes a context file, and the directories above.
    fn put(&self, name: &str, content: &str, mode: u32) {
        let path = self.context_path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn context(&self, ignore: &str) -> Arc<dyn SourceTree> {
        let ignore = Ignore::parse(ignore.as_bytes()).unwrap();
        let index = Arc::new(self.store.file_index(&self.context_path()).unwrap());
        Arc::new(ContextTree::directory(&self.context_path(), ignore, Some(index)).unwrap())
    }

    fn try_run(&self, op: &FileOp, source: Arc<dyn SourceTree>) -> Result<Snapshot<Committed>, FileError> {
        let snapshots = self.store.snapshots();
        let parent = (op.linking == Linking::Dependent).then_some(self.base);
        let active = snapshots.prepare(parent, &self.lease).unwrap();
        let mut writer = active.writer().unwrap();
        write_layer(op, &[None, Some(source)], &mut writer, &|| false)?;
        let committed = active.commit(&self.lease).unwrap();
        Ok(match op.linking {
            Linking::Independent => snapshots.rebase(committed.id(), Some(self.base), &self.lease).unwrap(),
            Linking::Dependent => committed,
        })
    }

    /// What the step changes in the base image.
    fn changes(&self, actions: &[FileAction], linking: Linking) -> String {
        let op = FileOp { actions: actions.to_vec(), linking };
        match self.try_run(&op, self.context("")) {
            Ok(made) => self.difference(&made.view().unwrap()),
            Err(error) => format!("error: {error}"),
        }
    }

    fn copy(&self, actions: &[CopyAction]) -> String {
        let actions: Vec<FileAction> = actions.iter().cloned().map(FileAction::Copy).collect();
        self.changes(&actions, Linking::Dependent)
    }

    fn difference(&self, view: &View) -> String {
        let before = listing(&self.store.snapshots().view(Some(self.base)).unwrap());
        let after = listing(view);
        let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("- {name}"));
        let new = after.iter().filter(|(name, what)| before.get(*name) != Some(what));
        gone.chain(new.map(|(name, what)| format!("{name} {what}"))).collect::<Vec<_>>().join("\n")
    }
}

/// Users, a directory to damage, links into it.
fn write_base(writer: &mut LayerWriter) {
    let of = |mode, uid, gid| Metadata { mode, uid, gid, ..Metadata::default() };
    for (name, mode, uid) in [
        ("etc", 0o755, 0),
        ("tmp", 0o1777, 0),
        ("data", 0o755, 0),
        ("data/sub", 0o755, 0),
        ("data/private", 0o700, 1000),
    ] {
        writer.make_directory(&path(name), &of(mode, uid, uid)).unwrap();
    }
    for (name, content) in [
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nweb:x:1001:50::/:/bin/sh\n"),
        ("etc/group", "root:x:0:\nstaff:x:50:app\nextra:x:990:app\n"),
        ("data/one.txt", "one\n"),
        ("data/two.txt", "two\n"),
        ("data/sub/three.txt", "three\n"),
    ] {
        writer.file(&path(name), &of(0o644, 0, 0), Content::Bytes(content.as_bytes())).unwrap();
    }
    for (name, target) in [
        ("dirlink", "data"),
        ("abslink", "/data/sub"),
        ("data/link", "one.txt"),
        ("dangling", "/made/by/copy"),
        ("out", "../../../etc"),
    ] {
        writer.symlink(&path(name), target.as_bytes(), &of(0o777, 0, 0)).unwrap();
    }
    writer.finish().unwrap();
}

fn listing(view: &View) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    view.walk(&ContainerPath::root(), &mut |path, stat| {
        let detail = match stat.kind {
            FileKind::File => {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut view.open(path)?, &mut text)?;
                format!(
                    "file {text:?}{}",
                    if stat.links > 1 { format!(" links {}", stat.links) } else { String::new() }
                )
            }
            FileKind::Symlink => format!("-> {}", String::from_utf8_lossy(&view.read_link(path)?)),
            FileKind::Directory => "dir".to_owned(),
            other => format!("{other:?}"),
        };
        found.insert(path.to_string(), format!("{:04o} {}:{} {detail}", stat.mode, stat.uid, stat.gid));
        Ok(())
    })
    .unwrap();
    found.remove("/");
    found
}

fn copy(source: &str, dest: &str) -> CopyAction {
    CopyAction::as_is(Some(1), source.to_owned(), dest.to_owned())
}
