//! What forges, files and people get beside the view: annotations, the log file, hints.

use serde_json::Value;

use crate::bench::Bench;

#[test]
fn github_gets_a_command_for_every_failure_and_finding() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = "FROM busybox as base\nRUN echo 100% && \\\n    exit 7\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let ran = bench.rbuild(["build", "--progress=quiet", "--annotate=github"]).arg(&context).run().fails(1);
    let commands: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("::")).collect();
    assert_eq!(
        commands,
        [
            "::warning file=ctx/Dockerfile,line=1,endLine=1,title=FromAsCasing::'as' and 'FROM' keywords' casing do not match",
            "::error file=ctx/Dockerfile,line=2,endLine=3,title=build failed::process \"/bin/sh -c echo 100%25 &&     exit 7\" did not \
             complete successfully: exit code: 7%0Athe command says above what went wrong; with --target the stage before it can be \
             built and looked into",
        ]
    );
    // Checks alone, and several mistakes at once.
    let ran = bench.rbuild(["build", "--check", "--annotate=github"]).arg(&context).run().fails(1);
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("::warning ")).count(), 1, "{}", ran.stderr);
    let context = bench.context("bad", [("Dockerfile", "FROM busybox\nCOPPY a b\nENV\n")]);
    let ran = bench.rbuild(["build", "--annotate=github"]).arg(&context).run().fails(1);
    let lines: Vec<&str> =
        ran.stderr.lines().filter(|line| line.starts_with("::error file=bad/Dockerfile,line=")).collect();
    assert_eq!(lines.len(), 2, "{}", ran.stderr);
}

#[test]
fn gitlab_gets_a_report_that_it_can_read() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox as base\nRUN exit 7\n")]);
    let report =
        |name: &str| -> Vec<Value> { serde_json::from_slice(&std::fs::read(bench.path(name)).unwrap()).unwrap() };
    let _ran = bench.rbuild(["build", "--annotate=gitlab"]).arg(&context).run().fails(1);
    let found = report("gl-code-quality-report.json");
    assert_eq!(found.len(), 2);
    for one in &found {
        // The fields that GitLab wants of every finding.
        for field in ["description", "check_name", "fingerprint", "severity"] {
            assert!(one[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {one}");
        }
        assert_eq!(one["location"]["path"], "ctx/Dockerfile");
        assert!(one["location"]["lines"]["begin"].is_u64());
    }
    assert_eq!((&found[0]["severity"], &found[1]["severity"]), (&"minor".into(), &"blocker".into()));
    let good = bench.context("good", [("Dockerfile", "FROM busybox\n")]);
    let _ran = bench.rbuild(["build", "--annotate=gitlab,dest=out.json"]).arg(&good).run().ok();
    assert_eq!(report("out.json"), Vec::<Value>::new());
    let _ran =
        bench.rbuild(["build", "--annotate=jenkins"]).arg(&good).run().fails(2).says("neither github nor gitlab");
}

#[test]
fn a_log_file_has_the_whole_build_whatever_is_shown() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN echo a word; exit 3\n")]);
    let ran = bench.rbuild(["build", "--progress=quiet", "--log-file=build.log"]).arg(&context).run().fails(1);
    assert!(!ran.stderr.contains("#2"), "{}", ran.stderr);
    let log = std::fs::read_to_string(bench.path("build.log")).unwrap();
    let has = |end: &str| log.lines().any(|line| line.ends_with(end));
    assert!(has(" a word") && has("exit code: 3"), "{log}");
    assert!(log.lines().any(|line| line.contains("Z error: process ")), "the failure is in it: {log}");
    assert!(
        log.lines().filter(|line| !line.is_empty()).all(|line| line.starts_with("20") && line.as_bytes()[23] == b'Z'),
        "{log}"
    );
    let _ran =
        bench.rbuild(["build", "--log-file=no/such/dir/log"]).arg(&context).run().fails(1).says("cannot write the log");
}

#[test]
fn files_that_are_deleted_later_are_hinted_at_when_asked() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=30\nRUN rm /big\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let ran = bench.rbuild(["build", "-t", "x", "--hints"]).arg(&context).run().ok();
    let hints: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("HINT: ")).collect();
    assert_eq!(
        hints,
        [
            "HINT: line 3: RUN rm /big deletes files that stay in the layer of line 2: RUN dd if=/dev/zero of=/big bs=1M count=30: \
             delete them in the step that makes them, or COPY --from another stage what is needed (about 31.5MB)"
        ]
    );
    // What did not run says nothing again, and nobody is told who did not ask.
    let ran = bench.rbuild(["build", "-t", "x", "--hints"]).arg(&context).run().ok();
    assert!(!ran.stderr.contains("HINT"), "{}", ran.stderr);
    for option in ["--no-hints", "--progress=plain"] {
        let ran = bench.rbuild(["build", "--no-cache", option]).arg(&context).run().ok();
        assert!(!ran.stderr.contains("HINT"), "{option}: {}", ran.stderr);
    }
    let ran = bench.rbuild(["build", "--no-cache", "--hints", "--progress=rawjson"]).arg(&context).run().ok();
    let last: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["hints"][0]["saves_bytes"], 30 << 20);
}
