//! One tree, four ways: a Debian root with 120 layers on top is the same through erofs, through merged erofs, as directories
//! and as GNU tar extracts it, in every path's type, metadata, content, attributes and links.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use rbuild_executor::{Rootfs, open_rootfs};
use rbuild_image::layer::whiteout::{Whiteout, classify};
use rbuild_image::layer::{Segment, SparseMap, TarReader, Timestamp};

use super::*;
use crate::erofs::described::{Described, of_directory};

const LAYERS: usize = 120;

/// A Debian root as `tests/end_to_end/debian_base` makes it, kept for the next run; else a part of this machine's.
fn root_tar(home: &Path) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let kept = workspace.join("target/debian_base.tar");
    if kept.exists() {
        return kept;
    }
    let made = home.join("debian.tar");
    let script = workspace.join("tests/end_to_end/debian_base");
    if Command::new(script).arg(&made).status().is_ok_and(|done| done.success()) {
        // Another test may do the same at the same time.
        let _also_kept = fs::copy(&made, kept.with_extension("new")).and_then(|_| {
            fs::rename(kept.with_extension("new"), &kept) // whole or not at all
        });
        return made;
    }
    println!("NOTE: no Debian root can be made here; a part of this machine's files stands for one");
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--format=pax", "--sparse", "-C", "/", "-cf"]).arg(&made);
    assert!(tar.args(["etc", "usr/bin", "usr/sbin", "usr/share/perl5"]).status().unwrap().success());
    made
}

/// Paths of a tar that are directories, and those that are regular files, without the leading slash.
fn paths(tar: &Path) -> (Vec<String>, Vec<String>) {
    let mut reader = TarReader::new(File::open(tar).unwrap());
    let (mut directories, mut files) = (BTreeSet::new(), BTreeSet::new());
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = entry.path.to_string()[1..].to_owned();
        match entry.kind {
            EntryKind::Directory => directories.insert(path),
            EntryKind::File { .. } => files.insert(path),
            _ => false,
        };
    }
    (directories.into_iter().collect(), files.into_iter().collect())
}

/// What the layers do to the files of the root: each gets another one, and none goes with a directory that another takes.
struct Victims {
    /// Files that are hidden or replaced, each by itself in its directory.
    files: Vec<String>,
    /// Directories that go, or are emptied, or are replaced, as a whole.
    trees: Vec<String>,
}

impl Victims {
    fn of(tar: &Path) -> Self {
        let (directories, files) = paths(tar);
        let parent = |path: &str| path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
        // Directories without directories, every other one.
        let is_leaf = |path: &&String| !directories.iter().any(|other| other.starts_with(&format!("{path}/")));
        let trees: Vec<String> = directories
            .iter()
            .filter(|path| path.contains('/') && files.iter().any(|file| parent(file) == **path))
            .filter(is_leaf)
            .step_by(2)
            .cloned()
            .collect();
        let taken: BTreeSet<&String> = trees.iter().collect();
        let files = files.iter().filter(|file| !taken.contains(&parent(file)) && file.contains('/')).cloned().collect();
        Self { files, trees }
    }
}

fn at(entry: (Entry, Vec<u8>), seconds: i64, nanoseconds: u32) -> (Entry, Vec<u8>) {
    let (mut entry, content) = entry;
    entry.mtime = Timestamp { seconds, nanoseconds };
    (entry, content)
}

/// The directories that lead to `path`, as entries: who changes a directory in a layer says of what time it is.
fn leading(path: &str, n: usize, entries: &mut Vec<(Entry, Vec<u8>)>) {
    for (end, _) in path.match_indices('/') {
        entries.push(at(dir(&path[..end]), 1_000_000_000 + n as i64, 7));
    }
}

fn hide(path: &str, n: usize, entries: &mut Vec<(Entry, Vec<u8>)>) {
    leading(path, n, entries);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    entries.push(file(&format!("{parent}/.wh.{name}"), ""));
}

/// Layer `n`: every kind of change to the root's files and to those of the layers before it.
fn layer(n: usize, victims: &Victims) -> Vec<u8> {
    let seconds = [-86_400 * 365 * 60, -1, 0, 1, 1_700_000_000, 1 << 33][n % 6];
    let mut entries = vec![at(dir("/"), seconds, 0), at(dir("syn"), seconds, 999_999_999)];
    let here = format!("syn/{}", n % 7);
    entries.push(at(dir(&here), seconds, 1));
    entries.push(at(file("syn/every", &format!("of {n}")), seconds, 123_456_789));
    entries.push(file(&format!("{here}/file-{n}"), &"content ".repeat(n * 37)));
    // A file of three names; two layers later one of them goes and another becomes a file of its own.
    let linked = format!("{here}/linked-{n}");
    entries.extend([
        file(&linked, "l"),
        hard(&format!("{here}/also-{n}"), &linked),
        hard(&format!("syn/too-{n}"), &linked),
    ]);
    if let Some(before) = n.checked_sub(2) {
        let there = format!("syn/{}", before % 7);
        hide(&format!("{there}/also-{before}"), n, &mut entries);
        entries.push(file(&format!("syn/too-{before}"), "own now"));
    }
    // The root's own: a file goes, one is replaced, one becomes a directory, one a link.
    let mut files = victims.files.iter().skip(n % 11).step_by(victims.files.len() / (LAYERS * 4)).skip(n * 4);
    if let Some(path) = files.next() {
        hide(path, n, &mut entries);
    }
    if let Some(path) = files.next() {
        leading(path, n, &mut entries);
        let mut replaced = at(file(path, &format!("replaced by {n}")), seconds, 5);
        (replaced.0.mode, replaced.0.uid, replaced.0.gid) = (0o6751, 4_000_000_000, 65_536);
        entries.push(replaced);
    }
    if let Some(path) = files.next() {
        leading(path, n, &mut entries);
        entries.extend([at(dir(path), seconds, 0), file(&format!("{path}/inside"), "a file was here")]);
    }
    if let Some(path) = files.next() {
        leading(path, n, &mut entries);
        entries.push(at(link(path, "/nowhere/at all"), 77, 0));
    }
    // A whole directory of it: hidden, emptied, replaced by a file, hidden and made again.
    if let Some(path) = victims.trees.get(n) {
        leading(path, n, &mut entries);
        match n % 4 {
            0 => hide(path, n, &mut entries),
            1 => entries.extend([
                at(dir(path), seconds, 0),
                file(&format!("{path}/.wh..wh..opq"), ""),
                file(&format!("{path}/new"), "alone"),
            ]),
            2 => entries.push(at(file(path, "a directory was here"), seconds, 0)),
            _ => {
                hide(path, n, &mut entries);
                entries.extend([at(dir(path), seconds, 0), file(&format!("{path}/again"), "again")]);
            }
        }
    }
    // One name that is something else in every layer.
    let turns = |kind| at((Entry::new(ContainerPath::new("syn/turns"), kind, 0o640), Vec::new()), seconds, 0);
    match n % 8 {
        0 => entries.extend([at(dir("syn/turns"), seconds, 3), file("syn/turns/deep", "d")]),
        1 => entries.push(at(file("syn/turns", "file"), seconds, 0)),
        2 => entries.push(at(link("syn/turns", "every"), seconds, 0)),
        3 => entries.push(turns(EntryKind::Fifo)),
        4 => entries.push(turns(EntryKind::CharDevice(Device { major: 1, minor: 3 }))),
        5 => entries.push(turns(EntryKind::BlockDevice(Device { major: 259, minor: 70_000 }))),
        6 => entries.push(hard("syn/turns", &linked)),
        _ => hide("syn/turns", n, &mut entries),
    }
    let mut marked = file(&format!("{here}/attributes-{n}"), "x");
    marked.0.xattrs.insert(b"user.shared".to_vec(), b"by all".to_vec());
    marked.0.xattrs.insert(b"user.own".to_vec(), vec![b'v'; 25 * n]);
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    marked.0.xattrs.insert(b"security.capability".to_vec(), capability);
    entries.push(marked);
    entries.push(file(&format!("{here}/{n:0>255}"), "a long name"));
    let deep: Vec<String> = (0..n % 40).map(|level| format!("{level:0>30}")).collect();
    let deep = format!("syn/deep/{}", deep.join("/"));
    leading(&format!("{deep}/x"), n, &mut entries);
    entries.push(at(file(&format!("{deep}/end-{n}"), "deep"), seconds, 0));
    let size = 300_000 + n as u64;
    let runs = [(0, 512), (8192, 4096), (40_448, 512), (299_520, size - 299_520)];
    let stored: u64 = runs.iter().map(|(_, length)| length).sum();
    let map = SparseMap::new(runs.map(|(offset, length)| Segment { offset, length }), size);
    let sparse =
        Entry::new(ContainerPath::new(format!("{here}/sparse-{n}")), EntryKind::File { size, sparse: map }, 0o600);
    entries.push((sparse, (0..stored).map(|byte| (byte % 255 + 1) as u8).collect()));
    archive(&each_directory_once(entries))
}

/// GNU tar takes the metadata of the first of several entries for a directory, an image's layer that of the last.
fn each_directory_once(entries: Vec<(Entry, Vec<u8>)>) -> Vec<(Entry, Vec<u8>)> {
    let is_directory = |entry: &Entry| entry.kind == EntryKind::Directory;
    let last: BTreeMap<String, Entry> = entries
        .iter()
        .filter(|(entry, _)| is_directory(entry))
        .map(|(entry, _)| (entry.path.to_string(), entry.clone()))
        .collect();
    let mut seen = BTreeSet::new();
    let once = entries.into_iter().filter(|(entry, _)| !is_directory(entry) || seen.insert(entry.path.to_string()));
    once.map(|(entry, content)| match is_directory(&entry) {
        true => (last[&entry.path.to_string()].clone(), content),
        false => (entry, content),
    })
    .collect()
}

/// What a layer does to `root` as GNU tar and a shell would do it: whiteouts first, then what stands in the way of members of
/// another type, then the members.
pub(super) fn extract(tar: &Path, root: &Path) {
    let remove = |path: &Path| match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    };
    let mut reader = TarReader::new(File::open(tar).unwrap());
    let mut members = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = root.join(&entry.path.to_string()[1..]);
        match entry.path.file_name().map(|name| classify(name).unwrap()) {
            Some(Whiteout::Delete(name)) => remove(&path.with_file_name(std::str::from_utf8(name).unwrap())),
            Some(Whiteout::Opaque) => {
                // A link that a directory replaces leads elsewhere.
                let directory = path.parent().unwrap();
                if fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir()) {
                    for below in fs::read_dir(directory).unwrap() {
                        remove(&below.unwrap().path());
                    }
                }
            }
            _ => members.push((path, entry.kind == EntryKind::Directory)),
        }
    }
    for (path, is_directory) in members {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() != is_directory) {
            remove(&path);
        }
    }
    let mut command = Command::new("tar");
    command.args([
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--exclude=.wh.*",
        "--delay-directory-restore",
        "-xpf",
    ]);
    assert!(command.arg(tar).arg("-C").arg(root).status().unwrap().success());
}

/// A file that lost names to other layers may still count them.
pub(super) fn without_counts(described: Described) -> Described {
    let is_count = |word: &str| word.len() < 5 && word.strip_prefix('x').is_some_and(|n| n.parse::<u32>().is_ok());
    let line = |text: String| text.split(' ').filter(|word| !is_count(word)).collect::<Vec<_>>().join(" ");
    described.into_iter().map(|(path, text)| (path, line(text))).collect()
}

pub(super) fn of_rootfs(rootfs: &Rootfs) -> Described {
    let root = open_rootfs(rootfs).unwrap();
    without_counts(of_directory(Path::new(&format!("/proc/self/fd/{}/.", root.as_fd().as_raw_fd()))))
}

#[track_caller]
pub(super) fn assert_equal(what: &str, found: &Described, expected: &Described) {
    let paths: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let differ = paths.into_iter().filter(|path| found.get(*path) != expected.get(*path));
    let differ: Vec<_> =
        differ.map(|path| format!("{path}: {:?}, {:?}", found.get(path), expected.get(path))).collect();
    assert!(differ.is_empty(), "{what}: {} differ:\n{}", differ.len(), differ[..differ.len().min(20)].join("\n"));
}

#[test]
fn a_debian_root_with_120_layers_is_the_same_four_ways() {
    if !is_root("a_debian_root_with_120_layers_is_the_same_four_ways") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let base = root_tar(home.path());
    let victims = Victims::of(&base);
    assert!(victims.files.len() > 4 * LAYERS && victims.trees.len() > 20, "{} files", victims.files.len());
    let tars: Vec<Vec<u8>> = (0..LAYERS).map(|n| layer(n, &victims)).collect();

    let extracted = home.path().join("extracted");
    fs::create_dir(&extracted).unwrap();
    extract(&base, &extracted);
    for tar in &tars {
        let path = home.path().join("layer.tar");
        fs::write(&path, tar).unwrap();
        extract(&path, &extracted);
    }
    let expected = without_counts(of_directory(&extracted));
    println!("{} paths", expected.len());
    assert!(expected.contains_key("syn/every") && !expected.contains_key("syn/0/also-0"));

    for bench in Bench::each() {
        let snapshots = bench.store.snapshots();
        let mut top = snapshots.apply(None, &mut File::open(&base).unwrap(), None, &bench.lease).unwrap().id();
        for tar in &tars {
            top = bench.apply(Some(top), tar).unwrap().id();
        }
        let active = snapshots.prepare(Some(top), &bench.lease).unwrap();
        let chain = snapshots.chain(top).unwrap();
        let Rootfs::Overlay { lowers: merged, upper, work } = active.rootfs().unwrap() else { panic!("an overlay") };
        let each = chain.iter().map(|row| row.snapshotter().unwrap().lower(&snapshots.path(row), None)).collect();
        let single = Rootfs::Overlay { lowers: each, upper: upper.clone(), work: work.clone() };
        let kind = &chain.top().unwrap().kind;
        println!("{kind}: {} lower layers for {}", merged.len(), chain.len());
        assert_equal(&format!("{kind}, each layer mounted"), &of_rootfs(&single), &expected);
        if bench.has_tars() {
            assert!(merged.len() < 20, "{} lower layers", merged.len());
            let merged = Rootfs::Overlay { lowers: merged, upper, work };
            assert_equal("merged erofs", &of_rootfs(&merged), &expected);
        }
        // The view, which mounts nothing, has the same names and sees the same files.
        let view = snapshots.view(Some(top)).unwrap();
        let mut names = BTreeSet::new();
        view.walk(&ContainerPath::root(), &mut |path, _| {
            names.insert(path.to_string()[1..].bytes().collect::<Vec<u8>>().escape_ascii().to_string());
            Ok(())
        })
        .unwrap();
        assert!(names.iter().eq(expected.keys()), "the view of {kind}");
    }
}
