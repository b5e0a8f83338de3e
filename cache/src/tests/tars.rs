//! Layers that are kept as their tars: what a power cut does to what is derived from them, what verifying finds, and how
//! they come about while steps run. Without root such layers cannot be mounted, and these tests say so and check nothing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rbuild_image::ContainerPath;

use super::{PATIENT, assert_sound, verify};
use crate::db::Durability;
use crate::gc::{GcPolicy, PruneMode};
use crate::id::SnapshotId;
use crate::lease::Lease;
use crate::snapshot::{Content, Metadata, SnapshotError, Snapshots, SnapshotterChoice};
use crate::store::{OpenOptions, Store};
use crate::verify::Problem;
use crate::view::Timestamp;

/// A store with the real clock, by which the forms that layers had before are told from those in use.
pub(crate) struct Bench {
    home: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Bench {
    fn reopen_keeping(&self, snapshotter: SnapshotterChoice) -> Store {
        let options = OpenOptions { snapshotter, ..OpenOptions::new("test") };
        Store::open(&self.home.path().join("store"), options).unwrap()
    }

    pub(crate) fn lease(&self) -> Lease {
        self.store.lease("test").unwrap()
    }

    fn forms(&self) -> usize {
        fs::read_dir(self.store.layout().layers()).unwrap().count()
    }
}

/// Lets the clock that the kernel has for files get beyond what it says now.
pub(crate) fn pass() {
    std::thread::sleep(Duration::from_millis(100));
}

pub(crate) fn bench(test: &str) -> Option<Bench> {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
    let home = Bench { home, store };
    match home.store.snapshots().mounts_erofs() {
        Ok(()) => Some(home),
        Err(error) => {
            println!("SKIPPED {test}: layers that are tars cannot be mounted: {error}");
            None
        }
    }
}

/// A layer with a file, a directory and a root of its own; its name below `layers/`.
fn layer(store: &Store) -> (SnapshotId, PathBuf) {
    let lease = store.lease("test").unwrap();
    let active = store.snapshots().prepare(None, &lease).unwrap();
    let mut writer = active.writer().unwrap();
    let mtime = Some(Timestamp { seconds: 1_000_000_007, nanoseconds: 5 });
    let root = Metadata { mode: 0o1770, uid: 7, gid: 70_000, mtime, ..Metadata::default() };
    writer.set_directory_metadata(&ContainerPath::root(), &root).unwrap();
    let metadata = Metadata { mode: 0o644, mtime, ..Metadata::default() };
    writer.file(&ContainerPath::new("/file"), &metadata, Content::Bytes(b"content")).unwrap();
    for n in 0..100 {
        let path = ContainerPath::new(format!("/many-{n}"));
        writer.file(&path, &metadata, Content::Bytes(b"more")).unwrap();
    }
    writer.finish().unwrap();
    drop(writer);
    let id = active.commit(&lease).unwrap().id();
    store.roots().set("test", &[crate::roots::Kept::Snapshot(id)]).unwrap();
    (id, path(store, id))
}

pub(crate) fn path(store: &Store, id: SnapshotId) -> PathBuf {
    let sql = "SELECT path FROM layers WHERE id = (SELECT layer FROM snapshots WHERE id = ?1)";
    let name: String = store.db().read(|tx| tx.one(sql, [id], |row| row.get(0))).unwrap();
    store.layout().layer(&name)
}

/// As if the machine had gone down and come up again.
fn reboot(store: &Store) {
    let sql = "UPDATE layers SET index_boot = 'an earlier one' WHERE index_boot IS NOT NULL";
    store.db().write(Durability::Lazy, |tx| tx.execute(sql, [])).unwrap();
}

fn boots(store: &Store) -> Vec<Option<String>> {
    store.db().read(|tx| tx.all("SELECT index_boot FROM layers ORDER BY id", [], |row| row.get(0))).unwrap()
}

fn content(store: &Store, id: SnapshotId) -> Result<String, SnapshotError> {
    let view = store.snapshots().view(Some(id))?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut view.open(&ContainerPath::new("/file")).unwrap(), &mut text).unwrap();
    Ok(text)
}

#[test]
fn what_is_written_as_tars_is_used_before_it_is_durable() {
    let Some(home) = bench("what_is_written_as_tars_is_used") else { return };
    let (store, snapshots) = (&home.store, home.store.snapshots());
    let lease = store.lease("test").unwrap();
    let write = |parent, name: &str| {
        let active = snapshots.prepare(parent, &lease).unwrap();
        let mut writer = active.writer().unwrap();
        let mtime = Some(Timestamp { seconds: 1_000_000_007, nanoseconds: 0 });
        let metadata = Metadata { mode: 0o644, mtime, ..Metadata::default() };
        writer.file(&ContainerPath::new(name), &metadata, Content::Bytes(name.as_bytes())).unwrap();
        writer.finish().unwrap();
        drop(writer);
        active.commit_soon(&lease).unwrap()
    };
    let rows = || store.db().read(|tx| tx.one("SELECT count(*) FROM layers", [], |row| row.get::<_, i64>(0))).unwrap();
    let mut top = None;
    let names: Vec<String> = (0..20).map(|n| format!("/f{n}")).collect();
    for name in &names {
        top = Some(write(top, name));
    }
    let top = top.unwrap();
    assert_eq!(rows(), 0);
    let seen = |snapshots: &Snapshots| {
        let view = snapshots.view(Some(top)).unwrap();
        names.iter().all(|name| view.lstat(&ContainerPath::new(name.as_str())).unwrap().is_some())
    };
    assert!(seen(&snapshots));
    // A merged index has a row that refers to one of them: those up to there are settled for it, with all that wait.
    assert_eq!(snapshots.get(top).unwrap().rootfs_lowers().unwrap().len(), 5);
    assert_eq!(rows(), 20);
    let merged = store.db().read(|tx| tx.one("SELECT count(*) FROM merged", [], |row| row.get::<_, i64>(0)));
    assert_eq!(merged.unwrap(), 1);
    // One that is equal to one of them has its file.
    let equal = write(None, "/f0");
    snapshots.settle(equal).unwrap();
    let files =
        "SELECT count(*), count(tar_file), count(DISTINCT coalesce(tar_file, path)), count(index_boot) FROM layers";
    let columns = |row: &rusqlite::Row<'_>| Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
    assert_eq!(store.db().read(|tx| tx.one(files, [], columns)).unwrap(), [21, 1, 20, 21]);
    store.roots().set("test", &[crate::roots::Kept::Snapshot(top)]).unwrap();
    drop(lease);
    let again = Store::open(store.layout().root(), OpenOptions::new("test")).unwrap();
    assert!(seen(&again.snapshots()));
    assert_sound(&again);
}

#[test]
fn what_a_power_cut_left_of_an_index_is_noticed_and_made_again() {
    let Some(home) = bench("what_a_power_cut_left_of_an_index") else { return };
    let (id, layer) = layer(&home.store);
    let index = layer.join("index");
    let whole = fs::read(&index).unwrap();
    let damages: [&dyn Fn(); 4] = [
        &|| fs::write(&index, "").unwrap(),
        &|| fs::write(&index, &whole[..whole.len() / 2]).unwrap(),
        &|| {
            let file = fs::File::options().write(true).open(&index).unwrap();
            file.write_all_at(&[0; 512], 2048).unwrap();
        },
        &|| fs::remove_file(&index).unwrap(),
    ];
    for damage in damages {
        damage();
        reboot(&home.store);
        assert_sound(&home.store);
        assert_eq!(content(&home.store, id).unwrap(), "content");
        assert!(fs::read(&index).unwrap() == whole, "the same index, the root's metadata included");
        assert_ne!(boots(&home.store), [None], "nothing says that it reached the disk");
        assert_sound(&home.store);
    }
    reboot(&home.store);
    assert_eq!(content(&home.store, id).unwrap(), "content");
    assert_eq!(boots(&home.store), [None], "it was read back whole, and is never looked at again");
}

#[test]
fn a_side_blob_is_checked_and_made_again_as_an_index_is() {
    let Some(home) = bench("a_side_blob_is_checked") else { return };
    // A sparse file in the old manner of GNU tar: 100 bytes of data in a hole of 10,000.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(100);
    header.set_mode(0o644);
    header.set_path("file").unwrap();
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].offset[..12].copy_from_slice(b"00000000310\0");
    gnu.sparse[0].numbytes[..12].copy_from_slice(b"00000000144\0");
    gnu.sparse[1].offset[..12].copy_from_slice(b"00000023420\0");
    gnu.sparse[1].numbytes[..12].copy_from_slice(b"00000000000\0");
    gnu.realsize[..12].copy_from_slice(b"00000023420\0");
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &[b'x'; 100][..]).unwrap();
    let bytes = archive.into_inner().unwrap();
    let lease = home.lease();
    let id = home.store.snapshots().apply(None, &mut &bytes[..], None, &lease).unwrap().id();
    let side = path(&home.store, id).join("side");
    let expected = format!("{}{}{}", "\0".repeat(200), "x".repeat(100), "\0".repeat(9700));
    assert_eq!(content(&home.store, id).unwrap(), expected);
    let whole = fs::read(&side).unwrap();
    for damaged in [&b""[..], &vec![0; whole.len()]] {
        fs::write(&side, damaged).unwrap();
        assert!(matches!(verify(&home.store).problems[..], [Problem::LayerIndex { .. }]));
        reboot(&home.store);
        assert_eq!(content(&home.store, id).unwrap(), expected);
        assert!(fs::read(&side).unwrap() == whole);
        assert_sound(&home.store);
    }
    fs::remove_file(&side).unwrap();
    assert_eq!(content(&home.store, id).unwrap(), expected);
    assert_sound(&home.store);
}

#[test]
fn damage_is_found_and_what_can_be_made_again_is() {
    let Some(home) = bench("damage_is_found") else { return };
    let (_, layer) = layer(&home.store);
    fs::write(layer.join("index"), "damaged").unwrap();
    let report = verify(&home.store);
    assert!(matches!(report.problems[..], [Problem::LayerIndex { .. }]), "{:?}", report.problems);
    assert_eq!(home.store.restore_layers(&report).unwrap().len(), 1);
    assert_sound(&home.store);
    let tar = fs::File::options().write(true).open(layer.join("tar")).unwrap();
    tar.write_all_at(b"X", 512).unwrap();
    let report = verify(&home.store);
    assert!(matches!(report.problems[..], [Problem::LayerContent { .. }]), "{:?}", report.problems);
    assert_eq!(home.store.restore_layers(&report).unwrap(), [], "it was made here and came from nowhere");
}

#[test]
fn what_a_layer_gives_the_root_stays_with_it_in_either_form() {
    let Some(home) = bench("what_a_layer_gives_the_root") else { return };
    let (id, layer) = layer(&home.store);
    let root = |store: &Store| {
        let stat = store.snapshots().view(Some(id)).unwrap().lstat(&ContainerPath::root()).unwrap().unwrap();
        (stat.mode, stat.uid, stat.gid, stat.mtime)
    };
    let before = root(&home.store);
    assert_eq!((before.0, before.1, before.2), (0o1770, 7, 70_000));
    fs::remove_file(layer.join("index")).unwrap();
    assert_eq!(root(&home.store), before);
    // A database that was lost: the layer is found by what its tar gives.
    let found = home.store.snapshots().found(layer.file_name().unwrap().to_str().unwrap()).unwrap();
    home.store.roots().set("test", &[]).unwrap();
    home.store
        .db()
        .write(Durability::Lazy, |tx| {
            tx.execute("DELETE FROM snapshots", [])?;
            tx.execute("DELETE FROM layers", [])
        })
        .unwrap();
    let lease = home.lease();
    let again = home.store.snapshots().adopt_found(None, &found, &lease).unwrap();
    let stat = again.view().unwrap().lstat(&ContainerPath::root()).unwrap().unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid, stat.mtime), before);
    assert_sound(&home.store);
}

/// What a step leaves: changes in the upper directory.
fn step(store: &Store, parent: Option<SnapshotId>, text: &str) -> SnapshotId {
    let lease = store.lease("test").unwrap();
    let active = store.snapshots().prepare(parent, &lease).unwrap();
    let rbuild_executor::Rootfs::Overlay { upper, .. } = active.rootfs().unwrap() else { panic!("an overlay") };
    fs::write(upper.join("file"), text).unwrap();
    let id = active.commit(&lease).unwrap().id();
    store.roots().set(text, &[crate::roots::Kept::Snapshot(id)]).unwrap();
    id
}

fn is_tar(store: &Store, id: SnapshotId) -> bool {
    path(store, id).extension().is_some_and(|extension| extension == "erofs")
}

#[test]
fn what_steps_wrote_becomes_tars_while_others_run() {
    let Some(home) = bench("what_steps_wrote_becomes_tars") else { return };
    let alone = step(&home.store, None, "alone");
    let meanwhile = home.store.snapshots().convert_meanwhile();
    let mut made = vec![step(&home.store, None, "0")];
    for n in 1..5 {
        made.push(step(&home.store, made.last().copied(), &n.to_string()));
    }
    let patience = Instant::now() + Duration::from_secs(120);
    while !made.iter().all(|id| is_tar(&home.store, *id)) {
        assert!(Instant::now() < patience, "none is left out");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(meanwhile);
    assert!(!is_tar(&home.store, alone), "nobody wanted that");
    assert_eq!(content(&home.store, made[4]).unwrap(), "4");
    assert_sound(&home.store);
    pass();
    home.store.remove_replaced_layers().unwrap();
    assert_eq!(home.forms(), 6, "the directories have gone");
    // What was not turned is, when its digests are needed.
    home.store.snapshots().layers(alone).unwrap();
    assert!(is_tar(&home.store, alone));
}

#[test]
fn the_end_waits_for_nothing_and_leaves_nothing_half_done() {
    let Some(home) = bench("the_end_waits_for_nothing") else { return };
    let meanwhile = home.store.snapshots().convert_meanwhile();
    let mut parent = None;
    for n in 0..20 {
        parent = Some(step(&home.store, parent, &n.to_string()));
    }
    drop(meanwhile);
    assert_eq!(content(&home.store, parent.unwrap()).unwrap(), "19");
    assert_sound(&home.store);
    assert_eq!(home.store.snapshots().layers(parent.unwrap()).unwrap().len(), 20);
    pass();
    home.store.remove_replaced_layers().unwrap();
    assert_eq!(home.forms(), 20);
    assert_sound(&home.store);
}

#[test]
fn digests_are_known_before_their_tars_are_durable() {
    let Some(home) = bench("digests_are_known_before") else { return };
    let snapshots = home.store.snapshots();
    let large = |text: &str| step(&home.store, None, &text.repeat(5 << 20));
    let alone = large("a");
    let known = snapshots.get(alone).unwrap().layer().unwrap();
    assert!(is_tar(&home.store, alone), "nobody does that later");
    let meanwhile = snapshots.convert_meanwhile();
    let made = ["b", "c", "a"].map(large);
    let diffs = made.map(|id| snapshots.get(id).unwrap().layer().unwrap());
    assert_eq!(diffs[2].content_digest, known.content_digest);
    drop(meanwhile);
    assert!(made.iter().all(|id| is_tar(&home.store, *id)), "what was written is not lost");
    for (id, diff) in made.iter().zip(diffs) {
        assert_eq!(snapshots.get(*id).unwrap().layer().unwrap(), diff);
    }
    assert_sound(&home.store);
}

#[test]
fn digests_of_little_cost_no_tar_which_may_come_later() {
    let Some(home) = bench("digests_of_little") else { return };
    let snapshots = home.store.snapshots();
    let little = step(&home.store, None, "little");
    let known = snapshots.get(little).unwrap().layer().unwrap();
    assert!(!is_tar(&home.store, little));
    // One that is not settled yet is identified without that, and its row has it.
    let lease = home.store.lease("test").unwrap();
    let active = snapshots.prepare(Some(little), &lease).unwrap();
    let rbuild_executor::Rootfs::Overlay { upper, .. } = active.rootfs().unwrap() else { panic!("an overlay") };
    fs::write(upper.join("more"), "more").unwrap();
    let soon = active.commit_soon(&lease).unwrap();
    let identity = snapshots.rootfs_identity(Some(soon)).unwrap();
    let rows = || home.store.db().read(|tx| tx.one("SELECT count(*) FROM layers", [], |row| row.get::<_, i64>(0)));
    assert_eq!(rows().unwrap(), 1);
    let meanwhile = snapshots.convert_meanwhile();
    snapshots.settle(soon).unwrap();
    assert_eq!(rows().unwrap(), 2);
    let stored = home.store.db().read(|tx| {
        tx.one("SELECT count(*) FROM snapshots s JOIN layers l ON l.id = s.layer WHERE s.identity IS NOT NULL AND l.diff_id IS NOT NULL AND s.id = ?1",
            [soon], |row| row.get::<_, i64>(0))
    });
    assert_eq!(stored.unwrap(), 1);
    let patience = Instant::now() + Duration::from_secs(120);
    while !is_tar(&home.store, soon) {
        assert!(Instant::now() < patience, "it becomes a tar meanwhile");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(meanwhile);
    assert_eq!(snapshots.rootfs_identity(Some(soon)).unwrap(), identity);
    assert_eq!(snapshots.get(little).unwrap().layer().unwrap(), known);
    assert_sound(&home.store);
}

#[test]
fn either_kind_goes_on_where_the_other_was() {
    let Some(home) = bench("either_kind_goes_on") else { return };
    let choices = [SnapshotterChoice::Erofs, SnapshotterChoice::Directory];
    let mut parent = None;
    let mut stores = choices.map(|choice| home.reopen_keeping(choice));
    for n in 0..6 {
        let id = step(&stores[0], parent, &n.to_string());
        let infos = stores[0].snapshots().layers(id).unwrap();
        assert_eq!(stores[1].snapshots().layers(id).unwrap(), infos, "they are known by the same digests");
        assert_eq!(is_tar(&stores[0], id), n % 2 == 0);
        assert_eq!(content(&stores[1], id).unwrap(), n.to_string());
        parent = Some(id);
        stores.reverse();
    }
    for store in &stores {
        let lease = store.lease("test").unwrap();
        let top = store.snapshots().get(parent.unwrap()).unwrap();
        assert_eq!(top.rootfs_lowers().unwrap().len(), 6);
        let mut tar = Vec::new();
        let written = top.write_tar(&mut tar).unwrap();
        assert_eq!((written.diff_id, written.size), (top.layer().unwrap().diff_id, tar.len() as u64));
        drop(lease);
        assert_sound(store);
    }
    for n in 0..6 {
        home.store.roots().set(&n.to_string(), &[]).unwrap();
    }
    pass();
    stores[0].prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!(home.forms(), 0);
    assert_eq!(verify(&stores[1]).layers, 0);
}
