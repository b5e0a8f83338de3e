//! Cache records.

use std::time::Duration;

use rbuild_image::{ContentDigest, Digest};

use super::assert_sound;
use crate::StepUsage;
use crate::id::{CacheKey, SnapshotId};
use crate::index::{KeyKind, NewRecord, RecordKey};
use crate::testing::TestStore;

pub(super) fn key(text: &str) -> CacheKey {
    CacheKey::new(Digest::sha256(text))
}

pub(super) fn record(texts: &[&str], snapshot: Option<SnapshotId>) -> NewRecord {
    let keys = texts.iter().map(|text| RecordKey {
        key: key(text),
        kind: if text.starts_with("content") { KeyKind::Content } else { KeyKind::Definition },
        description: (*text).to_owned(),
    });
    NewRecord {
        keys: keys.collect(),
        snapshot,
        content_digest: Some(ContentDigest::new(Digest::sha256("files"))),
        subject: "RUN make".to_owned(),
        build: Some("b1".to_owned()),
        duration: Duration::from_millis(1500),
        description: None,
        usage: Some(StepUsage { processor: Duration::from_millis(700), memory_peak: 5 << 20 }),
    }
}

#[test]
fn every_key_leads_to_the_result_and_holds_its_snapshot() {
    let home = TestStore::new();
    let lease = home.lease();
    let snapshot = home.snapshot(&lease, None, 100);
    let id = home.store.records().record(&record(&["definition", "content"], Some(snapshot))).unwrap();
    drop(lease);
    let lease = home.lease();
    let found = home.store.records().lookup_all(&[key("content"), key("other"), key("definition")], &lease).unwrap();
    assert_eq!(
        found.iter().map(|record| record.as_ref().map(|r| r.result)).collect::<Vec<_>>(),
        [Some(id), None, Some(id)]
    );
    let found = found[0].clone().unwrap();
    assert_eq!((found.snapshot, found.duration), (Some(snapshot), Duration::from_millis(1500)));
    assert_eq!(found.content_digest, Some(ContentDigest::new(Digest::sha256("files"))));
    assert!(lease.holds(&crate::lease::Hold::Snapshot(snapshot)));
    home.store.records().add_keys(id, &[record(&["content 2"], None).keys.remove(0)], None).unwrap();
    assert!(home.store.records().lookup(&key("content 2"), &lease).unwrap().is_some());
    assert_eq!(home.store.records().alike("RUN make", 10).unwrap().len(), 3);
    assert_eq!(home.store.records().usual_duration("RUN make").unwrap(), Some(Duration::from_millis(1500)));
    assert_eq!(home.store.records().usual_duration("RUN other").unwrap(), None);
}

#[test]
fn a_key_leads_to_its_latest_result_and_results_without_keys_vanish() {
    let home = TestStore::new();
    let lease = home.lease();
    let (old, new) = (home.snapshot(&lease, None, 1), home.snapshot(&lease, None, 1));
    let first = home.store.records().record(&record(&["a", "b"], Some(old))).unwrap();
    let second = home.store.records().record(&record(&["a"], Some(new))).unwrap();
    let lead = |text: &str| home.store.records().lookup(&key(text), &lease).unwrap().unwrap().result;
    assert_eq!((lead("a"), lead("b")), (second, first));
    home.store.records().add_keys(second, &record(&["b"], None).keys, None).unwrap();
    assert_eq!(lead("b"), second);
    assert_eq!(home.store.records().list().unwrap().len(), 1);
    assert_sound(&home.store);
}

#[test]
fn touching_counts_and_a_clock_set_back_ages_nothing() {
    let home = TestStore::new();
    let lease = home.lease();
    let id = home.store.records().record(&record(&["a"], None)).unwrap();
    let made = home.clock.now();
    home.clock.advance(Duration::from_secs(60));
    home.store.records().touch(&[id, id]).unwrap();
    let found = home.store.records().lookup(&key("a"), &lease).unwrap().unwrap();
    assert_eq!((found.use_count, found.created_at, found.used_at), (2, made, home.clock.now()));
    let used = home.clock.now();
    home.clock.set_back(Duration::from_secs(24 * 3600));
    home.store.records().touch(&[id]).unwrap();
    assert_eq!(home.store.records().lookup(&key("a"), &lease).unwrap().unwrap().used_at, used);
}

#[test]
fn removal_leaves_a_tombstone_until_the_step_is_done_again() {
    let home = TestStore::new();
    let id = home.store.records().record(&record(&["a"], None)).unwrap();
    assert!(home.store.records().remove(id, "by hand").unwrap());
    assert!(!home.store.records().remove(id, "by hand").unwrap());
    assert_eq!(home.store.records().lookup(&key("a"), &home.lease()).unwrap(), None);
    let tombstone = home.store.tombstones().for_key(&key("a")).unwrap().unwrap();
    assert_eq!((tombstone.rule.as_str(), tombstone.evicted_at), ("by hand", home.clock.now()));
    home.store.records().record(&record(&["a"], None)).unwrap();
    assert_eq!(home.store.tombstones().for_key(&key("a")).unwrap(), None);
}

#[test]
fn a_record_needs_its_snapshot() {
    let home = TestStore::new();
    let error = home.store.records().record(&record(&["a"], Some(SnapshotId::from_row(5)))).unwrap_err();
    assert_eq!(error.to_string(), "snapshot 5 of \"RUN make\" is not in the store");
    assert_eq!(home.store.records().list().unwrap(), []);
}
