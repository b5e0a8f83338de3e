//! A process joins the cgroups of a sandbox that runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::hierarchy::{CgroupVersion, Hierarchies};
use super::{JOIN_V1, PARENT, Warning};
use crate::plan::OutOfReach;
use crate::spawn_error::SpawnError;
use crate::user_namespace::{Powers, powers};

/// What somebody can do who may not join them.
const OTHER_SESSION: &str =
    "it belongs to another login session; use that one, or start both with systemd-run --user --scope";

/// Joins the groups that were made for the sandbox whose PID 1 is `pid`, as far as there are any.
pub(crate) fn join_sandbox(id: &str, pid: i32, out_of_reach: OutOfReach) -> Result<Option<Warning>, SpawnError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
        Ok(groups) => groups,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SpawnError::SandboxGone),
        Err(error) => return Err(SpawnError::setup("find the sandbox's cgroups", error)),
    };
    let hierarchies = Hierarchies::parse(&mountinfo, &groups);
    let file = if hierarchies.version() == CgroupVersion::V1 { JOIN_V1 } else { "cgroup.procs" };
    for group in made_for(id, &hierarchies) {
        match fs::write(group.join(file), "0") {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && powers() != Powers::All => {
                return match out_of_reach {
                    OutOfReach::Stay => Ok(Some(Warning::OtherCgroup { reason: OTHER_SESSION.to_owned() })),
                    OutOfReach::Refuse => Err(SpawnError::Limit {
                        limit: "of the container".to_owned(),
                        reason: format!("its cgroup cannot be joined: {OTHER_SESSION}"),
                    }),
                };
            }
            Err(error) => return Err(SpawnError::setup(&format!("join {}", group.display()), error)),
        }
    }
    Ok(None)
}

/// Those of a process's groups that were made for the sandbox, and the one that confines the devices of all sandboxes.
fn made_for(id: &str, of_process: &Hierarchies) -> Vec<PathBuf> {
    let groups: Vec<&Path> = match of_process.version() {
        CgroupVersion::V1 => of_process.v1().iter().map(|hierarchy| hierarchy.directory.as_path()).collect(),
        CgroupVersion::V2 => of_process.own_v2().into_iter().collect(),
        CgroupVersion::None => Vec::new(),
    };
    let device_gate = |group: &Path| {
        let above = group.parent().and_then(Path::parent);
        group.ends_with(super::DEVICES) && above.is_some_and(|above| above.ends_with(PARENT))
    };
    groups.into_iter().filter(|group| group.ends_with(id) || device_gate(group)).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(mountinfo: &str, groups: &str) -> Vec<String> {
        let found = made_for("box", &Hierarchies::parse(mountinfo, groups));
        found.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn only_groups_that_were_made_for_the_sandbox_are_joined() {
        let v1 = "21 20 0:20 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n22 20 0:21 / /cg/memory rw - cgroup cgroup rw,memory\n\
                  23 20 0:22 / /cg/devices rw - cgroup cgroup rw,devices\n";
        let groups = "4:devices:/a/rbuild/1-2-3/devices\n3:memory:/a/rbuild/1-2-3/box\n2:cpu,cpuacct:/a\n";
        assert_eq!(joined(v1, groups), ["/cg/memory/a/rbuild/1-2-3/box", "/cg/devices/a/rbuild/1-2-3/devices"]);
        assert_eq!(joined(v1, "4:devices:/other/devices\n3:memory:/box/below\n"), [""; 0]);
        let v2 = "9 8 0:9 / /cg rw - cgroup2 cgroup2 rw\n";
        assert_eq!(joined(v2, "0::/mine/box\n"), ["/cg/mine/box"]);
        assert_eq!(joined(v2, "0::/user.slice/session.scope\n"), [""; 0]);
    }
}
