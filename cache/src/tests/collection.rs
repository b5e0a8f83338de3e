//! What collection takes, leaves, and how it gets along with others.

use std::ops::ControlFlow;
use std::time::Duration;

use super::images::image;
use super::records::{key, record};
use super::{PATIENT, assert_sound, verify};
use crate::gc::{GcPolicy, PruneControl, PruneMode, PruneReport, PruneScope, Space};
use crate::id::ResultId;
use crate::index::NewRecord;
use crate::lease::Hold;
use crate::lock::wait_silently;
use crate::roots::Kept;
use crate::snapshot::SnapshotterChoice;
use crate::testing::{TestChild, TestStore};
use crate::verify::Problem;

fn prune(home: &TestStore, policy: &GcPolicy) -> PruneReport {
    home.store.prune(policy, PruneMode::Apply, PATIENT).unwrap()
}

/// A chain of steps, each on top of the one before, 10 000 bytes each.
fn chain(home: &TestStore, names: &[&str]) -> Vec<ResultId> {
    let lease = home.lease();
    let mut parent = None;
    let record = |name: &&str| {
        let snapshot = home.snapshot(&lease, parent, 10_000);
        parent = Some(snapshot);
        let new = NewRecord { subject: (*name).to_owned(), ..record(&[name], parent) };
        home.store.records().record(&new).unwrap()
    };
    names.iter().map(record).collect()
}

#[test]
fn a_plain_prune_keeps_what_images_share_and_all_forgets_that_too() {
    let home = TestStore::new();
    let results = chain(&home, &["base", "middle", "top"]);
    let lease = home.lease();
    let middle = home.store.records().lookup(&key("middle"), &lease).unwrap().unwrap().snapshot;
    home.store.images().put(&image(&home, &lease, "config", middle), &["app".parse().unwrap()]).unwrap();
    drop(lease);
    let usage = home.store.du().unwrap();
    assert_eq!((usage.layers, usage.reclaimable), (30_000, 10_000));
    let report = prune(&home, &GcPolicy::new("test", PruneScope::Cache));
    assert_eq!(report.records.iter().map(|record| record.result).collect::<Vec<_>>(), [results[2]]);
    assert_eq!(report.layers, 1);
    assert_eq!(home.store.du().unwrap().layers, 20_000);
    let report = prune(&home, &GcPolicy::new("test", PruneScope::All));
    assert_eq!((report.records.len(), report.layers), (2, 0));
    assert_eq!(home.store.du().unwrap().layers, 20_000, "the image keeps its layers");
    assert_eq!(home.store.tombstones().for_key(&key("top")).unwrap().unwrap().rule, "test");
    assert_sound(&home.store);
}

#[test]
fn a_dry_run_tells_what_a_run_does() {
    let home = TestStore::new();
    chain(&home, &["a", "b", "c"]);
    chain(&home, &["x"]);
    let policy = GcPolicy { max_used: Some(Space::Bytes(20_000)), ..GcPolicy::new("test", PruneScope::Cache) };
    let dry = home.store.prune(&policy, PruneMode::DryRun, PATIENT).unwrap();
    assert_eq!(home.store.records().list().unwrap().len(), 4);
    let wet = prune(&home, &policy);
    assert_eq!((&dry.records, dry.layers, dry.freed), (&wet.records, wet.layers, 20_000));
    assert!(wet.freed >= 20_000, "on disk, with directories: {}", wet.freed);
    assert_eq!(home.store.du().unwrap().layers, 20_000, "a ceiling, not a clearance");
    assert_sound(&home.store);
}

#[test]
fn the_least_worth_goes_first_and_leaves_before_what_they_stand_on() {
    let home = TestStore::new();
    let old = chain(&home, &["old base", "old top"]);
    home.clock.advance(Duration::from_secs(10 * 3600));
    let young = chain(&home, &["young"]);
    home.store.records().touch(&[old[1]]).unwrap();
    let order = |keep| {
        let policy = GcPolicy { max_used: Some(Space::Bytes(keep)), ..GcPolicy::new("test", PruneScope::Cache) };
        let report = home.store.prune(&policy, PruneMode::DryRun, PATIENT).unwrap();
        report.records.into_iter().map(|record| record.result).collect::<Vec<_>>()
    };
    assert_eq!(order(30_000), []);
    assert_eq!(order(0).len(), 3);
    let position = |id| order(0).iter().position(|other| *other == id).unwrap();
    assert!(position(old[1]) < position(old[0]), "the base waits for what stands on it, old as it is");
    assert!(position(old[0]) < 3 && position(young[0]) < 3);
}

#[test]
fn age_and_filters_narrow() {
    let home = TestStore::new();
    let old = chain(&home, &["RUN old"]);
    home.clock.advance(Duration::from_secs(3600));
    chain(&home, &["RUN young", "COPY young"]);
    let unused_for = Some(Duration::from_secs(60));
    let policy = GcPolicy { unused_for, ..GcPolicy::new("until", PruneScope::All) };
    assert_eq!(prune(&home, &policy).records.iter().map(|record| record.result).collect::<Vec<_>>(), old);
    let filters = vec!["description~=COPY".parse().unwrap()];
    let policy = GcPolicy { filters, ..GcPolicy::new("filter", PruneScope::All) };
    let report = prune(&home, &policy);
    assert_eq!(report.records.iter().map(|record| record.subject.as_str()).collect::<Vec<_>>(), ["COPY young"]);
    assert_eq!(home.store.records().list().unwrap().len(), 1);
}

#[test]
fn leases_and_roots_keep_what_they_hold() {
    let home = TestStore::new();
    chain(&home, &["leased", "above"]);
    chain(&home, &["rooted"]);
    let lease = home.lease();
    assert!(home.store.records().lookup(&key("leased"), &lease).unwrap().is_some());
    let rooted = home.store.records().lookup(&key("rooted"), &home.lease()).unwrap().unwrap().snapshot.unwrap();
    home.store.roots().set("container/1", &[Kept::Snapshot(rooted)]).unwrap();
    let report = prune(&home, &GcPolicy::new("test", PruneScope::All));
    assert_eq!(report.layers, 1, "only what is above the leased one");
    assert!(home.store.records().lookup(&key("leased"), &lease).unwrap().is_some(), "in use");
    assert_eq!(home.store.records().lookup(&key("rooted"), &lease).unwrap(), None);
    assert_eq!(home.store.du().unwrap().layers, 20_000);
    drop(lease);
    home.store.roots().release("container/1").unwrap();
    prune(&home, &GcPolicy::new("test", PruneScope::All));
    assert_eq!(home.store.du().unwrap().layers, 0);
    assert_sound(&home.store);
}

#[test]
fn an_interrupted_collection_is_finished_by_the_next() {
    let home = TestStore::new();
    chain(&home, &["a", "b", "c"]);
    let control = PruneControl { on_wait: &wait_silently, interrupt: &|| ControlFlow::Break(()) };
    let report = home.store.prune(&GcPolicy::new("test", PruneScope::All), PruneMode::Apply, control).unwrap();
    assert!(report.interrupted);
    assert_eq!(report.freed, 0, "told truthfully");
    assert_sound(&home.store);
    // These files are as old as the machine's clock says, so the store must go by that one too.
    let store = crate::Store::open(home.root(), crate::OpenOptions::new("test")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(verify(&store).garbage.len(), 3);
    let report = store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert!(report.freed >= 30_000, "{report:?}");
    assert!(verify(&store).garbage.is_empty());
}

/// a prune in a loop against look-ups that all hit.
#[test]
fn a_hit_stays_usable_while_others_prune() {
    let home = TestStore::new();
    let stop = home.root().join("../stop");
    let mut pruner = TestChild::start(&["prune-loop", home.root().to_str().unwrap(), stop.to_str().unwrap()]);
    let (mut hits, mut misses) = (0, 0);
    for round in 0..150 {
        let name = format!("step {}", round % 3);
        let lease = home.lease();
        match home.store.records().lookup(&key(&name), &lease).unwrap() {
            Some(found) => {
                hits += 1;
                std::thread::sleep(Duration::from_millis(u64::from(round % 7 == 0) * 5));
                let path = layer_path(&home, found.snapshot.unwrap());
                assert!(path.join("file").exists(), "round {round}: a hit was taken away");
            }
            None => {
                misses += 1;
                let snapshot = home.snapshot(&lease, None, 100);
                home.store.records().record(&record(&[&name], Some(snapshot))).unwrap();
                if round % 2 == 0 {
                    // The lease that made it looks it up again before it ends.
                    assert!(
                        home.store
                            .records()
                            .lookup(&key(&name), &lease)
                            .unwrap()
                            .is_some_and(|found| { layer_path(&home, found.snapshot.unwrap()).join("file").exists() })
                    );
                }
            }
        }
    }
    std::fs::write(&stop, "").unwrap();
    assert!(pruner.ended_well());
    assert!(misses > 0, "{hits} hits, {misses} misses");
    assert_sound(&home.store);
}

/// The eviction falls between the look and the hold.
#[test]
fn a_hold_that_came_too_late_is_a_miss() {
    let home = TestStore::new();
    chain(&home, &["a"]);
    let mut child =
        TestChild::start(&["lookup", home.root().to_str().unwrap(), "a", "failpoints:lookup-hold=sleep:700"]);
    child.expect("looking");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(prune(&home, &GcPolicy::new("test", PruneScope::All)).layers, 1);
    child.expect("miss");
}

/// The hold falls between the collection's two transactions.
#[test]
fn what_is_held_between_mark_and_sweep_is_spared() {
    let home = TestStore::new();
    let lease = home.lease();
    let snapshot = home.snapshot(&lease, None, 1000);
    let digest = home.store.blobs_for(&lease, &wait_silently).put(b"content").unwrap();
    drop(lease);
    let mut child = TestChild::start(&["prune", home.root().to_str().unwrap(), "failpoints:gc-marked=sleep:1000"]);
    let doomed = || {
        let count = |tx: &crate::db::Tx<'_>| {
            tx.one("SELECT (SELECT sum(doomed) FROM snapshots) + (SELECT sum(doomed) FROM blobs)", [], |row| {
                row.get::<_, i64>(0)
            })
        };
        home.store.db().read(count).unwrap()
    };
    while doomed() < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let lease = home.lease();
    assert!(home.store.blobs_for(&lease, &wait_silently).has(&digest).unwrap());
    lease.hold(Hold::Snapshot(snapshot)).unwrap();
    assert!(home.store.rescue_snapshot(snapshot).unwrap());
    assert!(child.ended_well());
    assert_eq!(home.store.blobs().read(&digest, 100).unwrap(), b"content");
    assert!(layer_path(&home, snapshot).join("file").exists());
    drop(lease);
    prune(&home, &GcPolicy::garbage());
    assert!(!home.store.rescue_snapshot(snapshot).unwrap(), "gone");
    assert!(!home.store.blobs_for(&home.lease(), &wait_silently).has(&digest).unwrap());
    assert_sound(&home.store);
}

fn layer_path(home: &TestStore, snapshot: crate::SnapshotId) -> std::path::PathBuf {
    let path: String = home
        .store
        .db()
        .read(|tx| {
            let sql = "SELECT l.path FROM snapshots s JOIN layers l ON l.id = s.layer WHERE s.id = ?1";
            tx.one(sql, [snapshot], |row| row.get(0))
        })
        .map_err(|error: crate::DbError| error)
        .unwrap();
    home.store.layout().layer(&path)
}

#[test]
fn damage_is_found_and_repaired_without_touching_images() {
    let home = TestStore::new();
    chain(&home, &["sound", "damaged"]);
    chain(&home, &["other"]);
    let lease = home.lease();
    let blob = home.store.blobs_for(&lease, &wait_silently).put(b"content").unwrap();
    let damaged = home.store.records().lookup(&key("damaged"), &lease).unwrap().unwrap().snapshot.unwrap();
    drop(lease);
    std::fs::remove_dir_all(layer_path(&home, damaged)).unwrap();
    std::fs::write(home.store.layout().blob(&blob), "CONTENT").unwrap();
    let report = verify(&home.store);
    let texts: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("now has the digest") && texts[1].contains("layer 2 is missing"), "{texts:?}");
    let repaired = home.store.repair(&report, PATIENT).unwrap();
    assert_eq!(repaired.records.len(), 1);
    let left: Vec<_> = home.store.records().list().unwrap().into_iter().map(|listed| listed.record.subject).collect();
    assert_eq!(left.len(), 2);
    assert!(!left.contains(&"damaged".to_owned()));
    assert_sound(&home.store);
}

#[test]
fn a_changed_layer_is_found_by_its_digest() {
    let home = TestStore::keeping(SnapshotterChoice::Directory);
    let results = chain(&home, &["sound", "changed"]);
    let lease = home.lease();
    for name in ["sound", "changed"] {
        let id = home.store.records().lookup(&key(name), &lease).unwrap().unwrap().snapshot.unwrap();
        home.store.snapshots().get(id).unwrap().layer().unwrap();
    }
    assert_sound(&home.store);
    let changed = home.store.records().lookup(&key("changed"), &lease).unwrap().unwrap().snapshot.unwrap();
    std::fs::write(layer_path(&home, changed).join("file"), "").unwrap();
    drop(lease);
    let report = verify(&home.store);
    assert!(matches!(report.problems[..], [Problem::LayerContent { .. }]), "{:?}", report.problems);
    assert_eq!(home.store.repair(&report, PATIENT).unwrap().records, [results[1]]);
    assert_sound(&home.store);
}
