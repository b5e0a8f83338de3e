//! The words of shells and tools, and what is told of them.

use std::collections::BTreeMap;

use super::super::program::tests::{Fake, shell};
use super::*;

fn room(free: u64) -> impl Fn() -> Option<Space> {
    move || Some(Space { path: "/store".into(), free, free_files: None })
}

/// What is told of a command that said something and ended with a code.
fn told_of(op: &RunOp, files: &Fake, code: i32, said: &str) -> String {
    let disk = room(1 << 30);
    let as_root = op.user.is_empty();
    let step = FailedStep { op, files, said, code, as_root, oom_kills: 0, memory_limit: None, disk: &disk };
    of_step(&step).unwrap_or_else(|| "-".to_owned())
}

fn told(code: i32, said: &str) -> String {
    told_of(&shell("x"), &Fake::default(), code, said)
}

#[test]
fn shells_name_what_they_did_not_find() {
    for (line, name) in [
        ("/bin/sh: frob: not found", "frob"),
        ("/bin/sh: 1: frob: not found", "frob"),
        ("/bin/bash: line 1: frob: command not found", "frob"),
        ("sh: frob: inaccessible or not found", "frob"),
        ("bash: line 1: ./x.sh: cannot execute: required file not found", "./x.sh"),
        ("/bin/bash: ./x.sh: /bin/sh^M: bad interpreter: No such file or directory", "./x.sh"),
        ("env: 'node': No such file or directory", "node"),
        ("/usr/bin/env: ‘python3\\r’: No such file or directory", "python3\\r"),
        ("env: can't execute 'node': No such file or directory", "node"),
    ] {
        assert_eq!(named_as_missing(line).as_deref(), Some(name), "{line}");
    }
    assert_eq!(named_as_missing("ld: cannot find -lz"), None);
    assert_eq!(named_as_missing("the file was not found"), None);
}

#[test]
fn a_missing_command_is_told_by_its_name() {
    insta::assert_snapshot!(told(127, "/bin/sh: frob: not found\n"), @r#"no "frob" in this image's PATH (/bin): install the package that has it in an earlier step, or check its spelling"#);
    insta::assert_snapshot!(told(127, "/bin/sh: /app/go.sh: not found\n"), @"the image has no /app/go.sh before this step: COPY it there first, and see that .dockerignore does not exclude it");
    insta::assert_snapshot!(told(127, ""), @"127 means that a command was not found: install it first, or check its spelling and PATH");
    insta::assert_snapshot!(told(127, "env: ‘bash\\r’: No such file or directory"), @"a script has Windows line ends: save it with LF line ends (in git: `*.sh text eol=lf` in .gitattributes)");
    assert_eq!(told(127, "/bin/sh: ./made-here.sh: not found\n"), "-", "the command may have made or left it");
    assert_eq!(told(1, "/bin/sh: frob: not found\nmake: *** Error 127\n"), "-", "it went on after that");
    let files = Fake(BTreeMap::from([("/app/w.sh", (0o755, Some(b"#!/bin/sh\r\n".as_slice())))]));
    let line = "/bin/sh: ./w.sh: not found";
    assert!(told_of(&shell("./w.sh"), &files, 127, line).contains("Windows line ends"));
}

#[test]
fn a_file_that_is_not_executable_is_told_by_its_mode() {
    let files = Fake(BTreeMap::from([
        ("/app/x.sh", (0o644, Some(b"#!/bin/sh\n".as_slice()))),
        ("/app/arm", (0o755, Some(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x16\0".as_slice()))),
    ]));
    let told = |command: &str, code, said: &str| told_of(&shell(command), &files, code, said);
    insta::assert_snapshot!(told("./x.sh", 126, "/bin/sh: 1: ./x.sh: Permission denied"), @"/app/x.sh is not executable (its mode is 0644): copy it with COPY --chmod=755, or RUN chmod +x /app/x.sh before");
    insta::assert_snapshot!(told("other", 126, ""), @"126 means that a file is not executable: check its mode and architecture");
}

#[test]
fn a_program_for_another_machine_is_told_though_the_shell_read_it_as_a_script() {
    // s390x is big-endian, so no test runs on it.
    let files = Fake(BTreeMap::from([(
        "/app/other",
        (0o755, Some(b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16".as_slice())),
    )]));
    let told =
        told_of(&shell("./other --version"), &files, 2, "./other: line 1: syntax error: unterminated quoted string");
    assert!(told.starts_with("/app/other is a program for s390x, and this step runs on "), "{told}");
    let read = told_of(&shell("./other --version"), &files, 127, "./other: line 1: \u{7f}ELF\u{2}: not found");
    assert_eq!(read, told);
}

#[test]
fn memory_is_told_by_what_the_kernel_counted() {
    let (op, files, disk) = (shell("x"), Fake::default(), room(0));
    let told = |oom_kills, memory_limit| {
        let step = FailedStep {
            op: &op,
            files: &files,
            said: "Killed",
            code: 137,
            as_root: true,
            oom_kills,
            memory_limit,
            disk: &disk,
        };
        of_step(&step).unwrap_or_else(|| "-".to_owned())
    };
    insta::assert_snapshot!(told(1, Some(20_000_000)), @"the kernel killed it at its limit of 20MB: give it more with --memory");
    assert!(told(1, None).contains("--jobs 1"));
    assert_eq!(told(0, None), "-", "anybody may have killed it");
}

#[test]
fn a_full_disk_is_told_by_the_disk() {
    let said = "dd: error writing '/t/x': No space left on device";
    let files = Fake::default();
    let op = shell("x");
    let told = |op: &RunOp, free| {
        let disk = room(free);
        of_step(&FailedStep {
            op,
            files: &files,
            said,
            code: 1,
            as_root: true,
            oom_kills: 0,
            memory_limit: None,
            disk: &disk,
        })
    };
    insta::assert_snapshot!(told(&op, 4096).unwrap(), @"the disk of /store is full (4.1kB free): `rbuild cache prune` frees what builds left");
    assert!(told(&op, 1 << 30).unwrap().contains("--shm-size"));
}

#[test]
fn packages_are_told_by_apt_and_apk() {
    let told = |command: &str, said: &str| told_of(&shell(command), &Fake::default(), 100, said);
    let unknown = "Reading package lists...\nE: Unable to locate package culr\n";
    insta::assert_snapshot!(told("apt-get install -y curl", unknown), @"the image has no package lists: write `apt-get update && apt-get install …` in one RUN");
    insta::assert_snapshot!(told("apt-get update && apt-get install -y culr", unknown), @r#"the distribution of this image has no package "culr": check its name and the image's release"#);
    let old = "E: Failed to fetch http://x/y.deb  404  Not Found [IP: 1.2.3.4 80]\nE: Unable to fetch some archives, maybe run apt-get update?\n";
    assert!(told("apt-get install -y curl", old).contains("in one RUN"));
    let offline = "W: Failed to fetch http://deb.debian.org/x  Temporary failure resolving 'deb.debian.org'\nE: Unable to locate package curl\n";
    assert!(told("apt-get update && apt-get install curl", offline).contains("look up a host"));
    assert!(
        told("apk add curl", "ERROR: unable to select packages:\n  curl (no such package):\n")
            .contains("apk add --no-cache")
    );
}

#[test]
fn networks_are_told_by_what_failed_in_them() {
    let none = RunOp { network: RunNetwork::None, ..shell("curl https://x") };
    let (plain, bare) = (shell("curl https://x"), Fake::default());
    let known = Fake(BTreeMap::from([(BUNDLES[0], (0o644, Some(b"".as_slice())))]));
    let dns = "curl: (6) Could not resolve host: x";
    assert!(told_of(&plain, &bare, 6, dns).contains("rbuild doctor"));
    assert!(told_of(&none, &bare, 6, dns).contains("--network=none"));
    assert!(told_of(&none, &bare, 1, "connect: Network is unreachable").contains("--network=none"));
    let tls = "curl: (60) SSL certificate problem: unable to get local issuer certificate";
    assert!(told_of(&plain, &bare, 60, tls).contains("install its package ca-certificates"));
    assert!(told_of(&plain, &known, 60, tls).contains("update-ca-certificates"));
}

#[test]
fn who_may_not_write_is_told_why() {
    let mut op = shell("touch /m/x");
    op.mounts = vec![rbuild_solver::RunMount {
        target: Some(rbuild_image::ContainerPath::new("/m")),
        kind: RunMountKind::Bind { input: None, source: rbuild_image::ContainerPath::root(), writable: false },
    }];
    let said = "touch: /m/x: Read-only file system";
    assert!(told_of(&op, &Fake::default(), 1, said).contains("add `rw`"));
    let user = RunOp { user: "app".to_owned(), ..shell("mkdir /x") };
    let denied = "mkdir: can't create directory '/x': Permission denied";
    assert!(told_of(&user, &Fake::default(), 1, denied).contains("COPY --chown=app"));
    assert_eq!(told(1, denied), "-", "root is refused for other reasons");
}

#[test]
fn what_was_got_over_long_ago_is_no_evidence() {
    let said = format!("curl: (6) Could not resolve host: x\n{}", "compiling\n".repeat(40));
    assert_eq!(told(2, &said), "-");
    assert_eq!(told(42, "about to fail"), "-");
}

#[test]
fn the_end_of_a_long_log_is_kept() {
    let mut tail = Tail::default();
    tail.take(&vec![b'x'; 3 * TAIL]);
    tail.take(b"end");
    let text = tail.text();
    assert!(text.len() == TAIL && text.ends_with("xend"));
}

#[test]
fn commands_that_mean_something_else_are_told_so() {
    let told = |line: &str| told(127, &format!("/bin/sh: {line}: not found\n"));
    insta::assert_snapshot!(told("sudo"), @"steps run as root until a USER line: leave sudo out");
    insta::assert_snapshot!(told("source"), @r#"source is a command of bash: write `. FILE`, or SHELL ["/bin/bash", "-c"] before"#);
    insta::assert_snapshot!(told("[echo,hi]"), @r#"this was meant as a list, which is JSON: words in it stand in double quotes, RUN ["program", "argument"]"#);
    insta::assert_snapshot!(told("yum"), @"this image has no yum, and no other package manager: take a base image that has one");
    let alpine = Fake(BTreeMap::from([("/bin/apk", (0o755, Some(b"\x7fELF".as_slice())))]));
    let said = "/bin/sh: apt-get: not found\n";
    insta::assert_snapshot!(told_of(&shell("apt-get update"), &alpine, 127, said), @"this image has no apt-get: its packages are installed with apk");
    let user = RunOp { user: "app".to_owned(), ..shell("sudo true") };
    assert!(told_of(&user, &Fake::default(), 127, "/bin/sh: sudo: not found").contains("write USER root before"));
}

#[test]
fn a_secret_that_was_not_given_is_told_by_its_file() {
    let mut op = shell("cat /run/secrets/key");
    op.mounts = vec![rbuild_solver::RunMount {
        target: Some(rbuild_image::ContainerPath::new("/run/secrets/key")),
        kind: RunMountKind::Secret { id: "key".to_owned(), env: None, required: false, mode: 0o400, uid: 0, gid: 0 },
    }];
    let said = "cat: can't open '/run/secrets/key': No such file or directory";
    insta::assert_snapshot!(told_of(&op, &Fake::default(), 1, said), @"/run/secrets/key is there when the secret key is given: --secret id=key,src=FILE, or id=key,env=VARIABLE");
    assert_eq!(told_of(&op, &Fake::default(), 1, "cat: /other: No such file or directory"), "-");
}
