//! What comes from elsewhere: files by URL, git repositories, and both as build contexts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, Ran};
use crate::web_server::WebServer;

/// Makes the repository `srv/NAME.git` from a shell script that runs in its work tree.
pub(crate) fn repository(bench: &Bench, name: &str, script: &str) {
    let (tree, bare) = (bench.path(format!("{name}-tree")), bench.path(format!("srv/{name}.git")));
    let text = format!(
        "set -e; git init -q -b main {tree}; cd {tree}; git config user.email a@b; git config user.name n
         git config protocol.file.allow always; {script}
         cd /; git clone -q --bare {tree} {bare}",
        tree = tree.display(),
        bare = bare.display()
    );
    let clean = Command::new("sh")
        .args(["-c", &text])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "@1577836800 +0000")
        .env("GIT_COMMITTER_DATE", "@1577836800 +0000")
        .status();
    assert!(clean.unwrap().success());
}

pub(crate) fn served() -> Option<(Bench, WebServer)> {
    let bench = Bench::new()?;
    fs::create_dir(bench.path("srv")).unwrap();
    let server = WebServer::start(&bench.path("srv"));
    Some((bench, server))
}

/// Builds a Dockerfile with `$S` as the server, into the directory `out`.
pub(crate) fn build(bench: &Bench, server: &WebServer, dockerfile: &str, more: &[&str]) -> Ran {
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    drop(fs::remove_dir_all(bench.path("out")));
    let url = format!("S={}", server.url);
    let ran = bench.rbuild(["build", "--progress=plain", "--output", "out", "--build-arg", &url]);
    ran.args(more).arg(context).run()
}

pub(crate) fn read(bench: &Bench, path: &str) -> String {
    fs::read_to_string(bench.path("out").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether some file of the store has these bytes.
pub(crate) fn store_has(bench: &Bench, bytes: &[u8]) -> bool {
    fn search(dir: &Path, bytes: &[u8]) -> bool {
        fs::read_dir(dir).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                return search(&path, bytes);
            }
            metadata.is_file() && fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes)
        })
    }
    search(&bench.store(), bytes)
}

#[test]
fn a_file_is_fetched_once_and_then_only_asked_about() {
    let Some((bench, server)) = served() else { return };
    fs::write(bench.path("srv/f"), "one").unwrap();
    let dockerfile = "FROM scratch\nARG S\nADD $S/f /a/\nADD $S/f /b\n";
    let _first = build(&bench, &server, dockerfile, &[]).ok();
    assert_eq!(server.requests(), ["GET /f"]);
    let added = bench.path("out/a/f").metadata().unwrap();
    assert_eq!((added.mode() & 0o7777, added.mtime()), (0o600, 1_577_836_800));
    let again = build(&bench, &server, dockerfile, &[]).ok();
    assert_eq!(server.requests(), ["HEAD /f"]);
    assert!(again.stderr.matches("CACHED").count() >= 2, "{}", again.stderr);
    fs::write(bench.path("srv/f"), "two!").unwrap();
    let _changed = build(&bench, &server, dockerfile, &[]).ok();
    assert_eq!(server.requests(), ["HEAD /f", "GET /f"]);
    assert_eq!((read(&bench, "a/f").as_str(), read(&bench, "b").as_str()), ("two!", "two!"));
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let Some((bench, server)) = served() else { return };
    fs::create_dir(bench.path("srv/broken")).unwrap();
    let content: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    fs::write(bench.path("srv/broken/f"), &content).unwrap();
    let _ran = build(&bench, &server, "FROM scratch\nARG S\nADD $S/broken/f /f\n", &[]).ok();
    assert!(read(&bench, "f") == content, "the parts do not make the whole");
    let half = content.len() / 2;
    let quarter = half + (content.len() - half) / 2;
    let want =
        ["GET /broken/f".to_owned(), format!("GET /broken/f bytes={half}-"), format!("GET /broken/f bytes={quarter}-")];
    assert_eq!(server.requests(), want);
}

#[test]
fn checksums_and_refusals() {
    let Some((bench, server)) = served() else { return };
    fs::write(bench.path("srv/f"), "x").unwrap();
    let wrong = "0".repeat(64);
    let add = |what: &str| build(&bench, &server, &format!("FROM scratch\nARG S\nADD {what} /f\n"), &[]);
    let _wrong = add(&format!("--checksum=sha256:{wrong} $S/f")).fails(1).says("digest mismatch sha256:");
    let right = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let _right = add(&format!("--checksum=sha256:{right} $S/f")).ok();
    let _absent = add("$S/nothing").fails(1).says("invalid response status 404").says("Dockerfile:3");
    let _moved = add("$S/moved/f").ok();
    assert_eq!(read(&bench, "f"), "x");
}

#[test]
fn credentials_are_sent_where_they_belong_and_kept_nowhere() {
    let Some((bench, server)) = served() else { return };
    fs::create_dir(bench.path("srv/private")).unwrap();
    fs::write(bench.path("srv/private/f"), "x").unwrap();
    let dockerfile = "FROM scratch\nARG S\nADD $S/private/f /f\n";
    let _without = build(&bench, &server, dockerfile, &[]).fails(1).says("invalid response status 401");
    fs::write(bench.path("token"), "s3cret\n").unwrap();
    let _with = build(&bench, &server, dockerfile, &["--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token"]).ok();
    assert_eq!(read(&bench, "f"), "x");
    let inline = server.url.replace("http://", "http://somebody:pa55word@");
    let dockerfile = format!("FROM scratch\nADD {inline}/absent /f\n");
    let ran = build(&bench, &server, &dockerfile, &[]).fails(1).says("xxxxx:xxxxx@127.0.0.1");
    assert!(!ran.stderr.contains("error: cannot fetch http://somebody"), "{}", ran.stderr);
    fs::write(bench.path("srv/f"), "x").unwrap();
    let _ran = build(&bench, &server, &dockerfile.replace("absent", "f"), &[]).ok();
    assert!(!store_has(&bench, b"s3cret") && !store_has(&bench, b"pa55word"), "the store has a password");
}

#[test]
fn a_repository_by_branch_tag_commit_and_directory() {
    let Some((bench, server)) = served() else { return };
    repository(
        &bench,
        "r",
        "mkdir d; echo one > f; echo x > d/x; ln -s ../../../../etc/passwd d/esc; ln -s d dl
         ln -s ../../../../../../../etc up; git add .; git commit -qm 1; git tag -a v1 -m v1
         git rev-parse HEAD > ../first; echo two > f; git commit -qam 2",
    );
    let first = fs::read_to_string(bench.path("first")).unwrap();
    let dockerfile = format!(
        "FROM scratch\nARG S\nADD $S/r.git /main/\nADD $S/r.git#v1 /tag/\nADD $S/r.git#{} /commit/\n\
         ADD --checksum={} $S/r.git?tag=v1&subdir=dl /dl/\nADD --keep-git-dir=true $S/r.git#v1 /kept/\n",
        first.trim(),
        &first[..9],
    );
    let _ran = build(&bench, &server, &dockerfile, &[]).ok();
    for (path, want) in
        [("main/f", "two\n"), ("tag/f", "one\n"), ("commit/f", "one\n"), ("dl/x", "x\n"), ("kept/.git/HEAD", &*first)]
    {
        assert_eq!(read(&bench, path), want, "{path}");
    }
    assert_eq!(fs::read_link(bench.path("out/dl/esc")).unwrap(), Path::new("../../../../etc/passwd"));
    assert!(!bench.path("out/main/.git").exists() && !bench.path("out/kept/.git/FETCH_HEAD").exists());
    let file = bench.path("out/tag/f").metadata().unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.mtime()), (0o644, 0, 1_577_836_800));
    let posts = |requests: &[String]| requests.iter().filter(|request| request.starts_with("POST")).count();
    let _fetched = server.requests();
    let again = build(&bench, &server, &dockerfile, &[]).ok();
    assert!(again.stderr.matches("CACHED").count() >= 5, "{}", again.stderr);
    assert!(posts(&server.requests()) <= 4, "only names are looked up");

    for (what, says) in [
        ("$S/r.git?subdir=d/esc", "failed to open subdir d/esc"),
        ("$S/r.git?subdir=up", "failed to open subdir up"),
        ("$S/r.git?subdir=.git", "failed to open subdir .git"),
        ("$S/r.git#none", "repository does not contain ref none"),
        ("--checksum=abcdef $S/r.git", "expected checksum to match abcdef"),
        ("$S/none.git", "failed to fetch remote"),
        ("$S/r.git#--upload-pack=touch${IFS}owned", "is refused"),
        ("git@127.0.0.1:-oProxyCommand=x", "begins with a dash"),
    ] {
        let what = what.replace("${IFS}", "");
        let _ran = build(&bench, &server, &format!("FROM scratch\nARG S\nADD {what} /f\n"), &[]).fails(1).says(says);
    }
}

#[test]
fn submodules_come_along_unless_they_are_the_hosts_files() {
    let Some((bench, server)) = served() else { return };
    repository(&bench, "sub", "echo s > s; git add .; git commit -qm s");
    let script = format!(
        "echo m > m; git add .; git submodule --quiet add {}/sub.git vendor; git commit -qm 1
         git checkout -qb evil; git config -f .gitmodules submodule.vendor.url {}
         mkdir -p hooks; printf '#!/bin/sh\\ntouch {}\\n' > hooks/post-checkout; chmod 755 hooks/post-checkout
         git add .; git commit -qm 2; git checkout -qf main",
        server.url,
        bench.path("sub-tree").display(),
        bench.path("owned").display(),
    );
    repository(&bench, "r", &script);
    let _ran = build(&bench, &server, "FROM scratch\nARG S\nADD $S/r.git /r/\n", &[]).ok();
    assert_eq!(read(&bench, "r/vendor/s"), "s\n");
    assert!(!bench.path("out/r/vendor/.git").exists());
    let evil = "FROM scratch\nARG S\nADD $S/r.git#evil /r/\n";
    let _ran = build(&bench, &server, evil, &[]).fails(1).says("transport 'file' not allowed");
    let without = "FROM scratch\nARG S\nADD $S/r.git?branch=evil&submodules=false /r/\n";
    let _ran = build(&bench, &server, without, &[]).ok();
    assert!(!bench.path("owned").exists(), "a hook ran");
}

#[test]
fn contexts_behind_urls() {
    let Some((bench, server)) = served() else { return };
    repository(
        &bench,
        "r",
        "mkdir app; printf 'FROM scratch\\nCOPY . /app/\\n' > app/Dockerfile; echo x > app/x; echo x > app/.dockerignore
         printf 'FROM scratch\\nCOPY app/x /named\\n' > Named; git add .; git commit -qm 1",
    );
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(bench.path("r-tree/app")).arg("-czf").arg(bench.path("srv/c")).arg(".");
    assert!(tar.status().unwrap().success());
    fs::write(bench.path("srv/plain"), "FROM scratch\nCOPY context /itself\n").unwrap();
    let made = |args: &[&str]| {
        drop(fs::remove_dir_all(bench.path("out")));
        let args = args.iter().map(|arg| arg.replace("$S", &server.url));
        let _ran = bench.rbuild(["build", "--output", "out"]).args(args).run().ok();
    };
    for context in ["$S/r.git#main:app", "$S/r.git?ref=main&subdir=app", "$S/c"] {
        made(&[context]);
        // As in BuildKit: the ignore file is for what a local directory has too much of.
        assert_eq!(read(&bench, "app/x"), "x\n", "{context}");
    }
    made(&["-f", "Named", "$S/r.git"]);
    assert_eq!(read(&bench, "named"), "x\n");
    made(&["$S/plain"]);
    assert_eq!(read(&bench, "itself"), "FROM scratch\nCOPY context /itself\n");
    let _fetched = server.requests();
    made(&["$S/c"]);
    assert_eq!(server.requests(), ["HEAD /c"]);
}

#[test]
fn named_contexts_behind_urls() {
    let Some((bench, server)) = served() else { return };
    repository(&bench, "r", "mkdir d; echo x > d/x; git add .; git commit -qm 1; git tag v1");
    fs::write(bench.path("srv/f"), "f").unwrap();
    let (git, file) = (format!("g={}/r.git#v1:d", server.url), format!("h={}/f", server.url));
    let dockerfile = "FROM g AS x\nFROM scratch\nCOPY --from=g / /g/\nCOPY --from=h /context /f\nCOPY --from=x x /x\n";
    let more = ["--build-context", &git, "--build-context", &file];
    let _ran = build(&bench, &server, dockerfile, &more).ok();
    for (path, want) in [("g/x", "x\n"), ("f", "f"), ("x", "x\n")] {
        assert_eq!(read(&bench, path), want, "{path}");
    }
    let _ran = build(&bench, &server, dockerfile, &["--build-context", "g=ftp://h/x"])
        .fails(1)
        .says("unsupported context source");
}
