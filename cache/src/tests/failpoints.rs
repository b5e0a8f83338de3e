//! Death and failure at every named point there is. The points are read from the sources, so that none
//! is forgotten, and the workload must hit each.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use rbuild_image::layer::TarWriter;
use rbuild_image::{BlobSink, Descriptor, Digest, MediaType, Platform};

use super::records::{key, record};
use super::{PATIENT, assert_sound, verify};
use crate::gc::{GcPolicy, ImageScope, PruneMode, PruneScope};
use crate::images::{BlobRole, ImageRecord};
use crate::lock::wait_silently;
use crate::mount_cache::{CacheMountRequest, MountSharing};
use crate::roots::Kept;
use crate::snapshot::SnapshotterChoice;
use crate::store::{OpenOptions, Store};
use crate::testing::TestChild;

/// Abort, ENOSPC, EIO, EINTR.
const ACTIONS: [&str; 4] = ["abort", "28", "5", "4"];
/// Points that no workload here reaches, and why.
const ELSEWHERE: [(&str, &str); 1] = [("rebuild-aside", "needs a damaged database: a_killed_rebuild_is_done_again")];

/// Everything that lasts, once: blobs both ways, a layer, a record, an image and its name, a root, a cache mount, and
/// collections of it all.
pub(super) fn workload(root: &Path) -> Result<(), Box<dyn Error>> {
    let store = Store::open(root, OpenOptions::new("everything"))?;
    let lease = store.lease("everything")?;
    let sink = store.blobs_for(&lease, &wait_silently);
    let config = sink.put_all(&[b"config", b"garbage"])?[0];
    let bytes = vec![7; 10_000];
    let descriptor = Descriptor::new(MediaType::OciLayer, Digest::sha256(&bytes), 10_000);
    let mut writer = sink.begin(&descriptor)?;
    if writer.resume_offset() < 10_000 {
        let rest = usize::try_from(writer.resume_offset())?;
        writer.write_all(&bytes[rest..])?;
    }
    writer.commit()?;
    let kept = store.snapshots().prepare(None, &lease)?.commit(&lease)?.id();
    let form = lease.scratch_name("layer")?;
    fs::write(&form, "compressed")?;
    let compressed = store.snapshots().get(kept)?;
    compressed.set_form("gzip", Some((Digest::sha256("compressed"), 10)))?;
    compressed.keep_form("gzip", &form, &lease, &wait_silently)?;
    let cached = store.snapshots().prepare(None, &lease)?.commit(&lease)?.id();
    let soon = store.snapshots().prepare(Some(cached), &lease)?.commit_soon(&lease)?;
    store.snapshots().settle(soon)?;
    let options = OpenOptions { snapshotter: SnapshotterChoice::Erofs, ..OpenOptions::new("everything") };
    let tars = Store::open(root, options)?.snapshots();
    if tars.mounts_erofs().is_ok() {
        // One layer gets the other form, one comes from outside.
        tars.get(kept)?.layer()?;
        let layer = tars.apply(None, &mut &TarWriter::new(Vec::new()).finish()?[..], None, &lease)?.id();
        // Another one has the same tar.
        tars.apply(None, &mut &TarWriter::new(Vec::new()).finish()?[..], None, &lease)?;
        // As many layers as are merged when they are mounted.
        let mut top = layer;
        for _ in 1..16 {
            top = tars.rebase(layer, Some(top), &lease)?.id();
        }
        tars.get(top)?.rootfs_lowers()?;
        // One that is used before it is durable.
        let active = tars.prepare(Some(top), &lease)?;
        active.writer()?.finish()?;
        let soon = active.commit_soon(&lease)?;
        tars.view(Some(soon))?;
        tars.settle(soon)?;
    }
    store.records().record(&record(&["step"], Some(cached)))?;
    store.records().lookup(&key("step"), &lease)?;
    let image = ImageRecord {
        id: config,
        platform: Platform::host(),
        manifest: None,
        diff_ids: Vec::new(),
        snapshot: Some(kept),
        size: 0,
        created_at: None,
        blobs: BTreeMap::from([(config, BlobRole::Config)]),
    };
    store.images().put(&image, &["app".parse()?])?;
    store.roots().set("container/1", &[Kept::Snapshot(kept)])?;
    let request = CacheMountRequest {
        id: "cache",
        base: None,
        sharing: MountSharing::Shared,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        fill: &|_| Ok(()),
    };
    drop(store.cache_mounts().acquire(&request, &lease, &wait_silently)?);
    drop(lease);
    let policy = GcPolicy { images: ImageScope::Dangling, ..GcPolicy::new("everything", PruneScope::All) };
    store.prune(&policy, PruneMode::Apply, PATIENT)?;
    Ok(())
}

/// All names in the sources.
fn points() -> BTreeSet<String> {
    let mut points = BTreeSet::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with("tests/failpoints.rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            points.extend(
                text.split("failpoint::hit(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())),
            );
        }
    }
    points
}

/// Runs the workload in a process of its own, that no other test's process is begun in: such a process holds all locks
/// of its parent, too, until it is another program, and keeps leases alive that were given back meanwhile.
///
/// How often each point was hit, or what went wrong; `None` when the process died.
fn everything(root: &Path, armed: Option<&str>) -> Option<Result<String, String>> {
    let arguments = ["everything", root.to_str().unwrap()];
    let said = TestChild::start(&[&arguments[..], armed.as_slice()].concat()).said()?;
    let (word, rest) = said.split_once(' ').expect("it says what it means");
    Some(if word == "hits" { Ok(rest.to_owned()) } else { Err(rest.to_owned()) })
}

/// How often the workload hits each point.
fn hits() -> BTreeMap<String, usize> {
    let home = tempfile::tempdir().unwrap();
    let said = everything(&home.path().join("store"), None).expect("it lives").expect("it succeeds unharmed");
    let pairs = said.split(' ').map(|pair| pair.split_once(':').unwrap());
    pairs.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

/// What must hold after `point` was struck: nothing but garbage is left, and everything works.
fn strike(point: &str, action: &str, hit: usize) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    let armed = format!("failpoints:{point}={action}@{hit}");
    let told = everything(&root, Some(&armed));
    if action == "abort" {
        assert_eq!(told, None, "{armed}: it dies");
    } else {
        let Some(Err(error)) = told else { panic!("{armed}: no failure is reported, but {told:?}") };
        assert!(error.contains(root.to_str().unwrap()), "{armed}: names no path: {error}");
        let operations = ["cannot ", "no space left on the device of", "rename", "sync", "meta.db"];
        assert!(operations.iter().any(|word| error.contains(word)), "{armed}: names no operation: {error}");
    }
    if root.join("format").exists() && root.join("meta.db").exists() {
        assert_sound(&Store::open(&root, OpenOptions::new("test")).unwrap());
    }
    let again = everything(&root, None);
    assert!(matches!(again, Some(Ok(_))), "{armed}: does not work afterwards: {again:?}");
    let store = Store::open(&root, OpenOptions::new("test")).unwrap();
    assert_sound(&store);
    assert_eq!(store.images().list().unwrap().len(), 1, "{armed}: the acknowledged image is there");
    let report = verify(&store);
    let scratch = store.layout().tmp();
    let left: Vec<_> = report.garbage.iter().filter(|path| path.starts_with(&scratch)).collect();
    assert!(left.is_empty(), "{armed}: left in tmp: {left:?}");
}

#[test]
fn every_point_is_hit() {
    let hits = hits();
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
    let missed: Vec<String> = points()
        .into_iter()
        .filter(|point| !hits.contains_key(point.as_str()) && !elsewhere.contains(point.as_str()))
        .collect();
    assert_eq!(missed, [] as [String; 0], "points that the workload never reaches");
}

#[test]
fn a_killed_rebuild_is_done_again() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    workload(&root).unwrap();
    fs::write(root.join("meta.db"), "").unwrap();
    for action in ACTIONS {
        let armed = format!("failpoints:rebuild-aside={action}");
        assert!(!TestChild::start(&["rebuild", root.to_str().unwrap(), &armed]).ended_well(), "{action}");
        let error = Store::open(&root, OpenOptions::new("test")).unwrap_err().to_string();
        assert!(error.contains("meta.db") && error.contains("--rebuild"), "{error}");
    }
    assert!(TestChild::start(&["rebuild", root.to_str().unwrap()]).ended_well());
    assert_sound(&Store::open(&root, OpenOptions::new("test")).unwrap());
}

/// Each point once, at its first hit, with death and one error; [`all_hits_with_all_actions`] is the whole table.
#[test]
fn death_and_errors_at_every_point_leave_only_garbage() {
    let cases: Vec<(String, &str)> = hits()
        .into_keys()
        .zip(ACTIONS[1..].iter().cycle())
        .flat_map(|(point, error)| [(point.clone(), "abort"), (point, *error)])
        .collect();
    cases.par_iter().for_each(|(point, action)| strike(point, action, 1));
}

#[test]
#[ignore = "takes minutes: every hit of every point with every action"]
fn all_hits_with_all_actions() {
    let cases: Vec<(String, usize)> =
        hits().into_iter().flat_map(|(point, count)| (1..=count).map(move |hit| (point.clone(), hit))).collect();
    cases.par_iter().for_each(|(point, hit)| ACTIONS.iter().for_each(|action| strike(point, action, *hit)));
}
