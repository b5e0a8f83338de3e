//! `cache ls`, `inspect`, `du`, `stats` and `mounts`, and Docker's spellings of them.

use serde_json::Value;

use crate::bench::Bench;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn steps_are_listed_inspected_and_attributed() {
    let Some(bench) = Bench::with_busybox() else { return };
    let dockerfile = "FROM busybox AS base\nFROM base AS first\nRUN echo hello > /f\nRUN cat /f /f > /g\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    let _built = bench.rbuild(["build", "--network=none", "-t", "x"]).arg(&context).run().ok();
    let _again = bench.rbuild(["build", "--network=none", "-t", "x"]).arg(&context).run().ok();
    let list = |args: &[&str]| bench.rbuild(["cache", "ls"]).args(args).run().ok().stdout;
    let steps: Vec<Value> = list(&["--format=json"]).lines().map(json).collect();
    let of = |text: &str| steps.iter().find(|step| step["name"].as_str().unwrap().contains(text)).unwrap();
    let (hello, cat) = (of("echo hello"), of("cat /f"));
    assert_eq!((hello["line"].as_u64(), hello["stage"].as_str()), (Some(3), Some("first")));
    assert_eq!(cat["parents"][0], hello["id"]);
    assert_eq!((cat["shared"].as_bool(), cat["images"][0].as_str()), (Some(true), Some("x:latest")));
    let id = cat["id"].to_string();
    assert_eq!(list(&["-q", "--filter", &format!("id={id}")]), format!("{id}\n"));
    assert_eq!(list(&["-q", "--filter", "private"]), "");
    assert_eq!(list(&["-q", "--filter", "until=24h"]), "");
    let line = list(&["--filter", &format!("id={id}"), "--format", "{{.Stage}}:{{.Line}} {{.Shared}}"]);
    assert_eq!(line, "first:4 true\n");
    let _unknown =
        bench.rbuild(["cache", "ls", "--filter", "colour=red"]).run().fails(2).says("unknown filter field \"colour\"");

    let details = json(&bench.rbuild(["cache", "inspect", "--format=json", &id]).run().ok().stdout);
    let details = &details[0];
    assert!(details["places"][0]["dockerfile"].as_str().unwrap().ends_with("/ctx/Dockerfile"), "{details}");
    assert!(details["parts"].as_array().unwrap().iter().any(|part| part[1] == "cat /f /f > /g"), "{details}");
    assert!(details["saves_seconds"].as_f64().unwrap() > 0.0 && details["build"].is_string(), "{details}");
    let key = details["keys"].as_array().unwrap().iter().find(|key| key["kind"] == "definition").unwrap();
    let by_key = bench.rbuild(["cache", "inspect", key["key"].as_str().unwrap()]).run().ok().stdout;
    assert!(by_key.contains(&format!("ID           {id}\n")), "{by_key}");
    let _absent = bench.rbuild(["cache", "inspect", "99999"]).run().fails(1).says("no cached step");

    let usage = json(&bench.rbuild(["cache", "du", "--verbose", "--format=json"]).run().ok().stdout);
    assert!(usage["shared"].as_u64().unwrap() > 0 && usage["steps"].as_array().unwrap().len() >= 2, "{usage}");
    let docker = |word: &str| bench.rbuild([word, "du", "--verbose"]).run().ok().stdout;
    let shown = docker("buildx");
    assert!(shown.contains("x:latest") && shown.contains("Reclaimable:"), "{shown}");
    assert_eq!(docker("builder"), shown);
    let _pruned = bench.rbuild(["builder", "prune", "--all", "--force"]).run().ok();
    assert!(!list(&["-q"]).lines().any(|line| line == id));
}

#[test]
fn hits_and_misses_are_counted() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN echo 1 > /f\nRUN echo 2 > /g\n")]);
    let stats = || json(&bench.rbuild(["cache", "stats", "--format=json"]).run().ok().stdout);
    assert_eq!(stats()["hits"], 0);
    for _ in 0..2 {
        let _ran = bench.rbuild(["build", "--network=none", "-t", "x"]).arg(&context).run().ok();
    }
    let counted = stats();
    assert_eq!((counted["builds"].as_u64(), counted["misses"].as_u64()), (Some(2), Some(2)), "{counted}");
    assert!(counted["hits"].as_u64().unwrap() >= 1 && counted["saved_seconds"].as_f64().unwrap() > 0.0, "{counted}");
    let text = bench.rbuild(["cache", "stats"]).run().ok().stdout;
    assert!(text.starts_with("Builds      2 in the history\n"), "{text}");
}

#[test]
fn cache_mounts_go_out_and_in_as_archives() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = |command: &str| format!("FROM busybox\nRUN --mount=type=cache,id=deps,target=/c,mode=0700 {command}\n");
    let context = bench.context("ctx", [("Dockerfile", &text("echo kept > /c/f && mkdir /c/d && ln /c/f /c/d/g"))]);
    let build = || bench.rbuild(["build", "--network=none", "-t", "x"]).arg(&context).run().ok();
    let _filled = build();
    let names = || bench.rbuild(["cache", "mounts", "ls", "--format", "{{.ID}} {{.InUse}}"]).run().ok().stdout;
    assert_eq!(names(), "deps false\n");
    let tar = bench.path("deps.tar");
    let _out = bench.rbuild(["cache", "mounts", "tar", "deps", "-o"]).arg(&tar).run().ok();
    let _gone = bench.rbuild(["cache", "mounts", "rm", "deps"]).run().ok();
    assert_eq!(names(), "");
    let _in = bench.rbuild(["cache", "mounts", "untar", "deps", "-i"]).arg(&tar).run().ok();
    assert_eq!(names(), "deps false\n");
    std::fs::write(context.join("Dockerfile"), text("cat /c/f /c/d/g > /seen; ls /c > /list")).unwrap();
    let _read = build();
    assert_eq!(bench.shell("x", "cat /seen /list"), "kept\nkept\nd\nf\n");
    let _absent = bench.rbuild(["cache", "mounts", "tar", "nope"]).run().fails(1).says("no cache mount \"nope\"");
    let _not_tar = bench.rbuild(["cache", "mounts", "untar", "deps"]).input("not a tar").run().fails(1);
    let _still = build();
    assert_eq!(bench.shell("x", "cat /seen"), "kept\nkept\n", "a broken archive changed nothing");
}
