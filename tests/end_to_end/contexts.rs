//! Contexts of all kinds and what is seen of them: directories, streams, URLs, names for stages; ignore files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::bench::Bench;
use crate::remote::{build, read, repository, served, store_has};

#[test]
fn a_dockerfile_by_url_builds_any_context() {
    let Some((bench, server)) = served() else { return };
    fs::write(bench.path("srv/D"), "FROM scratch\nCOPY . /all/\n").unwrap();
    let context = bench
        .context("ctx", [("Dockerfile", "FROM scratch\n"), (".dockerignore", "skip\n"), ("f", "f"), ("skip", "s")]);
    let url = format!("{}/D", server.url);
    let _ran = bench.rbuild(["build", "-o", "out", "-f", &url]).arg(&context).run().ok();
    assert_eq!(read(&bench, "all/f"), "f");
    assert!(!bench.path("out/all/skip").exists(), "the ignore file of the context holds");
    let tar = Command::new("tar").arg("-C").arg(&context).args(["-c", "."]).output().unwrap().stdout;
    drop(fs::remove_dir_all(bench.path("out")));
    let _ran = bench.rbuild(["build", "-o", "out", "-f", &url, "-"]).input(tar).run().ok();
    assert_eq!(read(&bench, "all/skip"), "s");
    let absent = format!("{}/absent", server.url);
    let _ran = bench.rbuild(["build", "-f", &absent]).arg(&context).run().fails(1).says("invalid response status 404");
    let both = bench.rbuild(["build", "-f", &url, "-"]).input("FROM scratch\n").run();
    let _ran = both.fails(2).says("both standard input and -f give a Dockerfile");
}

#[test]
fn a_tar_is_a_context_as_it_is() {
    let Some(bench) = Bench::new() else { return };
    let context =
        bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY . /all/\n"), (".dockerignore", "f\n"), ("f", "f")]);
    fs::write(context.join(".wh.f"), "no whiteout").unwrap();
    for compression in ["-c", "-cz", "-cj", "-cJ"] {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&context).args(["--owner=7", "--group=8", "--mtime=@1000.5", compression, "."]);
        let tar = tar.output().unwrap().stdout;
        drop(fs::remove_dir_all(bench.path("out")));
        let _ran = bench.rbuild(["build", "--no-cache", "-o", "out", "-"]).input(tar).run().ok();
        // Owners and times are the archive's, and the ignore file is for directories: as BuildKit has it.
        let found = bench.path("out/all/f").metadata().unwrap();
        assert_eq!((found.uid(), found.gid(), found.mtime()), (7, 8, 1000), "{compression}");
    }
    // Old archives have no magic.
    let tar =
        Command::new("tar").arg("-C").arg(&context).args(["--format=v7", "-c", "Dockerfile", "f"]).output().unwrap();
    let _ran = bench.rbuild(["build", "-o", "out", "-"]).input(tar.stdout).run().ok();
    let _ran = bench.rbuild(["build", "-o", "out", "-"]).input(vec![0x1f, 0x8b, 8, 0]).run().fails(1);
}

#[test]
fn a_named_context_may_be_a_stage() {
    let Some(bench) = Bench::with_busybox() else { return };
    let dockerfile = "FROM busybox AS one\nRUN echo one > /f\nFROM busybox AS two\nRUN echo two > /f\n\
                      FROM src AS based\nRUN cat /f > /based\n\
                      FROM scratch\nCOPY --from=src /f /copied\nCOPY --from=based /based /based\n\
                      COPY --from=two /f /replaced\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    let with = |contexts: &[&str]| {
        drop(fs::remove_dir_all(bench.path("out")));
        let flags = contexts.iter().flat_map(|context| ["--build-context", context]);
        bench.rbuild(["build", "-o", "out"]).args(flags).arg(&context).run()
    };
    let _ran = with(&["src=target:two"]).ok();
    assert_eq!([read(&bench, "copied"), read(&bench, "based"), read(&bench, "replaced")], ["two\n", "two\n", "two\n"]);
    let _ran = with(&["src=target:one", "two=target:one"]).ok();
    assert_eq!([read(&bench, "copied"), read(&bench, "based"), read(&bench, "replaced")], ["one\n", "one\n", "one\n"]);
    let _ran = with(&["src=target:three"]).fails(1).says("target stage \"three\" could not be found").says("one, two");
    let _ran = with(&["src=target:based"]).fails(1).says("src=target:based is used as a base above");
}

#[test]
fn a_named_context_may_be_nothing() {
    let Some(bench) = Bench::new() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM base\nCOPY f /f\n"), ("f", "f")]);
    let empty = ["build", "-o", "out", "--build-context", "base=docker-image://scratch"];
    let _ran = bench.rbuild(empty).arg(&context).run().ok();
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 1);
    // Everything of nothing is an empty directory.
    let nothing = "FROM scratch AS s\nFROM scratch\nCOPY . /context/\nCOPY --from=s / /stage/\nCOPY . .\n";
    let _ran = bench.rbuild(["build", "-o", "empty", "-"]).input(nothing).run().ok();
    assert_eq!(fs::read_dir(bench.path("empty")).unwrap().count(), 2);
}

#[test]
fn a_missing_file_that_is_ignored_says_so() {
    let Some(bench) = Bench::new() else { return };
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY d/x.log /x\n"),
        (".dockerignore", "# all\n**/*.log\n!keep.log\n"),
        ("Dockerfile.own", "FROM scratch\nCOPY f /f\n"),
        ("Dockerfile.own.dockerignore", "\nf\n"),
        ("d/x.log", "x"),
        ("f", "f"),
    ];
    let context = bench.context("ctx", files);
    let _ran = bench
        .build("x", &context)
        .fails(1)
        .says("\"/d/x.log\": not found")
        .says("it is excluded by the pattern \"**/*.log\" in .dockerignore, line 2");
    let own = bench.rbuild(["build", "-f"]).arg(context.join("Dockerfile.own")).arg(&context).run();
    let _ran = own.fails(1).says("it is excluded by the pattern \"f\" in Dockerfile.own.dockerignore, line 2");
    fs::remove_file(context.join("d/x.log")).unwrap();
    let ran = bench.build("x", &context).fails(1);
    assert!(!ran.stderr.contains("excluded by"), "{}", ran.stderr);
}

#[test]
fn repositories_by_all_their_queries() {
    let Some((bench, server)) = served() else { return };
    repository(
        &bench,
        "r",
        "mkdir d; echo one > d/f; git add .; git commit -qm 1; git tag v1; git rev-parse HEAD > ../first
         git checkout -qb other; echo other > d/f; git commit -qam 2; git checkout -q main",
    );
    let first = fs::read_to_string(bench.path("first")).unwrap().trim().to_owned();
    let add = |query: &str| build(&bench, &server, &format!("FROM scratch\nARG S\nADD $S/r.git{query} /r\n"), &[]);
    for (query, want) in [
        ("?branch=other", "other\n"),
        ("?branch=refs/heads/other", "other\n"),
        ("?tag=v1&ref=refs/tags/v1", "one\n"),
        (&format!("?commit={first}"), "one\n"),
        (&format!("?ref=main&checksum={}&fetch-by-commit=true", &first[..9]), "one\n"),
        (&format!("?branch=other&checksum={first}&fetch-by-commit"), "one\n"),
    ] {
        let _ran = add(query).ok();
        assert_eq!(read(&bench, "r/d/f"), want, "{query}");
        let found = bench.path("out/r/d/f").metadata().unwrap();
        assert_eq!((found.mtime(), found.mode() & 0o7777), (1_577_836_800, 0o644), "{query}");
    }
    let _ran = add("?mtime=checkout&subdir=d").ok();
    assert!(bench.path("out/r/f").metadata().unwrap().mtime() > 1_600_000_000, "the time of the checkout");
    for (query, says) in [
        ("?tag=v1&branch=main", "branch conflicts with tag"),
        ("?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
        ("?mtime=now", "invalid mtime value: \"now\""),
        ("?depth=1", "unexpected query \"depth\""),
        ("?subdir=none", "failed to open subdir none"),
        ("?branch=v1", "repository does not contain ref refs/heads/v1"),
        (&format!("?branch=other&checksum={first}"), "expected checksum to match"),
    ] {
        let _ran = add(query).fails(1).says(says);
    }
    // The directory that a repository becomes is the repository's, the one that was there stays.
    let modes = "FROM scratch\nARG S\nWORKDIR /there\nADD --chmod=g+w $S/r.git /there\nADD --chmod=g+w $S/r.git /new\n";
    let _ran = build(&bench, &server, modes, &[]).ok();
    let mode = |path: &str| bench.path("out").join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!([mode("there"), mode("new"), mode("new/d"), mode("new/d/f")], [0o755, 0o775, 0o775, 0o664]);
}

#[test]
fn passwords_of_urls_are_in_no_image() {
    let Some((bench, server)) = served() else { return };
    fs::write(bench.path("srv/f"), "x").unwrap();
    let inline = server.url.replace("http://", "http://somebody:pa55word@");
    let context = bench.context("ctx", [("Dockerfile", format!("FROM scratch\nADD {inline}/f /f\n").as_str())]);
    let ran = bench.rbuild(["build", "--progress=plain", "-t", "x", "-o", "type=oci,dest=oci,tar=false"]).arg(context);
    let ran = ran.run().ok();
    let mut blobs = fs::read_dir(bench.path("oci/blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    let said = |text: &[u8]| text.windows(15).any(|part| part == b"xxxxx:xxxxx@127");
    assert!(blobs.any(|blob| said(&fs::read(blob).unwrap())), "the history names the URL");
    assert!(!ran.stderr.contains("pa55word"), "{}", ran.stderr);
    assert!(!store_has(&bench, b"pa55word"), "the store has a password");
}
