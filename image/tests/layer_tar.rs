//! Layers written and read: round trips, agreement with other implementations, and archives made to hurt.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test stops at once, and says aloud what it skips")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rbuild_image::layer::{
    Device, Entry, EntryKind, Segment, SparseMap, TarError, TarLimits, TarReader, TarWriteError, TarWriter, Timestamp,
};
use rbuild_image::{ContainerPath, Digest};

fn path(text: &str) -> ContainerPath {
    ContainerPath::new(text)
}

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn read_with(bytes: &[u8], limits: TarLimits) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::with_limits(bytes, limits);
    let mut out = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        out.push((entry, content));
    }
    Ok(out)
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    read_with(bytes, TarLimits::default())
}

fn message(error: &TarError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error} {source}")
}

/// One entry of every kind and of every field that needs an extended header.
fn samples() -> Vec<(Entry, Vec<u8>)> {
    let long = format!("/{}/{}", "d".repeat(120), "f".repeat(200));
    let mut attributed = Entry::new(path("/bin/ping"), EntryKind::file(3), 0o4755);
    attributed.xattrs.insert(b"security.capability".to_vec(), b"\x01\0\0\x02\n\0\0\0".to_vec());
    attributed.xattrs.insert(b"user.note".to_vec(), b"a=b\n7 x=y\n".to_vec());
    attributed.mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_700 };
    let mut owned = Entry::new(path("/home/u"), EntryKind::Directory, 0o1777);
    (owned.uid, owned.gid) = (u32::MAX - 1, 3_000_000);
    owned.mtime = Timestamp { seconds: -5, nanoseconds: 1 };
    let holes =
        SparseMap::new([Segment { offset: 4096, length: 512 }, Segment { offset: 1 << 33, length: 1024 }], 1 << 34);
    let sparse = EntryKind::File { size: 1 << 34, sparse: holes };
    vec![
        (Entry::new(ContainerPath::root(), EntryKind::Directory, 0o755), vec![]),
        (attributed, b"elf".to_vec()),
        (owned, vec![]),
        (Entry::new(path(&long), EntryKind::file(1000), 0o644), vec![7; 1000]),
        (Entry::new(path("/ünï"), EntryKind::Symlink { target: "/a/\u{e4}".into() }, 0o777), vec![]),
        (Entry::new(path("/odd\u{1}\n"), EntryKind::Symlink { target: b"../\xff\xfe".to_vec() }, 0o777), vec![]),
        (Entry::new(path("/hard"), EntryKind::Hardlink { target: path(&long) }, 0o644), vec![]),
        (Entry::new(path("/dev/null"), EntryKind::CharDevice(Device { major: 1, minor: 3 }), 0o666), vec![]),
        (Entry::new(path("/dev/sda"), EntryKind::BlockDevice(Device { major: 8, minor: 300_000 }), 0o660), vec![]),
        (Entry::new(path("/fifo"), EntryKind::Fifo, 0o600), vec![]),
        (Entry::new(path("/sparse"), sparse, 0o600), vec![9; 1536]),
        (Entry::new(path("/.wh.gone"), EntryKind::file(0), 0), vec![]),
    ]
}

#[test]
fn every_kind_of_entry_survives_a_round_trip() {
    let entries = samples();
    assert_eq!(read(&write(&entries)).unwrap(), entries);
}

#[test]
fn the_bytes_of_a_layer_never_change() {
    let digest = Digest::sha256(write(&samples()));
    insta::assert_snapshot!(digest, @"sha256:09d364789a65ea00ce5054b50816a166f5e953702590049602f63f3e32fd6b49");
    let plain = Entry { uid: 1000, ..Entry::new(path("/etc/hosts"), EntryKind::file(2), 0o644) };
    let bytes = write(&[(plain, b"hi".to_vec())]);
    assert_eq!(bytes.len(), 2048, "a plain entry has no extended header");
    let shown: String = bytes[..512].iter().map(|b| if *b == 0 { '.' } else { char::from(*b) }).collect();
    insta::assert_snapshot!(shown.trim_end_matches('.'), @"etc/hosts...........................................................................................0000644.0001750.0000000.00000000002.00000000000.011050. 0....................................................................................................ustar.00................................................................0000000.0000000");
}

#[test]
fn the_tar_crate_reads_the_same() {
    let bytes = write(&samples());
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = ContainerPath::new(&*entry.path_bytes());
        let link = entry.link_name_bytes().map(|link| link.into_owned());
        if name == path("/sparse") || name.to_string().starts_with("/GNUSparse") {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        seen.push((name, header.mode().unwrap(), header.entry_type(), link, content));
    }
    let wanted = samples().into_iter().filter(|(entry, _)| entry.path != path("/sparse")).map(|(entry, content)| {
        let (kind, link) = match &entry.kind {
            EntryKind::File { .. } => (tar::EntryType::Regular, None),
            EntryKind::Directory => (tar::EntryType::Directory, None),
            EntryKind::Symlink { target } => (tar::EntryType::Symlink, Some(target.clone())),
            EntryKind::Hardlink { target } => (tar::EntryType::Link, Some(target.as_bytes()[1..].to_vec())),
            EntryKind::CharDevice(_) => (tar::EntryType::Char, None),
            EntryKind::BlockDevice(_) => (tar::EntryType::Block, None),
            EntryKind::Fifo => (tar::EntryType::Fifo, None),
        };
        (entry.path, entry.mode, kind, link, content)
    });
    assert_eq!(seen, wanted.collect::<Vec<_>>());
}

#[test]
fn content_of_another_length_is_an_error() {
    let entry = Entry::new(path("/a"), EntryKind::file(10), 0o644);
    let error = TarWriter::new(Vec::new()).append(&entry, &mut &b"short"[..]).unwrap_err();
    assert!(matches!(error, TarWriteError::Short { want: 10, got: 5, .. }), "{error}");
    let odd = SparseMap::new([Segment { offset: 5, length: 1 }, Segment { offset: 512, length: 1 }], 600);
    for unwritable in [
        Entry::new(path("/a"), EntryKind::File { size: 600, sparse: odd }, 0o644),
        Entry::new(ContainerPath::root(), EntryKind::file(0), 0o644),
        Entry::new(path("/a"), EntryKind::Symlink { target: Vec::new() }, 0o777),
        Entry::new(path("/a"), EntryKind::CharDevice(Device { major: u32::MAX, minor: 0 }), 0o600),
        Entry { xattrs: BTreeMap::from([(b"user.a=b".to_vec(), vec![])]), ..entry },
    ] {
        let error = TarWriter::new(Vec::new()).append(&unwritable, &mut std::io::empty()).unwrap_err();
        assert!(matches!(error, TarWriteError::Unrepresentable { .. }), "{error}");
    }
}

/// A header with the given type, then whatever `change` does to it, with a checksum that holds.
fn header(typeflag: u8, name: &str, size: u64, change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkflag = [typeflag];
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    change(&mut header);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len()..).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
        data.push_str(&format!("{length}{rest}"));
    }
    [header(b'x', "pax", data.len() as u64, |_| ()), padded(data.into_bytes())].concat()
}

fn size_field(bytes: [u8; 12]) -> Vec<u8> {
    header(b'0', "a", 0, |header| header.as_old_mut().size = bytes)
}

#[test]
fn hostile_numbers_are_refused_before_anything_is_allocated() {
    let plain = |size| header(b'0', "a", size, |_| ());
    let after = |mut front: Vec<u8>, back: Vec<u8>| {
        front.extend(back);
        front
    };
    for (name, bytes, want) in [
        ("negative size", size_field(*b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\0"), "size"),
        ("negative octal size", size_field(*b"-0000000001\0"), "size"),
        ("size of letters", size_field(*b"hello world\0"), "size"),
        ("size beyond 64 bits", size_field(*b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), "size"),
        ("size beyond 63 bits", size_field(*b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), "size"),
        ("largest size", size_field(*b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), "size"),
        ("pax size of letters", after(pax(&[("size", "1x")]), plain(1)), "size"),
        ("negative pax size", after(pax(&[("size", "-1")]), plain(0)), "size"),
        ("pax size beyond 64 bits", after(pax(&[("size", "99999999999999999999")]), plain(0)), "size"),
        ("pax size against header", after(pax(&[("size", "600")]), plain(512)), "contradict"),
        ("two pax sizes", after(pax(&[("size", "600"), ("size", "700")]), plain(0)), "contradict"),
        ("two pax paths", after(pax(&[("path", "a"), ("path", "b")]), plain(0)), "contradict"),
        ("NUL in a pax path", after(pax(&[("path", "a\0b")]), plain(0)), "path"),
        ("uid -1", header(b'0', "a", 0, |h| h.as_old_mut().uid = *b"\xff\xff\xff\xff\xff\xff\xff\xff"), "uid"),
        ("uid 2^32-1", after(pax(&[("uid", "4294967295")]), plain(0)), "uid"),
        ("gid 2^32", after(pax(&[("gid", "4294967296")]), plain(0)), "gid"),
        ("extended header too long", header(b'x', "pax", (1 << 20) + 1, |_| ()), "extended_header_bytes of 1048576"),
        ("GNU name too long", header(b'L', "pax", 1 << 40, |_| ()), "extended_header_bytes"),
        ("extended header that ends early", header(b'x', "pax", 1000, |_| ()), "ends early"),
        ("content that ends early", plain(1000), "ends early"),
        ("half a header", plain(0)[..300].to_vec(), "ends early"),
        (
            "bad checksum",
            {
                let mut h = plain(0);
                h[0] = b'b';
                h
            },
            "checksum",
        ),
        ("garbage after one empty block", after(vec![0; 512], plain(0)), "checksum"),
        ("unknown type", header(b'Z', "a", 0, |_| ()), "unknown type"),
        ("root as a file", header(b'0', "./", 0, |_| ()), "names the root"),
        (
            "root as a link",
            header(b'2', "x/..", 0, |h| h.as_old_mut().linkname[..4].copy_from_slice(b"/etc")),
            "names the root",
        ),
        ("link to nothing", header(b'2', "a", 0, |_| ()), "link target"),
        ("attribute without a name", after(pax(&[("SCHILY.xattr.", "x")]), plain(0)), "attribute"),
        (
            "broken record",
            {
                let mut p = pax(&[("path", "a")]);
                p[512] = b'8';
                after(p, plain(0))
            },
            "record",
        ),
        (
            "sparse longer than stored",
            after(pax(&[("GNU.sparse.size", "100"), ("GNU.sparse.map", "0,50")]), plain(9)),
            "sparse map",
        ),
        (
            "sparse beyond its end",
            after(pax(&[("GNU.sparse.size", "10"), ("GNU.sparse.map", "5,9")]), plain(9)),
            "sparse map",
        ),
        (
            "sparse overlapping",
            after(pax(&[("GNU.sparse.size", "99"), ("GNU.sparse.map", "5,5,7,4")]), plain(9)),
            "sparse map",
        ),
        (
            "sparse overflowing",
            after(pax(&[("GNU.sparse.size", "99"), ("GNU.sparse.map", "18446744073709551615,9")]), plain(9)),
            "sparse map",
        ),
        (
            "sparse map cut",
            after(pax(&[("GNU.sparse.size", "99"), ("GNU.sparse.map", "5,9,")]), plain(9)),
            "sparse map",
        ),
        (
            "sparse offsets without lengths",
            after(pax(&[("GNU.sparse.numblocks", "1"), ("GNU.sparse.offset", "0")]), plain(0)),
            "sparse map",
        ),
        (
            "sparse of no known format",
            after(pax(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")]), plain(0)),
            "sparse format",
        ),
        (
            "sparse 1.0 with a huge count",
            [
                pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")]),
                plain(512),
                padded(b"99999999999\n".to_vec()),
            ]
            .concat(),
            "sparse_segments",
        ),
        (
            "sparse 1.0 without a map",
            [
                pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")]),
                plain(3),
                padded(b"abc".to_vec()),
            ]
            .concat(),
            "sparse map",
        ),
    ] {
        let error = read(&bytes).expect_err(name);
        assert!(message(&error).contains(want), "{name}: {}", message(&error));
    }
}

#[test]
fn limits_are_named() {
    let deep = vec![(Entry::new(path(&"/d".repeat(9)), EntryKind::Directory, 0o755), vec![]); 3];
    let bytes = write(&deep);
    for (limits, name) in [
        (TarLimits { entries: 2, ..TarLimits::default() }, "entries of 2"),
        (TarLimits { path_depth: 8, ..TarLimits::default() }, "path_depth of 8"),
        (TarLimits { path_bytes: 5, ..TarLimits::default() }, "path_bytes of 5"),
    ] {
        assert!(message(&read_with(&bytes, limits).unwrap_err()).contains(name));
    }
    let extensions = pax(&[("comment", "x")]).repeat(10);
    let few = TarLimits { entries: 5, ..TarLimits::default() };
    assert!(read_with(&extensions, few).is_err(), "extended headers count as entries");
}

#[test]
fn doubtful_headers_are_read_as_go_reads_them() {
    let content = padded(b"data".to_vec());
    let named = |bytes: &[u8]| read(bytes).unwrap().into_iter().next().unwrap();
    let (entry, _) = named(&header(b'1', "a", 4, |h| h.as_old_mut().linkname[..2].copy_from_slice(b"/t")));
    assert_eq!(entry.kind, EntryKind::Hardlink { target: path("/t") }, "a link has no content, whatever its size");
    assert_eq!(named(&header(0, "dir/", 0, |_| ())).0.kind, EntryKind::Directory);
    assert_eq!(named(&[header(0, "a", 4, |_| ()), content.clone()].concat()).1, b"data");
    assert_eq!(named(&[header(b'7', "a", 4, |_| ()), content.clone()].concat()).1, b"data");
    let global =
        [header(b'g', "pax", 9, |_| ()), padded(b"9 path=x\n".to_vec()), header(b'0', "a", 0, |_| ())].concat();
    assert_eq!(named(&global).0.path, path("/a"), "global headers are skipped");
    let saturated = [pax(&[("size", "4")]), header(b'0', "a", 0o77_777_777_777, |_| ()), content].concat();
    assert_eq!(named(&saturated).1, b"data");
    let taken_back = [pax(&[("path", "b"), ("path", "")]), header(b'0', "a", 0, |_| ())].concat();
    assert_eq!(named(&taken_back).0.path, path("/a"));
    assert_eq!(named(&header(b'5', "./", 0, |_| ())).0.path, ContainerPath::root());
    let prefixed = header(b'0', "a", 0, |h| h.as_ustar_mut().unwrap().prefix[..3].copy_from_slice(b"x/y"));
    assert_eq!(named(&prefixed).0.path, path("/x/y/a"));
    assert!(read(b"").unwrap().is_empty() && read(&[0; 1024]).unwrap().is_empty());
}

#[test]
fn a_reader_that_stops_early_skips_to_the_next_entry() {
    let bytes = write(&samples());
    let mut reader = TarReader::new(&bytes[..]);
    let mut paths = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut some = [0; 3];
        let n = reader.read(&mut some).unwrap();
        assert!(n as u64 + reader.remaining() == entry.stored_size());
        paths.push(entry.path);
    }
    assert_eq!(paths, samples().into_iter().map(|(entry, _)| entry.path).collect::<Vec<_>>());
    assert!(reader.finish().unwrap().is_empty());
}

/// Runs a tool of the machine; `None`, said aloud, when it is not there.
fn tool(program: &str, args: &[&str], input: &[u8], directory: &Path) -> Option<Vec<u8>> {
    let child = Command::new(program)
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("SKIPPED: this check needs {program}, which did not start: {error}");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn gnu_tar_and_python_list_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = write(&samples());
    if let Some(listing) = tool("tar", &["--numeric-owner", "--full-time", "-tvf", "-"], &bytes, directory.path()) {
        let listing = String::from_utf8(listing).unwrap();
        let listing: Vec<String> =
            listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for want in [
            "-rwsr-xr-x 0/0 3 2023-11-14 22:13:20.1234567",
            "drwxrwxrwt 4294967294/3000000 0 1969-12-31 23:59:56",
            "-rw------- 0/0 17179869184 1970-01-01 00:00:00 sparse",
            "hrw-r--r-- 0/0 0 1970-01-01 00:00:00 hard link to ddd",
            "crw-rw-rw- 0/0 1,3",
            "brw-rw---- 0/0 8,300000",
            "prw-------",
        ] {
            assert!(listing.iter().any(|line| line.starts_with(want)), "{want} is not in\n{listing:#?}");
        }
        assert_eq!(listing.len(), samples().len());
    }
    let script = "import sys,tarfile\nfor m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'): print(m.type.decode(), m.size, m.pax_headers.get('SCHILY.xattr.user.note','').encode())";
    if let Some(listing) = tool("python3", &["-c", script], &bytes, directory.path()) {
        let listing = String::from_utf8(listing).unwrap();
        assert!(listing.contains(r"0 3 b'a=b\n7 x=y\n'") && listing.contains("0 17179869184 b''"), "{listing}");
    }
}

#[test]
fn what_gnu_tar_writes_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let long = "n".repeat(150);
    std::fs::create_dir_all(root.join("in/d")).unwrap();
    std::fs::write(root.join("in/d").join(&long), b"content").unwrap();
    std::os::unix::fs::symlink("t".repeat(140), root.join("in/link")).unwrap();
    std::fs::hard_link(root.join("in/d").join(&long), root.join("in/twin")).unwrap();
    let mut holes = std::fs::File::create(root.join("in/z")).unwrap();
    for at in [0u64, 1 << 20, 3 << 20, 5 << 20, 7 << 20, 9 << 20, 11 << 20] {
        std::io::Seek::seek(&mut holes, std::io::SeekFrom::Start(at)).unwrap();
        holes.write_all(b"data").unwrap();
    }
    holes.set_len(20 << 20).unwrap();
    drop(holes);
    let mut compared = 0;
    for format in ["--format=gnu", "--format=pax", "--format=oldgnu"] {
        for sparse in ["--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
            let args = ["-S", format, sparse, "--sort=name", "--mtime=@1.5", "-C", "in", "-cf", "-", "."];
            let Some(bytes) = tool("tar", &args, b"", root) else { return };
            assert!(bytes.len() < 1 << 20, "{format} {sparse}: holes are not stored");
            let entries = read(&bytes).unwrap_or_else(|error| panic!("{format} {sparse}: {error}"));
            let find = |name: &str| entries.iter().find(|(entry, _)| entry.path == path(name)).unwrap();
            assert_eq!(find(&format!("/d/{long}")).1, b"content");
            assert_eq!(find("/link").0.kind, EntryKind::Symlink { target: "t".repeat(140).into() });
            assert_eq!(find("/twin").0.kind, EntryKind::Hardlink { target: path(&format!("/d/{long}")) });
            let (entry, data) = find("/z");
            let EntryKind::File { size, sparse: Some(map) } = &entry.kind else { panic!("{entry:?}") };
            assert_eq!((*size, map.segments().len(), data.len() as u64), (20 << 20, 7, map.data_size()));
            assert_eq!(map.segments()[1].offset, 1 << 20);
            assert_eq!(&data[..4], b"data");
            compared += 1;
        }
    }
    assert_eq!(compared, 9);
}

#[test]
fn gnu_tar_unpacks_sparse_files_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let segments = |last| [Segment { offset: 4096, length: 512 }, Segment { offset: 1 << 20, length: last }];
    let file = |name: &str, size, last| {
        let kind = EntryKind::File { size, sparse: SparseMap::new(segments(last), size) };
        (Entry::new(path(name), kind, 0o600), [vec![1; 512], vec![2; usize::try_from(last).unwrap()]].concat())
    };
    let bytes = write(&[file("/deep/hole-at-end", 2 << 20, 512), file("/deep/data-at-end", (1 << 20) + 3, 3)]);
    if tool("tar", &["-xf", "-"], &bytes, directory.path()).is_some() {
        for (name, size, last) in [("hole-at-end", 2 << 20, 512), ("data-at-end", (1 << 20) + 3, 3)] {
            let unpacked = std::fs::read(directory.path().join("deep").join(name)).unwrap();
            assert_eq!(unpacked.len(), size);
            assert!(unpacked[4096..4608].iter().all(|b| *b == 1));
            assert!(unpacked[1 << 20..(1 << 20) + last].iter().all(|b| *b == 2));
            assert_eq!(unpacked.iter().filter(|b| **b != 0).count(), 512 + last);
        }
    }
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = proptest::collection::vec("[a-zä.\\\\ ]{1,90}", 1..4).prop_map(|parts| path(&parts.join("/")));
    let kind = prop_oneof![
        Just((EntryKind::Directory, vec![])),
        proptest::collection::vec(0u8.., 0..1500).prop_map(|data| (EntryKind::file(data.len() as u64), data)),
        proptest::collection::vec(1u8.., 1..200).prop_map(|target| (EntryKind::Symlink { target }, vec![])),
        (0u32..1 << 21, 0u32..1 << 21)
            .prop_map(|(major, minor)| (EntryKind::BlockDevice(Device { major, minor }), vec![])),
    ];
    let xattrs = proptest::collection::btree_map("[a-z.]{1,20}", proptest::collection::vec(0u8.., 0..50), 0..3);
    let numbers = (0u32..0o10000, 0..u32::MAX, 0..u32::MAX, -1i64 << 40..1 << 40, 0u32..1_000_000_000);
    (name, kind, xattrs, numbers).prop_filter_map("the root is a directory", |(path, (kind, data), xattrs, numbers)| {
        if path.is_root() && kind != EntryKind::Directory {
            return None;
        }
        let (mode, uid, gid, seconds, nanoseconds) = numbers;
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        Some((Entry { path, kind, mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs }, data))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_entries_survive_a_round_trip(entries in proptest::collection::vec(any_entry(), 0..6)) {
        prop_assert_eq!(read(&write(&entries)).unwrap(), entries);
    }

    #[test]
    fn no_change_to_an_archive_makes_the_reader_panic(
        changes in proptest::collection::vec((0usize..20_000, 0u8.., proptest::bool::ANY), 1..8),
        cut in 0usize..40_000,
    ) {
        let mut bytes = write(&samples());
        for (at, value, seal) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
            if seal {
                let start = at / 512 * 512;
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[start..start + 512]);
                header.set_cksum();
                bytes[start..start + 512].copy_from_slice(header.as_bytes());
            }
        }
        bytes.truncate(cut);
        drop(read(&bytes));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(0u8.., 0..3000)) {
        drop(read(&bytes));
        bytes.splice(0..0, header(b'S', "a", 700, |h| h.as_mut_bytes()[257..265].copy_from_slice(b"ustar  \0")));
        drop(read(&bytes));
    }
}
