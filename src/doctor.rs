//! What this host lets rbuild do: looked up where looking is enough, tried where it is not.
//!
//! A check says what works; where something is degraded or broken it says what follows from that, and the one thing to do. The
//! trial starts this very program in a sandbox on an empty root, as a `RUN` step would be.

use std::path::{Path, PathBuf};

use rbuild_cache::Lease;
use rbuild_cache::snapshot::{Keeping, WhyKept};
use rbuild_executor::network::forwarding;
use rbuild_executor::plan::OverlayMarks;
use rbuild_executor::user_namespace::{Caller, find_program, subordinate};
use rbuild_executor::{
    Access, AppArmor, CgroupVersion, Confinement, DEFAULT_CAPABILITIES, Durability, Exceptions, ExitStatus,
    HostSupport, Ids, Init, KernelPaths, Mount, MountPoint, MountSource, NetworkMode, Overlay, ProcessSpec, Resources,
    SandboxSpec, Seccomp, Severity, Stacking, Stdio, StdioFd, examine_stacking,
};
use rbuild_image::ContainerPath;
use serde::Serialize;

use crate::cli::report::Failure;
use crate::engine::Engine;

/// Version of the JSON form.
const VERSION: u32 = 1;
/// Less room than this, in bytes, does not carry a build.
const LITTLE_SPACE: u64 = 1 << 30;
/// Fewer free inodes than this do not carry a build.
const FEW_INODES: u64 = 100_000;
/// A clock before this (2025-01-01) makes certificates and times of images wrong.
const EARLIEST: i64 = 1_735_689_600;

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should.
    Works,
    /// With consequences.
    Degraded,
    /// Not at all: nothing can be built.
    Broken,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What: `kernel`, `overlay`, …
    pub name: &'static str,
    /// How well it works.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What follows, unless it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All checks of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Version of this form.
    pub version: u32,
    /// How builds and containers are confined: `root` or `rootless`.
    pub isolation: &'static str,
    /// What was looked at, in a fixed order.
    pub checks: Vec<Check>,
}

impl Examination {
    /// The worst of all checks.
    pub fn state(&self) -> State {
        self.checks.iter().map(|check| check.state).max().unwrap_or(State::Works)
    }
}

impl Check {
    fn works(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Works, found: found.into(), consequence: None, remedy: None }
    }

    fn worse(name: &'static str, state: State, found: impl Into<String>, consequence: &str, remedy: &str) -> Self {
        let (consequence, remedy) = (Some(consequence.to_owned()), Some(remedy.to_owned()));
        Self { name, state, found: found.into(), consequence, remedy }
    }
}

/// Looks at everything and tries a sandbox.
pub fn examine(engine: &Engine) -> Examination {
    let support = HostSupport::probe();
    let rootless = support.user_namespace.is_some() || !support.root;
    let mut checks = vec![kernel(&support), namespaces(&support), overlay(engine, &support), erofs(engine, &support)];
    checks.extend([ids(engine, &support), cgroups(&support), seccomp(&support), apparmor(&support)]);
    checks.push(network(engine, rootless));
    checks.extend(missing(&support));
    checks.push(clock(jiff::Timestamp::now().as_second()));
    checks.push(disk(&engine.settings().root));
    checks.push(trial(engine));
    Examination { version: VERSION, isolation: if rootless { "rootless" } else { "root" }, checks }
}

fn kernel(support: &HostSupport) -> Check {
    Check::works("kernel", format!("Linux {}", support.kernel))
}

fn namespaces(support: &HostSupport) -> Check {
    let time = if support.time_namespaces { ", time" } else { "" };
    let user = match (support.root, support.user_namespaces) {
        (_, true) => "; ordinary users may make user namespaces",
        (_, false) => "; ordinary users may make no user namespaces (user.max_user_namespaces is 0)",
    };
    Check::works("namespaces", format!("mount, pid, ipc, uts, net, cgroup{time}{user}"))
}

/// What layers are put over each other with, tried where the store is.
fn overlay(engine: &Engine, support: &HostSupport) -> Check {
    let choice = &engine.settings().stacking;
    let marks = match support.user_namespace {
        None => OverlayMarks::Trusted,
        Some(_) => OverlayMarks::User,
    };
    let report = match scratch(engine).map(|(_lease, place)| examine_stacking(choice, &place, marks)) {
        Ok(report) => report,
        Err(failure) => {
            let found = format!("it could not be tried: {}", failure.message());
            return Check::worse("overlay", State::Broken, found, "images cannot be layered", "choose another --root");
        }
    };
    let forced = if choice.forced.is_some() { " (asked for)" } else { "" };
    let lacking =
        |result: &Result<(), String>| result.as_ref().err().cloned().unwrap_or_else(|| "works, too".to_owned());
    let why = lacking(&report.overlayfs);
    match (&report.chosen, support.overlay) {
        (Ok(Stacking::Overlayfs), Overlay::OptionPage) => Check::worse(
            "overlay",
            State::Degraded,
            format!("overlayfs without lowerdir+{forced}"),
            "images of more than some 180 layers cannot be mounted",
            "run Linux 6.5 or later",
        ),
        (Ok(Stacking::Overlayfs), _) => {
            let marks = if marks == OverlayMarks::User { ", marks in user attributes" } else { "" };
            Check::works("overlay", format!("overlayfs, up to 500 layers{marks}{forced}"))
        }
        (Ok(Stacking::FuseOverlayfs), _) => Check::worse(
            "overlay",
            State::Degraded,
            format!("fuse-overlayfs{forced}; overlayfs: {why}"),
            "steps that touch many files are slower",
            "keep the store (--root) on a file system that takes overlays, such as ext4, xfs or btrfs",
        ),
        (Ok(Stacking::Copy), _) => Check::worse(
            "overlay",
            State::Degraded,
            format!(
                "layers are copied{}{forced}; overlayfs: {why}; fuse-overlayfs: {}",
                if report.reflinks { ", sharing blocks" } else { "" },
                lacking(&report.fuse_overlayfs)
            ),
            "each step and container first copies its whole image",
            "install fuse-overlayfs, or keep the store (--root) on a file system that takes overlays",
        ),
        (Err(why), _) => Check::worse(
            "overlay",
            State::Broken,
            why,
            "images cannot be layered",
            "keep the store (--root) on another file system, such as ext4, xfs or btrfs",
        ),
    }
}

/// A directory in the store that goes with the lease.
fn scratch(engine: &Engine) -> Result<(Lease, PathBuf), Failure> {
    let lease = engine.store()?.lease("trial of overlays")?;
    let place = lease.scratch_name("trial")?;
    std::fs::create_dir(&place).map_err(|error| Failure::from_error("cannot make a directory for trials", &error))?;
    Ok((lease, place))
}

/// How layers are kept, and whether there is a choice.
fn erofs(engine: &Engine, support: &HostSupport) -> Check {
    let keeping = |engine: &Engine| -> Result<Keeping, Failure> { Ok(engine.store()?.snapshots().keeping()?) };
    let because = match (support.erofs, support.user_namespace.is_some()) {
        (_, true) => ", which a user namespace does not allow",
        (false, _) => ", which this kernel does not have",
        (true, false) => "",
    };
    match keeping(engine) {
        Ok(Keeping { kind: "erofs", why }) => Check::works("layers", format!("kept as tars, never unpacked: {why}")),
        Ok(Keeping { why: why @ WhyKept::NotMountable { .. }, .. }) => {
            Check::works("layers", format!("kept as directories: {why}{because}"))
        }
        Ok(Keeping { why, .. }) => Check::works("layers", format!("kept as directories: {why}")),
        Err(failure) => Check::worse(
            "layers",
            State::Broken,
            failure.message().to_owned(),
            "nothing can be built",
            failure
                .help()
                .unwrap_or("leave out --snapshotter, RBUILD_SNAPSHOTTER and the key of the configuration file"),
        ),
    }
}

fn ids(engine: &Engine, support: &HostSupport) -> Check {
    let (uid, gid) = engine.settings().ids;
    let count = |map: &rbuild_executor::IdMap| map.uids.iter().map(|range| u64::from(range.count)).sum::<u64>();
    match &support.user_namespace {
        None if support.root => Check::works("ids", "root, with every id"),
        Some(map) if !map.is_single() => {
            let outside = map.root_outside().unwrap_or(uid);
            Check::works("ids", format!("{} ids; root in steps is user {outside} outside", count(map)))
        }
        in_force => {
            let outside = in_force.as_ref().and_then(rbuild_executor::IdMap::root_outside).unwrap_or(uid);
            let found = subordinate(Caller { uid: outside, gid, path: engine.settings().path.as_deref() });
            let lacking = found.lacking.unwrap_or_else(|| "newuidmap did not work".to_owned());
            Check::worse(
                "ids",
                State::Degraded,
                format!("one id: root in steps is user {outside} outside, and nobody else exists; lacking: {lacking}"),
                "USER, chown and package managers that change owners fail in steps; every file of a layer belongs to root",
                "install uidmap, then as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
            )
        }
    }
}

fn cgroups(support: &HostSupport) -> Check {
    let version = match support.cgroup {
        CgroupVersion::V1 => "v1",
        CgroupVersion::V2 => "v2",
        CgroupVersion::None => "none",
    };
    Check::works("cgroups", format!("{version}: {}", join_or(&support.controllers, "no controllers")))
}

fn seccomp(support: &HostSupport) -> Check {
    Check::works("seccomp", if support.seccomp { "filters are supported" } else { "no filters" })
}

fn apparmor(support: &HostSupport) -> Check {
    Check::works("apparmor", if support.apparmor { "enabled" } else { "not enabled on this host" })
}

/// What networks of steps are made with: a bridge where the host passes on what it sends, else a process.
fn network(engine: &Engine, rootless: bool) -> Check {
    let bridge = if rootless {
        Err("an ordinary user makes no bridges".to_owned())
    } else {
        match forwarding::obstacle(NO_BRIDGE) {
            Ok(None) => Ok(()),
            Ok(Some(obstacle)) => Err(obstacle.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    let path = engine.settings().path.as_deref();
    let helper = ["pasta", "slirp4netns"].into_iter().find(|program| find_program(program, path).is_some());
    let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    judge_network(bridge, helper, tun.err().map(|error| error.to_string()), rootless)
}

/// The name of no interface: no bridge of ours need be there.
const NO_BRIDGE: &str = "rb-none";

fn judge_network(bridge: Result<(), String>, helper: Option<&str>, tun: Option<String>, rootless: bool) -> Check {
    let lacking = match (helper, tun) {
        (Some(helper), None) => Ok(helper),
        (None, _) => Err("neither pasta nor slirp4netns is there".to_owned()),
        (Some(helper), Some(error)) => Err(format!("{helper} is there, /dev/net/tun cannot be opened: {error}")),
    };
    match (bridge, lacking) {
        (Ok(()), _) => Check::works("network", "steps and containers get a bridge with NAT"),
        (Err(_), Ok(helper)) if rootless => {
            Check::works("network", format!("{helper} is there: steps get a network of their own"))
        }
        (Err(why), Ok(helper)) => Check::worse(
            "network",
            State::Degraded,
            format!("no bridge: {why}; {helper} is used instead"),
            "networks are slower, and containers do not reach each other",
            "remove what is named as the obstacle",
        ),
        (Err(_), Err(lacking)) if rootless => Check::worse(
            "network",
            State::Degraded,
            lacking,
            "steps have no isolated network with a way out",
            "install passt (or slirp4netns); where /dev/net/tun cannot be opened, as root: chmod 0666 /dev/net/tun; \
             or build with --network=host or none",
        ),
        (Err(why), Err(lacking)) => Check::worse(
            "network",
            State::Degraded,
            format!("no bridge: {why}; {lacking}"),
            "steps have no isolated network with a way out",
            "remove what is named as the obstacle, install passt (or slirp4netns), or build with --network=host or none",
        ),
    }
}

/// What else the host lacks.
fn missing(support: &HostSupport) -> Vec<Check> {
    let said = |what: &str| what.starts_with("subordinate") || what == "overlayfs";
    let shortcomings = support.shortcomings.iter().filter(|shortcoming| !said(&shortcoming.what));
    shortcomings
        .map(|shortcoming| {
            let state = match shortcoming.severity {
                Severity::Degraded => State::Degraded,
                Severity::Fatal => State::Broken,
            };
            let found = format!("{} is missing", shortcoming.what);
            Check::worse("host", state, found, &shortcoming.consequence, &shortcoming.remedy)
        })
        .collect()
}

fn clock(now: i64) -> Check {
    if now >= EARLIEST {
        return Check::works("clock", "plausible");
    }
    Check::worse(
        "clock",
        State::Degraded,
        format!("says {now} seconds since 1970"),
        "registries' certificates seem not yet valid, images get wrong times",
        "set the clock",
    )
}

/// Room where the store is, or will be.
fn disk(root: &Path) -> Check {
    let Some(existing) = root.ancestors().find(|path| path.exists()) else {
        return Check::works("disk", format!("{}: not there yet", root.display()));
    };
    let stat = match rustix::fs::statvfs(existing) {
        Ok(stat) => stat,
        Err(errno) => {
            let found = format!("{}: {errno}", root.display());
            return Check::worse("disk", State::Broken, found, "the store cannot be used", "choose another --root");
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Some file systems (btrfs) make inodes as they need them and report none.
    let inodes = (stat.f_files > 0).then_some(stat.f_favail);
    let found = format!("{}: {:.1} GB free", root.display(), free as f64 / 1e9);
    if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Check::worse(
            "disk",
            State::Broken,
            format!("{}: mounted read-only", root.display()),
            "nothing can be stored",
            "choose another --root",
        );
    }
    if free < LITTLE_SPACE || inodes.is_some_and(|inodes| inodes < FEW_INODES) {
        let inodes = inodes.map_or(String::new(), |inodes| format!(", {inodes} free inodes"));
        return Check::worse(
            "disk",
            State::Degraded,
            found + &inodes,
            "builds may run out of space",
            "rbuild cache prune, or a --root on another disk",
        );
    }
    Check::works("disk", found)
}

/// Runs `rbuild version` in a sandbox.
fn trial(engine: &Engine) -> Check {
    match try_sandbox(engine) {
        Ok(()) => Check::works("sandbox", "a trial step ran"),
        Err(failure) => Check::worse(
            "sandbox",
            State::Broken,
            format!("a trial step did not run: {}", failure.message()),
            "nothing can be built with RUN, and no container runs",
            failure.help().unwrap_or("see what is missing above"),
        ),
    }
}

fn try_sandbox(engine: &Engine) -> Result<(), Failure> {
    let store = engine.store()?;
    let lease = store.lease("trial of a sandbox")?;
    let active = store.snapshots().prepare(None, &lease)?;
    let own = std::fs::read_link("/proc/self/exe").map_err(|e| Failure::from_error("cannot find this program", &e))?;
    let spec = specification(active.rootfs()?, own);
    let stdio = Stdio { stdin: StdioFd::Null, stdout: StdioFd::Null, stderr: StdioFd::Null };
    let mut process =
        engine.spawner()?.spawn(&spec, stdio).map_err(|error| Failure::from_error("cannot start it", &error))?;
    let status = process.wait().map_err(|error| Failure::from_error("cannot wait for it", &error))?;
    match status {
        ExitStatus::Exited(0) => Ok(()),
        status => Err(Failure::new(format!("it ended with code {}", status.code()))),
    }
}

fn specification(rootfs: rbuild_executor::Rootfs, program: PathBuf) -> SandboxSpec {
    const PLACE: &str = "/rbuild";
    SandboxSpec {
        id: format!("trial-{}", std::process::id()),
        rootfs,
        durability: Durability::AtCommit,
        root_access: Access::ReadWrite,
        mounts: vec![Mount {
            target: ContainerPath::new(PLACE),
            source: MountSource::Bind { path: program },
            access: Access::ReadOnly,
            mount_point: MountPoint::Removed,
        }],
        process: ProcessSpec {
            argv: vec![PLACE.to_owned(), "version".to_owned()],
            env: Vec::new(),
            cwd: ContainerPath::root(),
            user: Ids::default(),
            rlimits: Vec::new(),
            terminal: false,
        },
        hostname: "trial".to_owned(),
        network: NetworkMode::None,
        confinement: Confinement {
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            no_new_privileges: false,
            seccomp: Seccomp::Default,
            apparmor: AppArmor::HostDefault,
            kernel_paths: KernelPaths::Masked,
        },
        resources: Resources::default(),
        shm_size: 64 << 20,
        init: Init::Reaper,
        exceptions: Exceptions::default(),
    }
}

fn join_or(words: &[String], otherwise: &str) -> String {
    if words.is_empty() { otherwise.to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_the_past_is_told() {
        assert_eq!(clock(EARLIEST).state, State::Works);
        assert_eq!(clock(0).state, State::Degraded);
    }

    #[test]
    fn a_network_is_judged_by_what_can_be_had() {
        let no = || Err("nft is not installed".to_owned());
        let judge = |bridge, helper, tun: Option<&str>, rootless| {
            let check = judge_network(bridge, helper, tun.map(str::to_owned), rootless);
            (check.state, check.found)
        };
        assert_eq!(judge(Ok(()), None, None, false).0, State::Works);
        let (state, found) = judge(no(), Some("pasta"), None, false);
        assert_eq!(
            (state, found.as_str()),
            (State::Degraded, "no bridge: nft is not installed; pasta is used instead")
        );
        assert_eq!(judge(no(), Some("pasta"), None, true).0, State::Works);
        let (state, found) = judge(no(), Some("pasta"), Some("denied"), true);
        assert_eq!((state, found.as_str()), (State::Degraded, "pasta is there, /dev/net/tun cannot be opened: denied"));
        assert_eq!(judge(no(), None, None, false).0, State::Degraded);
    }

    #[test]
    fn what_is_broken_decides() {
        let works = Check::works("a", "");
        let broken = Check::worse("b", State::Broken, "", "", "");
        let state = |checks| Examination { version: VERSION, isolation: "root", checks }.state();
        assert_eq!(state(vec![works.clone()]), State::Works);
        assert_eq!(state(vec![works, broken]), State::Broken);
    }
}
