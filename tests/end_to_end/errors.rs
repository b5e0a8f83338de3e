//! What people see when something is wrong: the Dockerfile's line, the cause, what to do. Nothing half-made stays.

use crate::bench::Bench;

/// Builds one Dockerfile that must fail; gives standard error without progress lines.
fn error_of(bench: &Bench, dockerfile: &str) -> String {
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    let ran = bench.rbuild(["build", "--progress=quiet", "-t", "broken"]).arg(&context).run().fails(1);
    assert_eq!(bench.rbuild(["images", "-q", "broken"]).run().ok().stdout, "", "a failed build named an image");
    ran.stderr
}

#[test]
fn a_typing_error_is_shown_with_its_line_and_the_nearest_name() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(error_of(&bench, "FROM busybox\n\nCOPPY a b\n"), @r#"
    error: unknown instruction: COPPY (did you mean COPY?)
     --> Dockerfile:3:1
      |
    3 | COPPY a b
      | ^^^^^
      |
      = help: write `COPY`
    "#);
}

#[test]
fn a_missing_file_is_shown_with_its_line() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(error_of(&bench, "FROM busybox\nCOPY nowhere.txt /\n"), @r#"
    error: failed to compute cache key: "/nowhere.txt": not found
     --> Dockerfile:2:1
      |
    2 | COPY nowhere.txt /
      | ^^^^^^^^^^^^^^^^^^
      |
      = help: sources are looked up in the context or stage they come from: is it misspelt, or in another directory?
    "#);
}

#[test]
fn a_failing_step_shows_its_output_its_line_and_its_exit_code() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(error_of(&bench, "FROM busybox\nRUN echo about to fail && \\\n    exit 42\n"), @r#"
    ------
     > [2/2] RUN echo about to fail &&     exit 42:
    about to fail
    ------
    error: process "/bin/sh -c echo about to fail &&     exit 42" did not complete successfully: exit code: 42
     --> Dockerfile:2:1
      |
    2 | RUN echo about to fail && \
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: the command says above what went wrong; with --target the stage before it can be built and looked into
    "#);
}

#[test]
fn a_step_killed_by_a_signal_says_so() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(error_of(&bench, "FROM busybox\nRUN kill -9 $$\n"), @r#"
    error: process "/bin/sh -c kill -9 $$" did not complete successfully: exit code: 137 (killed by signal SIGKILL)
     --> Dockerfile:2:1
      |
    2 | RUN kill -9 $$
      | ^^^^^^^^^^^^^^
    "#);
}

#[test]
fn an_unknown_command_says_so() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(error_of(&bench, "FROM busybox\nRUN [\"/no/such/program\"]\n"), @r#"
    error: process "/no/such/program" did not complete successfully: /no/such/program: executable not found in the image
     --> Dockerfile:2:1
      |
    2 | RUN ["/no/such/program"]
      | ^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: the image has no /no/such/program before this step: COPY or install it first
    "#);
}

#[test]
fn an_unknown_stage_says_which_exist() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox AS builder\nFROM busybox AS final\n")]);
    let ran = bench.rbuild(["build", "--target=bulider"]).arg(&context).run().fails(1);
    insta::assert_snapshot!(ran.stderr, @r#"
    error: target stage "bulider" could not be found (did you mean builder?)
     |
     = help: the stages are: builder, final
    "#);
}

#[test]
fn all_mistakes_are_shown_at_once() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(error_of(&bench, "FROM busybox\nCOPPY a b\nRUN echo fine\nENV\nEXPOSE x\n"), @r#"
    error: unknown instruction: COPPY (did you mean COPY?)
     --> Dockerfile:2:1
      |
    2 | COPPY a b
      | ^^^^^
      |
      = help: write `COPY`
    error: ENV requires at least one argument
     --> Dockerfile:4:1
      |
    4 | ENV
      | ^^^
    error: invalid containerPort: x
     --> Dockerfile:5:8
      |
    5 | EXPOSE x
      |        ^
      |
      = help: write a port or a range, for example 8080, 53/udp or 7000-7010
    error: unknown instruction: COPPY (did you mean COPY?) (Dockerfile:2, and 2 more)
    "#);
}

#[test]
fn mistakes_of_reading_and_of_planning_are_shown_together() {
    let Some(bench) = Bench::with_busybox() else { return };
    let file = "\
FROM busybox AS base
COPPY a b
EXPOSE 80 web 70000
RUN --mount=type=cach,target=/a --mount=type=cache,taget=/b \\
    --mount=type=cache,target=/c,sharing=lock true
ENV A=${NOPE:?} B=${FROM_BASE}
STOPSIGNAL TREM
FROM base
COPY --from=7 --chown a b
";
    insta::assert_snapshot!(error_of(&bench, file), @r#"
    error: unknown instruction: COPPY (did you mean COPY?)
     --> Dockerfile:2:1
      |
    2 | COPPY a b
      | ^^^^^
      |
      = help: write `COPY`
    error: invalid containerPort: web
     --> Dockerfile:3:11
      |
    3 | EXPOSE 80 web 70000
      |           ^^^
      |
      = help: write a port or a range, for example 8080, 53/udp or 7000-7010
    error: invalid containerPort: 70000
     --> Dockerfile:3:15
      |
    3 | EXPOSE 80 web 70000
      |               ^^^^^
      |
      = help: write a port or a range, for example 8080, 53/udp or 7000-7010
    error: unsupported sharing value "lock" (did you mean locked?)
     --> Dockerfile:4:1
      |
    4 | RUN --mount=type=cach,target=/a --mount=type=cache,taget=/b \
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    5 |     --mount=type=cache,target=/c,sharing=lock true
      |             --------------------------------- here
    error: unsupported mount type "cach" (did you mean cache?)
     --> Dockerfile:4:13
      |
    4 | RUN --mount=type=cach,target=/a --mount=type=cache,taget=/b \
      |             ^^^^^^^^^^^^^^^^^^^
    error: unexpected key 'taget' in 'taget=/b' (did you mean target?)
     --> Dockerfile:4:41
      |
    4 | RUN --mount=type=cach,target=/a --mount=type=cache,taget=/b \
      |                                         ^^^^^^^^^^^^^^^^^^^
    error: invalid signal: TREM
     --> Dockerfile:7:12
      |
    7 | STOPSIGNAL TREM
      |            ^^^^
      |
      = help: write a number or a name, for example SIGTERM
    error: missing a value on flag: --chown
     --> Dockerfile:9:15
      |
    9 | COPY --from=7 --chown a b
      |               ^^^^^^^
      |
      = help: write `--chown=VALUE`
    error: unknown instruction: COPPY (did you mean COPY?) (Dockerfile:2, and 7 more)
    "#);
}

#[test]
fn the_nearest_stage_or_image_is_suggested() {
    let Some(bench) = Bench::with_busybox() else { return };
    let file = "FROM busybox AS builder\nFROM busybox\nCOPY --from=localhost:1/x a b\nVOLUME [\"$NOPE\"]\n";
    let shown = error_of(&bench, file);
    assert!(shown.contains("VOLUME specified can not be an empty string"), "{shown}");
    assert!(shown.contains("localhost:1/x: failed to resolve source metadata"), "{shown}");
}

#[test]
fn missing_inputs_are_named() {
    let Some(bench) = Bench::new() else { return };
    let empty = bench.context("empty", []);
    let _ran = bench.rbuild(["build"]).arg(&empty).run().fails(1).says("Dockerfile");
    let _ran = bench.rbuild(["build", "no-such-directory"]).run().fails(1).says("no-such-directory");
    let _ran = bench.rbuild(["build"]).run().fails(2).says("context");
    let _ran = bench.rbuild(["build", "--squash", "."]).run().fails(2).says("--squash");
    let _ran = bench.rbuild(["build", "--no-such-flag", "."]).run().fails(2).says("--no-such-flag");
    let _ran = bench.rbuild(["run", "--rm", "localhost:1/no/such/image"]).run().fails(125).says("no/such/image");
}

#[test]
fn hostile_output_reaches_no_terminal_raw() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context =
        bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN printf 'a\\033]0;owned\\007b\\n' && false\n")]);
    let ran = bench.build("x", &context).fails(1);
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}

#[test]
fn a_dockerfile_that_leads_out_of_its_context_is_not_read() {
    let Some(bench) = Bench::new() else { return };
    std::fs::write(bench.path("outside"), "SECRET of the host\n").unwrap();
    let context = bench.context("ctx", []);
    std::os::unix::fs::symlink("../outside", context.join("Dockerfile")).unwrap();
    let ran = bench.rbuild(["build"]).arg(&context).run().fails(1);
    assert!(!ran.stderr.contains("SECRET"), "{}", ran.stderr);
}
