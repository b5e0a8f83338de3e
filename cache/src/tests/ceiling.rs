//! The cache's ceiling while builds add to it.

use std::sync::Arc;
use std::time::Duration;

use super::assert_sound;
use super::records::{key, record};
use crate::gc::{GcPolicy, Keeper, Limits, PruneScope, Space};
use crate::testing::TestStore;

const LAYER: usize = 10_000;

fn within(home: &TestStore, bytes: u64) -> Keeper {
    let policy = GcPolicy { max_used: Some(Space::Bytes(bytes)), ..GcPolicy::new("ceiling", PruneScope::Cache) };
    home.store.keep_within(vec![policy], Arc::new(|| false))
}

/// A step as a build does it: says how large it will be, then names its layer and its record.
fn step(home: &TestStore, lease: &crate::Lease, name: &str) {
    home.store.grows_by(LAYER as u64);
    let snapshot = home.snapshot(lease, None, LAYER);
    home.store.records().record(&record(&[name], Some(snapshot))).unwrap();
}

#[test]
fn the_ceiling_holds_after_every_step() {
    let home = TestStore::new();
    let keeper = within(&home, 50_000);
    for number in 0..20 {
        let lease = home.lease();
        step(&home, &lease, &number.to_string());
        let used = home.store.du().unwrap().layers;
        assert!(used <= 50_000, "{used} bytes after step {number}");
        home.clock.advance(Duration::from_secs(60));
    }
    let left: Vec<_> = home.store.records().list().unwrap().into_iter().map(|listed| listed.keys[0].key).collect();
    assert_eq!(left, ["19", "18", "17", "16", "15"].map(key), "the oldest of equals went");
    assert_eq!(home.store.tombstones().for_key(&key("3")).unwrap().unwrap().rule, "ceiling");
    drop(keeper);
    assert_sound(&home.store);
}

#[test]
fn what_a_build_holds_stays_until_it_ends() {
    let home = TestStore::new();
    let old = home.lease();
    step(&home, &old, "old");
    drop(old);
    let keeper = within(&home, 35_000);
    let lease = home.lease();
    let names: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    for name in &names {
        step(&home, &lease, name);
    }
    assert_eq!(home.store.records().list().unwrap().len(), 8, "only the old one could go");
    for name in &names {
        assert!(home.store.records().lookup(&key(name), &lease).unwrap().is_some());
    }
    drop(lease);
    keeper.finish();
    assert!(home.store.du().unwrap().layers <= 35_000);
    assert_sound(&home.store);
}

#[test]
fn images_do_not_count_and_are_not_hurt() {
    let home = TestStore::new();
    let lease = home.lease();
    let mut parent = None;
    for _ in 0..10 {
        parent = Some(home.snapshot(&lease, parent, LAYER));
    }
    home.store.images().put(&super::images::image(&home, &lease, "config", parent), &["app".parse().unwrap()]).unwrap();
    drop(lease);
    let _keeper = within(&home, 30_000);
    for number in 0..5 {
        step(&home, &home.lease(), &number.to_string());
    }
    assert_eq!(home.store.du().unwrap().layers, 100_000 + 30_000);
    assert_sound(&home.store);
}

#[test]
fn age_is_looked_at_once_an_hour() {
    let home = TestStore::new();
    step(&home, &home.lease(), "old");
    home.clock.advance(Duration::from_secs(61 * 24 * 3600));
    assert_eq!(home.store.last_collection().unwrap(), None);
    let keeper = home.store.keep_within(
        GcPolicy::defaults(&Limits { reserved: None, max_used: Some(Space::Bytes(0)), min_free: None })[..2].to_vec(),
        Arc::new(|| false),
    );
    step(&home, &home.lease(), "young");
    // The background thread may be ended before it began.
    for _ in 0..500 {
        if home.store.last_collection().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(keeper);
    assert_eq!(home.store.last_collection().unwrap(), Some(home.clock.now()));
    let tombstone = home.store.tombstones().for_key(&key("old")).unwrap().unwrap();
    assert!(tombstone.rule.starts_with("gc policy 2 (keepDuration 1440h"), "{}", tombstone.rule);
    assert_eq!((tombstone.size, tombstone.used_at.is_some()), (LAYER as u64, true));
    assert_eq!(home.store.records().list().unwrap().len(), 1);
}
