//! Whose cgroups are whose, and which of them nobody owns any more.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A spawner: its pid namespace, pid and start time, which together never come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    namespace: u64,
    pid: u32,
    started: u64,
}

impl Owner {
    pub(crate) fn current() -> Self {
        let pid = std::process::id();
        Self { namespace: pid_namespace(), pid, started: start_time(pid).unwrap_or(0) }
    }

    /// The name of its directory.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}-{}", self.namespace, self.pid, self.started)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let owner = Self {
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    /// Whether the owner can be known to be dead: only within one pid namespace do pids tell.
    fn is_dead(&self, current: &Self) -> bool {
        self.namespace == current.namespace && start_time(self.pid) != Some(self.started)
    }

    /// Kills and removes what dead owners left below `parent`.
    pub(crate) fn sweep(&self, parent: &Path) {
        let Ok(entries) = fs::read_dir(parent) else { return };
        for entry in entries.flatten() {
            let owner = entry.file_name().to_str().and_then(Self::parse);
            if owner.is_some_and(|owner| owner.is_dead(self)) {
                remove(&entry.path());
            }
        }
    }
}

/// Empties a group and the ones in it, and removes them.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1) {
        let _ = crate::sys::process::kill(pid, libc::SIGKILL);
    }
    if let Err(error) = fs::remove_dir(group) {
        // Its processes are dying; the next start finds it empty.
        tracing::debug!(group = %group.display(), %error, "a dead owner's cgroup stays for now");
    }
}

fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |ns| ns.ino())
}

/// Field 22 of `/proc/PID/stat`; the command before it may contain anything, so fields count from the last parenthesis.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_of_this_pid_namespace_can_be_dead() {
        let me = Owner::current();
        assert_eq!(Owner::parse(&me.name()), Some(me.clone()));
        assert!(!me.is_dead(&me));
        assert!(Owner { started: me.started + 1, ..me.clone() }.is_dead(&me));
        assert!(!Owner { namespace: 1, started: 1, ..me.clone() }.is_dead(&me));
        assert_eq!(Owner::parse("a-b"), None);
        assert_eq!(Owner::parse("1-2-3-4"), None);
    }
}
