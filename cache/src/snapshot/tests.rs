//! Snapshots in a store of their own, compared with what the kernel and GNU tar make of the same layers.

mod ahead;
mod corpus;
mod equal;
mod four_ways;
mod hostile;
mod merged;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;

use rbuild_image::layer::{Device, Entry, EntryKind};
use rbuild_image::{ContainerPath, DiffId, Digest};

use super::*;
use crate::id::SnapshotId;
use crate::lease::Lease;
use crate::store::{OpenOptions, Store};
use crate::testing::members::{archive, dir, file, hard, is_root, link};
use crate::view::{FileKind, View};

struct Bench {
    home: tempfile::TempDir,
    store: Store,
    lease: Lease,
}

impl Bench {
    /// One with each kind of layers.
    fn each() -> Vec<Self> {
        let tars = Self::of(SnapshotterChoice::Erofs);
        let mountable = tars.store.snapshots().mounts_erofs();
        let mut benches = vec![Self::of(SnapshotterChoice::Directory)];
        match mountable {
            Ok(()) => benches.push(tars),
            Err(error) => println!("SKIPPED with layers that are tars: they cannot be mounted here: {error}"),
        }
        benches
    }

    fn of(snapshotter: SnapshotterChoice) -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = OpenOptions { snapshotter, ..OpenOptions::new("test") };
        let store = Store::open(&home.path().join("store"), options).unwrap();
        let lease = store.lease("test").unwrap();
        Self { home, store, lease }
    }

    fn has_tars(&self) -> bool {
        self.store.snapshots().keeping().unwrap().kind == tar_layer::NAME
    }

    fn apply(&self, parent: Option<SnapshotId>, tar: &[u8]) -> Result<Snapshot<Committed>, SnapshotError> {
        self.store.snapshots().apply(parent, &mut &*tar, None, &self.lease)
    }

    fn stack(&self, layers: &[Vec<u8>]) -> Snapshot<Committed> {
        let mut top = None;
        for layer in layers {
            top = Some(self.apply(top.as_ref().map(Snapshot::id), layer).unwrap());
        }
        top.unwrap()
    }
}

/// `path -> what is there`, of a view.
fn listing(view: &View) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    view.walk(&ContainerPath::root(), &mut |path, stat| {
        let detail = match stat.kind {
            FileKind::File => {
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut view.open(path)?, &mut content)?;
                format!("{:?} {:?}", String::from_utf8_lossy(&content), view.xattrs(path)?)
            }
            FileKind::Symlink => String::from_utf8_lossy(&view.read_link(path)?).into_owned(),
            _ => String::new(),
        };
        let kind = stat.kind;
        found.insert(path.to_string(), format!("{kind:?} {:o} {}:{} {detail}", stat.mode, stat.uid, stat.gid));
        Ok(())
    })
    .unwrap();
    found.remove("/");
    found
}

/// Names only.
fn names(view: &View) -> Vec<String> {
    listing(view).into_keys().collect()
}

/// The same of a directory that somebody else made.
fn listing_of(path: &Path) -> BTreeMap<String, String> {
    listing(&View::new(vec![std::sync::Arc::new(layer_dir::LayerDir::new(path))]))
}

/// What the kernel shows of a snapshot.
fn mounted_listing(bench: &Bench, snapshot: &Snapshot<Committed>) -> BTreeMap<String, String> {
    mounted(bench, snapshot, listing_of)
}

/// What `look` sees where the kernel shows a snapshot.
fn mounted<T>(bench: &Bench, snapshot: &Snapshot<Committed>, look: impl FnOnce(&Path) -> T) -> T {
    let active = bench.store.snapshots().prepare(Some(snapshot.id()), &bench.lease).unwrap();
    let root = rbuild_executor::open_rootfs(&active.rootfs().unwrap()).unwrap();
    look(Path::new(&format!("/proc/self/fd/{}/.", root.as_fd().as_raw_fd())))
}

fn awkward_layers() -> Vec<Vec<u8>> {
    let device = |major, minor| EntryKind::CharDevice(Device { major, minor });
    vec![
        archive(&[
            dir("etc"),
            file("etc/passwd", "root"),
            dir("data"),
            file("data/one", "1"),
            hard("data/two", "data/one"),
            dir("data/sub"),
            file("data/sub/deep", "deep"),
            dir("lib"),
            file("lib/old", "old"),
            link("link", "data"),
            dir("gone"),
            file("gone/x", "x"),
            file("swap", "a file"),
            dir("swapped"),
            file("swapped/inside", "i"),
            dir("opaque"),
            file("opaque/lower", "lower"),
            (Entry::new(ContainerPath::new("null"), device(1, 3), 0o666), Vec::new()),
            (Entry::new(ContainerPath::new("pipe"), EntryKind::Fifo, 0o600), Vec::new()),
        ]),
        archive(&[
            file(".wh.gone", ""),
            dir("data"),
            file("data/.wh.one", ""),
            file("data/sub/new", "implicit parent"),
            file("link/through", "written through a link"),
            dir("swap"),
            file("swap/now", "a directory"),
            file("swapped", "now a file"),
            dir("opaque"),
            file("opaque/upper", "upper"),
            file("opaque/.wh..wh..opq", ""),
            (Entry::new(ContainerPath::new("etc/passwd"), device(0, 0), 0o666), Vec::new()),
        ]),
        archive(&[
            dir("gone"),
            file("gone/again", "again"),
            dir("keep"),
            file("keep/entry", "kept"),
            file(".wh.keep", ""),
            file("lib", "was a directory"),
            file("data/.wh.two", ""),
            file("data/two", "an entry beats a whiteout of its name"),
        ]),
        archive(&[dir("lib"), file("lib/new", "new"), dir("swapped"), file("swapped/fresh", "f")]),
    ]
}

#[test]
fn the_view_shows_what_a_mount_shows() {
    if !is_root("the_view_shows_what_a_mount_shows") {
        return;
    }
    for bench in Bench::each() {
        let mut top = None;
        for (number, layer) in awkward_layers().iter().enumerate() {
            let snapshot = bench.apply(top, layer).unwrap();
            let (view, mounted) = (listing(&snapshot.view().unwrap()), mounted_listing(&bench, &snapshot));
            assert_eq!(view, mounted, "after layer {number}");
            top = Some(snapshot.id());
        }
        let snapshot = bench.store.snapshots().get(top.unwrap()).unwrap();
        insta::allow_duplicates! { insta::assert_snapshot!(names(&snapshot.view().unwrap()).join("\n"), @r"
    /data
    /data/sub
    /data/sub/deep
    /data/sub/new
    /data/through
    /data/two
    /etc
    /etc/passwd
    /gone
    /gone/again
    /keep
    /keep/entry
    /lib
    /lib/new
    /link
    /null
    /opaque
    /opaque/upper
    /pipe
    /swap
    /swap/now
    /swapped
    /swapped/fresh
    "); }
    }
}

/// Any layer over a handful of names, with whiteouts, opaque marks, links and changes of type.
fn any_layer() -> impl proptest::strategy::Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    use proptest::prelude::*;
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let parent = || prop::sample::select(vec!["", "a/", "b/", "a/b/", "c/"]);
    let entry = (parent(), name(), 0..9_u8, parent(), name()).prop_map(|(parent, name, what, other, target)| {
        let path = format!("{parent}{name}");
        match what {
            0..=2 => file(&path, &format!("content of {path}")),
            3..=4 => dir(&path),
            5 => file(&format!("{parent}.wh.{name}"), ""),
            6 => file(&format!("{parent}.wh..wh..opq"), ""),
            7 => link(&path, &format!("/{other}{target}")),
            _ => hard(&path, &format!("{other}{target}")),
        }
    });
    prop::collection::vec(entry, 0..8)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 40, fork: false, ..Default::default() })]

    #[test]
    fn any_stack_of_layers_looks_the_same_mounted_and_written_out_again(
        layers in proptest::collection::vec(any_layer(), 1..5)
    ) {
        if !is_root("any_stack_of_layers_looks_the_same_mounted_and_written_out_again") {
            return Ok(());
        }
        for bench in Bench::each() {
        let (mut top, mut copy) = (None, None);
        for entries in layers.clone() {
            // A hard link to nothing, a link in a circle: refused, and nothing changes.
            let Ok(snapshot) = bench.apply(top, &archive(&entries)) else { continue };
            let view = listing(&snapshot.view().unwrap());
            proptest::prop_assert_eq!(&view, &mounted_listing(&bench, &snapshot));
            let mut tar = Vec::new();
            snapshot.write_tar_with(Times::Kept, &mut tar).unwrap();
            let again = bench.apply(copy, &tar).unwrap();
            proptest::prop_assert_eq!(&view, &listing(&again.view().unwrap()));
            top = Some(snapshot.id());
            copy = Some(again.id());
        }
}
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    if !is_root("an_opaque_root_hides_everything_below") {
        return;
    }
    for bench in Bench::each() {
        let top = bench.stack(&[
            archive(&[dir("a"), file("a/b", ""), file("c", "")]),
            archive(&[file(".wh..wh..opq", ""), file("only", "")]),
        ]);
        assert_eq!(names(&top.view().unwrap()), ["/only"]);
        assert_eq!(listing(&top.view().unwrap()), mounted_listing(&bench, &top));
    }
}

#[test]
fn layers_survive_the_way_out_and_in() {
    if !is_root("layers_survive_the_way_out_and_in") {
        return;
    }
    for bench in Bench::each() {
        let (mut top, mut copy) = (None, None);
        for layer in awkward_layers() {
            let snapshot = bench.apply(top, &layer).unwrap();
            let mut first = Vec::new();
            let diff = snapshot.write_tar_with(Times::Kept, &mut first).unwrap();
            assert_eq!(DiffId::new(Digest::sha256(&first)), diff.diff_id);
            assert_eq!(first.len() as u64, diff.size);
            let again = bench.apply(copy, &first).unwrap();
            assert_eq!(listing(&snapshot.view().unwrap()), listing(&again.view().unwrap()));
            let mut second = Vec::new();
            let diff_again = again.write_tar_with(Times::Kept, &mut second).unwrap();
            assert_eq!(diff_again.content_digest, diff.content_digest);
            assert!(first == second, "the same layer gives the same bytes");
            top = Some(snapshot.id());
            copy = Some(again.id());
        }
    }
}

#[test]
fn gnu_tar_unpacks_what_we_write_and_we_unpack_what_it_writes() {
    if !is_root("gnu_tar_unpacks_what_we_write_and_we_unpack_what_it_writes") {
        return;
    }
    for bench in Bench::each() {
        let source = bench.home.path().join("source");
        fs::create_dir(&source).unwrap();
        let script = r#"
        mkdir -p a/b "odd
name" $(printf %0200d 1)/$(printf %0200d 2); echo x > a/f; ln a/f a/b/hard; ln -s ../f a/b/soft; ln -s $(printf %0300d 3) long
        touch $(printf %0200d 1)/$(printf %0200d 2)/$(printf %0200d 3)
        mknod null c 1 3; mknod loop b 7 0; mkfifo pipe; chown 70000:2097200 a/f; chmod 6755 a/f; chmod 1777 a; chown -h 5:6 long
        truncate -s 3M sparse; echo end >> sparse; head -c 300000 /dev/zero | tr '\0' z > large
        touch -d '2001-02-03 04:05:06.123456789' a/f; touch -d @-5 large; touch -d @1.5 a/b
        cp /bin/true capable && setcap cap_net_raw+ep capable || :
    "#;
        assert!(Command::new("bash").arg("-ec").arg(script).current_dir(&source).status().unwrap().success());
        let gnu = bench.home.path().join("gnu.tar");
        let made = Command::new("tar")
            .args(["--format=posix", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--sparse", "-C"])
            .arg(&source)
            .arg("-cf")
            .arg(&gnu)
            .arg(".")
            .status()
            .unwrap();
        assert!(made.success());
        let snapshot = bench.apply(None, &fs::read(&gnu).unwrap()).unwrap();
        let want = detailed(&source);
        assert_eq!(mounted(&bench, &snapshot, detailed), want);
        let sparse = snapshot.view().unwrap().lstat(&ContainerPath::new("/sparse")).unwrap().unwrap();
        assert!(bench.has_tars() || sparse.blocks * 512 < 1 << 20, "holes stay holes: {sparse:?}");

        let ours = bench.home.path().join("ours.tar");
        snapshot.write_tar_with(Times::Kept, &mut fs::File::create(&ours).unwrap()).unwrap();
        let target = bench.home.path().join("target");
        fs::create_dir(&target).unwrap();
        let unpacked = Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--same-owner", "--numeric-owner", "-xpf"])
            .arg(&ours)
            .arg("-C")
            .arg(&target)
            .status()
            .unwrap();
        assert!(unpacked.success());
        assert_eq!(detailed(&target), want);
    }
}

/// Everything `find` can say of a tree, times in nanoseconds included, its root left out.
fn detailed(path: &Path) -> String {
    let script = r"find . -mindepth 1 -printf '%p %y %m %U:%G %T@ %l %n ' -exec sh -c 'test -f \$1 && sha256sum < $1; stat -c %t:%T $1' sh '{}' \; | sort";
    let script = script.replace("\\$1", "\"$1\"").replace("< $1", "< \"$1\"").replace("%T $1", "%T \"$1\"");
    let script = format!("{script}; getcap -r . | sort");
    let out = Command::new("bash").arg("-c").arg(script).current_dir(path).output().unwrap();
    // Directories' link counts and times of parents that were not archived do not matter.
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn layers_are_shared_between_parents_only_when_they_do_not_depend_on_them() {
    if !is_root("layers_are_shared_between_parents_only_when_they_do_not_depend_on_them") {
        return;
    }
    for bench in Bench::each() {
        let snapshots = bench.store.snapshots();
        let first = bench.apply(None, &archive(&[dir("a")])).unwrap();
        let second = bench.apply(None, &archive(&[dir("b")])).unwrap();
        let whole = archive(&[dir("c"), file("c/f", "")]);
        let partial = archive(&[file("d/f", "")]);
        let on_first = bench.apply(Some(first.id()), &whole).unwrap();
        let partial_on_first = bench.apply(Some(first.id()), &partial).unwrap();
        let adopt = |parent, tar: &[u8]| {
            snapshots.adopt(parent, &DiffId::new(Digest::sha256(tar)), &bench.lease).unwrap().map(|found| found.id())
        };
        assert_eq!(adopt(Some(first.id()), &whole), Some(on_first.id()));
        assert_eq!(adopt(Some(first.id()), &partial), Some(partial_on_first.id()));
        let on_second = snapshots.get(adopt(Some(second.id()), &whole).unwrap()).unwrap();
        assert_eq!(on_second.layer_id(), on_first.layer_id());
        assert_eq!(names(&on_second.view().unwrap()), ["/b", "/c", "/c/f"]);
        assert_eq!(adopt(Some(second.id()), &partial), None);

        let rebased = snapshots.rebase(on_first.id(), Some(second.id()), &bench.lease).unwrap();
        assert_eq!(rebased.id(), on_second.id());
        let identity = |id| snapshots.rootfs_identity(Some(id)).unwrap();
        assert_ne!(identity(on_first.id()), identity(on_second.id()));
        assert_eq!(identity(on_second.id()), identity(rebased.id()));
    }
}

#[test]
fn many_layers_are_measured_at_once() {
    if !is_root("many_layers_are_measured_at_once") {
        return;
    }
    // Each measurement waits for its readers; on the common pool they must not wait for one another.
    for bench in Bench::each() {
        let mut top = None;
        for number in 0..24 {
            let active = bench.store.snapshots().prepare(top, &bench.lease).unwrap();
            let mut writer = active.writer().unwrap();
            for file in 0..40 {
                let path = ContainerPath::new(format!("/{number}-{file}"));
                writer.file(&path, &Metadata::default(), Content::Bytes(b"content")).unwrap();
            }
            writer.finish().unwrap();
            top = Some(active.commit(&bench.lease).unwrap().id());
        }
        let layers = bench.store.snapshots().layers(top.unwrap()).unwrap();
        assert_eq!(layers.len(), 24);
        let again = bench.store.snapshots().layers(top.unwrap()).unwrap();
        assert_eq!(layers, again);
    }
}

#[test]
fn a_wrong_digest_or_a_broken_archive_leaves_nothing() {
    if !is_root("a_wrong_digest_or_a_broken_archive_leaves_nothing") {
        return;
    }
    for bench in Bench::each() {
        let layers = || fs::read_dir(bench.store.layout().layers()).unwrap().count();
        let tar = archive(&[file("f", "content")]);
        let wrong = DiffId::new(Digest::sha256("something else"));
        let error = bench.store.snapshots().apply(None, &mut tar.as_slice(), Some(wrong), &bench.lease).unwrap_err();
        assert!(matches!(error, SnapshotError::Apply(ApplyError::WrongDigest { .. })), "{error:?}");
        let error = bench.apply(None, &tar[..700]).unwrap_err();
        assert!(matches!(error, SnapshotError::Apply(ApplyError::Archive(_))), "{error:?}");
        assert_eq!(layers(), 0);
        assert_eq!(fs::read_dir(bench.lease.scratch().unwrap()).unwrap().count(), 0);
    }
}
