//! Images and references.

use std::collections::BTreeMap;

use rbuild_image::{DiffId, Digest, ImageRef, Platform};

use super::{PATIENT, assert_sound};
use crate::gc::{GcPolicy, ImageScope, PruneMode, PruneScope};
use crate::id::SnapshotId;
use crate::images::{BlobRole, ImageError, ImageRecord};
use crate::lease::Lease;
use crate::lock::wait_silently;
use crate::testing::{TestChild, TestStore};

pub(super) fn image(home: &TestStore, lease: &Lease, config: &str, snapshot: Option<SnapshotId>) -> ImageRecord {
    let id = home.store.blobs_for(lease, &wait_silently).put(config.as_bytes()).unwrap();
    ImageRecord {
        id,
        platform: "linux/amd64".parse().unwrap(),
        manifest: None,
        diff_ids: snapshot.iter().map(|_| DiffId::new(Digest::sha256(config))).collect(),
        snapshot,
        size: 1,
        created_at: None,
        blobs: BTreeMap::from([(id, BlobRole::Config)]),
    }
}

fn reference(text: &str) -> ImageRef {
    text.parse().unwrap()
}

#[test]
fn images_are_found_by_reference_id_and_prefix() {
    let home = TestStore::new();
    let lease = home.lease();
    let first = image(&home, &lease, "first", None);
    let second = image(&home, &lease, "second", None);
    home.store.images().put(&first, &[reference("app:1"), reference("app")]).unwrap();
    home.store.images().put(&second, &[]).unwrap();
    let found = |text: &str| home.store.images().find(text, None).map(|image| image.record.id);
    assert_eq!(found("app:1").unwrap(), first.id);
    assert_eq!(found("docker.io/library/app:latest").unwrap(), first.id);
    assert_eq!(found(&second.id.to_string()).unwrap(), second.id);
    assert_eq!(found(&second.id.hex()).unwrap(), second.id);
    assert_eq!(found(&second.id.short()).unwrap(), second.id);
    assert_eq!(found(&first.id.hex()[..5]).unwrap(), first.id);
    for absent in ["app:2", "nothing", "", "sha256:", "sha256:zz", &"0".repeat(65)] {
        assert!(matches!(found(absent).unwrap_err(), ImageError::NotFound { .. }), "{absent:?}");
    }
    home.store.images().tag(&reference(&first.id.hex()[..5]), &second.id).unwrap();
    assert_eq!(found(&first.id.hex()[..5]).unwrap(), second.id, "a name beats the beginning of an id");
    let listed = home.store.images().find("app", None).unwrap();
    assert_eq!(listed.references, [reference("app:1"), reference("app:latest")]);
}

#[test]
fn a_prefix_of_two_ids_is_ambiguous() {
    let home = TestStore::new();
    let lease = home.lease();
    for number in 0..40 {
        home.store.images().put(&image(&home, &lease, &number.to_string(), None), &[]).unwrap();
    }
    let digits: Vec<char> = "0123456789abcdef".chars().collect();
    let outcomes: Vec<_> = digits.iter().map(|digit| home.store.images().find(&digit.to_string(), None)).collect();
    assert!(
        outcomes
            .iter()
            .any(|outcome| matches!(outcome, Err(ImageError::Ambiguous { candidates, .. }) if candidates.len() > 1))
    );
}

#[test]
fn references_are_per_platform() {
    let home = TestStore::new();
    let lease = home.lease();
    let amd = image(&home, &lease, "amd", None);
    let arm = ImageRecord { platform: "linux/arm64".parse().unwrap(), ..image(&home, &lease, "arm", None) };
    home.store.images().put(&amd, &[reference("x")]).unwrap();
    home.store.images().put(&arm, &[reference("x")]).unwrap();
    let get = |platform: &str| {
        let platform: Platform = platform.parse().unwrap();
        home.store.images().get(&reference("x"), Some(&platform)).unwrap().map(|image| image.record.id)
    };
    assert_eq!(get("linux/amd64"), Some(amd.id));
    assert_eq!(get("linux/arm64"), Some(arm.id));
    assert_eq!(get("linux/s390x"), None);
    assert_eq!(home.store.images().untag(&reference("x")).unwrap().len(), 2);
}

#[test]
fn an_incomplete_image_is_refused() {
    let home = TestStore::new();
    let lease = home.lease();
    let mut record = image(&home, &lease, "config", None);
    record.blobs.insert(Digest::sha256("absent"), BlobRole::Layer);
    let error = home.store.images().put(&record, &[reference("x")]).unwrap_err();
    assert!(matches!(error, ImageError::Incomplete { .. }), "{error}");
    let record = ImageRecord { snapshot: Some(SnapshotId::from_row(77)), ..image(&home, &lease, "config", None) };
    assert!(home.store.images().put(&record, &[reference("x")]).is_err());
    assert!(home.store.images().get(&reference("x"), None).unwrap().is_none(), "a tag moves only with its image");
    assert!(home.store.images().tag(&reference("x"), &record.id).is_err());
}

#[test]
fn storing_again_adds_what_is_new_and_moves_tags_back() {
    let home = TestStore::new();
    let lease = home.lease();
    let (first, second) = (image(&home, &lease, "first", None), image(&home, &lease, "second", None));
    let put = |record: &ImageRecord, references: &[&str]| {
        let references: Vec<ImageRef> = references.iter().map(|text| reference(text)).collect();
        home.store.images().put(record, &references).unwrap();
        let get = |text| home.store.images().get(&reference(text), None).unwrap().map(|image| image.record.id);
        (get("a"), get("b"))
    };
    assert_eq!(put(&first, &["a"]), (Some(first.id), None));
    assert_eq!(put(&first, &["a"]), (Some(first.id), None));
    assert_eq!(put(&first, &["a", "b"]), (Some(first.id), Some(first.id)));
    assert_eq!(put(&second, &["a"]), (Some(second.id), Some(first.id)));
    assert_eq!(put(&first, &["a"]), (Some(first.id), Some(first.id)));
    let extra = home.store.blobs_for(&lease, &wait_silently).put(b"index").unwrap();
    let mut more = first.clone();
    more.blobs.insert(extra, BlobRole::Index);
    put(&more, &[]);
    assert_eq!(home.store.images().by_id(&first.id).unwrap().unwrap().record.blobs, more.blobs);
    let snapshot = home.snapshot(&lease, None, 1);
    put(&ImageRecord { snapshot: Some(snapshot), ..first.clone() }, &[]);
    put(&first, &["a"]);
    assert_eq!(home.store.images().by_id(&first.id).unwrap().unwrap().record.snapshot, Some(snapshot));
}

#[test]
fn many_processes_move_one_tag() {
    let home = TestStore::new();
    let lease = home.lease();
    for config in ["a", "b", "c"] {
        home.store.images().put(&image(&home, &lease, config, None), &[]).unwrap();
    }
    let arguments = ["tag", home.root().to_str().unwrap(), "moving:tag"];
    let mut children: Vec<TestChild> = (0..5).map(|_| TestChild::start(&arguments)).collect();
    for _ in 0..50 {
        if let Some(image) = home.store.images().get(&reference("moving:tag"), None).unwrap() {
            assert_eq!(image.references, [reference("moving:tag")]);
        }
    }
    assert!(children.iter_mut().all(TestChild::ended_well));
    let tagged: Vec<_> =
        home.store.images().list().unwrap().into_iter().filter(|image| !image.references.is_empty()).collect();
    assert_eq!(tagged.len(), 1);
    assert_sound(&home.store);
}

#[test]
fn removed_images_are_collected_and_others_keep_what_they_share() {
    let home = TestStore::new();
    let lease = home.lease();
    let base = home.snapshot(&lease, None, 10_000);
    let top = home.snapshot(&lease, Some(base), 20_000);
    let small = image(&home, &lease, "small", Some(base));
    let large = image(&home, &lease, "large", Some(top));
    home.store.images().put(&small, &[reference("small")]).unwrap();
    home.store.images().put(&large, &[reference("large")]).unwrap();
    drop(lease);
    let usage = home.store.du().unwrap();
    assert_eq!(usage.layers, 30_000);
    let sizes: BTreeMap<_, _> = usage.images.iter().map(|image| (image.id, (image.size, image.shared))).collect();
    assert_eq!(sizes[&small.id], (10_005, 10_000));
    assert_eq!(sizes[&large.id], (30_005, 10_000));

    home.store.images().remove(&large.id).unwrap();
    let report = home.store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!((report.layers, report.blobs), (1, 1));
    assert!(report.freed >= 20_000, "{report:?}");
    assert_eq!(home.store.du().unwrap().layers, 10_000);
    assert!(home.store.images().acquire("small", None, &home.lease()).is_ok());

    home.store.images().untag(&reference("small")).unwrap();
    let policy = GcPolicy { images: ImageScope::Dangling, ..GcPolicy::new("test", PruneScope::Garbage) };
    let dry = home.store.prune(&policy, PruneMode::DryRun, PATIENT).unwrap();
    assert_eq!((dry.images.as_slice(), dry.freed), (&[small.id][..], 10_005));
    assert_eq!(home.store.images().list().unwrap().len(), 1, "a dry run changes nothing");
    let report = home.store.prune(&policy, PruneMode::Apply, PATIENT).unwrap();
    assert_eq!(report.images, [small.id]);
    assert_eq!(home.store.du().unwrap().total(), 0);
    assert_sound(&home.store);
}
