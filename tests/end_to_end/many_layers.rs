//! More steps than overlayfs has room for layers: they build, and what they made runs.

use std::fmt::Write;
use std::fs;

use crate::bench::Bench;

/// More than the 500 lower layers that overlayfs takes.
const STEPS: usize = 620;

#[test]
fn six_hundred_steps_build_and_run() {
    let Some(bench) = Bench::new() else { return };
    let tar = bench.busybox_tar();
    let mut dockerfile = "FROM busybox\n".to_owned();
    let mut files = 0;
    for step in 0..STEPS {
        // Whether a step sees what all before it did, whatever its number.
        match step % 20 {
            7 => writeln!(dockerfile, "RUN cat /f/* | wc -c > /count-{step} && rm /f/{}", step - 1).unwrap(),
            _ => {
                files += 1;
                writeln!(dockerfile, "COPY x /f/{step}").unwrap();
            }
        }
    }
    let removed = STEPS / 20;
    let context = bench.context("ctx", [("Dockerfile", &dockerfile), ("x", "x")]);
    for kind in ["erofs", "directory"] {
        let store = bench.path(format!("store-{kind}"));
        let rbuild = |args: &[&str]| bench.rbuild_at(&store, ["--snapshotter", kind]).args(args);
        let mounts = rbuild(&["import", "-c", "ENV PATH=/bin"]).arg(&tar).arg("busybox").run();
        if mounts.code != 0 && mounts.stderr.contains("layers cannot be kept as tars here") {
            eprintln!("SKIPPED with erofs: {}", mounts.stderr);
            continue;
        }
        let _imported = mounts.ok();
        let _built = rbuild(&["build", "-q", "--network=none", "-t", "many"]).arg(&context).run().ok();
        let script = "ls /f | wc -l; cat /count-7 /count-607; test -e /f/6 || test -e /f/606 || echo gone";
        let said = rbuild(&["run", "--rm", "--network=none", "many", "sh", "-c", script]).run().ok().stdout;
        // 7 files before the first count; 607 steps with 31 counts, which have removed a file each but for this one.
        assert_eq!(said, format!("{}\n7\n{}\ngone\n", files - removed, 607 - 30 - 30), "{kind}");
        // What mounts nothing sees the same.
        let out = bench.path(format!("out-{kind}"));
        let _exported = rbuild(&["build", "-q", "--network=none", "-o"]).arg(&out).arg(&context).run().ok();
        assert_eq!(fs::read_dir(out.join("f")).unwrap().count(), files - removed, "{kind}");
        let merged = fs::read_dir(store.join("merged")).map_or(0, Iterator::count);
        assert_eq!(merged > 0, kind == "erofs", "{kind}: {merged} merged indexes");
        let _verified = rbuild(&["cache", "verify"]).run().ok();
        fs::remove_dir_all(&store).unwrap();
    }
}
