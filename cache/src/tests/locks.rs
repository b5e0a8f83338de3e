//! Locks between processes.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::lock::{LockError, LockMode, LockName, wait_silently};
use crate::testing::{TestChild, TestStore};

#[test]
fn a_waiter_learns_who_holds_the_lock_and_gets_it_when_the_holder_is_killed() {
    let home = TestStore::new();
    let root = home.root().to_str().unwrap();
    let mut child = TestChild::start(&["lock", root, "x"]);
    child.expect("locked");
    let name = LockName::other("test", "x");
    assert!(home.store.try_lock(&name, LockMode::Exclusive).unwrap().is_none());
    assert!(home.store.try_lock(&name, LockMode::Shared).unwrap().is_none());
    assert!(home.store.try_lock(&LockName::other("test", "y"), LockMode::Exclusive).unwrap().is_some());

    let stopped = home.store.lock(&name, LockMode::Exclusive, &|_| ControlFlow::Break(()));
    let Err(LockError::Stopped { holder: Some(holder), .. }) = stopped else { panic!("{stopped:?}") };
    assert_eq!((holder.pid, holder.command.as_str()), (child.pid(), "child lock"));

    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| home.store.lock(&name, LockMode::Exclusive, &wait_silently).map(drop));
        std::thread::sleep(Duration::from_millis(30));
        let killed = Instant::now();
        child.kill();
        waiter.join().unwrap().unwrap();
        assert!(killed.elapsed() < Duration::from_secs(2), "the kernel frees a dead process's lock");
    });
    assert_eq!(home.store.holder(&name), None, "the last one leaves no file");
}

#[test]
fn shared_holders_keep_the_lock_file_for_each_other() {
    let home = TestStore::new();
    let name = LockName::other("test", "shared");
    let first = home.store.try_lock(&name, LockMode::Shared).unwrap().unwrap();
    let second = home.store.try_lock(&name, LockMode::Shared).unwrap().unwrap();
    drop(first);
    assert!(home.store.try_lock(&name, LockMode::Exclusive).unwrap().is_none(), "one of them is still there");
    drop(second);
    assert!(home.store.try_lock(&name, LockMode::Exclusive).unwrap().is_some());
    assert_eq!(std::fs::read_dir(home.store.layout().locks()).unwrap().count(), 0);
}

#[test]
fn locked_sections_of_many_processes_do_not_overlap() {
    let home = TestStore::new();
    let file = home.root().join("../number");
    std::fs::write(&file, "0").unwrap();
    let arguments = ["count", home.root().to_str().unwrap(), file.to_str().unwrap()];
    let mut children: Vec<TestChild> = (0..6).map(|_| TestChild::start(&arguments)).collect();
    assert!(children.iter_mut().all(TestChild::ended_well));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "600");
}

#[test]
fn lock_files_of_killed_processes_are_swept() {
    let home = TestStore::new();
    let mut child = TestChild::start(&["lock", home.root().to_str().unwrap(), "x"]);
    child.expect("locked");
    home.store.locks().remove_unheld().unwrap();
    assert_eq!(std::fs::read_dir(home.store.layout().locks()).unwrap().count(), 1);
    child.kill();
    assert_eq!(std::fs::read_dir(home.store.layout().locks()).unwrap().count(), 1);
    home.store.locks().remove_unheld().unwrap();
    assert_eq!(std::fs::read_dir(home.store.layout().locks()).unwrap().count(), 0);
}
