//! Damage to what came from outside: found, replaced, set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use rbuild_image::{BlobSink, Descriptor, DiffId, Digest, MediaType, Platform};

use super::{PATIENT, assert_sound, verify};
use crate::gc::{GcPolicy, PruneMode};
use crate::images::{BlobRole, ImageRecord};
use crate::lock::wait_silently;
use crate::snapshot::SnapshotterChoice;
use crate::testing::TestStore;
use crate::verify::Problem;

/// A stored image whose one layer came as a tar; the tar.
fn pulled(home: &TestStore) -> (ImageRecord, Vec<u8>) {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["etc/a", "etc/b"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &b"hello"[..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let lease = home.lease();
    let sink = home.store.blobs_for(&lease, &wait_silently);
    let layer = sink.put(&tar).unwrap();
    let rootfs = format!("{{\"type\":\"layers\",\"diff_ids\":[\"{layer}\"]}}");
    let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{rootfs}}}");
    let id = sink.put(config.as_bytes()).unwrap();
    let part = |kind: &str, digest: Digest, size: usize| {
        format!("{{\"mediaType\":\"application/vnd.oci.image.{kind}\",\"digest\":\"{digest}\",\"size\":{size}}}")
    };
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{},\"layers\":[{}]}}",
        part("config.v1+json", id, config.len()),
        part("layer.v1.tar", layer, tar.len()),
    );
    let digest = sink.put(manifest.as_bytes()).unwrap();
    let diff_id = DiffId::new(layer);
    let snapshot = home.store.snapshots().apply(None, &mut &tar[..], Some(diff_id), &lease).unwrap();
    let roles = [(id, BlobRole::Config), (digest, BlobRole::Manifest), (layer, BlobRole::Layer)];
    let record = ImageRecord {
        id,
        platform: Platform::host(),
        manifest: Some(Descriptor::new(MediaType::OciManifest, digest, manifest.len() as u64)),
        diff_ids: vec![diff_id],
        snapshot: Some(snapshot.id()),
        size: 10,
        created_at: None,
        blobs: BTreeMap::from(roles),
    };
    home.store.images().put(&record, &["app".parse().unwrap()]).unwrap();
    (record, tar)
}

/// The directory of an image's only layer.
fn layer_path(home: &TestStore, record: &ImageRecord) -> PathBuf {
    match home.store.snapshots().get(record.snapshot.unwrap()).unwrap().rootfs_lowers().unwrap().remove(0) {
        rbuild_executor::Lower::Directory(path) => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_layer_from_outside_is_found_and_unpacked_again() {
    let home = TestStore::keeping(SnapshotterChoice::Directory);
    let (record, _) = pulled(&home);
    assert_eq!((verify(&home.store).problems, verify(&home.store).unchecked), (vec![], 0));
    let before = layer_path(&home, &record);
    fs::write(before.join("etc/a"), "HELLO").unwrap();
    let report = verify(&home.store);
    assert!(matches!(report.problems[..], [Problem::LayerFiles { .. }]), "{:?}", report.problems);

    let user = home.lease();
    user.hold(crate::Hold::Snapshot(record.snapshot.unwrap())).unwrap();
    assert_eq!(home.store.restore_layers(&report).unwrap(), [], "somebody uses it");
    drop(user);
    assert_eq!(home.store.restore_layers(&report).unwrap().len(), 1);
    let after = layer_path(&home, &record);
    assert_ne!(before, after, "a path is never used twice");
    assert_eq!(fs::read_to_string(after.join("etc/a")).unwrap(), "hello");
    let report = verify(&home.store);
    assert_eq!((report.problems, report.quarantined.len()), (vec![], 1));
    home.store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!(verify(&home.store).quarantined, [] as [PathBuf; 0]);
    assert_sound(&home.store);
}

#[test]
fn a_damaged_blob_is_replaced_and_its_layer_is_not_judged_by_it() {
    let home = TestStore::keeping(SnapshotterChoice::Directory);
    let (record, tar) = pulled(&home);
    let digest = *record.diff_ids[0].digest();
    fs::write(home.store.layout().blob(&digest), "damaged").unwrap();
    let report = verify(&home.store);
    assert!(matches!(report.problems[..], [Problem::BlobSize { .. }]), "{:?}", report.problems);
    assert_eq!((report.unchecked, report.damaged_blobs()), (1, BTreeSet::from([digest])));

    let (lease, damaged) = (home.lease(), report.damaged_blobs());
    let sink = home.store.replacements(&lease, &wait_silently, &damaged);
    assert!(sink.contains(&record.id).unwrap() && !sink.contains(&digest).unwrap());
    let descriptor = Descriptor::new(MediaType::OciLayer, digest, tar.len() as u64);
    let mut wrong = sink.begin(&descriptor).unwrap();
    wrong.write_all(&vec![0; tar.len()]).unwrap();
    assert!(wrong.commit().is_err(), "only the right bytes replace it");
    let mut right = sink.begin(&descriptor).unwrap();
    right.write_all(&tar).unwrap();
    right.commit().unwrap();
    drop(lease);
    let report = verify(&home.store);
    assert_eq!((report.problems, report.quarantined.len()), (vec![], 1));
    assert_eq!(home.store.blobs().read(&digest, 1 << 20).unwrap(), tar);
}
