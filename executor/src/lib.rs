//! A [`SandboxSpec`] becomes a running, confined process. Knows nothing of builds, layers or registries.

mod spec;

pub use spec::{
    Access, Confinement, DEFAULT_CAPABILITIES, Ids, Init, KernelPaths, Mount, MountPoint, MountSource, NetworkMode,
    ProcessSpec, Resources, Rlimit, Rootfs, SandboxSpec, Seccomp,
};
