//! A tree as text, from a directory or from an index, so that two can be compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rbuild_image::Digest;

use crate::erofs::{Index, InodeRef};
use crate::view::{FileKind, Xattrs};

pub(crate) type Described = BTreeMap<String, String>;

/// What is in the directory `root`. Of overlayfs's attributes only the mark of opaque directories counts.
pub(crate) fn of_directory(root: &Path) -> Described {
    let mut found = Described::new();
    let mut inodes = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let here = root.join(&path);
        let stat = fs::symlink_metadata(&here).unwrap();
        let kind = stat.file_type();
        let name = path.as_os_str().as_bytes().escape_ascii().to_string();
        let content = if kind.is_dir() {
            todo.extend(fs::read_dir(&here).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(&here).unwrap().as_os_str().as_bytes().escape_ascii())
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            File::open(&here).unwrap().read_to_end(&mut bytes).unwrap();
            file_text(stat.size(), &bytes)
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
            format!("{} {major}:{minor}", if kind.is_char_device() { "char" } else { "block" })
        };
        if !kind.is_dir() {
            inodes.entry((stat.dev(), stat.ino())).or_insert_with(Vec::new).push(name.clone());
        }
        let links = if kind.is_dir() { 0 } else { stat.nlink() };
        let mtime = (stat.mtime(), stat.mtime_nsec() as u32);
        found
            .insert(name, line(&content, stat.mode() & 0o7777, (stat.uid(), stat.gid()), mtime, links, &xattrs(&here)));
    }
    with_names(found, inodes)
}

/// What an index says, with contents from its devices.
pub(super) fn of_index(index: &Index, devices: &[PathBuf]) -> Described {
    let devices: Vec<File> = devices.iter().map(|path| File::open(path).unwrap()).collect();
    let mut found = Described::new();
    let mut inodes = BTreeMap::new();
    let mut todo: Vec<(Vec<u8>, InodeRef)> = vec![(Vec::new(), index.lookup(b"").unwrap().unwrap())];
    while let Some((path, inode)) = todo.pop() {
        assert_eq!(index.lookup(&path).unwrap().unwrap().number, inode.number);
        let stat = index.stat(&inode).unwrap();
        let name = path.escape_ascii().to_string();
        let content = match stat.kind {
            FileKind::Directory => {
                for (name, child) in index.list(&inode).unwrap() {
                    let path = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
                    todo.push((path, child));
                }
                "dir".to_owned()
            }
            FileKind::Symlink => format!("link {}", index.read_link(&inode).unwrap().escape_ascii()),
            FileKind::File => file_text(stat.size, &content(index, &inode, &devices)),
            FileKind::Fifo => "fifo".to_owned(),
            FileKind::CharDevice { major, minor } => format!("char {major}:{minor}"),
            FileKind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
            FileKind::Socket => unreachable!("no index has sockets"),
        };
        let mut xattrs = index.xattrs(&inode).unwrap();
        let mut links = u64::from(stat.links);
        if stat.kind.is_directory() {
            links = 0;
            if index.is_opaque(&inode).unwrap() {
                xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
            }
        } else {
            inodes.entry(inode.number).or_insert_with(Vec::new).push(name.clone());
        }
        let mtime = (stat.mtime.seconds, stat.mtime.nanoseconds);
        found.insert(name, line(&content, stat.mode, (stat.uid, stat.gid), mtime, links, &xattrs));
    }
    with_names(found, inodes)
}

fn content(index: &Index, inode: &InodeRef, devices: &[File]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for extent in index.extents(inode).unwrap() {
        let start = bytes.len();
        bytes.resize(start + extent.length as usize, 0);
        if let Some(device) = extent.device {
            devices[device].read_exact_at(&mut bytes[start..], extent.offset).unwrap();
        }
    }
    bytes
}

fn file_text(size: u64, bytes: &[u8]) -> String {
    assert_eq!(size, bytes.len() as u64);
    format!("file {size} {}", Digest::sha256(bytes).short())
}

fn line(content: &str, mode: u32, owner: (u32, u32), mtime: (i64, u32), links: u64, xattrs: &Xattrs) -> String {
    let xattrs: Vec<String> =
        xattrs.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect();
    format!("{content} {mode:o} {}:{} {}.{:09} x{links} {}", owner.0, owner.1, mtime.0, mtime.1, xattrs.join(" "))
}

/// Adds which names are one file.
fn with_names<N>(mut found: Described, inodes: BTreeMap<N, Vec<String>>) -> Described {
    for mut names in inodes.into_values().filter(|names| names.len() > 1) {
        names.sort();
        for name in &names {
            found.get_mut(name).unwrap().push_str(&format!(" = {}", names[0]));
        }
    }
    found
}

fn xattrs(path: &Path) -> Xattrs {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .filter(|name| !name.starts_with(b"trusted.overlay.") || *name == b"trusted.overlay.opaque")
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}
