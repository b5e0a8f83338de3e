//! File steps in a store of their own, on a base image and a context like those of the corpus.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::snapshot::{Committed, Content, LayerWriter, Metadata, Snapshot};
use rbuild_cache::view::{FileKind, View};
use rbuild_cache::{Lease, OpenOptions, SnapshotId, Store};
use rbuild_image::{ContainerPath, ContentDigest};
use rbuild_parser::Ignore;
use rbuild_solver::{CopyAction, FileAction, FileOp, Linking, MakeDirAction, Unpack, WriteAction};

use super::{ContextTree, FileError, SourceTree, digest, write_layer};

/// Owners and whiteouts need root; without it these tests say so and check nothing.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED {test}: needs root");
    }
    root
}

fn path(text: &str) -> ContainerPath {
    ContainerPath::new(text)
}

struct Bench {
    home: tempfile::TempDir,
    store: Store,
    lease: Lease,
    base: SnapshotId,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        fs::create_dir(home.path().join("context")).unwrap();
        let active = store.snapshots().prepare(None, &lease).unwrap();
        write_base(&mut active.writer().unwrap());
        let base = active.commit(&lease).unwrap().id();
        Self { home, store, lease, base }
    }

    fn context_path(&self) -> PathBuf {
        self.home.path().join("context")
    }

    /// Makes a context file, and the directories above.
    fn put(&self, name: &str, content: &str, mode: u32) {
        let path = self.context_path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn context(&self, ignore: &str) -> Arc<dyn SourceTree> {
        let ignore = Ignore::parse(ignore.as_bytes()).unwrap();
        let index = Arc::new(self.store.file_index(&self.context_path()).unwrap());
        Arc::new(ContextTree::directory(&self.context_path(), ignore, Some(index)).unwrap())
    }

    fn try_run(&self, op: &FileOp, source: Arc<dyn SourceTree>) -> Result<Snapshot<Committed>, FileError> {
        let snapshots = self.store.snapshots();
        let parent = (op.linking == Linking::Dependent).then_some(self.base);
        let active = snapshots.prepare(parent, &self.lease).unwrap();
        let mut writer = active.writer().unwrap();
        write_layer(op, &[None, Some(source)], &mut writer, &|| false)?;
        let committed = active.commit(&self.lease).unwrap();
        Ok(match op.linking {
            Linking::Independent => snapshots.rebase(committed.id(), Some(self.base), &self.lease).unwrap(),
            Linking::Dependent => committed,
        })
    }

    /// What the step changes in the base image.
    fn changes(&self, actions: &[FileAction], linking: Linking) -> String {
        let op = FileOp { actions: actions.to_vec(), linking };
        match self.try_run(&op, self.context("")) {
            Ok(made) => self.difference(made.view()),
            Err(error) => format!("error: {error}"),
        }
    }

    fn copy(&self, actions: &[CopyAction]) -> String {
        let actions: Vec<FileAction> = actions.iter().cloned().map(FileAction::Copy).collect();
        self.changes(&actions, Linking::Dependent)
    }

    fn difference(&self, view: &View) -> String {
        let before = listing(&self.store.snapshots().view(Some(self.base)).unwrap());
        let after = listing(view);
        let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("- {name}"));
        let new = after.iter().filter(|(name, what)| before.get(*name) != Some(what));
        gone.chain(new.map(|(name, what)| format!("{name} {what}"))).collect::<Vec<_>>().join("\n")
    }
}

/// Users, a directory to damage, links into it.
fn write_base(writer: &mut LayerWriter) {
    let of = |mode, uid, gid| Metadata { mode, uid, gid, ..Metadata::default() };
    for (name, mode, uid) in [
        ("etc", 0o755, 0),
        ("tmp", 0o1777, 0),
        ("data", 0o755, 0),
        ("data/sub", 0o755, 0),
        ("data/private", 0o700, 1000),
    ] {
        writer.make_directory(&path(name), &of(mode, uid, uid)).unwrap();
    }
    for (name, content) in [
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nweb:x:1001:50::/:/bin/sh\n"),
        ("etc/group", "root:x:0:\nstaff:x:50:app\nextra:x:990:app\n"),
        ("data/one.txt", "one\n"),
        ("data/two.txt", "two\n"),
        ("data/sub/three.txt", "three\n"),
    ] {
        writer.file(&path(name), &of(0o644, 0, 0), Content::Bytes(content.as_bytes())).unwrap();
    }
    for (name, target) in [
        ("dirlink", "data"),
        ("abslink", "/data/sub"),
        ("data/link", "one.txt"),
        ("dangling", "/made/by/copy"),
        ("out", "../../../etc"),
    ] {
        writer.symlink(&path(name), target.as_bytes(), &of(0o777, 0, 0)).unwrap();
    }
    writer.finish().unwrap();
}

fn listing(view: &View) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    view.walk(&ContainerPath::root(), &mut |path, stat| {
        let detail = match stat.kind {
            FileKind::File => {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut view.open(path)?, &mut text)?;
                format!(
                    "file {text:?}{}",
                    if stat.links > 1 { format!(" links {}", stat.links) } else { String::new() }
                )
            }
            FileKind::Symlink => format!("-> {}", String::from_utf8_lossy(&view.read_link(path)?)),
            FileKind::Directory => "dir".to_owned(),
            other => format!("{other:?}"),
        };
        found.insert(path.to_string(), format!("{:04o} {}:{} {detail}", stat.mode, stat.uid, stat.gid));
        Ok(())
    })
    .unwrap();
    found.remove("/");
    found
}

fn copy(source: &str, dest: &str) -> CopyAction {
    CopyAction {
        input: Some(1),
        source: source.to_owned(),
        dest: dest.to_owned(),
        chown: None,
        chmod: None,
        exclude: Vec::new(),
        parents: false,
        unpack: Unpack::Never,
        required: true,
        mtime: None,
        default_mode: None,
        contents: true,
    }
}

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
        ("missing", parents("x/none.txt")),
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
        for line in bench.difference(made.view()).lines() {
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
    missing
        error: "/x/none.txt": not found
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
    insta::assert_snapshot!(bench.difference(made.view()), @r#"
    /n 0755 0:0 dir
    /n/a 0644 0:0 file "same" links 3
    /n/abs 0777 0:0 -> /nowhere
    /n/b 0644 0:0 file "same" links 3
    /n/d 0755 0:0 dir
    /n/d/c 0644 0:0 file "same" links 3
    /n/pipe 0644 0:0 Fifo
    "#);
    let time = |name: &str| made.view().lstat(&path(name)).unwrap().unwrap().mtime;
    assert_eq!((time("/n/d").seconds, time("/n/d").nanoseconds), (7, 250_000_000));
    assert_eq!(time("/n/abs").nanoseconds, 500_000_000);

    // Of a stage: ids, modes and attributes as they are.
    let view: Arc<dyn SourceTree> = Arc::new(made.view().as_ref().clone());
    let again = bench.try_run(&op("n"), view).unwrap();
    assert_eq!(bench.difference(again.view()), bench.difference(made.view()));
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
        digest::selection_digest(&op, 1, &*bench.context(ignore)).unwrap()
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
    assert!(matches!(digest::tree_digest(&*bench.context(""), &[&path("/nope")]), Err(FileError::NotFound { .. })));
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
