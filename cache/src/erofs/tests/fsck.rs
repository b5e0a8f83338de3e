//! `fsck.erofs` and `dump.erofs` of Debian's erofs-utils, which know blocks of 4096 bytes only: the same writer makes an
//! index with those, over contents that lie at multiples of 4096.

use std::collections::BTreeMap;
use std::process::Command;

use super::layers::all_kinds;
use super::*;
use crate::view::Timestamp;

#[test]
fn fsck_finds_nothing_and_extracts_the_same() {
    if Command::new("fsck.erofs").arg("-V").output().is_err() {
        println!("SKIPPED fsck_finds_nothing_and_extracts_the_same: needs erofs-utils");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut builder = IndexBuilder::new();
    let mut blob = Vec::new();
    let mut want = BTreeMap::new();
    for (entry, content) in all_kinds() {
        let node = match &entry.kind {
            EntryKind::Directory => Node::Directory { opaque: false },
            EntryKind::File { sparse: Some(_), .. } => continue,
            EntryKind::File { size, .. } => {
                // Counted in blocks of the index, whatever their size.
                let offset = BLOCK * (blob.len() as u64 / 4096);
                blob.extend_from_slice(&content);
                blob.resize(blob.len().next_multiple_of(4096), 0);
                want.insert(entry.path.relative().to_owned(), content);
                Node::File { content: Content::Tar { offset, size: *size } }
            }
            EntryKind::Symlink { target } => Node::Symlink(target.clone()),
            EntryKind::Hardlink { target } => Node::HardLink(target.clone()),
            // The extraction of this version makes no other files.
            _ => continue,
        };
        let mtime = Timestamp { seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds };
        let Entry { path, mode, uid, gid, xattrs, .. } = entry;
        builder.add(Member { path, node, mode, uid, gid, mtime, xattrs }).unwrap();
    }
    let (index, device) = (home.path().join("index"), home.path().join("device"));
    std::fs::write(&device, &blob).unwrap();
    let devices = [Device { bytes: blob.len() as u64, digest: None }];
    builder.finish_with_blocks(12, &devices, &mut File::create_new(&index).unwrap()).unwrap();
    let device_option = format!("--device={}", device.display());
    let out = home.path().join("out");
    let fsck = Command::new("fsck.erofs")
        .arg("-d3")
        .arg(&device_option)
        .args(["--no-preserve".to_owned(), format!("--extract={}", out.display())])
        .arg(&index)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&fsck.stdout).into_owned() + &String::from_utf8_lossy(&fsck.stderr);
    assert!(fsck.status.success() && said.contains("Extracted filesystem successfully"), "{said}");
    for (path, content) in want {
        assert_eq!(std::fs::read(out.join(&path)).unwrap(), content, "{path:?}");
    }
    assert_eq!(std::fs::read(out.join("made/on/the/way")).unwrap(), b"x");
    assert_eq!(std::fs::read_link(out.join("a/longest")).unwrap().as_os_str().len(), 4094);
    let dump = Command::new("dump.erofs").args(["-s", "--path=/a/large", &device_option]).arg(&index).output().unwrap();
    let said = String::from_utf8_lossy(&dump.stdout);
    assert!(dump.status.success() && said.contains("Size: 300000"), "{said}");
}
