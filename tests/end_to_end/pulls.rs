//! Pulls that are killed at any point: nothing that was whole comes twice, and the end is the image.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::bench::Bench;
use crate::peers::has;
use crate::registry::{Cable, Registry};
use crate::transfers::noise;

const LAYERS: u64 = 5;
const LAYER: usize = 1 << 20;
const KILLS: u64 = 32;

/// The blobs that a store has whole.
fn whole(store: &Path) -> BTreeSet<String> {
    let list = std::fs::read_dir(store.join("blobs/sha256")).into_iter().flatten().filter_map(Result::ok);
    list.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[test]
fn a_pull_that_is_killed_again_and_again_ends_whole() {
    let Some(bench) = Bench::new() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let copies: String = (0..LAYERS).map(|n| format!("COPY l{n} /\n")).collect();
    let context = bench.context("ctx", [("Dockerfile", &format!("FROM scratch\n{copies}"))]);
    for n in 0..LAYERS {
        std::fs::write(context.join(format!("l{n}")), noise(n + 1, LAYER)).unwrap();
    }
    let name = registry.name("app:1");
    let _pushed = bench.rbuild(["build", "--push", "-t", &name]).arg(&context).run().ok();

    let store = bench.path("killed");
    // So slow that no pull ends before it is killed, and one without a brake for the later phases.
    let slow = Cable::slow(&registry, 256 << 10);
    let (mut seed, mut seen) = (1u64, registry.requests().len());
    // The registry tells of a request when it has answered it, which may be after the asking process was killed: what counts is
    // what was whole before that one began.
    let (mut there, mut just_now) = (BTreeSet::new(), BTreeSet::new());
    let mut interrupted = 0;
    for kill in 0..KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (port, most) = if kill % 4 == 3 { (registry.port(), 400) } else { (slow.port, 900) };
        let mut child = bench.rbuild_at(&store, ["pull", &format!("127.0.0.1:{port}/app:1")]).start();
        std::thread::sleep(Duration::from_millis((seed >> 33) % most));
        interrupted += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let _killed = child.wait().unwrap();
        let requests = registry.requests();
        for request in &requests[seen..] {
            let again = there.iter().any(|digest: &String| request.contains(&format!("/blobs/sha256:{digest}")));
            assert!(!again, "after {kill} kills what was whole came again: {request}");
        }
        seen = requests.len();
        there = std::mem::replace(&mut just_now, whole(&store));
    }
    // Once everything is there, pulls have nothing left to be killed in.
    assert!(interrupted >= KILLS / 4, "only {interrupted} pulls were killed");
    let _pulled = bench.rbuild_at(&store, ["pull", &name]).run().ok();
    let ran = bench.rbuild_at(&store, ["cache", "verify"]).run().ok();
    assert!(!ran.stdout.contains("damaged"), "{}", ran.stdout);
    let _saved = bench.rbuild_at(&store, ["save", "-o", "whole.tar", &name]).run().ok();
    let _loaded = bench.rbuild_at(&bench.path("other"), ["load", "-i", "whole.tar"]).run().ok();
    let left = std::fs::read_dir(store.join("tmp/ingest")).into_iter().flatten().count();
    assert_eq!(left, 0, "nothing unfinished stays behind");
}
