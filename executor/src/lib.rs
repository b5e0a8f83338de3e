//! A [`SandboxSpec`] becomes a running, confined process. Knows nothing of builds, layers or registries.
//!
//! [`Spawner::spawn`] is the one way to run anything in an image, and [`Spawner::exec`] the one way into a sandbox that runs:
//! for `RUN`, `run`, `exec` and health checks only the specification differs. A specification becomes a plan (pure data,
//! [`plan`]), which a forked child replays.
//! [`RootDir`] is the one way to touch a file system that somebody else made.

mod capability;
mod cgroup;
pub mod channel;
mod enter;
mod id_map;
mod init;
mod launch;
mod mount_point;
pub mod network;
mod perform;
pub mod plan;
mod probe;
mod process;
mod rlimit;
mod root_dir;
mod rootfs;
mod seccomp;
mod session;
mod spawn_error;
mod spawner;
mod spec;
mod stacking;
mod stat;
mod stdio;
mod sys;
pub mod user_namespace;
pub mod users;

pub use capability::{ALL_CAPABILITIES, Capabilities};
pub use cgroup::{CgroupVersion, LiveSandbox, LiveUsage, Warning, thaw_leftover};
pub use id_map::{IdMap, IdRange};
pub use probe::{HostSupport, Overlay, Severity, Shortcoming};
pub use process::{ExitStatus, Process, Signaller, Usage};
pub use rlimit::raise_open_files;
pub use root_dir::{DirEntry, DirFd, NewDirectory, Node, RootDir};
pub use rootfs::erofs::try_erofs;
pub use rootfs::{at_rest::RootAtRest, open_rootfs};
pub use seccomp::{ProfileError, SeccompProfile};
pub use session::begin_session;
pub use spawn_error::{NotExecutable, SpawnError};
pub use spawner::{Spawner, reexec_entry};
pub use spec::{
    Access, AppArmor, BindManner, Confinement, DEFAULT_CAPABILITIES, DeviceAccess, DeviceKind, DeviceRule, DiskLimits,
    Durability, Exceptions, ExecSpec, HostDevice, Ids, Init, IpcNamespace, KernelPaths, Lower, Mount, MountPoint,
    MountSource, MountsBelow, NameNamespace, NetworkMode, ProcessNamespace, ProcessSpec, Propagation, Resources,
    Rlimit, Rootfs, SandboxSpec, Seccomp, TmpfsOptions,
};
pub use stacking::{Stacking, StackingChoice, StackingReport, examine as examine_stacking};
pub use stat::{FileKind, Stat, Timestamp};
pub use stdio::{Stdio, StdioFd, WindowSize};
