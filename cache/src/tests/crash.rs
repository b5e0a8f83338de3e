//! Death and failure at each durable step: only garbage is left, and the next attempt succeeds.

use std::path::Path;

use rbuild_image::Digest;

use super::ingest::{SIZE, content};
use super::{PATIENT, assert_sound, verify};
use crate::gc::{GcPolicy, PruneMode};
use crate::store::{OpenOptions, Store};
use crate::testing::TestChild;

const INGEST: [&str; 5] = ["ingest-sync", "ingest-rename", "ingest-sync-directory", "ingest-name", "ingest-done"];
const COMMIT: [&str; 5] = ["layer-sync", "layer-rename", "layer-sync-directory", "layer-name", "layer-done"];
const PUT: [&str; 4] = ["put-sync", "put-rename", "put-sync-directory", "put-name"];
/// Abort, ENOSPC, EIO.
const ACTIONS: [&str; 3] = ["abort", "28", "5"];

fn open(root: &Path) -> Store {
    Store::open(root, OpenOptions::new("test")).unwrap()
}

#[test]
fn ingest_survives_death_and_errors_at_every_step() {
    for point in INGEST {
        for action in ACTIONS {
            let home = tempfile::tempdir().unwrap();
            let root = home.path().join("store");
            let mut child =
                TestChild::start(&["ingest", root.to_str().unwrap(), &format!("failpoints:{point}={action}")]);
            assert!(!child.ended_well(), "{point}={action} must be fatal");
            let store = open(&root);
            assert_sound(&store);
            let there = store.blobs().len(&Digest::sha256(content())).is_ok();
            assert_eq!(there, point == "ingest-done", "{point}={action}: visible exactly when it is named");
            assert!(TestChild::start(&["ingest", root.to_str().unwrap()]).ended_well(), "{point}={action}");
            assert_eq!(store.blobs().len(&Digest::sha256(content())).unwrap(), SIZE as u64);
            assert_sound(&store);
        }
    }
}

#[test]
fn documents_survive_death_and_errors_at_every_step() {
    for point in PUT {
        for action in ACTIONS {
            let home = tempfile::tempdir().unwrap();
            let root = home.path().join("store");
            let mut child = TestChild::start(&["put", root.to_str().unwrap(), &format!("failpoints:{point}={action}")]);
            assert!(!child.ended_well(), "{point}={action} must be fatal");
            let store = open(&root);
            assert_sound(&store);
            assert_eq!(store.blobs().list().unwrap(), [], "{point}={action}");
            store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
            assert_eq!(verify(&store).garbage, [] as [std::path::PathBuf; 0], "{point}={action}");
            assert!(TestChild::start(&["put", root.to_str().unwrap()]).ended_well());
            assert_eq!(store.blobs().list().unwrap().len(), 2);
        }
    }
}

#[test]
fn a_commit_survives_death_and_errors_at_every_step() {
    for point in COMMIT {
        for action in ACTIONS {
            let home = tempfile::tempdir().unwrap();
            let root = home.path().join("store");
            let mut child =
                TestChild::start(&["commit", root.to_str().unwrap(), &format!("failpoints:{point}={action}")]);
            assert!(!child.ended_well(), "{point}={action} must be fatal");
            let store = open(&root);
            assert_sound(&store);
            assert_eq!(store.records().list().unwrap(), [], "{point}={action}: nothing leads to it");
            // Left behind with a name only where its row says so.
            let named = verify(&store).layers;
            assert_eq!(named, usize::from(point == "layer-done"), "{point}={action}");
            std::thread::sleep(std::time::Duration::from_millis(1100));
            store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
            let report = verify(&store);
            assert_eq!((report.problems, report.layers), (vec![], 0), "{point}={action}");
            assert_eq!(std::fs::read_dir(store.layout().layers()).unwrap().count(), 0, "{point}={action}");
            assert!(TestChild::start(&["commit", root.to_str().unwrap()]).ended_well(), "{point}={action}");
            assert_eq!(store.records().list().unwrap().len(), 1);
            assert_sound(&store);
        }
    }
}

#[test]
fn collection_survives_death_at_every_step() {
    for point in ["gc-rows", "gc-layer", "gc-blob"] {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("store");
        let store = open(&root);
        assert!(TestChild::start(&["put", root.to_str().unwrap()]).ended_well());
        let mut leasing = TestChild::start(&["lease", root.to_str().unwrap()]);
        leasing.expect("leased");
        leasing.kill();
        let mut child = TestChild::start(&["prune", root.to_str().unwrap(), &format!("failpoints:{point}=abort")]);
        assert!(!child.ended_well(), "{point}");
        assert_sound(&open(&root));
        // What was touched hardly before the collection's own lease began is left to the next one.
        std::thread::sleep(std::time::Duration::from_millis(100));
        store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
        let report = verify(&store);
        assert_eq!((report.problems, report.blobs, report.layers), (vec![], 0, 0), "{point}");
        assert_eq!(report.garbage, [] as [std::path::PathBuf; 0], "{point}");
        for directory in [store.layout().layers(), store.layout().blobs(rbuild_image::Algorithm::Sha256)] {
            assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0, "{point}");
        }
    }
}
