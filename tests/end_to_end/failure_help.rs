//! The commonest failures, each from a build that really fails so: what the last line says to do.

use crate::bench::Bench;

/// The help at the end of what a failing build says.
fn help_of(bench: &Bench, dockerfile: &str, options: &[&str]) -> String {
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    let mut call = bench.rbuild(["build", "--progress=quiet"]);
    for option in options {
        call = call.arg(option);
    }
    let ran = call.arg(&context).run().fails(1);
    let Some((_, help)) = ran.stderr.rsplit_once("= help: ") else { return format!("no help in:\n{}", ran.stderr) };
    help.trim_end().to_owned()
}

/// A bench with a context of typical files.
fn bench() -> Option<Bench> {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with_busybox()?;
    let context = bench.context(
        "ctx",
        [
            (".dockerignore", "*.log\n"),
            ("build.log", "x"),
            ("package.json", "{}"),
            ("src/main.c", "int main;"),
            ("plain.sh", "#!/bin/sh\necho hi\n"),
            ("windows.sh", "#!/bin/sh\r\necho hi\r\n"),
            ("bash.sh", "#!/bin/bash\necho hi\n"),
        ],
    );
    // How a program for s390x begins: no test runs on one.
    let mut binary = b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16".to_vec();
    binary.resize(200, 0);
    std::fs::write(context.join("other"), binary).unwrap();
    for name in ["windows.sh", "bash.sh", "other"] {
        std::fs::set_permissions(context.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(context.join("plain.sh"), std::fs::Permissions::from_mode(0o644)).unwrap();
    Some(bench)
}

#[test]
fn programs_that_cannot_be_executed() {
    let Some(bench) = bench() else { return };
    let help = |dockerfile: &str| help_of(&bench, dockerfile, &[]);
    insta::assert_snapshot!(help("FROM busybox\nRUN frobnicate --now\n"), @r#"no "frobnicate" in this image's PATH (/bin): install the package that has it in an earlier step, or check its spelling"#);
    insta::assert_snapshot!(help("FROM busybox\nCOPY plain.sh /\nRUN /plain.sh\n"), @"/plain.sh is not executable (its mode is 0644): copy it with COPY --chmod=755, or RUN chmod +x /plain.sh before");
    insta::assert_snapshot!(help("FROM busybox\nCOPY plain.sh /\nRUN [\"/plain.sh\"]\n"), @"/plain.sh is not executable (its mode is 0644): copy it with COPY --chmod=755, or RUN chmod +x /plain.sh before");
    let windows = "/windows.sh has Windows line ends, so that its first line asks for a program whose name ends in \\r: save it with \
                   LF line ends (in git: `*.sh text eol=lf` in .gitattributes)";
    assert_eq!(help("FROM busybox\nCOPY windows.sh /\nRUN /windows.sh\n"), windows);
    assert_eq!(help("FROM busybox\nCOPY windows.sh /\nRUN [\"/windows.sh\"]\n"), windows);
    insta::assert_snapshot!(help("FROM busybox\nCOPY bash.sh /\nRUN /bash.sh\n"), @"/bash.sh asks for /bin/bash in its first line, which the image does not have: install it, or name another one there");
    insta::assert_snapshot!(help("FROM scratch\nCOPY plain.sh /\nRUN echo hi\n"), @r#"the image has no shell /bin/sh, which RUN without brackets needs: write RUN ["PROGRAM", "ARGUMENT"], or do it in a stage that has one and COPY --from it"#);
    let other = help("FROM busybox\nCOPY other /\nRUN [\"/other\"]\n");
    assert!(other.starts_with("/other is a program for s390x, and this step runs on "), "{other}");
    let other = help("FROM busybox\nCOPY other /\nRUN /other --version\n");
    assert!(other.starts_with("/other is a program for s390x, and this step runs on "), "{other}");
    insta::assert_snapshot!(help("FROM busybox\nRUN /go.sh\n"), @"the image has no /go.sh before this step: COPY it there first, and see that .dockerignore does not exclude it");
}

#[test]
fn files_that_are_not_there() {
    let Some(bench) = bench() else { return };
    let help = |dockerfile: &str| help_of(&bench, dockerfile, &[]);
    insta::assert_snapshot!(help("FROM busybox\nCOPY build.log /\n"), @r#"it is excluded by the pattern "*.log" in .dockerignore, line 1"#);
    insta::assert_snapshot!(help("FROM busybox\nCOPY pakage.json /\n"), @"did you mean /package.json?");
    insta::assert_snapshot!(help("FROM busybox\nCOPY src/Main.c /\n"), @"did you mean /src/main.c?");
    insta::assert_snapshot!(help("FROM busybox\nCOPY scr/main.c /\n"), @"did you mean /src?");
    insta::assert_snapshot!(help("FROM busybox\nCOPY ../x /\n"), @"../x lies outside of the context, of which nothing else is seen: build with a directory above as the context (`rbuild -f DIR/Dockerfile ..`), or name that one with --build-context");
    insta::assert_snapshot!(help("FROM busybox\nCOPY unlike-anything /\n"), @"sources are looked up in the context or stage they come from: is it misspelt, or in another directory?");
    insta::assert_snapshot!(help("FROM busybox AS app\nFROM busybox\nCOPY --from=app /bin/bussybox /\n"), @"did you mean /bin/busybox?");
}

#[test]
fn what_a_step_ran_out_of() {
    let Some(bench) = bench() else { return };
    let memory = "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1\n";
    insta::assert_snapshot!(help_of(&bench, memory, &["--memory=20m"]), @"the kernel killed it at its limit of 21MB: give it more with --memory");
    let full = help_of(
        &bench,
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m dd if=/dev/zero of=/t/x bs=1M count=4\n",
        &[],
    );
    assert!(full.contains("the tmpfs at /t that is full: give its mount a larger size="), "{full}");
}

#[test]
fn networks_that_are_not_there() {
    let Some(bench) = bench() else { return };
    let fetch = "FROM busybox\nRUN wget http://nowhere.invalid/\n";
    insta::assert_snapshot!(help_of(&bench, fetch, &["--network=none"]), @"this step has no network (--network=none): leave that out, or fetch in an earlier step");
    insta::assert_snapshot!(help_of(&bench, "FROM localhost:1/nope\n", &[]), @"nothing listens at localhost:1: is the registry running, and the port right?");
}

#[test]
fn who_may_not_write() {
    let Some(bench) = bench() else { return };
    let help = |dockerfile: &str| help_of(&bench, dockerfile, &[]);
    insta::assert_snapshot!(help("FROM busybox\nRUN --mount=type=bind,target=/m touch /m/x\n"), @"/m is a bind mount, which is read-only: add `rw` to it (what is written there is thrown away), or write elsewhere");
    insta::assert_snapshot!(help("FROM busybox\nUSER app\nRUN mkdir /x\n"), @"this step runs as USER app: do what needs root before that USER line, or give the files to it (COPY --chown=app, RUN chown)");
}

#[test]
fn arguments_that_are_empty() {
    let Some(bench) = bench() else { return };
    insta::assert_snapshot!(help_of(&bench, "ARG V=1\nFROM busybox\nRUN test -n \"$V\"\n", &[]), @"$V is empty here: an ARG before the first FROM holds for FROM lines only; write `ARG V` after FROM, too");
    insta::assert_snapshot!(help_of(&bench, "ARG V=1\nFROM busybox\nARG V\nRUN test -z \"$V\"\n", &[]), @"the command says above what went wrong; with --target the stage before it can be built and looked into");
}

#[test]
fn a_secret_is_not_quoted_as_a_missing_command() {
    let Some(bench) = bench() else { return };
    std::fs::write(bench.path("key"), "hunter22hunter22\n").unwrap();
    let context = bench
        .context("ctx", [("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=key $(cat /run/secrets/key)\n")]);
    let ran = bench.rbuild(["build", "--progress=quiet", "--secret=id=key,src=key"]).arg(&context).run().fails(1);
    assert!(!ran.stderr.contains("hunter22"), "{}", ran.stderr);
    let _ran = ran.says("****");
}
