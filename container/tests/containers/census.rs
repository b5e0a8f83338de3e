//! What a container must leave as it found it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::World;

/// Mounts, processes of this one's, the containers' cgroups, network namespaces, and the store's files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Census {
    mounts: String,
    processes: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Census {
    pub(crate) fn take(world: &World) -> Self {
        let mut files = BTreeSet::new();
        for area in ["containers", "volumes", "tmp", "leases", "locks"] {
            list(&world.store_root().join(area), &mut files);
        }
        let mut cgroups = BTreeSet::new();
        directories(Path::new("/sys/fs/cgroup"), &mut cgroups);
        cgroups.retain(|path| world.is_group(Path::new(path)));
        Self {
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            processes: descendants(std::process::id()),
            cgroups,
            files,
        }
    }

    /// The kernel takes a namespace down a moment after its last process: wait for that, then insist.
    pub(crate) fn assert_unchanged(&self, world: &World) {
        let start = Instant::now();
        loop {
            let now = Self::take(world);
            if *self == now {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(2), "left behind:\nbefore {self:#?}\nafter {now:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn list(directory: &Path, files: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            list(&path, files);
        }
        files.insert(path.display().to_string());
    }
}

fn directories(directory: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.insert(path.display().to_string());
            directories(&path, found);
        }
    }
}

/// Command names of all processes below `root`.
fn descendants(root: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let children = fs::read_dir(format!("/proc/{root}/task")).into_iter().flatten().flatten();
    for task in children {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.insert(format!("{pid} {}", name.trim()));
            found.extend(descendants(pid));
        }
    }
    found
}
