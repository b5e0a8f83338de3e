//! A [`SandboxSpec`] becomes a running, confined process. Knows nothing of builds, layers or registries.

mod root_dir;
mod spec;
mod stat;
mod sys;
pub mod users;

pub use root_dir::{DirEntry, DirFd, NewDirectory, Node, RootDir};
pub use spec::{
    Access, Confinement, DEFAULT_CAPABILITIES, Ids, Init, KernelPaths, Mount, MountPoint, MountSource, NetworkMode,
    ProcessSpec, Resources, Rlimit, Rootfs, SandboxSpec, Seccomp,
};
pub use stat::{FileKind, Stat, Timestamp};
