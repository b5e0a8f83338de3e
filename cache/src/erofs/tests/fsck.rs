//! `fsck.erofs` and `dump.erofs` of Debian's erofs-utils, which know blocks of 4096 bytes only: the same writer makes an
//! index with those, over contents that lie at multiples of 4096.

use std::collections::BTreeMap;
use std::process::Command;

use rbuild_image::layer::{Placement, TarReader};

use super::described::{Described, of_index};
use super::layers::all_kinds;
use super::*;
use crate::view::Timestamp;

#[test]
fn fsck_finds_nothing_and_extracts_the_same() {
    if !is_there() {
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

/// The members of `tar` in an index with blocks of 4096 bytes: `fsck.erofs` finds nothing, and extracts files as `want` has
/// them. Sparse files are filled.
pub(super) fn checked_by_fsck(tar: &[u8], want: &Described) {
    if !is_there() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut builder = IndexBuilder::new();
    let mut side = SideBlob::new(File::create_new(home.path().join("side")).unwrap());
    let mut blob = Vec::new();
    let mut reader = TarReader::new(tar);
    while let Some(mut entry) = reader.next_entry().unwrap() {
        let offset = BLOCK * (blob.len() as u64 / 4096);
        if let EntryKind::File { size, sparse } = &entry.kind {
            let (start, size) = (blob.len(), *size);
            let mut content = Vec::new();
            io::Read::read_to_end(&mut reader, &mut content).unwrap();
            blob.resize(start + size as usize, 0);
            if sparse.is_some() {
                let place = |at: u64, bytes: &[u8]| blob[start + at as usize..][..bytes.len()].copy_from_slice(bytes);
                Placement::of(&entry).place(&content, place);
            } else {
                blob[start..].copy_from_slice(&content);
            }
            blob.resize(blob.len().next_multiple_of(4096), 0);
            entry.kind = EntryKind::file(size);
        }
        builder.add_entry(&entry, offset, &mut io::empty(), &mut side).unwrap();
    }
    let (index, device) = (home.path().join("index"), home.path().join("device"));
    std::fs::write(&device, &blob).unwrap();
    let devices = [Device { bytes: blob.len() as u64, digest: None }];
    builder.finish_with_blocks(12, &devices, &mut File::create_new(&index).unwrap()).unwrap();
    let mut command = Command::new("fsck.erofs");
    command.arg("-d3").arg(format!("--device={}", device.display()));
    // This version looks for attributes behind each inode, also behind one without any that ends the image.
    let padded = home.path().join("padded");
    std::fs::write(&padded, [std::fs::read(&index).unwrap(), vec![0; 4096]].concat()).unwrap();
    let fsck = command.arg("--extract").arg(&padded).output().unwrap();
    let said = String::from_utf8_lossy(&fsck.stdout).into_owned() + &String::from_utf8_lossy(&fsck.stderr);
    assert!(fsck.status.success(), "{said}");
    let read = of_index(&Index::open(File::open(&index).unwrap()).unwrap(), &[device]);
    assert_eq!(&read, want);
}

fn is_there() -> bool {
    Command::new("fsck.erofs").arg("-V").output().is_ok()
}
