//! What a second build may skip, and what it must not.

use crate::bench::Bench;

/// A Dockerfile whose steps stamp the time, so that a step that ran again is seen.
const STAMPED: &str = "FROM busybox\nCOPY a /a\nRUN cat /proc/uptime > /one\nCOPY b /b\nRUN cat /proc/uptime > /two\n";

#[test]
fn an_unchanged_project_runs_nothing() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STAMPED), ("a", "1"), ("b", "1")]);
    let _first = bench.build("x", &context).ok();
    let stamps = bench.shell("x", "cat /one /two");
    let first_id = bench.rbuild(["images", "-q", "--no-trunc"]).run().ok().stdout;
    let again = bench.build("x", &context).ok();
    assert_eq!(again.stderr.matches("CACHED").count(), 5, "{}", again.stderr);
    assert_eq!(bench.shell("x", "cat /one /two"), stamps);
    assert_eq!(bench.rbuild(["images", "-q", "--no-trunc"]).run().ok().stdout, first_id);
}

#[test]
fn a_changed_file_repeats_only_what_reads_it() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STAMPED), ("a", "1"), ("b", "1")]);
    let _first = bench.build("x", &context).ok();
    let (one, two) = (bench.shell("x", "cat /one"), bench.shell("x", "cat /two"));
    std::fs::write(context.join("b"), "2").unwrap();
    let _second = bench.build("x", &context).ok();
    assert_eq!(bench.shell("x", "cat /one"), one, "a step before the change ran again");
    assert_ne!(bench.shell("x", "cat /two"), two, "a step after the change was not run again");
    assert_eq!(bench.shell("x", "cat /b"), "2");
}

#[test]
fn times_do_not_count_and_modes_do() {
    use std::os::unix::fs::PermissionsExt;
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STAMPED), ("a", "1"), ("b", "1")]);
    let _first = bench.build("x", &context).ok();
    let one = bench.shell("x", "cat /one");
    std::fs::write(context.join("a"), "1").unwrap();
    let _touched = bench.build("x", &context).ok();
    assert_eq!(bench.shell("x", "cat /one"), one, "a touched file repeated its step");
    std::fs::set_permissions(context.join("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let _mode = bench.build("x", &context).ok();
    assert_ne!(bench.shell("x", "cat /one"), one, "a changed mode was not seen");
}

#[test]
fn no_cache_runs_everything_again() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STAMPED), ("a", "1"), ("b", "1")]);
    let _first = bench.build("x", &context).ok();
    let one = bench.shell("x", "cat /one");
    let ran = bench.rbuild(["build", "--no-cache", "--progress=plain", "-t", "x"]).arg(&context).run().ok();
    assert_eq!(ran.stderr.matches("CACHED").count(), 0, "{}", ran.stderr);
    assert_ne!(bench.shell("x", "cat /one"), one);
}

#[test]
fn metadata_changes_repeat_only_what_they_reach() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = |label: &str, env: &str| {
        format!(
            "FROM busybox\nLABEL v={label}\nRUN cat /proc/uptime > /one\nENV E={env}\nRUN cat /proc/uptime > /two\n"
        )
    };
    let context = bench.context("ctx", [("Dockerfile", &text("1", "1"))]);
    let _first = bench.build("x", &context).ok();
    let (one, two) = (bench.shell("x", "cat /one"), bench.shell("x", "cat /two"));
    std::fs::write(context.join("Dockerfile"), text("2", "1")).unwrap();
    let _label = bench.build("x", &context).ok();
    assert_eq!(bench.shell("x", "cat /one"), one, "a label repeated a step");
    std::fs::write(context.join("Dockerfile"), text("2", "2")).unwrap();
    let _env = bench.build("x", &context).ok();
    assert_eq!(bench.shell("x", "cat /one"), one);
    assert_ne!(bench.shell("x", "cat /two"), two, "a variable did not repeat the step that sees it");
}

#[test]
fn the_same_files_from_a_stage_that_ran_again_are_a_hit() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = |comment: &str| {
        format!(
            "FROM busybox AS made\nRUN echo same > /same # {comment}\n\
             FROM busybox\nCOPY --from=made /same /same\nRUN cat /proc/uptime > /stamp\n"
        )
    };
    let context = bench.context("ctx", [("Dockerfile", &text("one"))]);
    let _first = bench.build("x", &context).ok();
    let stamp = bench.shell("x", "cat /stamp");
    std::fs::write(context.join("Dockerfile"), text("two")).unwrap();
    let _second = bench.build("x", &context).ok();
    assert_eq!(bench.shell("x", "cat /stamp"), stamp);
}

#[test]
fn a_failed_build_keeps_what_succeeded_and_records_no_failure() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN cat /proc/uptime > /one\nRUN exit 3\n")]);
    let _first = bench.build("x", &context).fails(1);
    let second = bench.build("x", &context).fails(1);
    assert_eq!(second.stderr.matches("CACHED").count(), 1, "{}", second.stderr);
    assert!(second.stderr.contains("exit code: 3"), "{}", second.stderr);
    assert_eq!(bench.rbuild(["images", "-q", "x"]).run().ok().stdout, "", "a failed build named an image");
}

#[test]
fn what_is_cached_can_be_seen_and_pruned_without_harm() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", STAMPED), ("a", "1"), ("b", "1")]);
    let _first = bench.build("kept", &context).ok();
    let listed = bench.rbuild(["cache", "ls"]).run().ok().stdout;
    assert!(listed.contains("RUN cat /proc/uptime > /one"), "{listed}");
    let used = bench.rbuild(["cache", "du"]).run().ok().stdout;
    assert!(used.contains("layers"), "{used}");
    let stamps = bench.shell("kept", "cat /one /two");
    let _pruned = bench.rbuild(["cache", "prune", "--all", "--force"]).run().ok();
    assert_eq!(bench.shell("kept", "cat /one /two"), stamps, "pruning broke an image");
    let _verified = bench.rbuild(["cache", "verify"]).run().ok();
    let again = bench.build("kept", &context).ok();
    assert!(!again.stderr.contains("CACHED RUN"), "{}", again.stderr);
}

#[test]
fn parallel_builds_share_their_steps() {
    let Some(bench) = Bench::with_busybox() else { return };
    // The step counts its own runs in a cache mount, which is no part of its key.
    let text = "FROM busybox\nRUN --mount=type=cache,target=/count,id=count echo ran >> /count/runs; sleep 1\nRUN --mount=type=cache,target=/count,id=count cp /count/runs /runs\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let children: Vec<_> =
        (0..4).map(|n| bench.rbuild(["build", "-t"]).arg(format!("p{n}")).arg(&context).start()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(bench.shell("p0", "cat /runs"), "ran\n", "an equal step ran more than once");
}
