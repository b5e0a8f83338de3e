//! What is remembered of builds: `history`, cached logs, `graph`, and the views for programs.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench::Bench;

const TALKING: &str =
    "FROM busybox AS base\nRUN echo from the base\nFROM base\nCOPY a /a\nRUN echo out-$((40+2)); echo err >&2\n";

/// The newest build as JSON.
fn newest(bench: &Bench) -> serde_json::Value {
    let shown = bench.rbuild(["history", "inspect", "--format", "json"]).run().ok().stdout;
    serde_json::from_str(&shown).unwrap()
}

fn states(bench: &Bench, format: &str) -> Vec<String> {
    let listed = bench.rbuild(["history", "ls", "--format", format]).run().ok().stdout;
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn a_build_is_remembered_with_its_steps_and_their_logs() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", TALKING), ("a", "1")]);
    std::fs::create_dir_all(context.join(".git/refs/heads")).unwrap();
    std::fs::write(context.join(".git/HEAD"), "0123456789abcdef0123456789abcdef01234567\n").unwrap();
    let args = ["build", "-t", "x", "--build-arg", "MY_TOKEN=hush", "--build-arg", "V=1", "--label", "l=2"];
    let _built = bench.rbuild(args).arg(&context).run().ok();
    let build = newest(&bench);
    assert_eq!((build["Status"].as_str(), build["Name"].as_str()), (Some("completed"), Some("ctx")));
    assert_eq!(build["VCSRevision"], "0123456789abcdef0123456789abcdef01234567");
    assert_eq!(
        build["BuildArgs"],
        serde_json::json!([{"Name": "MY_TOKEN", "Value": "****"}, {"Name": "V", "Value": "1"}])
    );
    assert_eq!((&build["NumTotalSteps"], &build["NumCachedSteps"]), (&5.into(), &0.into()));
    let run = &build["Steps"][4];
    assert_eq!((run["state"].as_str(), run["exit_code"].as_i64()), (Some("done"), Some(0)), "{run}");
    assert!(run["memory"].as_u64() > Some(0) && run["duration_ns"].as_u64() > Some(0) && run["size"].is_u64(), "{run}");
    assert_eq!(run["miss"]["reason"], "nothing_recorded", "{run}");
    let id = build["Ref"].as_str().unwrap();
    let whole = bench.rbuild(["history", "logs", &id[..8]]).run().ok().stdout;
    assert!(whole.contains("out-42") && whole.contains("from the base") && whole.contains(" DONE "), "{whole}");
    // Two pipes: what came first at nearly the same time is anybody's guess.
    let log = |step: &str| {
        let text = bench.rbuild(["history", "logs", "^0", step]).run().ok().stdout;
        text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(log("5"), ["err".to_owned(), "out-42".to_owned()].into());
    assert!(bench.rbuild(["history", "logs", "^1"]).run().fails(1).stderr.contains("only 1 build"));
    let table = bench.rbuild(["history", "ls"]).run().ok().stdout;
    assert!(table.starts_with("BUILD ID") && table.contains(id) && table.contains("Completed"), "{table}");

    // The second build runs nothing, and shows what the first one said.
    let again = bench.rbuild(["build", "--progress=plain", "--show-cached-logs"]).arg(&context).run().ok();
    assert!(again.stderr.contains("out-42") && again.stderr.contains(id), "{}", again.stderr);
    assert!(again.stderr.contains("Built in") && again.stderr.contains(": 0 steps ran, "), "{}", again.stderr);
    let quiet = bench.rbuild(["build", "--progress=plain"]).arg(&context).run().ok();
    assert!(!quiet.stderr.contains("out-42"), "{}", quiet.stderr);
    let second = newest(&bench);
    assert_eq!((&second["NumTotalSteps"], &second["NumCompletedSteps"]), (&5.into(), &5.into()));
    assert_eq!(second["Steps"][4]["hit"], "definition");
    assert_eq!(log("out-"), ["err".to_owned(), "out-42".to_owned()].into());
}

#[test]
fn failures_are_remembered_and_can_be_filtered() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN echo oh no; exit 3\n"), ("Bad", "NOPE\n")]);
    let _failed = bench.build("x", &context).fails(1);
    let build = newest(&bench);
    assert_eq!((build["Status"].as_str(), build["Steps"][1]["exit_code"].as_i64()), (Some("failed"), Some(3)));
    assert!(build["Error"]["Message"].as_str().unwrap().contains("exit code: 3"), "{build}");
    let logs = bench.rbuild(["history", "logs"]).run().ok().stdout;
    assert!(logs.contains("oh no") && logs.contains("ERROR: process"), "{logs}");
    // One that does not get as far as a step is a build, too.
    let _unparsed = bench.rbuild(["build", "-f", "ctx/Bad"]).arg(&context).run().fails(1);
    assert_eq!(newest(&bench)["Name"], "ctx/Bad");
    let _nothing = bench.rbuild(["history", "logs"]).run().fails(1).says("it ended before its first step");
    assert_eq!(states(&bench, "{{.Name}}: {{.Status}}"), ["ctx/Bad: Error", "ctx: Error"]);
    let found = bench.rbuild(["history", "ls", "-q", "--filter", "status=completed"]).run().ok().stdout;
    assert_eq!(found, "");
    let _wrong = bench.rbuild(["history", "ls", "--filter", "colour=red"]).run().fails(2);
}

#[test]
fn a_killed_build_is_seen_running_and_then_aborted() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN echo it began; sleep 600\n")]);
    let mut child = bench.rbuild(["build", "-t", "x"]).arg(&context).start();
    let deadline = Instant::now() + Duration::from_secs(60);
    while states(&bench, "{{.Status}}") != ["Running"]
        || bench.rbuild(["history", "logs", "^0", "2"]).run().stdout != "it began\n"
    {
        assert!(Instant::now() < deadline, "the build never said that it began");
        std::thread::sleep(Duration::from_millis(50));
    }
    let _running = bench.rbuild(["history", "rm", "^0"]).run().fails(1).says("is running");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(states(&bench, "{{.Status}}"), ["Aborted"]);
    let shown = bench.rbuild(["history", "inspect"]).run().ok().stdout;
    assert!(shown.contains("Aborted: its process died") && shown.contains("running"), "{shown}");
    let said = bench.rbuild(["history", "logs", "^0", "2"]).run().ok().stdout;
    assert_eq!(said, "it began\n");
    let _removed = bench.rbuild(["history", "rm", "--all"]).run().ok();
    assert!(states(&bench, "{{.Ref}}").is_empty());
    assert_eq!(std::fs::read_dir(bench.store().join("logs")).unwrap().count(), 0);
}

#[test]
fn secrets_are_masked_in_what_is_shown_and_stored() {
    let Some(bench) = Bench::with_busybox() else { return };
    let run = "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; cut -c1-5 /run/secrets/s | tr -d '\\n'; \
               cut -c6- /run/secrets/s\n";
    let context = bench.context("ctx", [("Dockerfile", run)]);
    let secret = "correct-horse-battery";
    std::fs::write(bench.path("secret"), format!("{secret}\n")).unwrap();
    let args = ["build", "--progress=plain", "-t", "x", "--secret", "id=s,src=secret"];
    let built = bench.rbuild(args).arg(&context).run().ok();
    assert!(!built.stderr.contains(secret) && built.stderr.contains("****"), "{}", built.stderr);
    let logs = bench.rbuild(["history", "logs", "^0", "2"]).run().ok().stdout;
    assert!(logs.starts_with("****\n") && !logs.contains("horse"), "{logs}");
    assert_absent(&bench.store(), secret.as_bytes());
}

fn assert_absent(directory: &Path, bytes: &[u8]) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            assert_absent(&path, bytes);
        } else if kind.is_file() {
            let content = std::fs::read(&path).unwrap();
            assert!(!content.windows(bytes.len()).any(|window| window == bytes), "{} has it", path.display());
        }
    }
}

#[test]
fn an_export_holds_builds_and_their_journals() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", TALKING), ("a", "1")]);
    let _built = bench.build("x", &context).ok();
    let id = newest(&bench)["Ref"].as_str().unwrap().to_owned();
    let _exported = bench.rbuild(["history", "export", "-o", "builds.tar"]).run().ok();
    let listed = std::process::Command::new("tar").arg("-tf").arg(bench.path("builds.tar")).output().unwrap();
    let expected = format!("rbuild-history.json\n{id}/build.json\n{id}/events.jsonl\n");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), expected);
}

#[test]
fn raw_json_is_one_status_a_line() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", TALKING), ("a", "1")]);
    let built = bench.rbuild(["build", "--progress=rawjson", "-t", "x"]).arg(&context).run().ok();
    let lines: Vec<serde_json::Value> = built.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let all = |field: &str| lines.iter().filter_map(|line| line[field].as_array()).flatten().count();
    assert!(all("vertexes") >= 10 && all("logs") >= 3, "{}", built.stderr);
    assert!(lines[0]["vertexes"][0]["digest"].as_str().unwrap().starts_with("sha256:"));
    let replayed = bench.rbuild(["history", "logs", "--progress=rawjson"]).run().ok().stdout;
    assert_eq!(replayed.matches("\"logs\"").count(), all("logs"), "{replayed}");
    let none = bench.rbuild(["build", "--progress=none"]).arg(&context).run().ok();
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", ""));
    let quiet = bench.rbuild(["build", "--progress=quiet"]).arg(&context).run().ok();
    assert!(quiet.stdout.starts_with("sha256:") && quiet.stderr.is_empty(), "{quiet:?}");
}

#[test]
fn a_graph_shows_what_ran_and_what_would_run() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", TALKING), ("a", "1")]);
    let planned = bench.rbuild(["graph"]).arg(&context).run().ok().stdout;
    assert!(planned.contains("5 steps") && planned.contains("would run"), "{planned}");
    assert!(states(&bench, "{{.Ref}}").is_empty(), "a plan is no build");
    let _built = bench.build("x", &context).ok();
    let built = bench.rbuild(["graph"]).run().ok().stdout;
    assert!(built.contains("critical path") && built.contains("\n*") && built.contains(" ran "), "{built}");
    std::fs::write(context.join("a"), "2").unwrap();
    let changed = bench.rbuild(["graph", "--format", "json"]).arg(&context).run().ok().stdout;
    let changed: serde_json::Value = serde_json::from_str(&changed).unwrap();
    let states: Vec<&str> =
        changed["nodes"].as_array().unwrap().iter().map(|node| node["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "miss").count(), 2, "{changed:#}");
    let _picture = bench.rbuild(["graph", "-o", "build.svg", "^0"]).run().ok();
    let picture = std::fs::read_to_string(bench.path("build.svg")).unwrap();
    assert!(
        picture.starts_with("<svg ") && picture.contains("RUN echo out-$((40+2)); echo err &gt;&amp;2"),
        "{picture}"
    );
    let _nothing = bench.rbuild(["graph", "abcdef"]).run().fails(1).says("no build is recorded");
}
