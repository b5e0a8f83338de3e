//! What the host holds that a build or container could leave behind: mounts, cgroups, processes, interfaces.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What was there before. Compared after a test; differences that mention the test's own directory, or rbuild, count.
#[derive(Debug)]
pub(crate) struct Census {
    mark: String,
    before: BTreeSet<String>,
}

impl Census {
    /// Counts what belongs to the store below `root`.
    pub(crate) fn take(root: &Path) -> Self {
        let mark = root.display().to_string();
        let before = leftovers(&mark);
        Self { mark, before }
    }

    /// Fails when something is there that was not before. Teardown by the kernel may lag a moment.
    pub(crate) fn check(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let now = leftovers(&self.mark);
            let new: Vec<&String> = now.difference(&self.before).collect();
            if new.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left on the host: {new:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn leftovers(mark: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(mark)).map(|line| format!("mount: {line}")));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if !name.to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(mark) {
            found.insert(format!("process: {} {command}", name.to_string_lossy()));
        }
    }
    found
}
