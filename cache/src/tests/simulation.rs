//! Random operations in random order: the promises hold after each, and what is kept can be read.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::images::image;
use super::records::{key, record};
use super::{PATIENT, verify};
use crate::gc::{GcPolicy, ImageScope, PruneMode, PruneScope, Space};
use crate::id::SnapshotId;
use crate::lease::Lease;
use crate::lock::wait_silently;
use crate::roots::Kept;
use crate::testing::TestStore;

#[derive(Clone, Debug)]
enum Step {
    Lease(u8),
    Release(u8),
    Snapshot { lease: u8, parent: u8, size: u16 },
    Record { name: u8, snapshot: u8 },
    Lookup { name: u8, lease: u8 },
    Image { lease: u8, snapshot: u8, tag: u8 },
    Untag(u8),
    Root { owner: u8, snapshot: u8 },
    Unroot(u8),
    Put { lease: u8, content: u8 },
    Prune { all: bool, keep: Option<u16>, images: bool },
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0..4u8;
    prop_oneof![
        3 => small.clone().prop_map(Step::Lease),
        2 => small.clone().prop_map(Step::Release),
        4 => (small.clone(), any::<u8>(), 0..5000u16).prop_map(|(lease, parent, size)| Step::Snapshot { lease, parent, size }),
        4 => (small.clone(), any::<u8>()).prop_map(|(name, snapshot)| Step::Record { name, snapshot }),
        3 => (small.clone(), small.clone()).prop_map(|(name, lease)| Step::Lookup { name, lease }),
        2 => (small.clone(), any::<u8>(), small.clone()).prop_map(|(lease, snapshot, tag)| Step::Image { lease, snapshot, tag }),
        1 => small.clone().prop_map(Step::Untag),
        1 => (small.clone(), any::<u8>()).prop_map(|(owner, snapshot)| Step::Root { owner, snapshot }),
        1 => small.clone().prop_map(Step::Unroot),
        2 => (small.clone(), small.clone()).prop_map(|(lease, content)| Step::Put { lease, content }),
        3 => (any::<bool>(), any::<Option<u16>>(), any::<bool>()).prop_map(|(all, keep, images)| Step::Prune { all, keep, images }),
        1 => any::<u16>().prop_map(Step::Wait),
    ]
}

/// What the test knows to be usable: snapshots that a lease of its own holds.
#[derive(Default)]
struct World {
    leases: BTreeMap<u8, Lease>,
    held: BTreeMap<u8, Vec<SnapshotId>>,
}

impl World {
    fn some_held(&self, choice: u8) -> Option<SnapshotId> {
        let all: Vec<SnapshotId> = self.held.values().flatten().copied().collect();
        all.get(usize::from(choice) % all.len().max(1)).copied()
    }

    fn apply(&mut self, home: &TestStore, step: &Step) {
        let store = &home.store;
        match *step {
            Step::Lease(slot) => drop(self.leases.entry(slot).or_insert_with(|| home.lease())),
            Step::Release(slot) => {
                self.leases.remove(&slot);
                self.held.remove(&slot);
            }
            Step::Snapshot { lease: slot, parent, size } => {
                let parent = self.some_held(parent);
                if let Some(lease) = self.leases.get(&slot) {
                    self.held.entry(slot).or_default().push(home.snapshot(lease, parent, size.into()));
                }
            }
            Step::Record { name, snapshot } => {
                if let Some(snapshot) = self.some_held(snapshot) {
                    store.records().record(&record(&[&name.to_string()], Some(snapshot))).unwrap();
                }
            }
            Step::Lookup { name, lease: slot } => {
                if let Some(lease) = self.leases.get(&slot)
                    && let Some(found) = store.records().lookup(&key(&name.to_string()), lease).unwrap()
                {
                    self.held.entry(slot).or_default().extend(found.snapshot);
                }
            }
            Step::Image { lease: slot, snapshot, tag } => {
                if let (Some(lease), Some(snapshot)) = (self.leases.get(&slot), self.some_held(snapshot)) {
                    let record = image(home, lease, &format!("config {snapshot}"), Some(snapshot));
                    store.images().put(&record, &[format!("app:{tag}").parse().unwrap()]).unwrap();
                }
            }
            Step::Untag(tag) => drop(store.images().untag(&format!("app:{tag}").parse().unwrap())),
            Step::Root { owner, snapshot } => {
                if let Some(snapshot) = self.some_held(snapshot) {
                    store.roots().set(&owner.to_string(), &[Kept::Snapshot(snapshot)]).unwrap();
                }
            }
            Step::Unroot(owner) => store.roots().release(&owner.to_string()).unwrap(),
            Step::Put { lease: slot, content } => {
                if let Some(lease) = self.leases.get(&slot) {
                    store.blobs_for(lease, &wait_silently).put(&[content]).unwrap();
                }
            }
            Step::Prune { all, keep, images } => {
                let scope = if all { PruneScope::All } else { PruneScope::Cache };
                let images = if images { ImageScope::Dangling } else { ImageScope::None };
                let policy = GcPolicy {
                    max_used: keep.map(|keep| Space::Bytes(keep.into())),
                    images,
                    ..GcPolicy::new("simulated", scope)
                };
                store.prune(&policy, PruneMode::Apply, PATIENT).unwrap();
            }
            Step::Wait(seconds) => home.clock.advance(Duration::from_secs(seconds.into())),
        }
    }

    /// Every snapshot that a lease holds is there with its files, and so are all its parents.
    fn check(&self, home: &TestStore) {
        for snapshot in self.held.values().flatten() {
            let sql = "WITH RECURSIVE chain (parent, layer) AS (
                           SELECT parent, layer FROM snapshots WHERE id = ?1
                           UNION ALL SELECT s.parent, s.layer FROM snapshots s JOIN chain c ON s.id = c.parent)
                       SELECT path FROM layers l JOIN chain c ON c.layer = l.id";
            let paths: Vec<String> = home
                .store
                .db()
                .read(|tx| tx.all(sql, [snapshot], |row| row.get(0)))
                .map_err(|error: crate::DbError| error)
                .unwrap();
            assert!(!paths.is_empty(), "snapshot {snapshot} is gone");
            assert!(paths.iter().all(|path| home.store.layout().layer(path).join("file").exists()));
        }
        let report = verify(&home.store);
        assert_eq!(report.problems, []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_after_every_operation(steps in proptest::collection::vec(step(), 1..40)) {
        let home = TestStore::new();
        let mut world = World::default();
        for step in &steps {
            world.apply(&home, step);
            world.check(&home);
        }
        drop(world);
        // Nothing is held any more: with images and roots gone, everything goes.
        for image in home.store.images().list().unwrap() {
            home.store.images().remove(&image.record.id).unwrap();
        }
        for owner in home.store.roots().list().unwrap().keys() {
            home.store.roots().release(owner).unwrap();
        }
        home.store.prune(&GcPolicy::new("end", PruneScope::All), PruneMode::Apply, PATIENT).unwrap();
        let usage = home.store.du().unwrap();
        prop_assert_eq!((usage.layers, usage.blobs, usage.records.len()), (0, 0, 0));
    }
}
