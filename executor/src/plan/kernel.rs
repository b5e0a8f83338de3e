//! The kernel's file systems in a sandbox, what of them is hidden, and which devices exist.

use std::path::Path;

use rbuild_image::ContainerPath;

use super::{DeviceNode, DeviceOrigin, HostFacts, MountStep, PlannedSource, Step};
use crate::spec::{Access, IpcNamespace, KernelPaths, MountPoint, MountSource, NetworkMode, SandboxSpec};

/// Files and directories of `/proc` and `/sys` that a sandbox does not see (Docker's list and five more of `/proc`).
pub const MASKED_PATHS: [&str; 17] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/kpagecgroup",
    "/proc/slabinfo",
    "/proc/kallsyms",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What a sandbox sees and cannot change.
pub const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Devices of every sandbox.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Further character devices of a sandbox that sees everything.
const OPEN_DEVICES: [(&str, u32, u32); 4] =
    [("kmsg", 1, 11), ("fuse", 10, 229), ("net/tun", 10, 200), ("loop-control", 10, 237)];

/// Loop devices that exist without being asked for.
const LOOP_DEVICES: u32 = 8;

/// Settings of an own network namespace, as Docker's: unprivileged ping and low ports. In a user namespace the kernel takes
/// no group that is not mapped, and root may ping anyway.
pub(super) fn network_sysctls(host: &HostFacts) -> impl Iterator<Item = Step> {
    let ping = host.user_namespace.is_none().then_some(("net/ipv4/ping_group_range", "0 2147483647"));
    ping.into_iter()
        .chain([("net/ipv4/ip_unprivileged_port_start", "0")])
        .map(|(name, value)| Step::Sysctl { name: name.to_owned(), value: value.to_owned() })
}

/// `/dev`, `/sys` and what is below them.
pub(super) fn file_systems(spec: &SandboxSpec, host: &HostFacts) -> Vec<Step> {
    let open = spec.confinement.kernel_paths == KernelPaths::Open;
    let access = if open { Access::ReadWrite } else { Access::ReadOnly };
    let character =
        |&(name, major, minor): &(&str, u32, u32)| DeviceNode { name: name.to_owned(), block: false, major, minor };
    let mut nodes: Vec<_> = DEVICES.iter().map(character).collect();
    if open {
        nodes.extend(OPEN_DEVICES.iter().map(character));
        nodes.extend((0..LOOP_DEVICES).map(|minor| DeviceNode {
            name: format!("loop{minor}"),
            block: true,
            major: 7,
            minor,
        }));
    }
    let nested = host.user_namespace.is_some();
    let origin = if nested { DeviceOrigin::Host } else { DeviceOrigin::Made };
    let sys = if nested && spec.network == NetworkMode::Host { Step::HostSys } else { Step::Sys(access) };
    let mut steps = vec![Step::Dev { nodes, origin }];
    let devices = &spec.exceptions.devices;
    if nested {
        // The kernel opens no device file that is made there; the host's own can be shown.
        steps.extend(devices.iter().map(|device| host_file(&device.path, &format!("/dev/{}", device.name))));
    } else if !devices.is_empty() {
        steps.push(Step::HostDevices(devices.clone()));
    }
    steps.push(Step::DevPts);
    if spec.process.terminal {
        steps.push(Step::Terminal);
    }
    match spec.exceptions.ipc {
        IpcNamespace::Own => steps.push(Step::DevShm { size: spec.shm_size }),
        IpcNamespace::WithoutShm => {}
        IpcNamespace::Host => steps.push(host_file("/dev/shm".as_ref(), "/dev/shm")),
        IpcNamespace::Of { .. } => steps.push(Step::SharedShm),
    }
    steps.push(match spec.exceptions.ipc {
        // The host's belongs to another user namespace, whose root alone may mount it.
        IpcNamespace::Host if nested => host_file("/dev/mqueue".as_ref(), "/dev/mqueue"),
        _ => Step::DevMqueue,
    });
    steps.extend([sys, Step::SysCgroup(access)]);
    steps
}

/// Something of the host's, as it is.
fn host_file(path: &Path, target: &str) -> Step {
    Step::Mount(MountStep {
        target: ContainerPath::new(target),
        source: PlannedSource::Spec(MountSource::Bind { path: path.to_owned() }),
        access: Access::ReadWrite,
        mount_point: MountPoint::Kept,
    })
}

/// Hides and write-protects.
pub(super) fn masks(throttled_cpus: &[u32]) -> Vec<Step> {
    let throttle = throttled_cpus.iter().map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    let masks = MASKED_PATHS.iter().map(|path| (*path).to_owned()).chain(throttle);
    let masks = masks.map(|path| Step::Mask(ContainerPath::new(path)));
    masks.chain(READ_ONLY_PATHS.iter().map(|path| Step::ReadOnlyPath(ContainerPath::new(path)))).collect()
}
