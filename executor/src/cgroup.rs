//! Control groups of sandboxes: v1, v2, and hosts that have both.
//!
//! Each spawner owns one directory `rbuild/OWNER` in every hierarchy it uses, each sandbox one below it. OWNER names the
//! pid namespace, pid and start time of the spawner, so that a later spawner can tell a dead owner from a living one and
//! sweep what it left. On a hybrid host the v1 controllers are used. What the host does not offer is a warning when it is
//! our default, and an error when it was asked for.

mod device;
mod disks;
mod hierarchy;
mod join;
mod limits;
mod live;
mod owner;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub use hierarchy::CgroupVersion;
pub(crate) use hierarchy::Hierarchies;
pub(crate) use join::join_sandbox;
pub use live::{LiveSandbox, LiveUsage, thaw_leftover};
pub(crate) use owner::Owner;

use crate::plan::CgroupPlan;
use crate::spawn_error::SpawnError;
use crate::spec::DeviceRule;
use crate::sys::{self, bpf};

/// Our directory in each hierarchy.
const PARENT: &str = "rbuild";
/// The group in a spawner's directory whose devices are confined (v1).
const DEVICES: &str = "devices";
/// Where a process with one thread writes 0 to join a v1 group. `cgroup.procs` would do the same, but there the kernel keeps all
/// threads of the host from starting and ending meanwhile, and waits for an RCU grace period to do so: 5 to 30 ms.
const JOIN_V1: &str = "tasks";

/// What an ordinary user can do about limits.
pub(crate) const NOT_DELEGATED: &str = "this user may make no cgroups, so nothing is limited; \
    start rbuild with systemd-run --user --scope -p Delegate=yes, or as root";

/// Something of lesser importance that this host did not let us do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Warning {
    /// No cgroup could be made: no limits, no OOM report.
    #[error("no cgroup for {hierarchy}: {reason}; steps run without limits there")]
    NoCgroup {
        /// The controllers of the hierarchy.
        hierarchy: String,
        /// Why.
        reason: String,
    },
    /// An ordinary user was given no cgroup to make others in: no limits, no OOM report.
    #[error("{}", NOT_DELEGATED)]
    NotDelegated,
    /// A process that enters a sandbox stays in its caller's cgroup.
    #[error("the process does not count against the container's default limits: {reason}")]
    OtherCgroup {
        /// Why.
        reason: String,
    },
    /// The default limit on processes is not in force.
    #[error("the number of processes is not limited: {reason}")]
    NoProcessLimit {
        /// Why.
        reason: String,
    },
    /// Devices are kept away by other means: no device file works outside of `/dev`, and none can be made.
    #[error("device access is not confined by a cgroup ({reason}); device files do not work outside of /dev")]
    NoDeviceConfinement {
        /// Why.
        reason: String,
    },
}

/// The cgroups of one spawner.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchies: Hierarchies,
    owner: Owner,
    /// v1: [`JOIN_V1`] of the group whose devices are confined.
    device_gate: Option<Result<PathBuf, String>>,
    /// v2: the program that does it.
    device_filter: Option<Result<OwnedFd, String>>,
}

/// The cgroups of one sandbox; removed by [`SandboxCgroup::remove`].
#[derive(Debug)]
pub(crate) struct SandboxCgroup {
    directories: Vec<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    version: CgroupVersion,
    /// Where the first process writes itself.
    pub(crate) joins: Vec<PathBuf>,
    /// The v2 group that it is created in.
    pub(crate) into: Option<OwnedFd>,
    /// Whether devices other than the standard ones are out of reach.
    pub(crate) devices_confined: bool,
    /// Whether processes may be left when the first one has ended.
    kill_leftovers: bool,
    /// What `/sys/fs/cgroup` shows on v1: a name and the directory.
    pub(crate) shown: Vec<(String, PathBuf)>,
}

/// What the controllers saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupEvents {
    /// Processes killed for lack of memory.
    pub(crate) oom_kills: u64,
    /// The most memory that was in use, in bytes.
    pub(crate) memory_peak: Option<u64>,
    /// The most processes that there were at once (Linux 6.1 and later).
    pub(crate) pids_peak: Option<u64>,
}

impl Cgroups {
    /// Looks at the host and removes what dead spawners left.
    pub(crate) fn open() -> Self {
        let (hierarchies, owner) = (Hierarchies::detect(), Owner::current());
        for directory in hierarchies.directories() {
            owner.sweep(&directory.join(PARENT));
        }
        Self { hierarchies, owner, device_gate: None, device_filter: None }
    }

    /// Makes the groups of a sandbox and sets its limits.
    pub(crate) fn create(&mut self, id: &str, plan: &CgroupPlan) -> Result<(SandboxCgroup, Vec<Warning>), SpawnError> {
        let mut made = SandboxCgroup {
            directories: Vec::new(),
            memory: None,
            pids: None,
            version: self.hierarchies.version(),
            joins: Vec::new(),
            into: None,
            devices_confined: false,
            kill_leftovers: plan.kill_leftovers,
            shown: Vec::new(),
        };
        let mut warnings = Vec::new();
        let result = match self.hierarchies.version() {
            CgroupVersion::V1 => self.create_v1(id, plan, &mut made, &mut warnings),
            CgroupVersion::V2 => self.create_v2(id, plan, &mut made, &mut warnings),
            CgroupVersion::None => limits::none_available(plan, &mut warnings),
        };
        let result = result.and_then(|()| match plan.kill_leftovers && made.directories.is_empty() {
            false => Ok(()),
            true => Err(SpawnError::Unsupported {
                feature: "a cgroup of its own for a container that shares its process namespace (without one, nobody \
                          could tell which processes are the container's when it ends)"
                    .to_owned(),
            }),
        });
        match result {
            Ok(()) => Ok((made, warnings)),
            Err(error) => {
                made.remove();
                Err(error)
            }
        }
    }

    fn create_v1(
        &mut self,
        id: &str,
        plan: &CgroupPlan,
        made: &mut SandboxCgroup,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), SpawnError> {
        let parent = self.parent(plan)?;
        let mut available = Vec::new();
        for hierarchy in self.hierarchies.v1() {
            if !limits::wanted_v1(&hierarchy.controllers, &plan.limits) {
                continue;
            }
            let directory = hierarchy.directory.join(&parent).join(id);
            if let Err(error) = hierarchy::make_v1(hierarchy, &parent, id) {
                if self.hierarchies.denied(&error) {
                    return limits::not_delegated(plan, warnings);
                }
                let reason = format!("{}: {error}", directory.display());
                warnings.push(Warning::NoCgroup { hierarchy: hierarchy.controllers.join(","), reason });
                continue;
            }
            if hierarchy.controllers.iter().any(|c| c == "memory") {
                made.memory = Some(directory.clone());
            }
            if hierarchy.controllers.iter().any(|c| c == "pids") {
                made.pids = Some(directory.clone());
            }
            made.joins.push(directory.join(JOIN_V1));
            made.shown.push((hierarchy.label.clone(), directory.clone()));
            available.extend(hierarchy.controllers.iter().map(|c| (c.clone(), directory.clone())));
            made.directories.push(directory);
        }
        limits::apply_v1(plan, &available, warnings)?;
        if plan.confine_devices {
            match self.device_gate_for(id, &parent, plan, made) {
                Ok(gate) => {
                    made.joins.push(gate.clone());
                    made.devices_confined = true;
                }
                Err(reason) => warnings.push(Warning::NoDeviceConfinement { reason }),
            }
        }
        Ok(())
    }

    fn create_v2(
        &mut self,
        id: &str,
        plan: &CgroupPlan,
        made: &mut SandboxCgroup,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), SpawnError> {
        let parent = self.parent(plan)?;
        let Some(base) = self.hierarchies.v2() else { return limits::none_available(plan, warnings) };
        let directory = base.join(&parent).join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = hierarchy::make_v2(base, &parent, id)
            .and_then(|()| Ok(rustix::fs::open(&directory, flags, Mode::empty())?));
        match opened {
            Ok(fd) => made.into = Some(fd),
            Err(error) if self.hierarchies.denied(&error) => return limits::not_delegated(plan, warnings),
            Err(error) => {
                let reason = format!("{}: {error}", directory.display());
                warnings.push(Warning::NoCgroup { hierarchy: "cgroup v2".to_owned(), reason });
                return limits::none_available(plan, warnings);
            }
        }
        made.memory = Some(directory.clone());
        made.pids = Some(directory.clone());
        made.directories.push(directory.clone());
        if plan.confine_devices {
            let load = |rules: &[DeviceRule]| device::load_v2(rules).map_err(|error| error.to_string());
            let own = (!plan.devices.is_empty()).then(|| load(&plan.devices));
            let filter = match &own {
                Some(own) => own,
                None => self.device_filter.get_or_insert_with(|| load(&[])),
            };
            let attached = match (filter, &made.into) {
                (Ok(filter), Some(group)) => bpf::attach_device_filter(filter, group).map_err(|e| e.to_string()),
                (Err(reason), _) => Err(reason.clone()),
                (_, None) => Err("there is no group".to_owned()),
            };
            made.devices_confined = attached.is_ok();
            warnings.extend(attached.err().map(|reason| Warning::NoDeviceConfinement { reason }));
        }
        limits::apply_v2(plan, &directory, warnings)
    }

    /// The group below which sandboxes are made.
    fn parent(&self, plan: &CgroupPlan) -> Result<PathBuf, SpawnError> {
        let Some(given) = &plan.limits.cgroup_parent else {
            return Ok(Path::new(PARENT).join(self.owner.name()));
        };
        let relative = given.trim_matches('/');
        if relative.is_empty() || relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(SpawnError::Limit {
                limit: "cgroup-parent".to_owned(),
                reason: format!("{given:?} is not a path below the caller's cgroup"),
            });
        }
        Ok(relative.into())
    }

    /// The group that confines the devices of a sandbox: the common one, unless it may use more.
    fn device_gate_for(
        &mut self,
        id: &str,
        parent: &Path,
        plan: &CgroupPlan,
        made: &mut SandboxCgroup,
    ) -> Result<PathBuf, String> {
        if plan.devices.is_empty() {
            return self.device_gate().clone();
        }
        let devices = self.hierarchies.v1().iter().find(|h| h.controllers.iter().any(|c| c == "devices"));
        let Some(devices) = devices else { return Err("the devices controller is not mounted".to_owned()) };
        let directory = devices.directory.join(parent).join(id);
        device::confine_v1(&directory, &plan.devices).map_err(|error| format!("{}: {error}", directory.display()))?;
        made.directories.push(directory.clone());
        Ok(directory.join(JOIN_V1))
    }

    /// The group that every confined sandbox of this spawner joins; its rules are written once.
    fn device_gate(&mut self) -> &Result<PathBuf, String> {
        let (hierarchies, owner) = (&self.hierarchies, &self.owner);
        self.device_gate.get_or_insert_with(|| {
            let devices = hierarchies.v1().iter().find(|h| h.controllers.iter().any(|c| c == "devices"));
            let Some(devices) = devices else { return Err("the devices controller is not mounted".to_owned()) };
            let directory = devices.directory.join(PARENT).join(owner.name()).join(DEVICES);
            device::confine_v1(&directory, &[]).map_err(|error| format!("{}: {error}", directory.display()))?;
            Ok(directory.join(JOIN_V1))
        })
    }

    /// Removes the spawner's own directories.
    pub(crate) fn close(&mut self) {
        for directory in self.hierarchies.directories() {
            let own = directory.join(PARENT).join(self.owner.name());
            for path in [own.join(DEVICES), own, directory.join(PARENT)] {
                // Absent where nothing was made, not empty where others live.
                drop(fs::remove_dir(path));
            }
        }
        self.device_gate = None;
    }
}

impl SandboxCgroup {
    /// Which kind of groups these are.
    pub(crate) fn version(&self) -> CgroupVersion {
        self.version
    }

    /// What the controllers saw. Asked after the last process ended, before [`SandboxCgroup::remove`].
    pub(crate) fn events(&self) -> GroupEvents {
        let number = |text: &str| text.trim().parse().ok();
        let read = |group: &Option<PathBuf>, file: &str| fs::read_to_string(group.as_ref()?.join(file)).ok();
        let (events, peak) = match self.version {
            CgroupVersion::V1 => ("memory.oom_control", "memory.max_usage_in_bytes"),
            _ => ("memory.events", "memory.peak"),
        };
        let events = read(&self.memory, events).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        GroupEvents {
            oom_kills: kills.and_then(number).unwrap_or(0),
            memory_peak: read(&self.memory, peak).as_deref().and_then(number),
            pids_peak: read(&self.pids, "pids.peak").as_deref().and_then(number),
        }
    }

    /// Kills what is left when the first process has ended and its process namespace has not: nothing starts any more, and what
    /// runs is killed until nothing does.
    pub(crate) fn kill_leftovers(&self) {
        const ATTEMPTS: u32 = 2000;
        if !self.kill_leftovers {
            return;
        }
        if let Some(pids) = &self.pids {
            drop(fs::write(pids.join("pids.max"), "0"));
        }
        for directory in &self.directories {
            // Linux 5.14; where it is not there the loop does the same.
            drop(fs::write(directory.join("cgroup.kill"), "1"));
            for _ in 0..ATTEMPTS {
                let mut left = BTreeSet::new();
                if live::collect(directory, &mut left).is_err() || left.is_empty() {
                    break;
                }
                for pid in left.into_iter().filter_map(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1) {
                    let _ = sys::process::kill(pid, libc::SIGKILL);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Removes the groups, which are empty once the pid namespace is gone; the kernel may need a moment to notice.
    pub(crate) fn remove(&mut self) {
        const ATTEMPTS: u32 = 50;
        for directory in self.directories.drain(..) {
            for attempt in 0..ATTEMPTS {
                match fs::remove_dir(&directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt + 1 < ATTEMPTS => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(directory = %directory.display(), %error, "a cgroup stays behind");
                        break;
                    }
                    _ => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_say_what_does_not_hold() {
        let reason = || "read-only file system".to_owned();
        let warnings = [
            Warning::NoCgroup { hierarchy: "memory".to_owned(), reason: reason() },
            Warning::NotDelegated,
            Warning::OtherCgroup { reason: reason() },
            Warning::NoProcessLimit { reason: reason() },
            Warning::NoDeviceConfinement { reason: reason() },
        ];
        let words: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        no cgroup for memory: read-only file system; steps run without limits there
        this user may make no cgroups, so nothing is limited; start rbuild with systemd-run --user --scope -p Delegate=yes, or as root
        the process does not count against the container's default limits: read-only file system
        the number of processes is not limited: read-only file system
        device access is not confined by a cgroup (read-only file system); device files do not work outside of /dev
        ");
    }
}
