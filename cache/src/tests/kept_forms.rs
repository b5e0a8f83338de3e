//! Compressed layers that are kept for the next push: found again, counted, gone before anything else.

use std::fs;
use std::time::Duration;

use rbuild_image::Digest;

use super::images::image;
use super::records::record;
use super::{PATIENT, assert_sound};
use crate::gc::{GcPolicy, ImageScope, PruneMode, PruneReport, PruneScope, Space};
use crate::id::SnapshotId;
use crate::index::NewRecord;
use crate::lock::wait_silently;
use crate::repair::RepairReport;
use crate::testing::TestStore;
use crate::verify::{Problem, VerifyDepth};

const SIZE: usize = 7_000;
const GZIP: &str = "gzip-test-1";

/// Compresses the layer of a snapshot, as far as the store can tell, and has that kept.
fn keep(home: &TestStore, id: SnapshotId, seed: u8) -> Digest {
    let lease = home.lease();
    let snapshot = home.store.snapshots().get(id).unwrap();
    let bytes = vec![seed; SIZE];
    let path = lease.scratch_name("layer").unwrap();
    fs::write(&path, &bytes).unwrap();
    let digest = Digest::sha256(&bytes);
    snapshot.set_form(GZIP, Some((digest, SIZE as u64))).unwrap();
    assert_eq!(snapshot.kept_form(GZIP, &lease).unwrap(), None, "known is not kept");
    snapshot.keep_form(GZIP, &path, &lease, &wait_silently).unwrap();
    digest
}

fn kept(home: &TestStore, id: SnapshotId) -> Option<Digest> {
    let snapshot = home.store.snapshots().get(id).unwrap();
    snapshot.kept_form(GZIP, &home.lease()).unwrap().map(|(digest, _)| digest)
}

/// A step that an image has, and one that only the cache has.
fn two_steps(home: &TestStore) -> (SnapshotId, SnapshotId) {
    let lease = home.lease();
    let [base, top] = ["base", "top"].map(|name| {
        let snapshot = home.snapshot(&lease, None, 10_000);
        let new = NewRecord { subject: name.to_owned(), ..record(&[name], Some(snapshot)) };
        home.store.records().record(&new).unwrap();
        snapshot
    });
    home.store.images().put(&image(home, &lease, "config", Some(base)), &["app".parse().unwrap()]).unwrap();
    (base, top)
}

fn prune(home: &TestStore, policy: &GcPolicy) -> PruneReport {
    home.store.prune(policy, PruneMode::Apply, PATIENT).unwrap()
}

fn down_to(bytes: u64) -> GcPolicy {
    GcPolicy { max_used: Some(Space::Bytes(bytes)), ..GcPolicy::new("test", PruneScope::Cache) }
}

#[test]
fn what_is_kept_is_found_and_stays_while_there_is_room() {
    let home = TestStore::new();
    let (base, top) = two_steps(&home);
    let digest = keep(&home, base, 1);
    assert_eq!((kept(&home, base), kept(&home, top)), (Some(digest), None));
    assert_eq!(prune(&home, &GcPolicy::garbage()).blobs, 0);
    prune(&home, &down_to(100_000));
    assert_eq!(kept(&home, base), Some(digest));
    let usage = home.store.du().unwrap();
    let [form] = usage.forms.as_slice() else { panic!("{:?}", usage.forms) };
    assert_eq!((form.digest, form.size, form.in_use), (digest, SIZE as u64, false));
    assert_eq!(form.snapshots.iter().copied().collect::<Vec<_>>(), [base]);
    assert_eq!(usage.reclaimable, 10_000 + SIZE as u64, "the image's own bytes are not");
    let lease = home.lease();
    let held = home.store.snapshots().get(base).unwrap().kept_form(GZIP, &lease).unwrap();
    assert!(held.is_some() && home.store.du().unwrap().forms[0].in_use);
    assert_sound(&home.store);
}

#[test]
fn it_goes_before_anything_else() {
    let home = TestStore::new();
    let (base, top) = two_steps(&home);
    keep(&home, base, 1);
    // The step is old and was quick; the copy is new.
    home.clock.advance(Duration::from_secs(3600));
    keep(&home, top, 2);
    let report = prune(&home, &down_to(20_000));
    assert_eq!((report.forms.len(), report.records.len()), (1, 0), "no more than is needed");
    let dry = home.store.prune(&down_to(10_000), PruneMode::DryRun, PATIENT).unwrap();
    assert_eq!((dry.forms.len(), dry.freed), (1, SIZE as u64));
    let report = prune(&home, &down_to(10_000));
    assert_eq!((report.forms.len(), report.blobs, report.records.len()), (1, 1, 0));
    assert_eq!((kept(&home, base), kept(&home, top)), (None, None));
    assert_eq!(home.store.snapshots().get(top).unwrap().form(GZIP).unwrap().unwrap().1, SIZE as u64, "still known");
    assert_eq!(prune(&home, &down_to(0)).records.len(), 1);
    assert_sound(&home.store);
}

#[test]
fn filters_and_age_narrow_it_and_it_goes_with_its_layer() {
    let home = TestStore::new();
    let (base, top) = two_steps(&home);
    keep(&home, top, 1);
    home.clock.advance(Duration::from_secs(3600));
    let digest = keep(&home, base, 2);
    let filters = vec!["type==internal".parse().unwrap()];
    let unused_for = Some(Duration::from_secs(60));
    let policy = GcPolicy { filters, unused_for, ..GcPolicy::new("test", PruneScope::Cache) };
    let report = prune(&home, &policy);
    assert_eq!((report.forms.len(), report.records.len()), (1, 0));
    assert_eq!(kept(&home, base), Some(digest));
    let filters = vec!["type==regular".parse().unwrap()];
    assert_eq!(prune(&home, &GcPolicy { filters, ..GcPolicy::new("test", PruneScope::All) }).forms, []);
    assert_eq!(kept(&home, base), Some(digest));
    let policy = GcPolicy { images: ImageScope::Unused, ..GcPolicy::garbage() };
    prune(&home, &policy);
    assert!(home.store.blobs().len(&digest).is_err(), "the image went, and the layer with it");
    assert_sound(&home.store);
}

#[test]
fn a_lease_keeps_what_is_about_to_be_sent() {
    let home = TestStore::new();
    let (base, _) = two_steps(&home);
    let digest = keep(&home, base, 1);
    let lease = home.lease();
    let snapshot = home.store.snapshots().get(base).unwrap();
    assert!(snapshot.kept_form(GZIP, &lease).unwrap().is_some());
    assert_eq!(prune(&home, &down_to(0)).forms, []);
    assert_eq!(home.store.let_go_of_kept_forms().unwrap(), 1);
    prune(&home, &GcPolicy::garbage());
    assert!(home.store.blobs().open_file(&digest).is_ok());
    drop(lease);
    prune(&home, &GcPolicy::garbage());
    assert!(home.store.blobs().open_file(&digest).is_err());
    assert_sound(&home.store);
}

#[test]
fn a_damaged_copy_is_made_again_and_repair_removes_it() {
    let home = TestStore::new();
    let (base, _) = two_steps(&home);
    let digest = keep(&home, base, 1);
    let path = home.store.layout().blob(&digest);
    fs::write(&path, [1; SIZE - 1]).unwrap();
    assert_eq!(kept(&home, base), None, "its length says so");
    fs::write(&path, [2; SIZE]).unwrap();
    let report = home.store.verify(VerifyDepth::Content, PATIENT.interrupt).unwrap();
    assert!(matches!(report.problems[..], [Problem::BlobContent { .. }]), "{:?}", report.problems);
    let RepairReport { records, collected } = home.store.repair(&report, PATIENT).unwrap();
    assert_eq!((records.len(), collected.blobs), (0, 1));
    assert_sound(&home.store);
    assert!(!path.exists());
}
