//! Here-documents, archives, and the digest of what is read.

use super::*;

#[test]
fn here_documents_and_working_directories() {
    if !is_root("here_documents_and_working_directories") {
        return;
    }
    let bench = Bench::new();
    let write = |dest: &str, chmod: Option<&str>| {
        FileAction::Write(WriteAction {
            name: "EOF".to_owned(),
            dest: dest.to_owned(),
            content: b"text\n".to_vec(),
            chown: Some("app".to_owned()),
            chmod: chmod.map(str::to_owned),
        })
    };
    let make = |dest: &str, owner: Option<&str>| {
        FileAction::MakeDir(MakeDirAction { path: path(dest), owner: owner.map(str::to_owned), mode: 0o755 })
    };
    let mut out = String::new();
    for action in [
        write("/new/file", None),
        write("/data/", Some("0600")),
        write("/tmp", None),
        make("/new/deep", Some("app")),
        make("/dirlink/made", None),
        make("/data/private", Some("app:staff")),
        make("/data/one.txt/x", None),
    ] {
        for line in bench.changes(std::slice::from_ref(&action), Linking::Dependent).lines() {
            out.push_str(&format!("{line}\n"));
        }
        out.push('\n');
    }
    insta::assert_snapshot!(out, @r#"
    /new 0755 1000:1000 dir
    /new/file 0644 1000:1000 file "text\n"

    /data/EOF 0600 1000:1000 file "text\n"

    /tmp/EOF 0644 1000:1000 file "text\n"

    /new 0755 1000:1000 dir
    /new/deep 0755 1000:1000 dir

    /data/made 0755 0:0 dir


    error: mkdir /data/one.txt: not a directory
    "#);
}

fn tar_of(directory: &Path, compression: &str) -> Vec<u8> {
    let made = std::process::Command::new("tar")
        .args([compression, "--owner=9", "--group=9", "--mtime=@1000000000", "-C"])
        .arg(directory)
        .args(["-cf", "-", "."])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

#[test]
fn archives_are_unpacked_by_content() {
    if !is_root("archives_are_unpacked_by_content") {
        return;
    }
    let bench = Bench::new();
    bench.put("in/sub/f", "f", 0o640);
    bench.put("in/one.txt", "new", 0o644);
    bench.put("in/.wh.two.txt", "no whiteout here", 0o644);
    let add = |source: &str, dest: &str| CopyAction { unpack: Unpack::Archives, ..copy(source, dest) };
    let inside = bench.context_path().join("in");
    for (name, flag) in [("gz", "-z"), ("bz2", "-j"), ("xz", "-J"), ("zst", "--zstd"), ("plain", "--format=gnu")] {
        fs::write(bench.context_path().join(name), tar_of(&inside, flag)).unwrap();
    }
    let plain = bench.copy(&[add("plain", "/data")]);
    insta::assert_snapshot!(plain, @r#"
    /data/.wh.two.txt 0644 9:9 file "no whiteout here"
    /data/one.txt 0644 9:9 file "new"
    /data/sub 0755 9:9 dir
    /data/sub/f 0640 9:9 file "f"
    "#);
    for name in ["gz", "bz2", "xz", "zst"] {
        assert_eq!(bench.copy(&[add(name, "/data")]), plain, "{name}");
    }
    bench.put("text", "hello", 0o644);
    bench.put("empty", "", 0o644);
    let cut = tar_of(&inside, "--format=gnu");
    fs::write(bench.context_path().join("cut"), &cut[..700]).unwrap();
    insta::assert_snapshot!(bench.copy(&[add("text", "/d/"), add("empty", "/d/")]), @r#"
    /d 0755 0:0 dir
    /d/empty 0644 0:0 file ""
    /d/text 0644 0:0 file "hello"
    "#);
    insta::assert_snapshot!(bench.copy(&[add("cut", "/d/")]), @r"
    error: cannot unpack /cut
    ");
}

#[test]
fn a_digest_changes_with_what_is_copied_and_with_nothing_else() {
    if !is_root("a_digest_changes_with_what_is_copied_and_with_nothing_else") {
        return;
    }
    let bench = Bench::new();
    bench.put("src/a", "a", 0o644);
    bench.put("src/b.log", "log", 0o644);
    bench.put("other", "other", 0o644);
    let digest = |action: CopyAction, ignore: &str| -> ContentDigest {
        let op = FileOp { actions: vec![FileAction::Copy(action)], linking: Linking::Dependent };
        digest::selection_digest(&op, 1, &*bench.context(ignore), None).unwrap()
    };
    let whole = digest(copy("src", "/x"), "");
    let touch = |name: &str, time: &str| {
        let touched =
            std::process::Command::new("touch").args(["-d", time]).arg(bench.context_path().join(name)).status();
        assert!(touched.unwrap().success());
    };
    touch("src/a", "@5");
    bench.put("other", "something else", 0o644);
    assert_eq!(digest(copy("src", "/x"), ""), whole, "neither times nor other files count");
    assert_eq!(digest(copy("src", "/elsewhere"), ""), whole, "the destination is part of the step, not of the source");
    assert_ne!(digest(copy("src", "/x"), "**/*.log"), whole, "ignored files count as gone");
    let exclude = CopyAction { exclude: vec!["*.log".to_owned()], ..copy("src", "/x") };
    assert_eq!(digest(exclude, ""), digest(copy("src", "/x"), "**/*.log"));
    bench.put("src/a", "b", 0o644);
    assert_ne!(digest(copy("src", "/x"), ""), whole, "content counts");
    bench.put("src/a", "a", 0o644);
    assert_eq!(digest(copy("src", "/x"), ""), whole);
    bench.put("src/a", "a", 0o755);
    assert_ne!(digest(copy("src", "/x"), ""), whole, "modes count");
    bench.put("src/a", "a", 0o644);
    fs::rename(bench.context_path().join("src/a"), bench.context_path().join("src/c")).unwrap();
    assert_ne!(digest(copy("src", "/x"), ""), whole, "names count");
    fs::rename(bench.context_path().join("src/c"), bench.context_path().join("src/a")).unwrap();
    fs::hard_link(bench.context_path().join("src/a"), bench.context_path().join("src/z")).unwrap();
    let linked = digest(copy("src", "/x"), "");
    fs::remove_file(bench.context_path().join("src/z")).unwrap();
    bench.put("src/z", "a", 0o644);
    assert_ne!(digest(copy("src", "/x"), ""), linked, "hard links count");
    assert!(matches!(
        digest::tree_digest(&*bench.context(""), &[&path("/nope")], None),
        Err(FileError::NotFound { .. })
    ));
}

#[test]
fn a_context_link_never_leads_outside() {
    if !is_root("a_context_link_never_leads_outside") {
        return;
    }
    let bench = Bench::new();
    fs::write(bench.home.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", bench.context_path().join("rel")).unwrap();
    std::os::unix::fs::symlink(bench.home.path().join("secret"), bench.context_path().join("abs")).unwrap();
    std::os::unix::fs::symlink("/", bench.context_path().join("root")).unwrap();
    std::os::unix::fs::symlink("loop", bench.context_path().join("loop")).unwrap();
    for source in ["rel", "abs", "root/etc/passwd", "rel/../../secret"] {
        let outcome = bench.copy(&[copy(source, "/x")]);
        assert!(outcome.ends_with("not found"), "{source}: {outcome}");
    }
    let outcome = bench.copy(&[copy("loop", "/x")]);
    assert!(outcome.starts_with("error: cannot read /loop"), "{outcome}");
}
