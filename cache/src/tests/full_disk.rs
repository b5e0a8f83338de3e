//! A disk without room. Needs to mount a small tmpfs, so it needs root, and says so where it is not.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::records::{key, record};
use super::{PATIENT, assert_sound, verify};
use crate::gc::{GcPolicy, PruneMode, PruneScope};
use crate::lock::wait_silently;
use crate::store::{OpenOptions, Store};
use crate::testing::snapshot;

/// A tmpfs of 24 MB, taken down on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("tmpfs", home.path(), "tmpfs", flags, c"size=24m,mode=0700") {
            Ok(()) => Some(Self(home)),
            Err(error) => {
                eprintln!("SKIPPED: a small disk needs the right to mount one: {error}");
                None
            }
        }
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// Leaves not one block.
    fn fill(&self) {
        let mut file = File::create(self.0.path().join("junk")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn open(root: &Path) -> Store {
    Store::open(root, OpenOptions::new("test")).unwrap()
}

#[test]
fn a_full_disk_takes_nothing_half_and_can_be_emptied() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = open(&disk.root());
    let lease = store.lease("test").unwrap();
    let mut parent = None;
    for number in 0..40 {
        parent = Some(snapshot(&store, &lease, parent, 100_000));
        store.records().record(&record(&[&format!("step {number}")], parent)).unwrap();
    }
    drop(lease);
    let lease = store.lease("test").unwrap();
    disk.fill();

    let error = store.blobs_for(&lease, &wait_silently).put(&vec![7; 500_000]).unwrap_err();
    let error = std::io::Error::from(error);
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert!(error.to_string().starts_with("cannot write"), "it names what and where: {error}");
    drop(lease);
    let report = verify(&store);
    assert_eq!((report.problems, report.blobs), (vec![], 0));
    drop(store);

    // As the next command would.
    let store = open(&disk.root());
    let report = store.prune(&GcPolicy::new("full", PruneScope::All), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!((report.records.len(), report.layers), (40, 40));
    assert!(report.freed >= 4_000_000, "{}", report.freed);
    assert!(store.layout().reserve().exists(), "put aside again");
    let lease = store.lease("test").unwrap();
    store.blobs_for(&lease, &wait_silently).put(&vec![7; 500_000]).unwrap();
    assert_eq!(store.records().lookup(&key("step 1"), &lease).unwrap(), None);
    assert_sound(&store);
}
