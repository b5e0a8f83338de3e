//! Collection as people meet it: a ceiling that holds, pruning against builds and containers, damage and its repair.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bench::Bench;

const STEPS: &str = "FROM busybox\nCOPY a /a\nRUN cat /a > /b && seq 1000 > /c\nRUN cat /b /c > /d\n";

#[test]
fn a_ceiling_from_the_configuration_file_holds_and_leaves_tombstones() {
    let Some(bench) = Bench::with_busybox() else { return };
    let config = bench.context("home/.config/rbuild", [("config.toml", "[gc]\nmaxUsedSpace = \"2MB\"\n")]);
    for number in 0..5 {
        let step = format!("FROM busybox\nRUN head -c 1000000 /dev/urandom > /{number}\n");
        let context = bench.context("ctx", [("Dockerfile", &step)]);
        let _built = bench.rbuild(["build", "-q"]).arg("--output=type=cacheonly").arg(&context).run();
        let used: serde_json::Value = serde_json::from_str(
            &bench.rbuild(["cache", "prune", "--dry-run", "--format=json", "--max-used-space=100g"]).run().ok().stdout,
        )
        .unwrap();
        assert!(used["left"].as_u64().unwrap() <= 2 << 20, "{used}");
    }
    fs::write(config.join("config.toml"), "[gc]\nmaxUsedSpce = \"2MB\"\n").unwrap();
    let context = bench.path("ctx");
    let _refused = bench.rbuild(["build", "-q"]).arg(&context).run().fails(1).says("did you mean maxUsedSpace?");
}

/// a prune in a loop against builds at 100 % cache hits, and against containers.
#[test]
fn builds_and_containers_live_through_a_prune_loop() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STEPS), ("a", "a\n")]);
    let _built = bench.build("app", &context).ok();
    let prune = |bench: &Bench, all: bool| {
        let _pruned = bench.rbuild(["cache", "prune", "--force"]).args(all.then_some("--all")).run().ok();
    };
    for all in [false, true] {
        let stop = AtomicBool::new(false);
        let ids = std::thread::scope(|scope| {
            let pruner = scope.spawn(|| {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    prune(&bench, all);
                    rounds += 1;
                }
                rounds
            });
            let mut ids = std::collections::BTreeSet::new();
            for _ in 0..6 {
                ids.insert(bench.rbuild(["build", "-q", "-t", "again"]).arg(&context).run().ok().stdout);
                assert_eq!(bench.shell("again", "wc -l < /d").trim(), "1001");
            }
            stop.store(true, Ordering::Relaxed);
            assert!(pruner.join().unwrap() > 0);
            ids
        });
        assert!(all || ids.len() == 1, "what the image shares stays, so every build hits: {ids:?}");
    }
    let _sound = bench.rbuild(["cache", "verify"]).run().ok();
}

#[test]
fn a_dry_run_names_the_image_that_loses() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STEPS), ("a", "a\n")]);
    let _built = bench.build("app", &context).ok();
    let dry = bench.rbuild(["cache", "prune", "--all", "--dry-run"]).run().ok().stdout;
    assert!(dry.contains("The next build would do again:\n  app:latest: 3 steps, "), "{dry}");
    let _pruned = bench.rbuild(["cache", "prune", "--filter", "description~=COPY", "--all"]).run().ok();
    let left = bench.rbuild(["cache", "prune", "--all", "--dry-run"]).run().ok().stdout;
    assert!(left.contains("app:latest: 2 steps, "), "{left}");
    let _refused =
        bench.rbuild(["cache", "prune", "--filter", "colour=red"]).run().fails(2).says("unknown filter field");
}

#[test]
fn a_lost_database_costs_no_image() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STEPS), ("a", "a\n")]);
    let _built = bench.build("app", &context).ok();
    let database = bench.store().join("meta.db");
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(format!("{}{suffix}", database.display())));
    }
    fs::write(&database, "").unwrap();
    let _told = bench.rbuild(["images"]).run().fails(1).says("rbuild cache verify --rebuild");
    let rebuilt = bench.rbuild(["cache", "verify", "--rebuild"]).run().ok().stdout;
    assert!(rebuilt.contains("2 images and "), "{rebuilt}");
    let ids = bench.rbuild(["images", "-q"]).run().ok().stdout;
    let works = ids.lines().any(|id| {
        let ran = bench.rbuild(["run", "--rm", "--network=none", id, "wc", "-l", "/d"]).run();
        ran.code == 0 && ran.stdout.starts_with("1001")
    });
    assert!(works, "what was built runs: {ids}");
    let _sound = bench.rbuild(["cache", "verify"]).run().ok();
}
