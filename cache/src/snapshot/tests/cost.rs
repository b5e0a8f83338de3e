//! What chains cost to mount and to look up in. Prints; `cargo test -p rbuild-cache snapshot::tests::cost -- --ignored
//! --nocapture`.

use std::time::{Duration, Instant};

use rbuild_executor::{Rootfs, open_rootfs};

use super::*;

/// A base of 5000 files, then layers with a few files each.
fn layer(n: usize) -> Vec<u8> {
    let mut entries = vec![dir("lib")];
    if n == 0 {
        for group in 0..50 {
            entries.push(dir(&format!("lib/{group}")));
            entries.extend((0..100).map(|file_number| file(&format!("lib/{group}/{file_number}"), "base")));
        }
    }
    entries.extend([dir("app"), file(&format!("app/{n}"), "x"), dir("lib/7"), file(&format!("lib/7/own-{n}"), "y")]);
    archive(&entries)
}

/// The shortest of several.
fn shortest(mut once: impl FnMut() -> Duration) -> Duration {
    (0..5).map(|_| once()).min().unwrap()
}

fn measure(rootfs: &Rootfs, layers: usize) -> [Duration; 3] {
    let mount = shortest(|| {
        let begun = Instant::now();
        let root = open_rootfs(rootfs).unwrap();
        let took = begun.elapsed();
        drop(root);
        took
    });
    let find = |paths: &dyn Fn(usize) -> String| {
        shortest(|| {
            let root = open_rootfs(rootfs).unwrap();
            let place = format!("/proc/self/fd/{}", root.as_fd().as_raw_fd());
            let begun = Instant::now();
            for n in 0..1000 {
                let _found = fs::symlink_metadata(format!("{place}/{}", paths(n)));
            }
            begun.elapsed()
        })
    };
    let there = find(&|n| match n % 2 {
        0 => format!("lib/{}/{}", n % 50, n % 100),
        _ => format!("app/{}", n % layers),
    });
    [mount, there, find(&|n| format!("lib/7/absent-{n}"))]
}

#[test]
#[ignore = "prints times"]
fn cost_of_mounting_and_looking_up() {
    if !is_root("cost_of_mounting_and_looking_up") {
        return;
    }
    println!("layers  lowers    mount  1000 found  1000 absent");
    for layers in [1, 10, 120, 499] {
        for bench in Bench::each() {
            let snapshots = bench.store.snapshots();
            let top = bench.stack(&(0..layers).map(layer).collect::<Vec<_>>()).id();
            let active = snapshots.prepare(Some(top), &bench.lease).unwrap();
            let chain = snapshots.chain(top).unwrap();
            let begun = Instant::now();
            let Rootfs::Overlay { lowers, upper, work } = active.rootfs().unwrap() else { panic!("an overlay") };
            let merging = begun.elapsed();
            let each: Vec<_> = chain.iter().map(|row| row.snapshotter().unwrap().lower(&snapshots.path(row))).collect();
            for (what, lowers) in [("single", each), ("merged", lowers)] {
                if what == "merged" && !bench.has_tars() {
                    continue;
                }
                let count = lowers.len();
                let rootfs = Rootfs::Overlay { lowers, upper: upper.clone(), work: work.clone() };
                let [mount, there, absent] = measure(&rootfs, layers);
                let kind = &chain[0].kind;
                println!("{layers:6} {count:7} {mount:>8.1?} {there:>11.1?} {absent:>12.1?}  {kind} {what}");
            }
            println!("       rootfs() the first time: {merging:.1?}");
            for _ in 0..2 {
                let begun = Instant::now();
                let _again = active.rootfs().unwrap();
                println!("       and again: {:.1?}", begun.elapsed());
            }
        }
    }
}
