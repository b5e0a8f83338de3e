//! What lands where, with whose metadata.

use super::*;

#[test]
fn files_land_where_buildkit_puts_them() {
    if !is_root("files_land_where_buildkit_puts_them") {
        return;
    }
    let bench = Bench::new();
    bench.put("a", "a", 0o644);
    bench.put("b", "b", 0o604);
    bench.put("tool", "t", 0o4711);
    bench.put("src/f", "f", 0o644);
    bench.put("src/sub/g", "g", 0o644);
    fs::set_permissions(bench.context_path().join("src"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(bench.context_path().join("src/sub"), fs::Permissions::from_mode(0o711)).unwrap();
    let mut out = String::new();
    for (source, dest) in [
        ("a", "/new.txt"),
        ("tool", "/deep/er/"),
        ("a", "/tmp"),
        ("a", "/data/one.txt"),
        ("../../a", "/dots"),
        ("src", "/new"),
        ("src/", "/data"),
        ("a", "/dirlink/through"),
        ("a", "/abslink"),
        ("a", "/data/link"),
        ("a", "/dangling/f"),
        ("a", "/out/inside"),
        ("[ab]", "/glob"),
        ("s*/*", "/flat/"),
        ("*.none", "/nothing/"),
        ("nope", "/x"),
        ("src", "/data/one.txt"),
        ("a", "/etc/passwd/x"),
    ] {
        out.push_str(&format!("COPY {source} {dest}\n"));
        for line in bench.copy(&[copy(source, dest)]).lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    insta::assert_snapshot!(out, @r#"
    COPY a /new.txt
        /new.txt 0644 0:0 file "a"
    COPY tool /deep/er/
        /deep 0755 0:0 dir
        /deep/er 0755 0:0 dir
        /deep/er/tool 4711 0:0 file "t"
    COPY a /tmp
        /tmp/a 0644 0:0 file "a"
    COPY a /data/one.txt
        /data/one.txt 0644 0:0 file "a"
    COPY ../../a /dots
        /dots 0644 0:0 file "a"
    COPY src /new
        /new 0755 0:0 dir
        /new/f 0644 0:0 file "f"
        /new/sub 0711 0:0 dir
        /new/sub/g 0644 0:0 file "g"
    COPY src/ /data
        /data/f 0644 0:0 file "f"
        /data/sub 0711 0:0 dir
        /data/sub/g 0644 0:0 file "g"
    COPY a /dirlink/through
        /data/through 0644 0:0 file "a"
    COPY a /abslink
        /data/sub/a 0644 0:0 file "a"
    COPY a /data/link
        /data/one.txt 0644 0:0 file "a"
    COPY a /dangling/f
        /made 0755 0:0 dir
        /made/by 0755 0:0 dir
        /made/by/copy 0755 0:0 dir
        /made/by/copy/f 0644 0:0 file "a"
    COPY a /out/inside
        /etc/inside 0644 0:0 file "a"
    COPY [ab] /glob
        /glob 0604 0:0 file "b"
    COPY s*/* /flat/
        /flat 0755 0:0 dir
        /flat/f 0644 0:0 file "f"
        /flat/g 0644 0:0 file "g"
    COPY *.none /nothing/
    COPY nope /x
        error: "/nope": not found
    COPY src /data/one.txt
        error: cannot copy to non-directory: /data/one.txt
    COPY a /etc/passwd/x
        error: mkdir /etc/passwd: not a directory
    "#);
}

#[test]
fn a_file_and_a_directory_never_replace_one_another() {
    if !is_root("a_file_and_a_directory_never_replace_one_another") {
        return;
    }
    let bench = Bench::new();
    bench.put("files/sub", "a file named like a directory", 0o644);
    bench.put("dirs/one.txt/x", "a directory named like a file", 0o644);
    assert_eq!(bench.copy(&[copy("files", "/data")]), "error: cannot replace to directory /data/sub with file");
    assert_eq!(bench.copy(&[copy("dirs", "/data")]), "error: cannot copy to non-directory: /data/one.txt");
    bench.put("links/two.txt", "", 0o644);
    fs::remove_file(bench.context_path().join("links/two.txt")).unwrap();
    std::os::unix::fs::symlink("elsewhere", bench.context_path().join("links/two.txt")).unwrap();
    bench.put("links/link", "now a file", 0o644);
    insta::assert_snapshot!(bench.copy(&[copy("links", "/data")]), @r#"
    /data/link 0644 0:0 file "now a file"
    /data/two.txt 0777 0:0 -> elsewhere
    "#);
}

#[test]
fn owners_and_modes_come_from_the_flags() {
    if !is_root("owners_and_modes_come_from_the_flags") {
        return;
    }
    let bench = Bench::new();
    bench.put("a", "a", 0o640);
    bench.put("src/sub/c", "c", 0o644);
    let mut out = String::new();
    for (chown, chmod, source, dest) in [
        ("app", "", "a", "/1"),
        ("app:staff", "", "a", "/2"),
        (":staff", "", "a", "/3"),
        ("web", "", "a", "/4"),
        ("1234", "", "a", "/5"),
        ("12:34", "", "a", "/6"),
        ("app:77", "", "a", "/7"),
        ("55:extra", "", "a", "/8"),
        ("nobodyhere", "", "a", "/9"),
        ("app:nogroup", "", "a", "/10"),
        ("4294967295", "", "a", "/11"),
        ("7:8", "0751", "src", "/made/dir"),
        ("7:8", "0770", "src", "/data"),
        ("", "u=rwX,go=rX", "src", "/symbolic"),
        ("", "+x", "a", "/x"),
        ("", "789", "a", "/y"),
        ("", "rw", "a", "/z"),
    ] {
        let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let action = CopyAction { chown: text(chown), chmod: text(chmod), ..copy(source, dest) };
        out.push_str(&format!("chown={chown} chmod={chmod} {source} {dest}\n"));
        for line in bench.copy(&[action]).lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    insta::assert_snapshot!(out, @r#"
    chown=app chmod= a /1
        /1 0640 1000:1000 file "a"
    chown=app:staff chmod= a /2
        /2 0640 1000:50 file "a"
    chown=:staff chmod= a /3
        /3 0640 0:50 file "a"
    chown=web chmod= a /4
        /4 0640 1001:50 file "a"
    chown=1234 chmod= a /5
        /5 0640 1234:1234 file "a"
    chown=12:34 chmod= a /6
        /6 0640 12:34 file "a"
    chown=app:77 chmod= a /7
        /7 0640 1000:77 file "a"
    chown=55:extra chmod= a /8
        /8 0640 55:990 file "a"
    chown=nobodyhere chmod= a /9
        /9 0640 0:0 file "a"
    chown=app:nogroup chmod= a /10
        /10 0640 1000:1000 file "a"
    chown=4294967295 chmod= a /11
        error: id 4294967295 is out of range: ids are 0 to 4294967294
    chown=7:8 chmod=0751 src /made/dir
        /made 0751 7:8 dir
        /made/dir 0751 7:8 dir
        /made/dir/sub 0751 7:8 dir
        /made/dir/sub/c 0751 7:8 file "c"
    chown=7:8 chmod=0770 src /data
        /data/sub 0770 7:8 dir
        /data/sub/c 0770 7:8 file "c"
    chown= chmod=u=rwX,go=rX src /symbolic
        /symbolic 0755 0:0 dir
        /symbolic/sub 0755 0:0 dir
        /symbolic/sub/c 0644 0:0 file "c"
    chown= chmod=+x a /x
        /x 0751 0:0 file "a"
    chown= chmod=789 a /y
        error: invalid chmod parameter: '789'. it should be octal string and between 0 and 07777
    chown= chmod=rw a /z
        error: invalid chmod parameter: 'rw': invalid syntax
    "#);
}

#[test]
fn parents_excludes_and_ignored_files() {
    if !is_root("parents_excludes_and_ignored_files") {
        return;
    }
    let bench = Bench::new();
    for name in ["x/a.txt", "x/c.txt", "y/z/b.txt", "one/two/three/f", "src/d/e/y.c", "src/x.c", "src/skip/keep.md"] {
        bench.put(name, name, 0o644);
    }
    fs::set_permissions(bench.context_path().join("y"), fs::Permissions::from_mode(0o700)).unwrap();
    let parents = |source: &str| CopyAction { parents: true, ..copy(source, "/p/") };
    let excluding = |exclude: &[&str]| CopyAction {
        exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..copy("src", "/p/")
    };
    let mut out = String::new();
    for (what, action) in [
        ("parents", parents("y/z/b.txt")),
        ("parents wildcard", parents("x/*.txt")),
        ("pivot", parents("one/./two/three/f")),
        ("pivot of a directory", parents("one/two/./three/")),
        ("double star", parents("./src/**/*.c")),
        ("wildcards above the pivot", parents("?/./*.txt")),
        ("missing", parents("x/none.txt")),
        ("no match", parents("x/none*.txt")),
        ("exclude", excluding(&["**/*.c"])),
        ("exclude and take back", excluding(&["*", "!skip/keep.md"])),
    ] {
        out.push_str(&format!("{what}\n"));
        for line in bench.copy(&[action]).lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    for ignore in ["src\n!src/skip/keep.md\n", "**/*.txt\none\ny\n"] {
        let op = FileOp { actions: vec![FileAction::Copy(copy(".", "/p/"))], linking: Linking::Dependent };
        let made = bench.try_run(&op, bench.context(ignore)).unwrap();
        out.push_str(&format!("ignoring {ignore:?}\n"));
        for line in bench.difference(&made.view().unwrap()).lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    insta::assert_snapshot!(out, @r#"
    parents
        /p 0755 0:0 dir
        /p/y 0700 0:0 dir
        /p/y/z 0755 0:0 dir
        /p/y/z/b.txt 0644 0:0 file "y/z/b.txt"
    parents wildcard
        /p 0755 0:0 dir
        /p/x 0755 0:0 dir
        /p/x/a.txt 0644 0:0 file "x/a.txt"
        /p/x/c.txt 0644 0:0 file "x/c.txt"
    pivot
        /p 0755 0:0 dir
        /p/two 0755 0:0 dir
        /p/two/three 0755 0:0 dir
        /p/two/three/f 0644 0:0 file "one/two/three/f"
    pivot of a directory
        /p 0755 0:0 dir
        /p/three 0755 0:0 dir
        /p/three/f 0644 0:0 file "one/two/three/f"
    double star
        /p 0755 0:0 dir
        /p/src 0755 0:0 dir
        /p/src/d 0755 0:0 dir
        /p/src/d/e 0755 0:0 dir
        /p/src/d/e/y.c 0644 0:0 file "src/d/e/y.c"
        /p/src/x.c 0644 0:0 file "src/x.c"
    wildcards above the pivot
        /p 0755 0:0 dir
        /p/a.txt 0644 0:0 file "x/a.txt"
        /p/c.txt 0644 0:0 file "x/c.txt"
    missing
        error: "/x/none.txt": not found
    no match
        /p 0755 0:0 dir
    exclude
        /p 0755 0:0 dir
        /p/d 0755 0:0 dir
        /p/d/e 0755 0:0 dir
        /p/skip 0755 0:0 dir
        /p/skip/keep.md 0644 0:0 file "src/skip/keep.md"
    exclude and take back
        /p 0755 0:0 dir
        /p/skip 0755 0:0 dir
        /p/skip/keep.md 0644 0:0 file "src/skip/keep.md"
    ignoring "src\n!src/skip/keep.md\n"
        /p 0755 0:0 dir
        /p/one 0755 0:0 dir
        /p/one/two 0755 0:0 dir
        /p/one/two/three 0755 0:0 dir
        /p/one/two/three/f 0644 0:0 file "one/two/three/f"
        /p/src 0755 0:0 dir
        /p/src/skip 0755 0:0 dir
        /p/src/skip/keep.md 0644 0:0 file "src/skip/keep.md"
        /p/x 0755 0:0 dir
        /p/x/a.txt 0644 0:0 file "x/a.txt"
        /p/x/c.txt 0644 0:0 file "x/c.txt"
        /p/y 0700 0:0 dir
        /p/y/z 0755 0:0 dir
        /p/y/z/b.txt 0644 0:0 file "y/z/b.txt"
    ignoring "**/*.txt\none\ny\n"
        /p 0755 0:0 dir
        /p/src 0755 0:0 dir
        /p/src/d 0755 0:0 dir
        /p/src/d/e 0755 0:0 dir
        /p/src/d/e/y.c 0644 0:0 file "src/d/e/y.c"
        /p/src/skip 0755 0:0 dir
        /p/src/skip/keep.md 0644 0:0 file "src/skip/keep.md"
        /p/src/x.c 0644 0:0 file "src/x.c"
        /p/x 0755 0:0 dir
    "#);
}

#[test]
fn links_special_files_and_times_are_kept() {
    if !is_root("links_special_files_and_times_are_kept") {
        return;
    }
    let bench = Bench::new();
    bench.put("src/a", "same", 0o644);
    let context = bench.context_path();
    fs::hard_link(context.join("src/a"), context.join("src/b")).unwrap();
    fs::create_dir(context.join("src/d")).unwrap();
    fs::hard_link(context.join("src/a"), context.join("src/d/c")).unwrap();
    std::os::unix::fs::symlink("/nowhere", context.join("src/abs")).unwrap();
    std::os::unix::fs::symlink("src", context.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(context.join("src/socket")).unwrap();
    let made = std::process::Command::new("sh")
        .args([
            "-c",
            "mkfifo -m 0644 src/pipe && touch -h -d '2001-01-01 00:00:00.5 UTC' src/abs && touch -d @7.25 src/d",
        ])
        .current_dir(&context)
        .status();
    assert!(made.unwrap().success());
    let op = |source: &str| FileOp { actions: vec![FileAction::Copy(copy(source, "/n"))], linking: Linking::Dependent };
    let made = bench.try_run(&op("link"), bench.context("")).unwrap();
    insta::assert_snapshot!(bench.difference(&made.view().unwrap()), @r#"
    /n 0755 0:0 dir
    /n/a 0644 0:0 file "same" links 3
    /n/abs 0777 0:0 -> /nowhere
    /n/b 0644 0:0 file "same" links 3
    /n/d 0755 0:0 dir
    /n/d/c 0644 0:0 file "same" links 3
    /n/pipe 0644 0:0 Fifo
    "#);
    let time = |name: &str| made.view().unwrap().lstat(&path(name)).unwrap().unwrap().mtime;
    assert_eq!((time("/n/d").seconds, time("/n/d").nanoseconds), (7, 250_000_000));
    assert_eq!(time("/n/abs").nanoseconds, 500_000_000);

    // Of a stage: ids, modes and attributes as they are.
    let view: Arc<dyn SourceTree> = Arc::new(made.view().unwrap().as_ref().clone());
    let again = bench.try_run(&op("n"), view).unwrap();
    assert_eq!(bench.difference(&again.view().unwrap()), bench.difference(&made.view().unwrap()));
}

#[test]
fn linked_copies_do_not_look_at_the_parent() {
    if !is_root("linked_copies_do_not_look_at_the_parent") {
        return;
    }
    let bench = Bench::new();
    bench.put("a", "a", 0o644);
    let linked = |dest: &str| bench.changes(&[FileAction::Copy(copy("a", dest))], Linking::Independent);
    insta::assert_snapshot!(linked("/dirlink/a"), @r#"
    /dirlink 0755 0:0 dir
    /dirlink/a 0644 0:0 file "a"
    "#);
    insta::assert_snapshot!(linked("/tmp/a"), @r#"
    /tmp 0755 0:0 dir
    /tmp/a 0644 0:0 file "a"
    "#);
    insta::assert_snapshot!(linked("/data/one.txt"), @r#"
    /data/one.txt 0644 0:0 file "a"
    "#);
}
