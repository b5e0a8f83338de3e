//! Bytes on disk of a tree: allocated blocks, each inode counted once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::path_error::{AtPath, PathError};

/// Sums the blocks of `path` and everything below it on the same file system; 0 when it is gone. What vanishes while
/// it is walked does not count.
pub(crate) fn disk_usage(path: &Path) -> Result<u64, PathError> {
    let mut linked = BTreeSet::new();
    let mut total = 0;
    let mut pending = vec![path.to_owned()];
    let mut device = None;
    while let Some(path) = pending.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.at("inspect", &path)?,
        };
        if *device.get_or_insert(metadata.dev()) != metadata.dev() {
            continue;
        }
        if metadata.nlink() == 1 || metadata.is_dir() || linked.insert(metadata.ino()) {
            total += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            match fs::read_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => {
                    for entry in entries.at("list", &path)? {
                        pending.push(entry.at("list", &path)?.path());
                    }
                }
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("d")).unwrap();
        let empty = disk_usage(home.path()).unwrap();
        fs::write(home.path().join("d/a"), vec![1; 100_000]).unwrap();
        let one = disk_usage(home.path()).unwrap();
        fs::hard_link(home.path().join("d/a"), home.path().join("b")).unwrap();
        assert!(one >= empty + 100_000);
        assert_eq!(disk_usage(home.path()).unwrap(), one);
        assert_eq!(disk_usage(&home.path().join("absent")).unwrap(), 0);
    }
}
