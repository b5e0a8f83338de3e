//! A container's configuration turned into the sandbox that runs it.
//!
//! Pure: everything the machine has to say (the user's ids, where volumes and bind sources are) is passed in.

use std::path::PathBuf;

use rbuild_executor::{
    Access, BindManner, Confinement, Durability, Exceptions, Ids, Init, KernelPaths, Mount, MountPoint, MountSource,
    NetworkMode, ProcessSpec, Rootfs, SandboxSpec, users::User,
};
use rbuild_image::ContainerPath;

use crate::config::{ContainerConfig, ContainerMountSource};
use crate::create::process_environment;
use crate::id::ContainerId;
use crate::request::{InitChoice, Lifetime, RootAccess};

/// What the machine has to say about a start.
pub(crate) struct StartFacts {
    /// The root file system.
    pub(crate) rootfs: Rootfs,
    /// The user, looked up in the container.
    pub(crate) user: User,
    /// Further groups, looked up in the container.
    pub(crate) groups: Vec<u32>,
    /// Where the source of each of the configuration's mounts is, in their order; `None` for memory.
    pub(crate) sources: Vec<Option<PathBuf>>,
    /// The network that it joins.
    pub(crate) network: NetworkMode,
    /// The container's own files, by their name below `/etc`.
    pub(crate) etc: Vec<(&'static str, PathBuf)>,
    /// What it has beside the usual.
    pub(crate) exceptions: Exceptions,
}

/// The sandbox of a container.
pub(crate) fn sandbox(id: &ContainerId, config: &ContainerConfig, facts: StartFacts) -> SandboxSpec {
    let ids = with_groups(facts.user.ids, facts.groups);
    SandboxSpec {
        id: id.to_string(),
        rootfs: facts.rootfs,
        // What goes with its process needs no disk.
        durability: match config.lifetime {
            Lifetime::Kept => Durability::EachSync,
            Lifetime::Process => Durability::AtCommit,
        },
        root_access: match config.root {
            RootAccess::ReadWrite => Access::ReadWrite,
            RootAccess::ReadOnly => Access::ReadOnly,
        },
        mounts: mounts(config, facts.sources, facts.etc),
        process: ProcessSpec {
            argv: config.argv(),
            env: process_environment(&config.env, &config.hostname, config.console.terminal, &facts.user.home),
            cwd: config.working_dir.clone(),
            user: ids,
            rlimits: config.ulimits.clone(),
            terminal: config.console.terminal,
        },
        hostname: config.hostname.clone(),
        network: facts.network,
        confinement: Confinement {
            capabilities: config.capabilities.clone(),
            no_new_privileges: config.no_new_privileges,
            seccomp: config.seccomp.clone(),
            apparmor: config.apparmor.clone(),
            kernel_paths: match (config.privileged, config.unmasked) {
                (true, _) => KernelPaths::Open,
                (false, true) => KernelPaths::Unmasked,
                (false, false) => KernelPaths::Masked,
            },
        },
        resources: config.resources.clone(),
        shm_size: config.shm_size,
        init: match config.init {
            InitChoice::Process => Init::Process,
            InitChoice::Reaper => Init::Reaper,
        },
        exceptions: facts.exceptions,
    }
}

/// A user's ids with the groups that were asked for besides.
pub(crate) fn with_groups(mut ids: Ids, more: Vec<u32>) -> Ids {
    for group in more {
        if !ids.groups.contains(&group) {
            ids.groups.push(group);
        }
    }
    ids
}

/// The files of `/etc` and the container's mounts, outer ones first; a mount at one of the files takes its place.
pub(crate) fn mounts(
    config: &ContainerConfig,
    sources: Vec<Option<PathBuf>>,
    etc: Vec<(&'static str, PathBuf)>,
) -> Vec<Mount> {
    let own = etc.into_iter().map(|(name, path)| Mount {
        target: ContainerPath::new("/etc").join(name),
        source: MountSource::Bind { path },
        // They are part of a root that cannot be written.
        access: match config.root {
            RootAccess::ReadWrite => Access::ReadWrite,
            RootAccess::ReadOnly => Access::ReadOnly,
        },
        mount_point: MountPoint::Removed,
    });
    let mut mounts: Vec<Mount> =
        own.filter(|mount| config.mounts.iter().all(|asked| asked.target != mount.target)).collect();
    for (asked, source) in config.mounts.iter().zip(sources) {
        let source = match (&asked.source, source) {
            (ContainerMountSource::Tmpfs { size, mode, options, .. }, _) => {
                MountSource::Memory { size: *size, mode: *mode, options: options.clone() }
            }
            (ContainerMountSource::Bind { manner, .. }, Some(path)) if *manner != BindManner::default() => {
                MountSource::Tree { path, manner: *manner }
            }
            (_, Some(path)) => MountSource::Bind { path },
            (_, None) => continue,
        };
        mounts.push(Mount {
            target: asked.target.clone(),
            source,
            access: asked.access,
            mount_point: MountPoint::Kept,
        });
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts
}

#[cfg(test)]
mod tests {
    use rbuild_executor::Seccomp;

    use super::*;
    use crate::capability::CapabilityRequest;
    use crate::create::{Surroundings, merge};
    use crate::mounts::{parse_tmpfs_flag, parse_volume_flag};
    use crate::request::{Console, RunRequest};
    use rbuild_executor::{ALL_CAPABILITIES, Capabilities};
    use rbuild_image::RuntimeConfig;
    use std::path::Path;

    fn sandbox_of(request: &RunRequest) -> SandboxSpec {
        let id: ContainerId = "0123456789ab".repeat(6)[..64].parse().unwrap();
        let image = RuntimeConfig {
            cmd: Some(vec!["serve".into(), "-p".into()]),
            entrypoint: Some(vec!["/init".into()]),
            env: vec!["A=image".into()],
            ..RuntimeConfig::default()
        };
        let surroundings = Surroundings {
            id: &id,
            bounding_capabilities: Capabilities::from_names(ALL_CAPABILITIES).unwrap(),
            volume_name: &mut || "anonymous".parse().unwrap(),
        };
        let config = merge(&image, request, surroundings).unwrap();
        let sources = config
            .mounts
            .iter()
            .map(|mount| match &mount.source {
                ContainerMountSource::Volume { name, .. } => Some(format!("/store/volumes/{name}/_data").into()),
                ContainerMountSource::Bind { path, .. } => Some(path.clone()),
                ContainerMountSource::Tmpfs { .. } => None,
            })
            .collect();
        let facts = StartFacts {
            rootfs: Rootfs::Directory("/root".into()),
            user: User {
                ids: Ids { uid: 5, gid: 6, groups: vec![6] },
                name: Some("app".into()),
                home: "/home/app".into(),
            },
            groups: vec![6, 7],
            network: NetworkMode::Path("/proc/1/fd/3".into()),
            sources,
            etc: ["hosts", "hostname", "resolv.conf"].map(|name| (name, Path::new("/c").join(name))).into(),
            exceptions: Exceptions::default(),
        };
        sandbox(&id, &config, facts)
    }

    #[test]
    fn a_plain_container_is_confined_and_gets_its_files() {
        let spec = sandbox_of(&RunRequest::default());
        assert_eq!(spec.process.argv, ["/init", "serve", "-p"]);
        assert_eq!(
            spec.process.env,
            [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOSTNAME=0123456789ab",
                "A=image",
                "HOME=/home/app"
            ]
        );
        assert_eq!(spec.process.user, Ids { uid: 5, gid: 6, groups: vec![6, 7] });
        assert_eq!(
            (spec.root_access, spec.network, spec.init),
            (Access::ReadWrite, NetworkMode::Path("/proc/1/fd/3".into()), Init::Process)
        );
        assert_eq!(spec.durability, Durability::EachSync);
        assert_eq!(spec.confinement.seccomp, Seccomp::Default);
        assert_eq!(spec.confinement.kernel_paths, KernelPaths::Masked);
        assert_eq!(spec.confinement.capabilities.len(), 14);
        let targets: Vec<String> = spec.mounts.iter().map(|mount| mount.target.to_string()).collect();
        assert_eq!(targets, ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
        assert!(spec.mounts.iter().all(|mount| mount.mount_point == MountPoint::Removed));
    }

    #[test]
    fn flags_reach_the_sandbox() {
        let spec = sandbox_of(&RunRequest {
            capabilities: CapabilityRequest { privileged: true, ..CapabilityRequest::default() },
            root: RootAccess::ReadOnly,
            init: InitChoice::Reaper,
            lifetime: Lifetime::Process,
            console: Console { terminal: true, interactive: true },
            ..RunRequest::default()
        });
        assert_eq!((spec.root_access, spec.init), (Access::ReadOnly, Init::Reaper));
        assert!(spec.mounts.iter().all(|mount| mount.access == Access::ReadOnly), "/etc/hosts is of the root");
        assert_eq!(spec.durability, Durability::AtCommit);
        assert_eq!(spec.confinement.seccomp, Seccomp::Unconfined);
        assert_eq!(spec.confinement.kernel_paths, KernelPaths::Open);
        assert!(spec.process.terminal && spec.process.env.contains(&"TERM=xterm".to_owned()));
    }

    #[test]
    fn mounts_lie_inside_each_other_and_replace_the_own_files() {
        let here = Path::new("/here");
        let spec = sandbox_of(&RunRequest {
            mounts: vec![
                parse_volume_flag("/h/hosts:/etc/hosts:ro", here).unwrap(),
                parse_volume_flag("/h/etc:/etc", here).unwrap(),
                parse_volume_flag("data:/var/lib/data", here).unwrap(),
                parse_tmpfs_flag("/run:size=1m,mode=755").unwrap(),
            ],
            ..RunRequest::default()
        });
        let shown: Vec<String> = spec
            .mounts
            .iter()
            .map(|mount| match &mount.source {
                MountSource::Bind { path } => format!("{} {} {:?}", mount.target, path.display(), mount.access),
                other => format!("{} {other:?}", mount.target),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "/etc /h/etc ReadWrite",
                "/run Memory { size: Some(1048576), mode: 493, options: TmpfsOptions { exec: false, suid: false, dev: false, kernel: [] } }",
                "/etc/hostname /c/hostname ReadWrite",
                "/etc/resolv.conf /c/resolv.conf ReadWrite",
                "/etc/hosts /h/hosts ReadOnly",
                "/var/lib/data /store/volumes/data/_data ReadWrite",
            ]
        );
    }
}
