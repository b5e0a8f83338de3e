//! What repeats which step and what does not, op by op, beside what BuildKit does with the same change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::bench::{Bench, Ran};

/// The steps that a build ran and did not find: their instructions, without the prefix that numbers them.
pub(crate) fn steps_that_ran(ran: &Ran) -> Vec<String> {
    let mut names = BTreeMap::new();
    let mut found = Vec::new();
    for line in ran.stderr.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else { continue };
        if let Some((_, text)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            names.entry(number.to_owned()).or_insert_with(|| text.to_owned());
        } else if rest.starts_with("DONE") {
            let step = |name: &&String| ["RUN", "COPY", "ADD", "WORKDIR"].iter().any(|op| name.starts_with(op));
            found.extend(names.get(number).filter(step).cloned());
        }
    }
    found.sort();
    found
}

const TEXT: &str = "FROM busybox AS base\nRUN echo one > /one\nARG A=1\nCOPY a dir /in/\nRUN echo two > /two\n";

/// What is changed between two builds of [`TEXT`].
#[derive(Default)]
struct Change<'a> {
    what: &'a str,
    /// A part of the Dockerfile, and what stands there afterwards.
    edit: Option<(&'a str, &'a str)>,
    /// Options of the second build.
    options: &'a [&'a str],
    /// Something done to the context.
    files: Option<fn(&Path)>,
    /// What runs again, by its first words.
    runs: &'a [&'a str],
    /// What BuildKit runs again besides, because a step before it did, although that gave the same files.
    spared: usize,
}

fn touched(context: &Path) {
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::options().write(true).open(context.join("a")).unwrap().set_modified(old).unwrap();
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn what_repeats_a_step_is_what_repeats_it_in_buildkit() {
    let all: &[&str] = &["RUN echo one", "COPY a dir", "RUN echo two"];
    let both: &[&str] = &["RUN echo one", "RUN echo two"];
    let copied: &[&str] = &["COPY a dir", "RUN echo two"];
    let last: &[&str] = &["RUN echo two"];
    let changes = [
        Change { what: "nothing", ..Change::default() },
        Change { what: "another name for the result", options: &["-t", "other"], ..Change::default() },
        Change { what: "a comment", edit: Some(("RUN echo two", "# two\nRUN echo two")), ..Change::default() },
        Change { what: "blanks", edit: Some(("COPY a dir", "COPY   a    dir")), ..Change::default() },
        Change { what: "a keyword's case", edit: Some(("RUN echo two", "run echo two")), ..Change::default() },
        Change { what: "the stage's name", edit: Some(("AS base", "AS other")), ..Change::default() },
        Change { what: "a label", edit: Some(("RUN echo one", "LABEL a=b\nRUN echo one")), ..Change::default() },
        Change { what: "labels of the command line", options: &["--label", "a=b"], ..Change::default() },
        Change { what: "CMD", edit: Some(("RUN echo one", "CMD x\nRUN echo one")), ..Change::default() },
        Change { what: "ENTRYPOINT", edit: Some(("RUN echo one", "ENTRYPOINT x\nRUN echo one")), ..Change::default() },
        Change { what: "EXPOSE", edit: Some(("RUN echo one", "EXPOSE 80\nRUN echo one")), ..Change::default() },
        Change { what: "VOLUME", edit: Some(("RUN echo one", "VOLUME /v\nRUN echo one")), ..Change::default() },
        Change { what: "STOPSIGNAL", edit: Some(("RUN echo one", "STOPSIGNAL 9\nRUN echo one")), ..Change::default() },
        Change {
            what: "HEALTHCHECK",
            edit: Some(("RUN echo one", "HEALTHCHECK NONE\nRUN echo one")),
            ..Change::default()
        },
        Change {
            what: "an unused stage",
            edit: Some(("FROM busybox AS", "FROM busybox AS u\nRUN x\nFROM busybox AS")),
            ..Change::default()
        },
        Change { what: "a proxy", options: &["--build-arg", "http_proxy=http://127.0.0.1:1"], ..Change::default() },
        Change {
            what: "ENV",
            edit: Some(("RUN echo one", "ENV E=1\nRUN echo one")),
            runs: both,
            spared: 1,
            ..Change::default()
        },
        Change {
            what: "ENV after COPY",
            edit: Some(("RUN echo two", "ENV E=1\nRUN echo two")),
            runs: last,
            ..Change::default()
        },
        Change { what: "a declared argument", options: &["--build-arg", "A=2"], runs: last, ..Change::default() },
        Change { what: "an argument's default", edit: Some(("A=1", "A=2")), runs: last, ..Change::default() },
        Change { what: "USER", edit: Some(("RUN echo two", "USER 0\nRUN echo two")), runs: last, ..Change::default() },
        Change {
            what: "SHELL",
            edit: Some(("RUN echo two", "SHELL [\"/bin/ash\",\"-c\"]\nRUN echo two")),
            runs: last,
            ..Change::default()
        },
        Change {
            what: "a command",
            edit: Some(("echo one", "echo  one")),
            runs: &["RUN echo  one"],
            spared: 2,
            ..Change::default()
        },
        Change {
            what: "the network",
            edit: Some(("RUN echo two", "RUN --network=none echo two")),
            runs: &["RUN --network"],
            ..Change::default()
        },
        Change {
            what: "a mount",
            edit: Some(("RUN echo two", "RUN --mount=type=tmpfs,target=/t echo two")),
            runs: &["RUN --mount"],
            ..Change::default()
        },
        Change { what: "hosts", options: &["--add-host", "h:10.0.0.1"], runs: both, spared: 1, ..Change::default() },
        Change {
            what: "an owner",
            edit: Some(("COPY a", "COPY --chown=5 a")),
            runs: &["COPY --chown", "RUN echo two"],
            ..Change::default()
        },
        Change {
            what: "a mode",
            edit: Some(("COPY a", "COPY --chmod=700 a")),
            runs: &["COPY --chmod", "RUN echo two"],
            ..Change::default()
        },
        Change { what: "a file's time", files: Some(touched), ..Change::default() },
        Change {
            what: "a file nobody reads",
            files: Some(|context| write(&context.join("unread"), "")),
            ..Change::default()
        },
        Change {
            what: "an ignored file",
            files: Some(|context| write(&context.join("dir/skipped"), "2")),
            ..Change::default()
        },
        Change {
            what: "a file's content",
            files: Some(|context| write(&context.join("a"), "2")),
            runs: copied,
            ..Change::default()
        },
        Change {
            what: "a new file",
            files: Some(|context| write(&context.join("dir/new"), "")),
            runs: copied,
            ..Change::default()
        },
        Change {
            what: "a removed file",
            files: Some(|context| fs::remove_file(context.join("dir/b")).unwrap()),
            runs: copied,
            ..Change::default()
        },
        Change {
            what: "a renamed file",
            files: Some(|context| fs::rename(context.join("dir/b"), context.join("dir/c")).unwrap()),
            runs: copied,
            ..Change::default()
        },
        Change {
            what: "a file's mode",
            files: Some(|context| fs::set_permissions(context.join("a"), fs::Permissions::from_mode(0o700)).unwrap()),
            runs: copied,
            ..Change::default()
        },
        Change { what: "--no-cache", options: &["--no-cache"], runs: all, ..Change::default() },
        Change { what: "--no-cache-filter", options: &["--no-cache-filter=base"], runs: all, ..Change::default() },
        Change { what: "--no-cache-filter of another stage", options: &["--no-cache-filter=x"], ..Change::default() },
    ];
    let Some(bench) = Bench::with_busybox() else { return };
    let mut wrong = Vec::new();
    for (number, change) in changes.iter().enumerate() {
        let fresh = || {
            let name = format!("ctx{number}");
            let text = format!("{TEXT}# {number}\n")
                .replace("echo two", &format!("echo two {number}"))
                .replace("echo one", &format!("echo one {number}"));
            bench.context(
                &name,
                [
                    ("Dockerfile", &text),
                    (".dockerignore", "dir/skipped\n"),
                    ("a", &format!("{number}")),
                    ("dir/b", "1"),
                    ("dir/skipped", "1"),
                ],
            )
        };
        let context = fresh();
        let _first = bench.build("x", &context).ok();
        if let Some((from, to)) = change.edit {
            let text = fs::read_to_string(context.join("Dockerfile")).unwrap();
            assert!(text.contains(from), "{}", change.what);
            write(&context.join("Dockerfile"), &text.replacen(from, to, 1));
        }
        if let Some(files) = change.files {
            files(&context);
        }
        let ran = bench.rbuild(["build", "--progress=plain"]).args(change.options).arg(&context).run().ok();
        let ran = steps_that_ran(&ran);
        let expected = |step: &String| change.runs.iter().any(|run| step.starts_with(run));
        if ran.len() != change.runs.len() || !ran.iter().all(expected) {
            wrong.push(format!("{}: {ran:?} instead of {:?}", change.what, change.runs));
        }
        // BuildKit's rule: what follows a step that runs again runs again.
        let position = |step: &String| if step.starts_with("COPY") { 1 } else { 2 * usize::from(step.contains("two")) };
        let first = ran.iter().map(position).min();
        if ran.len() + change.spared != first.map_or(0, |first| all.len() - first) {
            wrong.push(format!("{}: {ran:?} and {} that are spared", change.what, change.spared));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_step_or_what_is_old_can_be_run_again() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = "FROM busybox AS one\nRUN cat /proc/uptime > /a\nRUN echo same > /b\nFROM busybox\nCOPY --from=one /b /b\nRUN echo end\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let build = |options: &[&str]| {
        let ran = bench.rbuild(["build", "--progress=plain", "-t", "x"]).args(options).arg(&context).run().ok();
        steps_that_ran(&ran)
    };
    assert_eq!(build(&[]).len(), 4);
    assert_eq!(build(&[]), [""; 0]);
    let id = |bench: &Bench| bench.rbuild(["images", "-q", "--no-trunc", "x"]).run().ok().stdout;
    let before = id(&bench);
    // What it gives differs, so the step after it runs again too; what that gives is the same, and there it ends.
    assert_eq!(build(&["--no-cache-step=2"]), ["RUN cat /proc/uptime > /a", "RUN echo same > /b"]);
    assert_eq!(id(&bench), before, "the same files gave another image");
    assert_eq!(build(&["--no-cache-step=one:3"]), ["RUN echo same > /b"]);
    assert_eq!(build(&["--no-cache-step=3,6"]), ["RUN echo end", "RUN echo same > /b"]);
    assert_eq!(build(&[]), [""; 0]);
    assert_eq!(build(&["--cache-max-age=1d"]), [""; 0]);
    assert_eq!(build(&["--cache-max-age=0s"]).len(), 4, "everything is older than now");
    let wrong = |option: &str| bench.rbuild(["build", option]).arg(&context).run();
    let _line = wrong("--no-cache-step=99").fails(1).says("--no-cache-step 99: what is built has no step there");
    let _text = wrong("--no-cache-step=x").fails(2).says("neither a line of the Dockerfile nor STAGE:NUMBER");
    let _age = wrong("--cache-max-age=soon").fails(2).says("is not a duration");
}
