//! Layers of all kinds of members.

use std::fs;

use rbuild_image::ContainerPath;
use rbuild_image::layer::{Device as Number, Entry, EntryKind, Segment, SparseMap, Timestamp};

use super::described::{of_directory, of_index};
use super::*;
use crate::snapshot::directory_from_tar;

/// Mounts the index over `tar` and compares it with an extraction and with what [`Index`] reads.
pub(super) fn assert_same(tar: &[u8]) {
    let layer = Layer::of(tar).unwrap();
    let extracted = tempfile::tempdir().unwrap();
    directory_from_tar(extracted.path(), &mut &*tar).unwrap();
    let mut want = of_directory(extracted.path());
    let mounted = of_directory(&layer.mount().path());
    let read = of_index(&layer.index(), &layer.devices());
    assert_eq!(read, mounted);
    // Directories that the archive does not have, and whiteouts, are of the time when they are unpacked; in an index
    // they are of time 0.
    for (path, text) in &mounted {
        for kind in ["dir 755 0:0 ", "char 0:0 0 0:0 "] {
            let timeless = text.strip_prefix(kind).is_some_and(|rest| rest.starts_with("0.000000000 "));
            if timeless && want.get(path).is_some_and(|text| text.starts_with(kind)) {
                want.insert(path.clone(), text.clone());
            }
        }
    }
    for (path, text) in &want {
        assert_eq!(Some(text), mounted.get(path), "{path}");
    }
    assert_eq!(want.len(), mounted.len());
}

pub(super) fn all_kinds() -> Vec<(Entry, Vec<u8>)> {
    let entry = |path: &str, kind| (Entry::new(ContainerPath::new(path), kind, 0o640), Vec::new());
    let mut entries = vec![
        dir("/"),
        dir("/a"),
        file("/a/empty", b""),
        file("/a/one", b"x"),
        file("/a/block", &[7; 512]),
        file("/a/more", &[8; 513]),
        file("/a/large", &(0..300_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>()),
        link("/a/short", "one"),
        link("/a/long", &"l".repeat(600)),
        link("/a/longest", &"m/".repeat(2047)),
        link("/a/block-long", &"k".repeat(512)),
        hard("/b", "/a/one"),
        hard("/made/on/the/way", "/b"),
        entry("/null", EntryKind::CharDevice(Number { major: 1, minor: 3 })),
        entry("/disk", EntryKind::BlockDevice(Number { major: 259, minor: 1000 })),
        entry("/fifo", EntryKind::Fifo),
        file(&format!("/{}", "n".repeat(255)), b"long name"),
    ];
    let mut owned = file("/owned", b"o");
    (owned.0.uid, owned.0.gid, owned.0.mode) = (4_000_000_000, 65_536, 0o6755);
    owned.0.mtime = Timestamp { seconds: -7, nanoseconds: 123_456_789 };
    entries.push(owned);
    for (at, path) in ["/x1", "/x2", "/xd"].into_iter().enumerate() {
        let mut member = if path == "/xd" { dir(path) } else { file(path, b"x") };
        member.0.xattrs.insert(b"user.shared".to_vec(), b"by all".to_vec());
        member.0.xattrs.insert(b"user.own".to_vec(), vec![b'v'; 300 * (at + 1)]);
        member.0.xattrs.insert(b"user.empty".to_vec(), Vec::new());
        entries.push(member);
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let mut capable = file("/capable", b"c");
    capable.0.xattrs.insert(b"security.capability".to_vec(), capability);
    entries.push(capable);
    let size = 5 * 4096 + 100;
    let runs = [(4096, 8192), (3 * 4096 + 512, 512), (5 * 4096, 100)];
    let map = SparseMap::new(runs.map(|(offset, length)| Segment { offset, length }), size);
    let content = (0..8804u32).map(|n| (n % 255 + 1) as u8).collect();
    entries.push((Entry::new(ContainerPath::new("/sparse"), EntryKind::File { size, sparse: map }, 0o600), content));
    for n in 0..2000 {
        entries.push(file(&format!("/many/{n:0width$}", width = n % 200 + 4), &[n as u8]));
    }
    let deep: String = (0..150).map(|n| format!("/deeper-and-deeper-{n}")).collect();
    entries.push(file(&format!("{deep}/end"), b"deep"));
    entries
}

#[test]
fn all_kinds_of_members_mount_as_they_unpack() {
    if is_root("all_kinds_of_members_mount_as_they_unpack") {
        assert_same(&archive(&all_kinds()));
    }
}

#[test]
fn the_same_members_make_the_same_bytes() {
    let tar = archive(&all_kinds());
    let (one, other) = (Layer::of(&tar).unwrap(), Layer::of(&tar).unwrap());
    assert_eq!(fs::read(one.file("index")).unwrap(), fs::read(other.file("index")).unwrap());
    assert_eq!(one.info, other.info);
    assert_eq!(one.info.digest, Digest::sha256(fs::read(one.file("index")).unwrap()));
    assert_eq!(one.index().devices()[0].digest, Some(Digest::sha256(&tar)));
}

#[test]
#[ignore = "packs, unpacks and mounts the programs and configuration of this machine"]
fn a_debian_tree_mounts_as_gnu_tar_extracts_it() {
    if !is_root("a_debian_tree_mounts_as_gnu_tar_extracts_it") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (tar, out) = (home.path().join("tar"), home.path().join("out"));
    let run = |command: &mut std::process::Command| assert!(command.status().unwrap().success(), "{command:?}");
    let paths = ["etc", "usr/bin", "usr/sbin", "usr/share/doc", "usr/share/perl5", "var/lib/dpkg"];
    run(std::process::Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--format=pax", "--sparse", "-cf"])
        .arg(&tar)
        .args(["-C", "/"])
        .args(paths));
    fs::create_dir(&out).unwrap();
    run(std::process::Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&tar)
        .arg("-C")
        .arg(&out));
    let layer = Layer::of(&fs::read(&tar).unwrap()).unwrap();
    let mounted = of_directory(&layer.mount().path());
    assert_eq!(of_index(&layer.index(), &layer.devices()), mounted);
    let extracted = of_directory(&out);
    println!("{} paths, {} bytes of index", mounted.len(), layer.info.bytes);
    // Directories above those that were packed are not in the archive.
    for (path, text) in
        extracted.iter().filter(|(path, _)| !["", "usr", "usr/share", "var", "var/lib"].contains(&&***path))
    {
        assert_eq!(Some(text), mounted.get(path), "{path}");
    }
    assert_eq!(extracted.len(), mounted.len());
}
