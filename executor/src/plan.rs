//! A [`SandboxSpec`] as ordered set-up steps. Pure: what depends on the machine comes in as [`HostFacts`].
//!
//! The order matters. The root is mounted and everything else is mounted into it by descriptor; masks come after
//! the caller's mounts, so that none of them uncovers what is masked; the root becomes read-only last, so that mount points
//! can be made; then the old root goes away.

mod exec;
mod kernel;

use std::path::PathBuf;

use rbuild_image::ContainerPath;
use serde::{Deserialize, Serialize};

pub use exec::{ExecPlan, ExecStep, OutOfReach, exec};
pub use kernel::{MASKED_PATHS, READ_ONLY_PATHS};

use crate::capability::Capabilities;
use crate::id_map::IdMap;
use crate::rlimit;
use crate::spawn_error::SpawnError;
use crate::spec::{
    Access, AppArmor, DOCKER_DEFAULT_PROFILE, DeviceRule, Durability, HostDevice, Ids, Init, IpcNamespace, KernelPaths,
    Mount, MountPoint, MountSource, NameNamespace, NetworkMode, ProcessNamespace, ProcessSpec, Resources, Rlimit,
    Rootfs, SandboxSpec, Seccomp,
};

/// What a plan depends on of the machine and the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The caller's bounding set.
    pub bounding: Capabilities,
    /// Numbers of the processors whose `thermal_throttle` directory exists and is to be masked.
    pub throttled_cpus: Vec<u32>,
    /// Whether the kernel has time namespaces.
    pub time_namespaces: bool,
    /// Highest pids limit that is set by default, when nothing else was asked for.
    pub default_pids: Option<u64>,
    /// Names of the AppArmor profiles that are loaded; `None` where AppArmor is not enabled.
    pub apparmor: Option<Vec<String>>,
    /// The ids of a user namespace other than the initial one, which limits what its root may do.
    pub user_namespace: Option<IdMap>,
    /// Limit on open files, soft and hard, of programs that are given none; the spawner's own where there is none.
    pub open_files: Option<(u64, u64)>,
}

impl HostFacts {
    /// Where overlays keep their marks here.
    pub fn overlay_marks(&self) -> OverlayMarks {
        match self.user_namespace {
            None => OverlayMarks::Trusted,
            Some(_) => OverlayMarks::User,
        }
    }
}

/// What the process that starts sandboxes is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Plan {
    /// A new sandbox.
    Sandbox(Box<SetupPlan>),
    /// One more process in a sandbox.
    Exec(Box<ExecPlan>),
}

/// Everything that has to be done for a sandbox, in order, as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupPlan {
    /// Names the cgroup.
    pub id: String,
    /// Namespaces that the first process is created in.
    pub namespaces: Vec<Namespace>,
    /// A network namespace to enter.
    pub network: Option<PathBuf>,
    /// Namespaces of other sandboxes.
    pub joins: Joins,
    /// Where overlays keep their marks.
    pub overlay_marks: OverlayMarks,
    /// Limits and device access.
    pub cgroup: CgroupPlan,
    /// What the first process does before the program starts.
    pub steps: Vec<Step>,
    /// The program.
    pub process: ProcessPlan,
    /// Bytes that steps refer to; kept out of the text.
    #[serde(skip)]
    pub blob: Vec<u8>,
}

/// Namespaces that a sandbox shares with others, each by the path of its `ns` file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joins {
    /// Whose processes it sees.
    pub processes: Option<PathBuf>,
    /// Whose messages and shared memory it has.
    pub ipc: Option<PathBuf>,
    /// The mount namespace whose `/dev/shm` it shows.
    pub mounts: Option<PathBuf>,
}

/// The attributes in which overlayfs marks opaque directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverlayMarks {
    /// `trusted.overlay.*`, which only root of the initial user namespace may write.
    Trusted,
    /// `user.overlay.*` (mount option `userxattr`, Linux 5.11).
    User,
}

/// A namespace of the sandbox's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Mounts.
    Mount,
    /// Processes.
    Pid,
    /// System V IPC and message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Interfaces, routes, sockets.
    Net,
    /// The monotonic and boot clocks, with the host's time.
    Time,
    /// The view of the cgroup tree; entered after the process joined its cgroups.
    Cgroup,
    /// Users and groups. A sandbox is in its owner's; a process that enters it may come from another.
    User,
}

/// What cgroups have to enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Limits the caller asked for: an error when they cannot be applied.
    pub limits: Resources,
    /// A process limit that is only a default: a warning when it cannot be applied.
    pub default_pids: Option<u64>,
    /// Whether devices other than the standard ones are out of reach.
    pub confine_devices: bool,
    /// Devices that are within reach nevertheless.
    pub devices: Vec<DeviceRule>,
    /// Whether its processes may outlive its first one, so that they have to be killed.
    pub kill_leftovers: bool,
}

/// One step inside the new namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Mounts the root and puts it in place.
    Root(Rootfs, Durability),
    /// Puts a mount in place that came along as the root.
    ReadyRoot {
        /// Which of those that came along.
        mount: usize,
        /// The directory that takes the changes.
        upper: PathBuf,
    },
    /// Mounts `/proc`.
    Proc,
    /// Writes a value below `/proc/sys`, while nothing covers it.
    Sysctl {
        /// Path below `/proc/sys`.
        name: String,
        /// The value.
        value: String,
    },
    /// The same for a value that was asked for: one that cannot be set is an error.
    AskedSysctl {
        /// Path below `/proc/sys`.
        name: String,
        /// The value.
        value: String,
    },
    /// How readily the kernel kills the process for lack of memory.
    OomScoreAdj(i32),
    /// Brings `lo` up.
    LoopbackUp,
    /// Mounts `/dev` with its nodes and links.
    Dev {
        /// Devices in it.
        nodes: Vec<DeviceNode>,
        /// Where they come from.
        origin: DeviceOrigin,
    },
    /// Makes device files in `/dev` that were asked for.
    HostDevices(Vec<HostDevice>),
    /// Mounts `/dev/pts`.
    DevPts,
    /// Makes the terminal and binds it to `/dev/console`.
    Terminal,
    /// Mounts `/dev/shm`.
    DevShm {
        /// Size in bytes.
        size: u64,
    },
    /// Shows the `/dev/shm` of another sandbox.
    SharedShm,
    /// Mounts `/dev/mqueue`.
    DevMqueue,
    /// Mounts `/sys`.
    Sys(Access),
    /// Shows the host's `/sys`, read-only: a network namespace of the host's belongs to another user namespace, whose root
    /// alone may mount a `/sys` for it.
    HostSys,
    /// Mounts `/sys/fs/cgroup`.
    SysCgroup(Access),
    /// Mounts something of the caller's.
    Mount(MountStep),
    /// Hides a file or directory of `/proc` or `/sys`, if it exists.
    Mask(ContainerPath),
    /// Makes a file or directory of `/proc` read-only, if it exists.
    ReadOnlyPath(ContainerPath),
    /// Makes the root itself read-only.
    RootReadOnly,
    /// Makes the root the only thing there is.
    Pivot,
    /// Sets the host name.
    Hostname(String),
    /// Sets the NIS domain name.
    Domainname(String),
}

/// Where the device files of `/dev` come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceOrigin {
    /// They are made.
    Made,
    /// They are the host's, which root of a user namespace can show but not make.
    Host,
}

/// Whether the program's supplementary groups can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Groups {
    /// They are exactly those of the specification.
    Set,
    /// A user namespace with one id cannot set any: they stay as they are, and mean nothing inside.
    Kept,
}

/// What becomes of a working directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingCwd {
    /// It is made.
    Make,
    /// The process does not start.
    Refuse,
}

/// A character device below `/dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path below `/dev`.
    pub name: String,
    /// Block instead of character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// A mount of the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStep {
    /// Where.
    pub target: ContainerPath,
    /// What.
    pub source: PlannedSource,
    /// Whether it can be written.
    pub access: Access,
    /// What becomes of a mount point that had to be made.
    pub mount_point: MountPoint,
}

/// A [`MountSource`] whose bytes lie in the plan's blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlannedSource {
    /// Everything but a file.
    Spec(MountSource),
    /// A mount that came along, or something in it.
    Ready {
        /// Which of those that came along.
        mount: usize,
        /// The directory that takes the changes.
        upper: PathBuf,
        /// What of it is mounted.
        subpath: ContainerPath,
    },
    /// A file in memory.
    File {
        /// Where its bytes begin in the blob.
        offset: usize,
        /// How many there are.
        length: usize,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// The program and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: ContainerPath,
    /// What if that is missing.
    pub missing_cwd: MissingCwd,
    /// Its ids.
    pub user: Ids,
    /// Whether its groups can be set.
    pub groups: Groups,
    /// Its bounding set; also permitted and effective when it is root.
    pub capabilities: Capabilities,
    /// Whether exec can add privileges.
    pub no_new_privileges: bool,
    /// Its filter.
    pub seccomp: Seccomp,
    /// The AppArmor profile to take on, if any.
    pub apparmor: Option<String>,
    /// Limits by number.
    pub rlimits: Vec<rlimit::Planned>,
    /// Who is PID 1.
    pub init: Init,
}

/// Turns a specification into a plan.
pub fn plan(spec: &SandboxSpec, host: &HostFacts) -> Result<SetupPlan, SpawnError> {
    check(spec)?;
    let mut blob = Vec::new();
    let allowed = Allowed {
        capabilities: &spec.confinement.capabilities,
        no_new_privileges: spec.confinement.no_new_privileges,
        seccomp: &spec.confinement.seccomp,
        apparmor: &spec.confinement.apparmor,
    };
    let process = process(&spec.process, &allowed, (spec.init, MissingCwd::Make), host)?;
    let masked = spec.confinement.kernel_paths == KernelPaths::Masked;
    let asked = &spec.exceptions;
    let own = [
        (true, Namespace::Mount),
        (asked.processes == ProcessNamespace::Own, Namespace::Pid),
        (matches!(asked.ipc, IpcNamespace::Own | IpcNamespace::WithoutShm), Namespace::Ipc),
        (asked.names == NameNamespace::Own, Namespace::Uts),
    ];
    let mut namespaces: Vec<Namespace> = own.into_iter().filter(|(own, _)| *own).map(|(_, kind)| kind).collect();
    let mut steps = vec![Step::Root(spec.rootfs.clone(), spec.durability), Step::Proc];
    steps.extend(asked.oom_score_adj.map(Step::OomScoreAdj));
    match &spec.network {
        NetworkMode::None => {
            namespaces.push(Namespace::Net);
            steps.push(Step::LoopbackUp);
            steps.extend(kernel::network_sysctls(host));
        }
        NetworkMode::Path(_) => steps.extend(kernel::network_sysctls(host)),
        NetworkMode::Host => {}
    }
    let sysctls = asked.sysctls.iter().map(|(name, value)| (name.clone(), value.clone()));
    steps.extend(sysctls.map(|(name, value)| Step::AskedSysctl { name, value }));
    if host.time_namespaces {
        namespaces.push(Namespace::Time);
    }
    namespaces.push(Namespace::Cgroup);
    steps.extend(kernel::file_systems(spec, host));
    steps.extend(spec.mounts.iter().map(|mount| Step::Mount(mount_step(mount, &mut blob))));
    if masked {
        steps.extend(kernel::masks(&host.throttled_cpus));
    }
    if spec.root_access == Access::ReadOnly {
        steps.push(Step::RootReadOnly);
    }
    steps.push(Step::Pivot);
    if asked.names == NameNamespace::Own {
        steps.push(Step::Hostname(spec.hostname.clone()));
        steps.extend(asked.domainname.clone().map(Step::Domainname));
    }
    Ok(SetupPlan {
        id: spec.id.clone(),
        namespaces,
        network: match &spec.network {
            NetworkMode::Path(path) => Some(path.clone()),
            _ => None,
        },
        joins: joins(spec),
        overlay_marks: host.overlay_marks(),
        cgroup: CgroupPlan {
            limits: spec.resources.clone(),
            default_pids: if spec.resources.pids.is_none() { host.default_pids } else { None },
            // The kernel opens no device file that was made in a user namespace.
            confine_devices: masked && host.user_namespace.is_none(),
            devices: asked.devices.iter().map(HostDevice::rule).chain(asked.device_rules.iter().copied()).collect(),
            kill_leftovers: asked.processes != ProcessNamespace::Own,
        },
        steps,
        process,
        blob,
    })
}

fn joins(spec: &SandboxSpec) -> Joins {
    let processes = match &spec.exceptions.processes {
        ProcessNamespace::Path(path) => Some(path.clone()),
        ProcessNamespace::Own | ProcessNamespace::Host => None,
    };
    match &spec.exceptions.ipc {
        IpcNamespace::Of { ipc, mounts } => Joins { processes, ipc: Some(ipc.clone()), mounts: Some(mounts.clone()) },
        _ => Joins { processes, ..Joins::default() },
    }
}

impl SetupPlan {
    /// Uses mounts that come along, in this order, instead of mounting overlays: the root first, then the caller's mounts.
    /// An overlay without lower directories is its upper one, and needs no other mount.
    pub(crate) fn use_ready_mounts(&mut self) {
        let mut next = 0..;
        let mut take = || next.next().expect("it has no end");
        for step in &mut self.steps {
            match step {
                Step::Root(Rootfs::Overlay { lowers, upper, .. }, _) if !lowers.is_empty() => {
                    *step = Step::ReadyRoot { mount: take(), upper: std::mem::take(upper) };
                }
                Step::Mount(MountStep { source, .. }) => {
                    if let PlannedSource::Spec(MountSource::Overlay { lowers, upper, subpath, .. }) = source
                        && !lowers.is_empty()
                    {
                        let (upper, subpath) = (std::mem::take(upper), subpath.clone());
                        *source = PlannedSource::Ready { mount: take(), upper, subpath };
                    }
                }
                _ => {}
            }
        }
    }
}

/// What a process may do, of whichever specification.
struct Allowed<'a> {
    capabilities: &'a [String],
    no_new_privileges: bool,
    seccomp: &'a Seccomp,
    apparmor: &'a AppArmor,
}

/// The same for the process of a new sandbox and for one that enters a sandbox.
fn process(
    process: &ProcessSpec,
    allowed: &Allowed<'_>,
    (init, missing_cwd): (Init, MissingCwd),
    host: &HostFacts,
) -> Result<ProcessPlan, SpawnError> {
    check_process(process)?;
    check_ids(process, host)?;
    // The engine raised its own limit; what it was given goes on to programs.
    let kept = host.open_files.filter(|_| process.rlimits.iter().all(|limit| limit.name != "NOFILE"));
    let inherited = kept.map(|(soft, hard)| Rlimit { name: "NOFILE".to_owned(), soft, hard });
    let rlimits = process.rlimits.iter().chain(&inherited).map(|limit| {
        rlimit::plan(limit).ok_or_else(|| invalid(format!("there is no resource limit {:?}", limit.name)))
    });
    Ok(ProcessPlan {
        argv: process.argv.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        missing_cwd,
        user: process.user.clone(),
        groups: if host.user_namespace.as_ref().is_some_and(IdMap::is_single) { Groups::Kept } else { Groups::Set },
        capabilities: capabilities(allowed.capabilities)?.intersection(host.bounding),
        no_new_privileges: allowed.no_new_privileges,
        apparmor: apparmor(allowed.apparmor, host.apparmor.as_deref())?,
        seccomp: allowed.seccomp.clone(),
        rlimits: rlimits.collect::<Result<_, _>>()?,
        init,
    })
}

fn capabilities(names: &[String]) -> Result<Capabilities, SpawnError> {
    Capabilities::from_names(names).map_err(|name| invalid(format!("there is no capability {name:?}")))
}

/// The profile to take on. One that was asked for and is not there is an error, never skipped.
fn apparmor(wanted: &AppArmor, loaded: Option<&[String]>) -> Result<Option<String>, SpawnError> {
    let has = |name: &str| loaded.is_some_and(|loaded| loaded.iter().any(|profile| profile == name));
    match (wanted, loaded) {
        (AppArmor::Unconfined, _) => Ok(None),
        (AppArmor::HostDefault, _) => Ok(has(DOCKER_DEFAULT_PROFILE).then(|| DOCKER_DEFAULT_PROFILE.to_owned())),
        (AppArmor::Profile(name), Some(_)) if has(name) => Ok(Some(name.clone())),
        (AppArmor::Profile(name), Some(_)) => {
            Err(invalid(format!("the AppArmor profile {name:?} is not loaded on this host (apparmor_parser loads it)")))
        }
        (AppArmor::Profile(name), None) => {
            Err(SpawnError::Unsupported { feature: format!("AppArmor (the profile {name:?} was asked for)") })
        }
    }
}

fn mount_step(mount: &Mount, blob: &mut Vec<u8>) -> MountStep {
    let source = match &mount.source {
        MountSource::File { content, mode, uid, gid } => {
            let offset = blob.len();
            blob.extend_from_slice(content);
            PlannedSource::File { offset, length: content.len(), mode: *mode, uid: *uid, gid: *gid }
        }
        other => PlannedSource::Spec(other.clone()),
    };
    MountStep { target: mount.target.clone(), source, access: mount.access, mount_point: mount.mount_point }
}

/// Refuses what no set-up could make sense of.
fn check(spec: &SandboxSpec) -> Result<(), SpawnError> {
    check_id(&spec.id)?;
    if let Some(mount) = spec.mounts.iter().find(|mount| mount.target.is_root()) {
        return Err(invalid(format!("nothing can be mounted at {}", mount.target)));
    }
    let device = |name: &str| name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if let Some(device) = spec.exceptions.devices.iter().find(|one| device(&one.name)) {
        return Err(invalid(format!("/dev/{} is no place for a device", device.name)));
    }
    if spec.hostname.len() > 64 {
        return Err(invalid(format!("the host name {:?} is longer than 64 bytes", spec.hostname)));
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), SpawnError> {
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if id.is_empty() || id.len() > 64 || !id.chars().all(named) {
        return Err(invalid(format!("the id {id:?} is not 1 to 64 of a-z, 0-9 and -")));
    }
    Ok(())
}

fn check_process(process: &ProcessSpec) -> Result<(), SpawnError> {
    if process.argv.first().is_none_or(String::is_empty) {
        return Err(invalid("no program was given".to_owned()));
    }
    if process.argv.iter().chain(&process.env).any(|text| text.contains('\0')) {
        return Err(invalid("an argument or environment variable contains a NUL byte".to_owned()));
    }
    Ok(())
}

/// Refuses users and groups that cannot exist in this user namespace.
fn check_ids(process: &ProcessSpec, host: &HostFacts) -> Result<(), SpawnError> {
    let Some(map) = &host.user_namespace else { return Ok(()) };
    let user = &process.user;
    let groups = if map.is_single() { &[][..] } else { &user.groups[..] };
    let unmapped_group = std::iter::once(&user.gid).chain(groups).find(|gid| !map.has_gid(**gid));
    match (map.has_uid(user.uid), unmapped_group) {
        (false, _) => Err(SpawnError::UnmappedId { kind: "user".into(), id: user.uid }),
        (true, Some(gid)) => Err(SpawnError::UnmappedId { kind: "group".into(), id: *gid }),
        (true, None) => Ok(()),
    }
}

fn invalid(reason: String) -> SpawnError {
    SpawnError::Invalid { reason }
}

#[cfg(test)]
mod tests;
