//! `cache why` and `build --explain`: for every kind of change, what people are told.
//!
//! Each case builds, changes one thing, builds again, and looks at the steps that ran. Times, ids and digests are
//! replaced, everything else is exactly what the program prints.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use insta::assert_snapshot;

use crate::bench::{Bench, Call};

/// A project, and how it is built.
struct Project<'a> {
    bench: &'a Bench,
    context: std::path::PathBuf,
    flags: Vec<&'a str>,
}

impl<'a> Project<'a> {
    fn new(bench: &'a Bench, name: &str, dockerfile: &str) -> Self {
        let context = bench.context(name, [("Dockerfile", dockerfile), ("a", "one\n"), ("dir/b", "two\n")]);
        Self { bench, context, flags: Vec::new() }
    }

    fn call(&self, more: &[&str]) -> Call {
        let flags = ["build", "--progress=plain", "--network=none", "-t", "x"];
        self.bench.rbuild(flags).args(&self.flags).args(more).arg(&self.context)
    }

    fn build(&self, more: &[&str]) {
        let _ran = self.call(more).run().ok();
    }

    fn dockerfile(&self, text: &str) {
        fs::write(self.context.join("Dockerfile"), text).unwrap();
    }

    /// Why the steps of the last build ran.
    fn why(&self) -> String {
        plain(&self.bench.rbuild(["cache", "why"]).run().ok().stdout, self.bench.path(""))
    }
}

/// Text without what is different each time.
fn plain(text: &str, dir: impl AsRef<Path>) -> String {
    let text = text.replace(&*dir.as_ref().to_string_lossy(), "DIR/");
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let (core, end) = word.split_at(word.trim_end().len());
        let core = match core {
            time if time.len() == 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T' => "TIME",
            digest if digest.starts_with("sha256:") => "DIGEST",
            other => other,
        };
        out.push_str(core);
        out.push_str(end);
    }
    out
}

/// Builds `before`, then `after`, and says why what ran did.
fn edited(before: &str, after: &str) -> Option<String> {
    let bench = Bench::with_busybox()?;
    let project = Project::new(&bench, "ctx", before);
    project.build(&[]);
    project.dockerfile(after);
    project.build(&[]);
    Some(project.why())
}

/// Builds, does something to the context, builds again, and says why what ran did.
fn touched(dockerfile: &str, change: impl FnOnce(&Path)) -> Option<String> {
    let bench = Bench::with_busybox()?;
    let project = Project::new(&bench, "ctx", dockerfile);
    project.build(&[]);
    change(&project.context);
    project.build(&[]);
    Some(project.why())
}

const COPY: &str = "FROM busybox\nCOPY a dir /to/\n";

#[test]
fn a_changed_file_is_named() {
    let Some(why) = touched(COPY, |context| fs::write(context.join("a"), "another\n").unwrap()) else { return };
    assert_snapshot!(why, @r"
    #3 [2/2] COPY a dir /to/: ran
       it differs from [2/2] COPY a dir /to/ of TIME
         1 file of the build context differs:
           a: content (4 → 8 bytes)
    ");
}

#[test]
fn a_changed_file_of_the_same_size_is_named() {
    let Some(why) = touched(COPY, |context| fs::write(context.join("dir/b"), "TWO\n").unwrap()) else { return };
    assert_snapshot!(why, @r"
    #3 [2/2] COPY a dir /to/: ran
       it differs from [2/2] COPY a dir /to/ of TIME
         1 file of the build context differs:
           dir/b: content (4 bytes)
    ");
}

#[test]
fn a_changed_mode_is_named() {
    let change = |context: &Path| fs::set_permissions(context.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(why) = touched(COPY, change) else { return };
    assert_snapshot!(why, @r"
    #3 [2/2] COPY a dir /to/: ran
       it differs from [2/2] COPY a dir /to/ of TIME
         1 file of the build context differs:
           a: mode 0644 → 0755
    ");
}

#[test]
fn an_added_file_is_named() {
    let Some(why) = touched(COPY, |context| fs::write(context.join("dir/new"), "x").unwrap()) else { return };
    assert_snapshot!(why, @r"
    #3 [2/2] COPY a dir /to/: ran
       it differs from [2/2] COPY a dir /to/ of TIME
         1 file of the build context differs:
           dir/new: added (1 bytes)
    ");
}

#[test]
fn a_removed_file_is_named() {
    let change = |context: &Path| {
        fs::remove_file(context.join("dir/b")).unwrap();
        fs::write(context.join("dir/c"), "c").unwrap();
    };
    let Some(why) = touched(COPY, change) else { return };
    assert_snapshot!(why, @r"
    #3 [2/2] COPY a dir /to/: ran
       it differs from [2/2] COPY a dir /to/ of TIME
         2 files of the build context differ:
           dir/b: removed
           dir/c: added (1 bytes)
    ");
}

#[test]
fn a_file_that_became_a_link_is_named() {
    let change = |context: &Path| {
        fs::remove_file(context.join("dir/b")).unwrap();
        std::os::unix::fs::symlink("../a", context.join("dir/b")).unwrap();
    };
    let Some(why) = touched(COPY, change) else { return };
    assert_snapshot!(why, @r"
    #3 [2/2] COPY a dir /to/: ran
       it differs from [2/2] COPY a dir /to/ of TIME
         1 file of the build context differs:
           dir/b: file → link, mode 0644 → 0777
    ");
}

#[test]
fn files_of_a_bind_mount_are_named() {
    let dockerfile = "FROM busybox\nRUN --mount=type=bind,source=dir,target=/m cat /m/b > /b\n";
    let Some(why) = touched(dockerfile, |context| fs::write(context.join("dir/b"), "three\n").unwrap()) else { return };
    assert_snapshot!(why, @r"
    #3 [stage-0 2/2] RUN --mount=type=bind,source=dir,target=/m cat /m/b > /b: ran
       it differs from [stage-0 2/2] RUN --mount=type=bind,source=dir,target=/m cat /m/b > /b of TIME
         1 file of the build context differs:
           dir/b: content (4 → 6 bytes)
    ");
}

#[test]
fn a_changed_command_is_shown() {
    let Some(why) = edited("FROM busybox\nRUN echo one > /f\n", "FROM busybox\nRUN echo two > /f\n") else { return };
    assert_snapshot!(why, @r"
    #2 [2/2] RUN echo two > /f: ran
       it differs from [2/2] RUN echo one > /f of TIME
         command: echo one > /f → echo two > /f
    ");
}

#[test]
fn the_changed_line_of_a_script_is_shown() {
    let text = |line: &str| format!("FROM busybox\nRUN <<EOF\nset -e\n{line}\necho end > /end\nEOF\n");
    let Some(why) = edited(&text("echo one > /f"), &text("echo two > /f")) else { return };
    assert_snapshot!(why, @r"
    #2 [2/2] RUN <<EOF (set -e...): ran
       it differs from [2/2] RUN <<EOF (set -e...) of TIME
         command, from its line 2:
           - echo one > /f
           + echo two > /f
    ");
}

#[test]
fn a_build_argument_is_named() {
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(&bench, "ctx", "FROM busybox\nARG VERSION=1\nRUN echo $VERSION > /v\n");
    project.build(&["--build-arg", "VERSION=1.0"]);
    project.build(&["--build-arg", "VERSION=1.1"]);
    assert_snapshot!(project.why(), @r"
    #2 [2/2] RUN echo 1.1 > /v: ran
       it differs from [2/2] RUN echo 1.0 > /v of TIME
         ARG VERSION: 1.0 → 1.1
    ");
}

#[test]
fn a_secret_looking_argument_is_named_and_its_value_is_nowhere() {
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(&bench, "ctx", "FROM busybox\nARG API_TOKEN\nRUN echo $API_TOKEN | wc -c > /f\n");
    project.build(&["--build-arg", "API_TOKEN=hunter2hunter2"]);
    let ran = project.call(&["--build-arg", "API_TOKEN=swordfish99", "--explain"]).run().ok();
    assert!(!ran.stderr.contains("hunter2") && !ran.stderr.contains("swordfish"), "{}", ran.stderr);
    let json = bench.rbuild(["cache", "why", "--format=json"]).run().ok().stdout;
    assert!(!json.contains("hunter2") && !json.contains("swordfish"), "{json}");
    for file in ["meta.db", "meta.db-wal"] {
        let bytes = fs::read(bench.store().join(file)).unwrap();
        for secret in [&b"hunter2hunter2"[..], b"swordfish99"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "a secret is in {file}");
        }
    }
    assert_snapshot!(project.why(), @r"
    #2 [2/2] RUN echo **** | wc -c > /f: ran
       it differs from [2/2] RUN echo **** | wc -c > /f of TIME
         ARG API_TOKEN: another value (not shown: its name says that it is secret)
    ");
}

#[test]
fn a_variable_is_named() {
    let text = |value: &str| format!("FROM busybox\nENV MODE={value}\nRUN echo $MODE > /f\n");
    let Some(why) = edited(&text("fast"), &text("slow")) else { return };
    assert_snapshot!(why, @r"
    #2 [2/2] RUN echo slow > /f: ran
       it differs from [2/2] RUN echo fast > /f of TIME
         ENV MODE: fast → slow
    ");
}

#[test]
fn a_new_variable_is_named() {
    let Some(why) = edited("FROM busybox\nRUN true\n", "FROM busybox\nENV A=1\nRUN true\n") else { return };
    assert_snapshot!(why, @r"
    #2 [2/2] RUN true: ran
       it differs from [2/2] RUN true (line 2) of TIME
         ENV A: new: 1
    ");
}

#[test]
fn a_removed_variable_is_named() {
    let Some(why) = edited("FROM busybox\nENV A=1\nRUN true\n", "FROM busybox\nRUN true\n") else { return };
    assert_snapshot!(why, @r"
    #2 [2/2] RUN true: ran
       it differs from [2/2] RUN true (line 3) of TIME
         ENV A: gone: 1
    ");
}

#[test]
fn a_new_base_image_is_named() {
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(&bench, "ctx", "FROM busybox\nRUN echo > /f\n");
    project.build(&[]);
    // The same name leads to another image.
    let base = bench.context("base", [("Dockerfile", "FROM busybox\nRUN echo 2 > /etc/two\n")]);
    let _base = bench.rbuild(["build", "--network=none", "-t", "busybox"]).arg(&base).run().ok();
    project.build(&[]);
    assert_snapshot!(project.why(), @r"
    #2 [2/2] RUN echo > /f: ran
       it differs from [2/2] RUN echo > /f of TIME
         base image busybox:latest: digest DIGEST → DIGEST
    ");
}

#[test]
fn another_base_image_is_named() {
    let Some(bench) = Bench::with_busybox() else { return };
    let base = bench.context("base", [("Dockerfile", "FROM busybox\nRUN echo 2 > /etc/two\n")]);
    let _base = bench.rbuild(["build", "--network=none", "-t", "other:2"]).arg(&base).run().ok();
    let project = Project::new(&bench, "ctx", "FROM busybox\nRUN echo > /f\n");
    project.build(&[]);
    project.dockerfile("FROM other:2\nRUN echo > /f\n");
    project.build(&[]);
    assert_snapshot!(project.why(), @r"
    #2 [2/2] RUN echo > /f: ran
       it differs from [2/2] RUN echo > /f of TIME
         base image: busybox:latest → other:2
    ");
}

#[test]
fn a_parent_that_ran_again_is_named_with_its_own_reason() {
    let text = |word: &str| format!("FROM busybox\nRUN echo {word} > /f\nRUN cat /f > /g\nRUN cat /g > /h\n");
    let Some(why) = edited(&text("one"), &text("two")) else { return };
    assert_snapshot!(why, @r"
    #2 [2/4] RUN echo two > /f: ran
       it differs from [2/4] RUN echo one > /f of TIME
         command: echo one > /f → echo two > /f
    #3 [3/4] RUN cat /f > /g: ran
       it differs from [3/4] RUN cat /f > /g of TIME
         parent [2/4] RUN echo two > /f: ran again
       because #2 [2/4] RUN echo two > /f ran:
          it differs from [2/4] RUN echo one > /f of TIME
            command: echo one > /f → echo two > /f
    #4 [4/4] RUN cat /g > /h: ran
       it differs from [4/4] RUN cat /g > /h of TIME
         parent [3/4] RUN cat /f > /g: ran again
       because #3 [3/4] RUN cat /f > /g ran:
          it differs from [3/4] RUN cat /f > /g of TIME
            parent [2/4] RUN echo two > /f: ran again
       because #2 [2/4] RUN echo two > /f ran:
          it differs from [2/4] RUN echo one > /f of TIME
            command: echo one > /f → echo two > /f
    ");
}

#[test]
fn an_inserted_step_is_new_and_what_follows_says_so() {
    let before = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\n";
    let after = "FROM busybox\nRUN echo one > /one\nRUN echo between > /b\nRUN echo two > /two\n";
    let Some(why) = edited(before, after) else { return };
    assert_snapshot!(why, @r"
    #3 [3/4] RUN echo between > /b: ran
       nothing comparable was recorded before
    #4 [4/4] RUN echo two > /two: ran
       it differs from [3/3] RUN echo two > /two (line 3) of TIME
         parent [3/4] RUN echo between > /b: ran again
       because #3 [3/4] RUN echo between > /b ran:
          nothing comparable was recorded before
    ");
}

#[test]
fn another_stage_that_came_out_differently_is_named_with_its_files() {
    let text = |word: &str| {
        format!(
            "FROM busybox AS make\nRUN mkdir /out && echo {word} > /out/f\nFROM busybox\nCOPY --from=make /out /in\n"
        )
    };
    let Some(why) = edited(&text("one"), &text("three")) else { return };
    assert_snapshot!(why, @r"
    #2 [make 2/2] RUN mkdir /out && echo three > /out/f: ran
       it differs from [make 2/2] RUN mkdir /out && echo one > /out/f of TIME
         command: mkdir /out && echo one > /out/f → mkdir /out && echo three > /out/f
    #3 [stage-1 2/2] COPY --from=make /out /in: ran
       it differs from [stage-1 2/2] COPY --from=make /out /in of TIME
         1 file of the [make 2/2] RUN mkdir /out && echo three > /out/f differs:
           out/f: content (4 → 6 bytes)
         COPY --from [make 2/2] RUN mkdir /out && echo three > /out/f: ran again
       because #2 [make 2/2] RUN mkdir /out && echo three > /out/f ran:
          it differs from [make 2/2] RUN mkdir /out && echo one > /out/f of TIME
            command: mkdir /out && echo one > /out/f → mkdir /out && echo three > /out/f
    ");
}

#[test]
fn a_working_directory_and_a_user_are_named() {
    let before = "FROM busybox\nWORKDIR /a\nUSER root\nRUN true\n";
    let Some(why) = edited(before, "FROM busybox\nWORKDIR /b\nUSER app\nRUN true\n") else { return };
    assert_snapshot!(why, @r"
    #2 [2/3] WORKDIR /b: ran
       it differs from [2/3] WORKDIR /a of TIME
         WORKDIR: /a → /b
    #3 [3/3] RUN true: ran
       it differs from [3/3] RUN true of TIME
         WORKDIR: /a → /b
         USER: root → app
         parent [2/3] WORKDIR /b: ran again
       because #2 [2/3] WORKDIR /b ran:
          it differs from [2/3] WORKDIR /a of TIME
            WORKDIR: /a → /b
    ");
}

#[test]
fn a_mount_is_named() {
    let text = |flags: &str| format!("FROM busybox\nRUN --mount=type=cache,target=/c{flags} true\n");
    let Some(why) = edited(&text(""), &text(",sharing=locked")) else { return };
    assert_snapshot!(why, @r"
    #2 [stage-0 2/2] RUN --mount=type=cache,target=/c,sharing=locked true: ran
       it differs from [stage-0 2/2] RUN --mount=type=cache,target=/c true of TIME
         mount: type=cache,id=/c,owner=0:0 0755,sharing=Shared,source=/,target=/c,writable=true → type=cache,id=/c,owner=0:0 0755,sharing=Locked,source=/,target=/c,writable=true
    ");
}

#[test]
fn a_secret_mount_is_named_without_its_value() {
    let Some(bench) = Bench::with_busybox() else { return };
    fs::write(bench.path("secret"), "hunter2\n").unwrap();
    let secret = format!("id=key,src={}", bench.path("secret").display());
    let text = |flags: &str| format!("FROM busybox\nRUN --mount=type=secret,id=key{flags} true\n");
    let project = Project::new(&bench, "ctx", &text(""));
    project.build(&["--secret", &secret]);
    project.dockerfile(&text(",required=true"));
    project.build(&["--secret", &secret]);
    assert_snapshot!(project.why(), @r"
    #2 [stage-0 2/2] RUN --mount=type=secret,id=key,required=true true: ran
       it differs from [stage-0 2/2] RUN --mount=type=secret,id=key true of TIME
         mount: type=secret,id=key,owner=0:0 0400,required=false,target=/run/secrets/key → type=secret,id=key,owner=0:0 0400,required=true,target=/run/secrets/key
    ");
}

#[test]
fn flags_of_a_copy_are_named() {
    let before = "FROM busybox\nCOPY a /one/\n";
    let Some(why) = edited(before, "FROM busybox\nCOPY --chown=7:7 --chmod=600 dir/b /two/\n") else { return };
    assert_snapshot!(why, @r"
    #3 [2/2] COPY --chown=7:7 --chmod=600 dir/b /two/: ran
       it differs from [2/2] COPY a /one/ of TIME
         --chmod: new: 600
         --chown: new: 7:7
         destination: /one/ → /two/
         source: a → dir/b
         2 files of the build context differ:
           a: removed
           dir/b: added (4 bytes)
    ");
}

#[test]
fn a_here_document_is_named() {
    let text = |word: &str| format!("FROM busybox\nCOPY <<EOF /f\n{word}\nEOF\n");
    let Some(why) = edited(&text("one"), &text("two")) else { return };
    assert_snapshot!(why, @r"
    #2 [2/2] COPY <<EOF /f: ran
       it differs from [2/2] COPY <<EOF /f of TIME
         content of the here-document: DIGEST → DIGEST
    ");
}

#[test]
fn a_shell_and_a_network_are_named() {
    let before = "FROM busybox\nRUN true\n";
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(&bench, "ctx", before);
    project.build(&["--add-host", "db:10.0.0.1", "--shm-size=1m"]);
    project.dockerfile("FROM busybox\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN true\n");
    project.build(&["--add-host", "db:10.0.0.2", "--shm-size=2m", "--ulimit", "nofile=100:200"]);
    assert_snapshot!(project.why(), @r"
    #2 [2/2] RUN true: ran
       it differs from [2/2] RUN true (line 2) of TIME
         SHELL: /bin/sh -c → /bin/sh -e -c
         --add-host: db 10.0.0.1 → db 10.0.0.2
         --shm-size: 1048576 → 2097152
         --ulimit nofile: new: 100:200
    ");
}

#[test]
fn an_evicted_step_says_when_and_by_which_rule() {
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(&bench, "ctx", "FROM busybox\nRUN true\n");
    project.build(&[]);
    let _pruned = bench.rbuild(["cache", "prune", "--all", "--force"]).run().ok();
    project.build(&[]);
    assert_snapshot!(project.why(), @r"
    #2 [2/2] RUN true: ran
       it was evicted at TIME by: prune --all
    ");
}

#[test]
fn a_change_is_told_although_the_earlier_step_was_evicted() {
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(&bench, "ctx", COPY);
    project.build(&[]);
    let _pruned = bench.rbuild(["cache", "prune", "--all", "--force"]).run().ok();
    fs::write(project.context.join("a"), "another\n").unwrap();
    project.build(&[]);
    assert_snapshot!(project.why(), @r"
    #3 [2/2] COPY a dir /to/: ran
       it differs from [2/2] COPY a dir /to/ of TIME
         1 file of the build context differs:
           a: content (4 → 8 bytes)
    ");
}

#[test]
fn the_first_build_and_an_ignored_cache_say_so() {
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(
        &bench,
        "ctx",
        "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /f\nFROM busybox\nCOPY --from=one /f /f\n",
    );
    project.build(&[]);
    assert_snapshot!(project.why(), @r"
    #2 [one 2/2] RUN cat /proc/sys/kernel/random/uuid > /f: ran
       nothing comparable was recorded before
    #3 [stage-1 2/2] COPY --from=one /f /f: ran
       nothing comparable was recorded before
    ");
    project.build(&["--no-cache-filter=one"]);
    assert_snapshot!(project.why(), @r"
    #2 [one 2/2] RUN cat /proc/sys/kernel/random/uuid > /f: ran
       the cache was to be ignored
    #3 [stage-1 2/2] COPY --from=one /f /f: ran
       what it reads ran again and came out differently
         1 file of the [one 2/2] RUN cat /proc/sys/kernel/random/uuid > /f differs:
           f: content (37 bytes)
         COPY --from [one 2/2] RUN cat /proc/sys/kernel/random/uuid > /f: ran again
       because #2 [one 2/2] RUN cat /proc/sys/kernel/random/uuid > /f ran:
          the cache was to be ignored
    ");
    project.build(&["--no-cache"]);
    assert_snapshot!(project.why(), @r"
    #2 [one 2/2] RUN cat /proc/sys/kernel/random/uuid > /f: ran
       the cache was to be ignored
    #3 [stage-1 2/2] COPY --from=one /f /f: ran
       the cache was to be ignored
    ");
}

#[test]
fn other_projects_are_no_earlier_form_of_this_one() {
    let Some(bench) = Bench::with_busybox() else { return };
    let one = Project::new(&bench, "one", "FROM busybox\nRUN echo make > /f\n");
    one.build(&[]);
    let two = Project::new(&bench, "two", "FROM busybox\nRUN echo other > /g\n");
    two.build(&[]);
    assert_snapshot!(two.why(), @r"
    #2 [2/2] RUN echo other > /g: ran
       nothing comparable was recorded before
    ");
}

#[test]
fn steps_are_named_by_number_line_stage_and_key_and_told_as_json() {
    let Some(bench) = Bench::with_busybox() else { return };
    let project = Project::new(&bench, "ctx", "FROM busybox AS base\nRUN echo one > /f\nRUN cat /f > /g\n");
    project.build(&[]);
    project.dockerfile("FROM busybox AS base\nRUN echo two > /f\nRUN cat /f > /g\n");
    let explained = project.call(&["--explain"]).run().ok().stderr;
    let whole = project.why();
    let told = plain(explained.split("Why steps ran:\n").nth(1).unwrap(), bench.path(""));
    assert!(told.contains("command: echo one > /f → echo two > /f"), "{told}");
    let why = |name: &str| bench.rbuild(["cache", "why", name]).run().ok().stdout;
    assert_eq!(why("L2"), why("base:2"));
    assert!(whole.starts_with(&plain(&why("L2"), bench.path(""))), "{whole}");
    let json: serde_json::Value =
        serde_json::from_str(&bench.rbuild(["cache", "why", "latest", "L3", "--format", "json"]).run().ok().stdout)
            .unwrap();
    assert_eq!(json["miss"]["reason"], "changed");
    assert_eq!(json["miss"]["changes"][0]["what"], "input");
    assert_eq!(json["causes"][0]["miss"]["changes"][0]["before"], "echo one > /f");
    let key = json["key"].as_str().unwrap();
    assert_eq!(why(key), why("L3"));
    assert_eq!(why(&key["sha256:".len()..][..12]), why("L3"));
    project.build(&[]);
    assert_eq!(project.why(), "No step had to run.\n");
    assert!(why("L3").contains("this exact step was recorded before"));
    let _no_step = bench.rbuild(["cache", "why", "99"]).run().fails(1).says("has no step 99");
    let _no_build = bench.rbuild(["cache", "why", "^9", "1"]).run().fails(1).says("no such build");
}
