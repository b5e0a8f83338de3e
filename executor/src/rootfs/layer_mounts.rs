//! Layers that are images in files, mounted once for all sandboxes that stand on them.
//!
//! A step of a build stands on the layers of the step before and one more. Mounting a layer reads its image's superblock and sets
//! up a file system, of which a build of fifty steps would make a thousand. The spawner keeps these mounts, which lie nowhere, and
//! the overlay of a sandbox takes them by descriptor (Linux 6.15 or later; before, each sandbox mounts its own).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::erofs;
use crate::spec::Lower;

/// So many are kept: as many as sandboxes of several branches of a build use by turns.
const MOST: usize = 96;

/// Mounts by their images; what an image's contents lie in never changes.
#[derive(Debug, Default)]
pub(crate) struct LayerMounts {
    mounts: BTreeMap<PathBuf, Kept>,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    mount: OwnedFd,
    /// When, counted in uses.
    used: u64,
}

impl LayerMounts {
    /// Sees to it that the images among `lowers` are mounted. What cannot be is left to the sandbox, which says why.
    pub(crate) fn prepare(&mut self, lowers: &[Lower]) {
        self.uses += 1;
        for lower in lowers {
            let Lower::Erofs { index, devices } = lower else { continue };
            if let Some(kept) = self.mounts.get_mut(index) {
                kept.used = self.uses;
            } else if let Ok(mount) = erofs::mount(index, devices) {
                self.mounts.insert(index.clone(), Kept { mount, used: self.uses });
            }
        }
        while self.mounts.len() > MOST {
            let oldest = self.mounts.iter().min_by_key(|(_, kept)| kept.used);
            let Some(key) = oldest.filter(|(_, kept)| kept.used < self.uses).map(|(key, _)| key.clone()) else { break };
            self.mounts.remove(&key);
        }
    }

    /// The mount of an image, if it is kept.
    pub(super) fn get(&self, index: &Path) -> Option<BorrowedFd<'_>> {
        self.mounts.get(index).map(|kept| kept.mount.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first_and_none_that_is_needed() {
        let mut mounts = LayerMounts::default();
        let key = |n: usize| PathBuf::from(format!("{n:03}"));
        for n in 0..MOST + 5 {
            let mount = std::fs::File::open("/").unwrap().into();
            mounts.mounts.insert(key(n), Kept { mount, used: n as u64 });
        }
        mounts.uses = 1000;
        let needed = [Lower::Erofs { index: key(2), devices: Vec::new() }, Lower::Directory("/".into())];
        mounts.prepare(&needed);
        assert_eq!(mounts.mounts.len(), MOST);
        let there = |n: usize| mounts.get(&key(n)).is_some();
        assert!(there(2) && !there(0) && !there(1) && !there(5) && there(6));
        let missing = [Lower::Erofs { index: "/nowhere".into(), devices: Vec::new() }];
        mounts.prepare(&missing);
        assert!(mounts.get(Path::new("/nowhere")).is_none());
    }
}
