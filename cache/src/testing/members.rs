//! Tars of a few members, and who may unpack them.

use rbuild_image::ContainerPath;
use rbuild_image::layer::{Entry, EntryKind, TarWriter};

/// Owners, devices, trusted attributes and mounts need root; without it these tests say so and check nothing.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED {test}: needs root");
    }
    root
}

pub(crate) fn dir(path: &str) -> (Entry, Vec<u8>) {
    (Entry::new(ContainerPath::new(path), EntryKind::Directory, 0o755), Vec::new())
}

pub(crate) fn file(path: &str, content: &(impl AsRef<[u8]> + ?Sized)) -> (Entry, Vec<u8>) {
    let content = content.as_ref().to_vec();
    (Entry::new(ContainerPath::new(path), EntryKind::file(content.len() as u64), 0o644), content)
}

pub(crate) fn link(path: &str, target: &str) -> (Entry, Vec<u8>) {
    let kind = EntryKind::Symlink { target: target.into() };
    (Entry::new(ContainerPath::new(path), kind, 0o777), Vec::new())
}

pub(crate) fn hard(path: &str, target: &str) -> (Entry, Vec<u8>) {
    let kind = EntryKind::Hardlink { target: ContainerPath::new(target) };
    (Entry::new(ContainerPath::new(path), kind, 0o644), Vec::new())
}

pub(crate) fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}
