//! Leases and what becomes of them.

use std::io;
use std::sync::{Arc, Mutex};

use super::{PATIENT, assert_sound};
use crate::gc::{GcPolicy, PruneMode};
use crate::lease::Reap;
use crate::store::{OpenOptions, Store};
use crate::testing::{TestChild, TestStore};

#[derive(Default)]
struct Reaped {
    seen: Mutex<Vec<(String, String)>>,
    refuse: bool,
}

impl Reap for Reaped {
    fn reap(&self, kind: &str, name: &str) -> io::Result<()> {
        self.seen.lock().unwrap().push((kind.to_owned(), name.to_owned()));
        if self.refuse { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }
}

fn open_with(home: &TestStore, reaper: Arc<Reaped>) -> Store {
    let mut options = OpenOptions::new("test");
    options.reaper = Some(reaper);
    Store::open(home.root(), options).unwrap()
}

#[test]
fn a_live_lease_keeps_its_things_and_a_dead_one_is_swept_by_the_next_open() {
    let home = TestStore::new();
    let mut child = TestChild::start(&["lease", home.root().to_str().unwrap()]);
    child.expect("leased");
    let refusing = Arc::new(Reaped { refuse: true, ..Reaped::default() });
    let store = open_with(&home, refusing.clone());
    store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!(store.leases().unwrap().len(), 1);
    assert_eq!(store.du().unwrap().layers, 1000, "the child's snapshot");
    let scratch = store.layout().scratch(&store.leases().unwrap()[0].id);
    assert!(scratch.exists());
    assert!(refusing.seen.lock().unwrap().is_empty());

    child.kill();
    assert_eq!(store.leases().unwrap().len(), 0, "void at once");
    drop(open_with(&home, refusing.clone()));
    assert_eq!(*refusing.seen.lock().unwrap(), [("cgroup".to_owned(), "a b\n".to_owned())]);
    assert!(scratch.exists(), "nothing is forgotten while something outside is left");
    let reaping = Arc::new(Reaped::default());
    drop(open_with(&home, reaping.clone()));
    assert_eq!(reaping.seen.lock().unwrap().len(), 1);
    assert!(!scratch.exists());
    drop(open_with(&home, reaping.clone()));
    assert_eq!(reaping.seen.lock().unwrap().len(), 1, "once");
    store.prune(&GcPolicy::garbage(), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!(store.du().unwrap().layers, 0);
    assert_sound(&store);
}

#[test]
fn an_ended_lease_leaves_nothing() {
    let home = TestStore::new();
    let lease = home.lease();
    std::fs::create_dir(lease.scratch_name("x").unwrap()).unwrap();
    assert_ne!(lease.scratch_name("x").unwrap(), lease.scratch_name("x").unwrap());
    drop(lease);
    assert_eq!(std::fs::read_dir(home.store.layout().leases()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(home.store.layout().tmp()).unwrap().count(), 1, "only ingest");
}
