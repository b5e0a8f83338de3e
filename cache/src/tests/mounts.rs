//! Cache mounts.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{PATIENT, assert_sound};
use crate::gc::{GcPolicy, PruneMode, PruneScope};
use crate::lock::{LockError, wait_silently};
use crate::mount_cache::{CacheMount, CacheMountError, CacheMountRequest, MountSharing};
use crate::testing::TestStore;

fn request(id: &str, sharing: MountSharing) -> CacheMountRequest<'_> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let fill = &|path: &std::path::Path| fs::write(path.join("start"), "x");
    CacheMountRequest { id, base: None, sharing, mode: 0o1750, uid, gid, fill }
}

fn acquire(home: &TestStore, request: &CacheMountRequest<'_>) -> CacheMount {
    home.store.cache_mounts().acquire(request, &home.lease(), &wait_silently).unwrap()
}

#[test]
fn a_cache_starts_filled_and_keeps_what_is_written() {
    let home = TestStore::new();
    let mount = acquire(&home, &request("apt", MountSharing::Shared));
    assert_eq!(fs::metadata(mount.path()).unwrap().permissions().mode() & 0o7777, 0o1750);
    assert_eq!(rustix::fs::fstat(mount.directory()).unwrap().st_ino, fs::metadata(mount.path()).unwrap().ino());
    fs::remove_file(mount.path().join("start")).unwrap();
    fs::write(mount.path().join("kept"), "y").unwrap();
    drop(mount);
    let mount = acquire(&home, &request("apt", MountSharing::Shared));
    let names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
    let based = CacheMountRequest { base: Some("image"), ..request("apt", MountSharing::Shared) };
    assert!(acquire(&home, &based).path().join("start").exists(), "another start is another cache");
    assert_sound(&home.store);
}

#[test]
fn ids_are_never_paths() {
    let home = TestStore::new();
    let caches = home.store.layout().cache_mounts();
    for id in ["../../etc", "/", "", "a/../b", "\0", "é\n"] {
        let mount = acquire(&home, &request(id, MountSharing::Shared));
        let inside = mount.path().strip_prefix(&caches).unwrap().to_str().unwrap().to_owned();
        assert!(inside.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'/'), "{inside}");
    }
    assert_eq!(home.store.cache_mounts().list().unwrap().len(), 6);
}

#[test]
fn sharing_decides_who_gets_which_instance() {
    let home = TestStore::new();
    let instance = |mount: &CacheMount| mount.path().file_name().unwrap().to_str().unwrap().to_owned();
    let first = acquire(&home, &request("c", MountSharing::Shared));
    let second = acquire(&home, &request("c", MountSharing::Shared));
    let alone = acquire(&home, &request("c", MountSharing::Private));
    let third = acquire(&home, &request("c", MountSharing::Shared));
    assert_eq!([&first, &second, &alone, &third].map(instance), ["0", "0", "1", "0"]);
    drop((first, second, third));
    let alone_too = acquire(&home, &request("c", MountSharing::Private));
    assert_eq!(instance(&alone_too), "0");
    let stop = |_: &crate::lock::Waiting<'_>| ControlFlow::Break(());
    let refused = home.store.cache_mounts().acquire(&request("c", MountSharing::Locked), &home.lease(), &stop);
    assert!(matches!(refused.unwrap_err(), CacheMountError::Lock(LockError::Stopped { .. })));
    drop(alone_too);
    let locked = acquire(&home, &request("c", MountSharing::Locked));
    assert_eq!(instance(&locked), "0");
    assert_eq!(instance(&acquire(&home, &request("c", MountSharing::Shared))), "2", "0 and 1 are taken");
}

#[test]
fn used_caches_are_not_pruned() {
    let home = TestStore::new();
    let used = acquire(&home, &request("used", MountSharing::Shared));
    let idle = acquire(&home, &request("idle", MountSharing::Shared));
    fs::write(idle.path().join("large"), vec![1; 100_000]).unwrap();
    drop(idle);
    let none = GcPolicy { filters: vec!["type==regular".parse().unwrap()], ..GcPolicy::new("test", PruneScope::Cache) };
    assert_eq!(home.store.prune(&none, PruneMode::Apply, PATIENT).unwrap().mounts, []);
    let report = home.store.prune(&GcPolicy::new("test", PruneScope::Cache), PruneMode::Apply, PATIENT).unwrap();
    assert_eq!(report.mounts.iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), ["idle"]);
    assert!(report.freed >= 100_000, "{report:?}");
    assert!(used.path().exists());
    let listed = home.store.cache_mounts().list().unwrap();
    assert_eq!(listed.len(), 1);
    let busy = home.store.cache_mounts().remove(&listed[0], &home.lease()).unwrap_err();
    assert_eq!(busy.to_string(), "cache mount \"used\" is in use");
    assert_sound(&home.store);
}
