//! Equal tars are one file, and what is told of disk use is what the disk says: each inode's blocks once.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rbuild_image::layer::TarWriter;
use rbuild_image::{ContainerPath, Descriptor, DiffId, Digest, MediaType};

use crate::db::Durability;
use crate::gc::{GcPolicy, PruneMode};
use crate::id::SnapshotId;
use crate::lock::wait_silently;
use crate::roots::Kept;
use crate::snapshot::{Content, Metadata, SnapshotterChoice};
use crate::store::{OpenOptions, Store};
use crate::tests::tars::{Bench, bench, pass, path};
use crate::tests::{PATIENT, assert_sound, verify};
use crate::view::Timestamp;

/// A layer with this text in a file, kept under a name.
fn copy(store: &Store, parent: Option<SnapshotId>, text: &[u8], name: &str) -> SnapshotId {
    let lease = store.lease("test").unwrap();
    let active = store.snapshots().prepare(parent, &lease).unwrap();
    let mut writer = active.writer().unwrap();
    let mtime = Some(Timestamp { seconds: 1_000_000_007, nanoseconds: 0 });
    let metadata = Metadata { mode: 0o644, mtime, ..Metadata::default() };
    writer.file(&ContainerPath::new("/file"), &metadata, Content::Bytes(text)).unwrap();
    writer.hard_link(&ContainerPath::new("/file"), &ContainerPath::new("/link")).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let id = active.commit(&lease).unwrap().id();
    keep(store, name, Some(id));
    id
}

fn keep(store: &Store, name: &str, id: Option<SnapshotId>) {
    let kept: Vec<Kept> = id.map(Kept::Snapshot).into_iter().collect();
    store.roots().set(name, &kept).unwrap();
}

/// Blocks of everything below the directories, each inode once; not of the directories themselves.
fn disk(store: &Store, directories: &[&str]) -> u64 {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<_> = directories.iter().map(|name| store.layout().root().join(name)).collect();
    let mut bytes = 0;
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if seen.insert(metadata.ino()) {
                bytes += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    bytes
}

/// What is told is what there is; nobody uses the store.
#[track_caller]
fn assert_exact(store: &Store) {
    pass();
    store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    let usage = store.du().unwrap();
    assert_eq!(usage.layers, disk(store, &["layers", "merged"]), "layers");
    assert_eq!(usage.blobs, disk(store, &["blobs/sha256"]), "blobs");
    assert_sound(store);
}

fn inode(store: &Store, id: SnapshotId) -> u64 {
    fs::metadata(path(store, id).join("tar")).unwrap().ino()
}

static LARGE: [u8; 300_000] = [b'x'; 300_000];

/// Three layers with one tar, on nothing and on two parents.
fn three(home: &Bench) -> [SnapshotId; 3] {
    let store = &home.store;
    let below = copy(store, None, b"below", "below");
    let first = copy(store, None, &LARGE, "first");
    let second = copy(store, Some(below), &LARGE, "second");
    let third = copy(store, Some(second), &LARGE, "third");
    [first, second, third]
}

#[test]
fn equal_tars_are_one_file_that_counts_once_and_goes_with_the_last() {
    let Some(home) = bench("equal_tars_are_one_file") else { return };
    let store = &home.store;
    let [first, second, third] = three(&home);
    assert_eq!(inode(store, first), inode(store, second));
    assert_eq!(inode(store, first), inode(store, third));
    assert_exact(store);
    let used = store.du().unwrap().layers;
    assert!((300_000..600_000).contains(&used), "{used}");
    // Whose it was first makes no difference.
    keep(store, "first", None);
    let told = store.prune(&GcPolicy::garbage(), PruneMode::DryRun, PATIENT).unwrap();
    let done = store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!((told.freed, done.layers), (done.freed, 1));
    assert!(done.freed < 100_000, "{}", done.freed);
    assert_exact(store);
    assert_eq!(store.du().unwrap().layers, used - done.freed);
    let content = store.snapshots().view(Some(third)).unwrap().read_regular("/link", 1 << 20).unwrap().unwrap();
    assert!(content == LARGE);
    // One more finds the file of those that are left.
    let again = copy(store, None, &LARGE, "first");
    assert_eq!(inode(store, again), inode(store, third));
    for name in ["first", "second", "third"] {
        keep(store, name, None);
    }
    let told = store.prune(&GcPolicy::garbage(), PruneMode::DryRun, PATIENT).unwrap();
    let done = store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!((told.freed, done.layers), (done.freed, 3));
    assert!(done.freed > 300_000, "{}", done.freed);
    assert_exact(store);
}

#[test]
fn damage_is_not_passed_on() {
    let Some(home) = bench("damage_is_not_passed_on") else { return };
    let store = &home.store;
    let below = copy(store, None, b"below", "below");
    let first = copy(store, None, &LARGE, "first");
    let tar = fs::File::options().write(true).open(path(store, first).join("tar")).unwrap();
    tar.write_all_at(b"damaged", 100_000).unwrap();
    let second = copy(store, Some(below), &LARGE, "second");
    let third = copy(store, Some(second), &LARGE, "third");
    assert_ne!(inode(store, first), inode(store, second));
    assert_eq!(inode(store, second), inode(store, third));
    store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_ne!(inode(store, first), inode(store, second), "nor later");
    assert_eq!(verify(store).problems.len(), 1);
    assert_eq!(store.du().unwrap().layers, disk(store, &["layers", "merged"]));
}

#[test]
fn tars_that_were_made_apart_are_put_together_by_a_collection() {
    let Some(home) = bench("tars_that_were_made_apart") else { return };
    let store = &home.store;
    let made = three(&home);
    // As if each had been made before the others had a row.
    for id in &made[1..] {
        let tar = path(store, *id).join("tar");
        let apart = tar.with_extension("apart");
        fs::copy(&tar, &apart).unwrap();
        fs::rename(&apart, &tar).unwrap();
    }
    let forget = "UPDATE layers SET tar_file = NULL, tar_bytes = NULL";
    store.db().write(Durability::Lazy, |tx| tx.execute(forget, [])).unwrap();
    let before = disk(store, &["layers"]);
    let done = store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert!(done.freed > 600_000, "{}", done.freed);
    assert_eq!(disk(store, &["layers"]), before - done.freed);
    assert_eq!(inode(store, made[0]), inode(store, made[2]));
    assert_exact(store);
    // As if somebody had died between a link and its row.
    store.db().write(Durability::Lazy, |tx| tx.execute(forget, [])).unwrap();
    assert_exact(store);
}

#[test]
fn a_layer_leaves_the_others_when_it_gets_another_form() {
    let Some(home) = bench("a_layer_leaves_the_others") else { return };
    let store = &home.store;
    let [first, second, third] = three(&home);
    let snapshots = store.snapshots();
    for id in [first, third] {
        snapshots.become_directory(&snapshots.top_row(id).unwrap()).unwrap();
        assert_exact(store);
    }
    let content = snapshots.view(Some(third)).unwrap().read_regular("/link", 1 << 20).unwrap().unwrap();
    assert!(content == LARGE && fs::metadata(path(store, second).join("tar")).unwrap().nlink() == 1);
    // And back again, as what a step left does.
    snapshots.become_tars(&[snapshots.get(third).unwrap()]).unwrap();
    assert_eq!(inode(store, second), inode(store, third));
    assert_exact(store);
}

/// Layers of all sorts, in the kind that is wanted.
fn of_all_sorts(store: &Store) {
    let lease = store.lease("test").unwrap();
    let snapshots = store.snapshots();
    // From outside: a file, a hard link, a sparse file in the old manner of GNU tar, and its blob.
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(70_000);
    header.set_mode(0o644);
    archive.append_data(&mut header, "plain", &[b'p'; 70_000][..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Link);
    link.set_size(0);
    archive.append_link(&mut link, "linked", "plain").unwrap();
    let mut sparse = tar::Header::new_gnu();
    sparse.set_entry_type(tar::EntryType::GNUSparse);
    sparse.set_size(5000);
    sparse.set_mode(0o644);
    sparse.set_path("sparse").unwrap();
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.sparse[0].offset[..12].copy_from_slice(b"00000400200\0");
    gnu.sparse[0].numbytes[..12].copy_from_slice(b"00000011610\0");
    gnu.sparse[1].offset[..12].copy_from_slice(b"00004000000\0");
    gnu.sparse[1].numbytes[..12].copy_from_slice(b"00000000000\0");
    gnu.realsize[..12].copy_from_slice(b"00004000000\0");
    sparse.set_cksum();
    archive.append(&sparse, &[b's'; 5000][..]).unwrap();
    let bytes = archive.into_inner().unwrap();
    let outside = snapshots.apply(None, &mut &bytes[..], Some(DiffId::new(Digest::sha256(&bytes))), &lease).unwrap();
    keep(store, "outside", Some(outside.id()));
    let blob = Descriptor::new(MediaType::OciLayer, Digest::sha256(&bytes), bytes.len() as u64);
    store.blobs_for(&lease, &wait_silently).put_all(&[&bytes]).unwrap();
    let attach = "INSERT INTO layer_blobs (layer, blob, media_type) VALUES (?1, ?2, 'tar')";
    let attached = (outside.layer_id(), crate::db::Text(blob.digest));
    store.db().write(Durability::Lazy, |tx| tx.execute(attach, attached)).unwrap();
    // The same on something else, and what is copied and what steps leave.
    let copied = copy(store, None, &LARGE, "copied");
    let empty = TarWriter::new(Vec::new()).finish().unwrap();
    let again = snapshots.apply(Some(copied), &mut &bytes[..], None, &lease).unwrap().id();
    let over = copy(store, Some(again), &LARGE, "over");
    let active = snapshots.prepare(Some(over), &lease).unwrap();
    let rbuild_executor::Rootfs::Overlay { upper, .. } = active.rootfs().unwrap() else { panic!("an overlay") };
    fs::write(upper.join("a"), LARGE).unwrap();
    fs::hard_link(upper.join("a"), upper.join("b")).unwrap();
    fs::File::create(upper.join("hole")).unwrap().set_len(1 << 24).unwrap();
    let mut top = active.commit(&lease).unwrap().id();
    snapshots.get(top).unwrap().layer().unwrap();
    // A chain that is mounted through a merged index.
    let free = snapshots.apply(None, &mut &empty[..], None, &lease).unwrap().id();
    for _ in 0..32 {
        top = snapshots.rebase(free, Some(top), &lease).unwrap().id();
    }
    keep(store, "top", Some(top));
    if path(store, over).extension().is_some() {
        snapshots.get(top).unwrap().rootfs_lowers().unwrap();
        assert!(disk(store, &["merged"]) > 0);
    }
}

#[test]
fn what_is_told_of_disk_use_is_what_the_disk_says() {
    let home = tempfile::tempdir().unwrap();
    for choice in [SnapshotterChoice::Directory, SnapshotterChoice::Erofs] {
        let options = OpenOptions { snapshotter: choice, ..OpenOptions::new("test") };
        let store = Store::open(&home.path().join(format!("{choice:?}")), options).unwrap();
        if choice == SnapshotterChoice::Erofs && store.snapshots().mounts_erofs().is_err() {
            println!("SKIPPED what_is_told_of_disk_use: layers that are tars cannot be mounted");
            return;
        }
        of_all_sorts(&store);
        assert_exact(&store);
        // Everything goes: what is told is what is given back.
        for name in ["outside", "copied", "over", "top"] {
            keep(&store, name, None);
        }
        let usage = store.du().unwrap();
        assert_eq!(usage.reclaimable, usage.layers + usage.blobs);
        let done = store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
        assert_eq!(done.freed, usage.reclaimable);
        assert_eq!(disk(&store, &["layers", "merged", "blobs/sha256"]), 0);
    }
}

#[test]
fn a_database_that_was_lost_finds_each_tar_once() {
    let Some(home) = bench("a_database_that_was_lost") else { return };
    let [first, ..] = three(&home);
    let name = path(&home.store, first).file_name().unwrap().to_str().unwrap().to_owned();
    let found = home.store.snapshots().found(&name).unwrap();
    for name in ["first", "second", "third", "below"] {
        keep(&home.store, name, None);
    }
    let clear = |tx: &crate::db::Tx<'_>| {
        tx.execute("DELETE FROM snapshots", [])?;
        tx.execute("DELETE FROM layers", [])
    };
    home.store.db().write(Durability::Lazy, clear).unwrap();
    let lease = home.lease();
    let again = home.store.snapshots().adopt_found(None, &found, &lease).unwrap().id();
    keep(&home.store, "again", Some(again));
    drop(lease);
    assert_exact(&home.store);
    assert_eq!(fs::read_dir(Path::new(&home.store.layout().layers())).unwrap().count(), 1);
}
