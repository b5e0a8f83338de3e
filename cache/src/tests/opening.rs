//! Opening: what is accepted, what is refused, and how fast.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::store::{Creation, OpenError, OpenOptions, Store};
use crate::testing::TestStore;

fn open(home: &TestStore) -> Result<Store, OpenError> {
    Store::open(home.root(), OpenOptions::new("test"))
}

fn set_mode(home: &TestStore, mode: u32) {
    fs::set_permissions(home.root(), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_store_is_private() {
    let home = TestStore::new();
    assert_eq!(fs::metadata(home.root()).unwrap().permissions().mode() & 0o7777, 0o700);
    set_mode(&home, 0o711);
    let error = open(&home).unwrap_err();
    let root = home.root().display();
    assert_eq!(
        error.to_string(),
        format!(
            "the store {root} is open to other users (mode 0711): its set-user-id files must not be reachable; run chmod 700 on it"
        )
    );
    set_mode(&home, 0o700);
    open(&home).unwrap();
}

#[test]
fn an_absent_store_is_made_only_if_wanted_and_never_among_other_files() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("a/b");
    let never = OpenOptions { creation: Creation::Never, ..OpenOptions::new("test") };
    let error = Store::open(&root, never).unwrap_err();
    assert_eq!(error.to_string(), format!("there is no store at {}", root.display()));
    Store::open(&root, OpenOptions::new("test")).unwrap();
    let disk = home.path().join("disk");
    fs::create_dir_all(disk.join("lost+found")).unwrap();
    Store::open(&disk, OpenOptions::new("test")).unwrap();
    let other = home.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "").unwrap();
    assert!(matches!(Store::open(&other, OpenOptions::new("test")).unwrap_err(), OpenError::Foreign { .. }));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn newer_formats_and_schemas_are_refused() {
    let home = TestStore::new();
    let database = rusqlite::Connection::open(home.store.layout().database()).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    let error = open(&home).unwrap_err();
    let path = home.store.layout().database();
    let known = crate::db::SCHEMA;
    assert_eq!(
        error.to_string(),
        format!("{} has schema 99, but this rbuild knows schemas up to {known}: use a newer rbuild", path.display())
    );
    let ours: i32 = database.pragma_query_value(None, "application_id", |row| row.get(0)).unwrap();
    database.pragma_update(None, "application_id", 0x1234).unwrap();
    let error = open(&home).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is not a store database (application id 0x1234)", path.display()));
    database.pragma_update(None, "application_id", ours).unwrap();
    database.pragma_update(None, "user_version", crate::db::SCHEMA).unwrap();
    open(&home).unwrap();
    fs::write(home.store.layout().format(), "rbuild-store 2\n").unwrap();
    let root = home.root().display();
    assert_eq!(
        open(&home).unwrap_err().to_string(),
        format!("the store {root} has format 2, but this rbuild knows formats up to 1: use a newer rbuild")
    );
    fs::write(home.store.layout().format(), "hello").unwrap();
    let path = home.store.layout().format();
    assert_eq!(
        open(&home).unwrap_err().to_string(),
        format!("{} does not name a store format: it is damaged, or something else wrote it", path.display())
    );
}

#[test]
fn an_older_schema_is_migrated_and_keeps_what_it_knew() {
    let home = TestStore::new();
    let database = home.store.layout().database();
    fs::remove_file(&database).unwrap();
    let old = rusqlite::Connection::open(&database).unwrap();
    old.execute_batch(include_str!("../db/schema.sql")).unwrap();
    old.pragma_update(None, "application_id", 0x5242_4c44).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let key = super::records::key("a");
    old.execute("INSERT INTO tombstones VALUES (?1, 'RUN true', 'prune', 5)", [key.to_string()]).unwrap();
    drop(old);
    let store = open(&home).unwrap();
    let tombstone = store.tombstones().for_key(&key).unwrap().unwrap();
    assert_eq!((tombstone.rule.as_str(), tombstone.used_at, tombstone.size), ("prune", None, 0));
    assert_eq!(open(&home).unwrap().tombstones().for_keys(&[key]).unwrap(), [Some(tombstone)]);
}

#[test]
fn a_damaged_database_is_named_and_not_replaced() {
    let home = TestStore::new();
    let lease = home.lease();
    home.store.blobs_for(&lease, &crate::lock::wait_silently).put(b"content").unwrap();
    drop(lease);
    let root = home.root().to_owned();
    let path = home.store.layout().database();
    let sidecars = ["-wal", "-shm"].map(|suffix| {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        name
    });
    for damage in [&b""[..], &[0xa5; 8192]] {
        let copy = home.root().join("../copy");
        drop(fs::remove_dir_all(&copy));
        fs::create_dir(&copy).unwrap();
        let elsewhere = Store::open(&copy, OpenOptions::new("test")).unwrap();
        let database = elsewhere.layout().database();
        drop(elsewhere);
        fs::write(&database, damage).unwrap();
        let error = Store::open(&copy, OpenOptions::new("test")).unwrap_err();
        assert!(error.to_string().contains("meta.db is damaged"), "{error}");
        assert_eq!(fs::read(&database).unwrap(), damage);
    }
    let _open = &home.store;
    fs::remove_file(&path).unwrap();
    sidecars.iter().for_each(|name| drop(fs::remove_file(name)));
    let error = Store::open(&root, OpenOptions::new("test")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is missing, though the store has content; `rbuild cache verify --rebuild` saves the images",
            path.display()
        ),
        "content is not thrown away silently"
    );
}

#[test]
fn an_interrupted_creation_is_completed() {
    let home = TestStore::new();
    fs::remove_file(home.store.layout().database()).unwrap();
    fs::remove_dir(home.store.layout().ingest()).unwrap();
    fs::write(home.root().join("meta.db.new"), "half").unwrap();
    let store = open(&home).unwrap();
    assert!(store.layout().ingest().is_dir());
}

#[test]
fn many_processes_may_open_first() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    std::thread::scope(|scope| {
        let openers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Store::open(&root, OpenOptions::new("test")).map(drop))).collect();
        openers.into_iter().for_each(|opener| opener.join().unwrap().unwrap());
    });
}

#[test]
fn opening_again_is_cheap() {
    let home = TestStore::new();
    let fastest = (0..20).map(|_| {
        let start = Instant::now();
        open(&home).unwrap();
        start.elapsed()
    });
    let fastest = fastest.min().unwrap();
    // Unoptimised, on a busy machine; the target for the product is 1 ms.
    assert!(fastest < Duration::from_millis(10), "{fastest:?}");
}

#[test]
fn images_survive_the_loss_of_the_database() {
    let home = TestStore::new();
    let lease = home.lease();
    let sink = home.store.blobs_for(&lease, &crate::lock::wait_silently);
    let layer = sink.put(b"layer").unwrap();
    let rootfs = format!("{{\"type\":\"layers\",\"diff_ids\":[\"{layer}\"]}}");
    let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{rootfs}}}");
    let id = sink.put(config.as_bytes()).unwrap();
    let part = |kind: &str, digest, size: usize| {
        format!("{{\"mediaType\":\"application/vnd.oci.image.{kind}\",\"digest\":\"{digest}\",\"size\":{size}}}")
    };
    let manifest = |layer: &str| {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{},\"layers\":[{layer}]}}",
            part("config.v1+json", id, config.len()),
        )
    };
    sink.put(manifest(&part("layer.v1.tar", layer, 5)).as_bytes()).unwrap();
    let absent = rbuild_image::Digest::sha256("absent");
    sink.put(manifest(&part("layer.v1.tar", absent, 5)).as_bytes()).unwrap();
    let damaged = sink.put(b"damaged").unwrap();
    fs::write(home.store.layout().blob(&damaged), "DAMAGED").unwrap();
    let in_use = Store::rebuild(home.root(), OpenOptions::new("test")).unwrap_err();
    assert!(in_use.to_string().ends_with("is in use by another process: test"), "{in_use}");
    drop(lease);
    fs::write(home.store.layout().database(), "").unwrap();

    let (store, report) = Store::rebuild(home.root(), OpenOptions::new("test")).unwrap();
    assert_eq!((report.blobs, report.damaged, report.images), (4, vec![damaged], vec![id]));
    let image = store.images().find(&id.short(), None).unwrap();
    assert_eq!(image.record.diff_ids, [rbuild_image::DiffId::new(layer)]);
    super::assert_sound(&store);
    assert!(home.root().join("meta.db.damaged").exists());
}

#[test]
fn images_that_were_built_here_survive_it_too() {
    let home = TestStore::new();
    let lease = home.lease();
    let (first, second) = {
        let first = home.snapshot(&lease, None, 1000);
        (first, home.snapshot(&lease, Some(first), 2000))
    };
    let snapshots = home.store.snapshots();
    let diff_ids: Vec<String> = [first, second]
        .iter()
        .map(|id| format!("\"{}\"", snapshots.get(*id).unwrap().layer().unwrap().diff_id))
        .collect();
    let rootfs = format!("{{\"type\":\"layers\",\"diff_ids\":[{}]}}", diff_ids.join(","));
    let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{rootfs}}}");
    let record = super::images::image(&home, &lease, &config, Some(second));
    home.store.images().put(&record, &["app:1".parse().unwrap()]).unwrap();
    drop(lease);
    let path = home.store.layout().database();
    // A torn page in the middle, as a failing disk leaves it.
    home.store.db().write(crate::db::Durability::Synced, |tx| tx.execute("UPDATE images SET size = 5", [])).unwrap();
    let closed = rusqlite::Connection::open(&path).unwrap();
    closed.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let page: usize =
        closed.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'images'", [], |row| row.get(0)).unwrap();
    drop(closed);
    fs::write(&path, {
        let mut bytes = fs::read(&path).unwrap();
        bytes[(page - 1) * 4096..][..4096].fill(0xa5);
        bytes
    })
    .unwrap();

    let (store, report) = Store::rebuild(home.root(), OpenOptions::new("test")).unwrap();
    assert_eq!(report.images, [record.id]);
    let image = store.images().by_id(&record.id).unwrap().unwrap();
    assert_eq!(image.references, ["app:1".parse().unwrap()], "its name could still be read");
    let layers = store.snapshots().layers(image.record.snapshot.unwrap()).unwrap();
    assert_eq!(layers.iter().map(|layer| layer.diff.diff_id).collect::<Vec<_>>(), image.record.diff_ids);
    super::assert_sound(&store);
}
