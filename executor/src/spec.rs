//! What is wanted of a sandbox, as plain data: one specification for `RUN` and `run`, and one for a process that enters a
//! sandbox.
//!
//! Nothing here touches the machine; the plan turns a specification into ordered set-up steps.

mod exceptions;
mod exec;

use std::path::PathBuf;

use rbuild_image::ContainerPath;
use serde::{Deserialize, Serialize};

pub use exceptions::{
    DeviceAccess, DeviceKind, DeviceRule, Exceptions, HostDevice, IpcNamespace, NameNamespace, ProcessNamespace,
};
pub use exec::ExecSpec;

use crate::seccomp::SeccompProfile;

/// A confined process: its root, its mounts, what it may do, and what runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Names the cgroup and shows in errors: `[a-z0-9-]`, at most 64 characters, unique on the host.
    pub id: String,
    /// The root file system.
    pub rootfs: Rootfs,
    /// What a program's `fsync` in an overlay root means.
    pub durability: Durability,
    /// Whether the root is mounted read-only.
    pub root_access: Access,
    /// Mounts on top of the standard ones (`/proc`, `/sys`, `/dev`, …), in order.
    pub mounts: Vec<Mount>,
    /// The process to start.
    pub process: ProcessSpec,
    /// Host name inside, where the names are the sandbox's own.
    pub hostname: String,
    /// The network namespace.
    pub network: NetworkMode,
    /// What the process may do.
    pub confinement: Confinement,
    /// Limits; none by default.
    pub resources: Resources,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Who is PID 1.
    pub init: Init,
    /// Where it differs from the standard sandbox.
    pub exceptions: Exceptions,
}

/// Where the root file system comes from. A snapshot describes it; the sandbox performs the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay mount; `lowers` are ordered top first and may be empty.
    Overlay {
        /// What never changes, the topmost first.
        lowers: Vec<Lower>,
        /// The directory that takes the changes.
        upper: PathBuf,
        /// overlayfs's scratch directory, on the same file system as `upper`.
        work: PathBuf,
    },
    /// A plain directory, bind-mounted.
    Directory(PathBuf),
}

/// One lower layer of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lower {
    /// A directory.
    Directory(PathBuf),
    /// Several directories, the topmost first, which an overlay of their own shows as one: overlayfs takes a limited number
    /// of lower layers. What they hide of layers below them shows again, so it can only be the lowest.
    Stack(Vec<PathBuf>),
    /// An EROFS image in a file, mounted for the overlay alone.
    Erofs {
        /// The image: names, metadata, and where contents lie.
        index: PathBuf,
        /// The files that contents lie in, in the order in which the image numbers them.
        devices: Vec<PathBuf>,
    },
}

/// What `fsync` and `sync` in an overlay root do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// They write to the disk, as everywhere.
    EachSync,
    /// Nothing: whoever keeps the upper directory syncs it as a whole, and one that a crash interrupted is garbage. Package
    /// managers sync every file, so this saves a step most of its time. The work directory cannot be mounted again for
    /// [`Durability::EachSync`].
    AtCommit,
}

/// Whether something can be written through a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read-only, recursively.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// One mount of the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it appears. Missing directories (or an empty file) are created inside the root, confined by the kernel,
    /// and removed again when the sandbox ends and they are still what was created (rule B-03).
    pub target: ContainerPath,
    /// What appears there.
    pub source: MountSource,
    /// Whether it can be written.
    pub access: Access,
    /// Whether a missing mount point stays in the root after the sandbox ended.
    pub mount_point: MountPoint,
}

/// What becomes of a mount point that had to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPoint {
    /// It is removed again (as BuildKit does for `RUN --mount` and resolv.conf).
    Removed,
    /// It stays (as Docker does for containers).
    Kept,
}

/// How a bind mount is tied to the host's mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindManner {
    /// Whether mounts that come later pass between the host and the sandbox.
    pub propagation: Propagation,
    /// Whether what is mounted below the source is shown, too.
    pub below: MountsBelow,
}

/// Where mounts that come later below a bind mount are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Where they are made.
    #[default]
    Private,
    /// Those of the host in the sandbox, too.
    Slave,
    /// On both sides.
    Shared,
}

/// What is mounted below a bind mount's source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountsBelow {
    /// It is shown, and what is write-protected is so there, too.
    #[default]
    Shown,
    /// The directories below are shown as they are without.
    Hidden,
}

/// What a tmpfs is beside its size and mode; Docker's for containers is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// Whether its programs can be executed.
    pub exec: bool,
    /// Whether set-user-id programs in it take effect.
    pub suid: bool,
    /// Whether device files in it work.
    pub dev: bool,
    /// Further options of the kernel's tmpfs: `uid`, `gid`, `nr_inodes`, `nr_blocks`.
    pub kernel: Vec<(String, String)>,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A host directory, file or socket. The last component is not followed when it is a symlink unless it was
    /// resolved by the caller before.
    Bind {
        /// Absolute host path.
        path: PathBuf,
    },
    /// The same, and how it is tied to the host's mounts.
    Tree {
        /// Absolute host path.
        path: PathBuf,
        /// How.
        manner: BindManner,
    },
    /// An overlay of its own (a stage mounted `rw` whose changes are thrown away), optionally only a subdirectory of it.
    Overlay {
        /// What never changes, the topmost first.
        lowers: Vec<Lower>,
        /// Takes the changes.
        upper: PathBuf,
        /// overlayfs's scratch directory.
        work: PathBuf,
        /// What of it is mounted, resolved inside it by the kernel (rule B-02); may be a file.
        subpath: ContainerPath,
    },
    /// Part of a host directory tree, resolved inside `root` by the kernel so that symlinks cannot leave it.
    BindInside {
        /// Absolute host path of the tree's root.
        root: PathBuf,
        /// What of it is mounted; may be a file.
        subpath: ContainerPath,
    },
    /// An empty tmpfs.
    Tmpfs {
        /// Size limit in bytes; `None` leaves the kernel's default.
        size: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
    },
    /// An empty tmpfs with options.
    Memory {
        /// Size limit in bytes; `None` leaves the kernel's default.
        size: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
        /// What else it is.
        options: TmpfsOptions,
    },
    /// A small file whose bytes live in memory only (secrets, resolv.conf, here-documents); never on disk.
    File {
        /// The bytes.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// The process in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env` inside the root.
    pub argv: Vec<String>,
    /// `NAME=value`, exactly what the process gets.
    pub env: Vec<String>,
    /// Working directory; made when it is missing inside the root of a new sandbox.
    pub cwd: ContainerPath,
    /// Ids, already looked up in the image.
    pub user: Ids,
    /// `RLIMIT_*` to set, by name without the prefix, e.g. `NOFILE`.
    pub rlimits: Vec<Rlimit>,
    /// Whether the process gets a controlling terminal.
    pub terminal: bool,
}

/// Numeric ids of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups (rule S-12: exactly primary, the image's `/etc/group`, and what the user added).
    pub groups: Vec<u32>,
}

/// One resource limit of `setrlimit(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Upper-case name without `RLIMIT_`.
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// The network a sandbox sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// An own namespace with only `lo`, up.
    None,
    /// The namespace of the caller.
    Host,
    /// A namespace that somebody prepared, by the path of its `ns` file.
    Path(PathBuf),
}

/// What a process may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Capability names without `CAP_`, upper case; the bounding, permitted and effective sets of a root process.
    pub capabilities: Vec<String>,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The AppArmor profile.
    pub apparmor: AppArmor,
    /// Masked and read-only paths, read-only `/sys`, device access: all on, or all off (`--privileged`).
    pub kernel_paths: KernelPaths,
}

/// The system call filter of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The built-in profile.
    Default,
    /// No filter.
    Unconfined,
    /// A profile of the user's.
    Profile(SeccompProfile),
}

/// The AppArmor profile of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    /// `docker-default` where the host has it loaded, else none.
    HostDefault,
    /// None.
    Unconfined,
    /// This one, which the host must have loaded.
    Profile(String),
}

/// The profile that Docker loads into the kernel, and containers get by default.
pub(crate) const DOCKER_DEFAULT_PROFILE: &str = "docker-default";

/// How much of `/proc`, `/sys` and `/dev` a sandbox sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelPaths {
    /// Masked and read-only paths as in Docker.
    Masked,
    /// The same file systems, with nothing in them masked or write-protected.
    Unmasked,
    /// Everything, writable.
    Open,
}

/// Limits that are enforced by cgroups. `None` and empty leave the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<u64>,
    /// Processor time in thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Relative weight as Docker's `--cpu-shares` (2 to 262144).
    pub cpu_shares: Option<u64>,
    /// Processors, e.g. `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, e.g. `0-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Bytes of memory that it is pushed back to when the machine runs out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<u64>,
    /// How readily its memory is swapped out (0 to 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u64>,
    /// Whether it waits for memory instead of being killed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill_disable: bool,
    /// What it may do to disks.
    #[serde(default, skip_serializing_if = "DiskLimits::is_empty")]
    pub disks: DiskLimits,
    /// Number of processes; `u64::MAX` is no limit.
    pub pids: Option<u64>,
    /// Parent cgroup, below the caller's own hierarchy.
    pub cgroup_parent: Option<String>,
}

/// Limits of what is read from disks and written to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimits {
    /// Relative weight (10 to 1000).
    pub weight: Option<u64>,
    /// Relative weights by device file.
    pub device_weights: Vec<(PathBuf, u64)>,
    /// Bytes a second that are read, by device file.
    pub read_bytes: Vec<(PathBuf, u64)>,
    /// Bytes a second that are written, by device file.
    pub write_bytes: Vec<(PathBuf, u64)>,
    /// Reads a second, by device file.
    pub reads: Vec<(PathBuf, u64)>,
    /// Writes a second, by device file.
    pub writes: Vec<(PathBuf, u64)>,
}

impl DiskLimits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Who is PID 1 in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Init {
    /// The process itself.
    Process,
    /// A minimal init of ours that reaps zombies, forwards signals and exits with the process's status.
    Reaper,
}

/// Docker's default capability set (docs/security.md), without `CAP_`.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
