//! Damaged indexes are errors, hostile tars make sound indexes, and random tars are the same three ways. More cases:
//! `./dev fuzz`.

use proptest::prelude::*;
use rbuild_image::layer::Timestamp;

use super::described::of_index;
use super::layers::{all_kinds, assert_same};
use super::*;
use crate::view::FileKind;

/// Reads everything an index says, as far as it lets itself be read; it may refuse, not panic or go on for ever.
fn read_everything(index: &Index) -> usize {
    let mut seen = 0;
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        seen += 1;
        assert!(seen < 200_000, "a walk over {} inodes does not end", index.inodes());
        let Ok(Some(inode)) = index.lookup(&path) else { continue };
        let Ok(stat) = index.stat(&inode) else { continue };
        drop(index.xattrs(&inode));
        match stat.kind {
            FileKind::Directory => {
                drop(index.is_opaque(&inode));
                let Ok(entries) = index.list(&inode) else { continue };
                todo.extend(entries.into_iter().map(|(name, _)| [&path[..], b"/", &name].concat()));
            }
            FileKind::Symlink => drop(index.read_link(&inode)),
            FileKind::File => drop(index.extents(&inode)),
            _ => {}
        }
    }
    seen
}

fn opened(bytes: &[u8]) -> io::Result<Index> {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, bytes).unwrap();
    Index::open(file)
}

/// A small index with everything in it.
fn small() -> Vec<u8> {
    let mut entries = all_kinds();
    entries.retain(|(entry, _)| entry.path.components().count() < 8);
    entries.truncate(60);
    let layer = Layer::of(&archive(&entries)).unwrap();
    std::fs::read(layer.file("index")).unwrap()
}

/// Sets the checksum right again, so that damage behind it is found by other means.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= 1536 {
        let sum = format::checksum(&bytes[1024..1536]);
        bytes[1028..1032].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_index_is_an_error_at_worst(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        copies in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..40), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = small();
        for (from, to, length) in copies {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
            let end = (to + piece.len()).min(bytes.len());
            bytes[to..end].copy_from_slice(&piece[..end - to]);
        }
        for (at, value) in changes {
            let at = 1024 + at.index(bytes.len() - 1024);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(index) = opened(&resealed(bytes)) {
            read_everything(&index);
            let mut out = Vec::new();
            // What is made of a damaged one may be wrong, but is never malformed.
            let devices = (0..index.devices().len()).collect();
            if merge(&[Part { index, devices }], Beneath::Nothing, &mut out).is_ok() {
                let merged = opened(&out).unwrap();
                assert!(read_everything(&merged) > 0);
            }
        }
    }
}

#[test]
fn damage_is_named() {
    let good = small();
    assert!(read_everything(&opened(&good).unwrap()) > 50);
    let mut sum = good.clone();
    sum[1030] ^= 1;
    let mut magic = good.clone();
    magic[1024] ^= 1;
    for (bytes, want) in [
        (&good[..1000], "too short"),
        (&good[..good.len() - 512], "length"),
        (&sum, "checksum"),
        (&magic, "superblock"),
    ] {
        let error = opened(bytes).unwrap_err();
        assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(want), "{want}: {error}");
    }
}

/// Content of which every part is something else, so that a wrong place in the tar shows.
pub(super) fn bytes(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 256 * 31 + usize::from(seed)) as u8).collect()
}

/// Members with names from so few that they meet each other.
pub(crate) fn member() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "-x", ".y", "\u{e9}", ".wh.a", ".wh.b", ".wh..wh..opq"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| format!("/{}", parts.join("/")));
    let kind = prop_oneof![
        4 => (0usize..3000, any::<u8>()).prop_map(|(size, seed)| (EntryKind::file(size as u64), bytes(size, seed))),
        3 => Just((EntryKind::Directory, Vec::new())),
        1 => path.clone().prop_map(|target| (EntryKind::Hardlink { target: ContainerPath::new(target) }, Vec::new())),
        1 => "[a-d./]{1,6}".prop_map(|target| (EntryKind::Symlink { target: target.into_bytes() }, Vec::new())),
        1 => Just((EntryKind::Fifo, Vec::new())),
    ];
    let times = (any::<i32>(), 0u32..1_000_000_000);
    (path, kind, 0u32..0o10000, 0u32..200_000, times, prop::bool::ANY).prop_map(
        |(path, (kind, content), mode, uid, (seconds, nanoseconds), noted)| {
            let mut entry = Entry::new(ContainerPath::new(path), kind, mode);
            (entry.uid, entry.gid) = (uid, uid / 2);
            entry.mtime = Timestamp { seconds: seconds.into(), nanoseconds };
            if noted && matches!(entry.kind, EntryKind::File { .. } | EntryKind::Directory) {
                entry.xattrs.insert(b"user.note".to_vec(), vec![b'n'; (mode % 300) as usize]);
            }
            (entry, content)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_members_mount_as_they_unpack(members in prop::collection::vec(member(), 0..25)) {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let tar = archive(&members);
        let home = tempfile::tempdir().unwrap();
        let unpacked = crate::snapshot::directory_from_tar(home.path(), &mut &tar[..]);
        match Layer::of(&tar) {
            Ok(_) => {
                prop_assert!(unpacked.is_ok(), "{unpacked:?}");
                assert_same(&tar);
            }
            Err(error) => prop_assert!(unpacked.is_err(), "{error:?}"),
        }
    }

    #[test]
    fn random_bytes_after_a_tar_make_no_malformed_index(
        members in prop::collection::vec(member(), 1..10),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
    ) {
        let mut tar = archive(&members);
        for (at, value) in changes {
            let at = at.index(tar.len());
            tar[at] = value;
            // The header's checksum, so that the change is seen.
            let header = at - at % 512;
            let sum: u32 = tar[header..header + 512].iter().enumerate()
                .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
            tar[header + 148..header + 154].copy_from_slice(format!("{sum:06o}").as_bytes());
        }
        if let Ok(layer) = Layer::of(&tar) {
            assert!(of_index(&layer.index(), &layer.devices()).contains_key(""));
        }
    }
}
