//! What chains of layers cost to be found, mounted and looked up in, by their length, in both kinds. As root; elsewhere only directories
//! are there, and nothing is mounted. `./dev bench-micro chains`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use divan::Bencher;
use rbuild_cache::snapshot::SnapshotterChoice;
use rbuild_cache::{Lease, OpenOptions, Store};
use rbuild_executor::{Rootfs, open_rootfs};

const CASES: [(&str, usize); 8] = [
    ("directory", 1),
    ("erofs", 1),
    ("directory", 10),
    ("erofs", 10),
    ("directory", 120),
    ("erofs", 120),
    ("directory", 499),
    ("erofs", 499),
];

fn main() {
    divan::main();
}

/// A base of 5000 files, then layers with a few files each, on a store of their own.
struct Chain {
    rootfs: Rootfs,
    _lease: Lease,
    _place: tempfile::TempDir,
}

fn tar_of(layer: usize) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: String| {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, &b"x"[..]).unwrap();
    };
    if layer == 0 {
        (0..5000).for_each(|file| add(format!("lib/{}/{}", file / 100, file % 100)));
    }
    add(format!("app/{layer}"));
    add(format!("lib/7/own-{layer}"));
    archive.into_inner().unwrap()
}

impl Chain {
    /// `None` where it cannot be had.
    fn new((kind, layers): (&str, usize)) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let snapshotter: SnapshotterChoice = kind.parse().unwrap();
        let options = OpenOptions { snapshotter, ..OpenOptions::new("bench") };
        let store = Store::open(&place.path().join("store"), options).unwrap();
        let snapshots = store.snapshots();
        if kind == "erofs" && snapshots.mounts_erofs().is_err() {
            return None;
        }
        let lease = store.lease("bench").unwrap();
        let mut top = None;
        for layer in 0..layers {
            top = Some(snapshots.apply(top, &mut &tar_of(layer)[..], None, &lease).unwrap().id());
        }
        let active = snapshots.prepare(top, &lease).unwrap();
        let rootfs = active.rootfs().unwrap();
        // Its place has to outlive the benchmark.
        std::mem::forget(active);
        Some(Self { rootfs, _lease: lease, _place: place })
    }
}

/// The whole chain becomes a root.
#[divan::bench(args = CASES, sample_count = 10, sample_size = 1)]
fn mounted(bencher: Bencher<'_, '_>, case: (&str, usize)) {
    let Some(chain) = Chain::new(case) else { return };
    bencher.bench_local(|| open_rootfs(&chain.rootfs).ok());
}

/// A thousand names that are there, in a root that was just mounted.
#[divan::bench(args = CASES, sample_count = 5, sample_size = 1)]
fn looked_up_1000(bencher: Bencher<'_, '_>, case: (&str, usize)) {
    look_up(bencher, case, |n, layers| match n % 2 {
        0 => format!("lib/{}/{}", n % 50, n % 100),
        _ => format!("app/{}", n % layers),
    });
}

/// A thousand names that are not there.
#[divan::bench(args = CASES, sample_count = 5, sample_size = 1)]
fn looked_up_1000_absent(bencher: Bencher<'_, '_>, case: (&str, usize)) {
    look_up(bencher, case, |n, _| format!("lib/7/absent-{n}"));
}

fn look_up(bencher: Bencher<'_, '_>, case: (&str, usize), path: impl Fn(usize, usize) -> String + Sync) {
    let Some(chain) = Chain::new(case) else { return };
    bencher.with_inputs(|| open_rootfs(&chain.rootfs).ok()).bench_local_refs(|root| {
        let Some(root) = root else { return };
        let place = format!("/proc/self/fd/{}", root.as_fd().as_raw_fd());
        for n in 0..1000 {
            let _found = fs::symlink_metadata(format!("{place}/{}", path(n, case.1)));
        }
    });
}
