//! Long chains: mounted and read as a few, and never more than overlayfs takes.

use std::ops::ControlFlow;

use proptest::prelude::*;
use rbuild_executor::Lower;

use super::*;
use crate::erofs::random_member;
use crate::gc::{GcPolicy, PruneControl, PruneMode, PruneScope};
use crate::id::SnapshotId;
use crate::lock::wait_silently;
use crate::verify::{Problem, VerifyDepth};

const CONTROL: PruneControl<'static> =
    PruneControl { on_wait: &wait_silently, interrupt: &|| ControlFlow::Continue(()) };

/// Layer `n` of a chain in which each adds files, hides some of what is below it, and replaces one type by another.
fn layer(n: usize) -> Vec<u8> {
    let mut entries = vec![
        dir("d"),
        file(&format!("d/{n}"), &n.to_string()),
        file("top", &n.to_string()),
        dir(&format!("own-{n}")),
        file(&format!("own-{n}/a"), "linked"),
        hard(&format!("own-{n}/b"), &format!("own-{n}/a")),
    ];
    if n > 0 {
        entries.push(file(&format!("d/.wh.{}", n - 1), ""));
    }
    match n % 4 {
        0 => entries.extend([dir("turns"), file("turns/in", &n.to_string())]),
        1 => entries.extend([dir("turns"), file("turns/.wh..wh..opq", ""), file(&format!("turns/{n}"), "")]),
        2 => entries.push(file("turns", "a file")),
        _ => entries.push(file(".wh.turns", "")),
    }
    archive(&entries)
}

fn tars(test: &str) -> Option<Bench> {
    if !is_root(test) {
        return None;
    }
    let bench = Bench::of(SnapshotterChoice::Erofs);
    match bench.store.snapshots().mounts_erofs() {
        Ok(()) => Some(bench),
        Err(error) => {
            println!("SKIPPED {test}: {error}");
            None
        }
    }
}

fn chain(bench: &Bench, layers: usize) -> SnapshotId {
    bench.stack(&(0..layers).map(layer).collect::<Vec<_>>()).id()
}

/// How many layers each lower layer of a mount stands for, the topmost first.
fn shape(lowers: &[Lower]) -> Vec<usize> {
    let count = |lower: &Lower| match lower {
        Lower::Directory(_) => 1,
        Lower::Stack(paths) => paths.len(),
        Lower::Erofs { devices, .. } => devices.iter().filter(|path| path.ends_with("tar")).count(),
    };
    lowers.iter().map(count).collect()
}

fn files(bench: &Bench) -> Vec<String> {
    let merged = bench.store.layout().merged();
    let Ok(entries) = fs::read_dir(merged) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_long_chain_is_mounted_and_read_as_few() {
    let Some(bench) = tars("a_long_chain_is_mounted_and_read_as_few") else { return };
    let snapshots = bench.store.snapshots();
    let top = chain(&bench, 36);
    let before = listing(&snapshots.view(Some(top)).unwrap());
    assert_eq!(files(&bench), [] as [String; 0], "views make none");
    let lowers = snapshots.get(top).unwrap().rootfs_lowers().unwrap();
    assert_eq!(shape(&lowers), [1, 1, 1, 1, 32]);
    let made = files(&bench);
    assert_eq!(made.len(), 1);
    // Now the view reads the merged index, and the kernel mounts it.
    assert_eq!(listing(&snapshots.view(Some(top)).unwrap()), before);
    let mounted = mounted_listing(&bench, &snapshots.get(top).unwrap());
    assert_eq!(mounted, before);
    assert_eq!(files(&bench), made, "it was there already");
    // The same layers as directories.
    let directories = Bench::of(SnapshotterChoice::Directory);
    let directory = directories.store.snapshots().view(Some(chain(&directories, 36))).unwrap();
    assert_eq!(listing(&directory), before);
    assert!(before.contains_key("/d/35") && !before.contains_key("/d/34") && before.contains_key("/own-3/b"));
}

#[test]
fn what_is_merged_in_levels_is_what_is_merged_at_once() {
    let Some(bench) = tars("what_is_merged_in_levels_is_what_is_merged_at_once") else { return };
    let snapshots = bench.store.snapshots();
    let mut top = None;
    let mut shapes = Vec::new();
    for n in 0..48 {
        let snapshot = bench.apply(top, &layer(n)).unwrap();
        top = Some(snapshot.id());
        // As a step on each would be.
        shapes.push(shape(&snapshot.rootfs_lowers().unwrap()).len());
    }
    assert_eq!((shapes[14], shapes[15], shapes[30], shapes[31], shapes[46], shapes[47]), (15, 1, 16, 1, 16, 2));
    let grown = mounted_listing(&bench, &snapshots.get(top.unwrap()).unwrap());
    let at_once = tars("at once").unwrap();
    let whole = chain(&at_once, 48);
    let snapshot = at_once.store.snapshots().get(whole).unwrap();
    assert_eq!(shape(&snapshot.rootfs_lowers().unwrap()), [16, 32]);
    assert_eq!(mounted_listing(&at_once, &snapshot), grown);
    assert_eq!((files(&bench).len(), files(&at_once).len()), (3, 2), "of 16, 32 and 16, or of 32 and 16");
}

#[test]
fn merged_indexes_are_counted_checked_made_again_and_collected() {
    let Some(bench) = tars("merged_indexes_are_counted_checked_made_again_and_collected") else { return };
    let (store, snapshots) = (&bench.store, bench.store.snapshots());
    let top = chain(&bench, 20);
    let used = || store.du().unwrap().layers;
    let before = used();
    let lowers = snapshots.get(top).unwrap().rootfs_lowers().unwrap();
    let Some(Lower::Erofs { index, .. }) = lowers.last() else { panic!("{lowers:?}") };
    let size = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(index).unwrap()) * 512;
    assert!(size > 0 && used() == before + size, "{} + {size} is not {}", before, used());
    let verify = || store.verify(VerifyDepth::Content, &|| ControlFlow::Continue(())).unwrap();
    assert_eq!((verify().problems, verify().garbage), (vec![], vec![]));

    let stray = store.layout().merged_index("stray");
    fs::write(&stray, "x").unwrap();
    // Damage is found; a repair forgets it; the next mount makes it again.
    let sound = fs::read(index).unwrap();
    let mut bytes = sound.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(index, bytes).unwrap();
    let report = verify();
    assert!(matches!(report.problems[..], [Problem::MergedIndex { layers: 16, .. }]), "{:?}", report.problems);
    store.repair(&report, CONTROL).unwrap();
    assert_eq!(verify().problems, []);
    assert_eq!(snapshots.get(top).unwrap().rootfs_lowers().unwrap(), lowers);
    assert_eq!(fs::read(index).unwrap(), sound);
    // So it is when it is missing, and when one of its layers had to be indexed again.
    fs::remove_file(index).unwrap();
    assert_eq!(verify().problems, [], "one that is missing is none");
    assert_eq!(snapshots.get(top).unwrap().rootfs_lowers().unwrap(), lowers);
    assert_eq!(fs::read(index).unwrap(), sound);
    let chain = snapshots.chain(top).unwrap();
    snapshots.index_again_of(&chain.each().nth(10).unwrap()).unwrap();
    assert_eq!(used(), before, "it is forgotten");
    assert_eq!(snapshots.get(top).unwrap().rootfs_lowers().unwrap(), lowers);

    // A collection takes it with its chain, and one that nobody names.
    let Bench { store, lease, .. } = bench;
    let all = GcPolicy::new("test", PruneScope::All);
    store.prune(&all, PruneMode::Apply, CONTROL).unwrap();
    assert!(index.exists(), "a lease holds its chain");
    drop(lease);
    store.prune(&all, PruneMode::Apply, CONTROL).unwrap();
    assert!(!index.exists() && !stray.exists());
    assert_eq!(store.du().unwrap().total(), 0);
}

#[test]
fn directories_beyond_the_limit_of_overlayfs_are_stacked_or_merged() {
    if !is_root("directories_beyond_the_limit_of_overlayfs_are_stacked_or_merged") {
        return;
    }
    let bench = Bench::of(SnapshotterChoice::Directory);
    let snapshots = bench.store.snapshots();
    let base = bench.apply(None, &layer(0)).unwrap().id();
    let mut top = base;
    let mut at = |layers: usize, from: usize| {
        for _ in from..layers {
            top = snapshots.rebase(base, Some(top), &bench.lease).unwrap().id();
        }
        snapshots.get(top).unwrap().rootfs_lowers()
    };
    assert_eq!(shape(&at(500, 1).unwrap()), vec![1; 500]);
    let lowers = at(501, 500).unwrap();
    assert_eq!((lowers.len(), shape(&lowers)[499]), (500, 2));
    assert_eq!(shape(&at(999, 501).unwrap())[499], 500);
    let error = at(1000, 999).unwrap_err().to_string();
    assert!(error.contains("has 1000 layers that are directories, and overlayfs mounts at most 999"), "{error}");
    let Some(bench) = tars("the part with tars") else { return };
    // A step's layer is a directory first. Where layers are kept as tars it becomes one, and is merged.
    let base = bench.store.snapshots().prepare(None, &bench.lease).unwrap().commit(&bench.lease).unwrap().id();
    let mut top = base;
    for _ in 1..600 {
        top = bench.store.snapshots().rebase(base, Some(top), &bench.lease).unwrap().id();
    }
    let lowers = bench.store.snapshots().get(top).unwrap().rootfs_lowers().unwrap();
    assert_eq!((shape(&lowers).iter().sum::<usize>(), lowers.len()), (600, 11));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn random_chains_are_the_same_merged(
        layers in prop::collection::vec(prop::collection::vec(random_member(), 1..5), 20..60)
    ) {
        let Some(bench) = tars("random_chains_are_the_same_merged") else { return Ok(()) };
        let snapshots = bench.store.snapshots();
        let mut top = None;
        for members in layers {
            // What is refused is no layer.
            if let Ok(snapshot) = bench.apply(top, &archive(&members)) {
                top = Some(snapshot.id());
                snapshot.rootfs_lowers().unwrap();
            }
        }
        let chain = snapshots.chain(top.unwrap()).unwrap();
        let single = chain.iter().map(|row| row.snapshotter().unwrap().reader(&snapshots.path(row))).collect();
        let merged = snapshots.get(top.unwrap()).unwrap();
        prop_assert!(chain.len() < 16 || merged.rootfs_lowers().unwrap().len() < chain.len());
        prop_assert_eq!(listing(&merged.view().unwrap()), listing(&View::new(single)));
    }
}
