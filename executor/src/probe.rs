//! What this host offers to sandboxes, what it lacks, and what that means. Looks only; changes nothing.

use std::fs;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::cgroup::{self, CgroupVersion};
use crate::id_map::IdMap;
use crate::spec::DEFAULT_CAPABILITIES;
use crate::user_namespace::current_ids;

/// The oldest kernel that sandboxes start on: `mount_setattr` is of 5.12.
const OLDEST_KERNEL: (u32, u32) = (5, 12);
/// `lowerdir+`, which does away with the limit on the length of overlay options.
const LOWERDIR_PLUS: (u32, u32) = (6, 5);

/// What makes user namespaces possible.
const USER_NAMESPACES: &str = "run as root, or allow user namespaces: sysctl user.max_user_namespaces, \
    kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns";
/// What gives an ordinary user cgroups.
const DELEGATE: &str = "on systemd hosts: systemd-run --user --scope -p Delegate=yes rbuild …";

/// What this host offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSupport {
    /// The kernel's release, e.g. `6.18.44`.
    pub kernel: String,
    /// Whether the caller is root in its user namespace.
    pub root: bool,
    /// How overlays are mounted.
    pub overlay: Overlay,
    /// The cgroups that sandboxes get.
    pub cgroup: CgroupVersion,
    /// Controllers that can be used.
    pub controllers: Vec<String>,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// Whether an ordinary user can make user namespaces.
    pub user_namespaces: bool,
    /// The ids of the user namespace that the caller is in, unless it is the initial one.
    pub user_namespace: Option<IdMap>,
    /// Whether time namespaces hide the host's uptime.
    pub time_namespaces: bool,
    /// Whether AppArmor is enabled.
    pub apparmor: bool,
    /// Whether images can be mounted without unpacking them.
    pub erofs: bool,
    /// Default capabilities that the caller cannot give.
    pub missing_capabilities: Vec<String>,
    /// What is missing, with its consequence.
    pub shortcomings: Vec<Shortcoming>,
}

/// How overlays are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlay {
    /// One call for each layer: up to 500.
    LayerByLayer,
    /// One page of options: up to some 180 layers.
    OptionPage,
    /// The kernel has no overlayfs.
    Absent,
}

/// Something this host lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortcoming {
    /// How bad it is.
    pub severity: Severity,
    /// What is missing.
    pub what: String,
    /// What follows from that.
    pub consequence: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a shortcoming is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Something works less well.
    Degraded,
    /// No sandbox starts.
    Fatal,
}

/// What the machine says, as read.
#[derive(Clone, Debug, Default)]
struct Facts {
    release: String,
    root: bool,
    openat2: bool,
    file_systems: String,
    cgroup: Option<CgroupVersion>,
    controllers: Vec<String>,
    cgroup_writable: bool,
    seccomp: bool,
    max_user_namespaces: u64,
    user_namespace: Option<IdMap>,
    time_namespaces: bool,
    apparmor: bool,
    bounding: Capabilities,
}

impl HostSupport {
    /// Looks at this host.
    pub fn probe() -> Self {
        Self::judge(&Facts::read())
    }

    /// Whether sandboxes start at all.
    pub fn usable(&self) -> bool {
        self.shortcomings.iter().all(|shortcoming| shortcoming.severity < Severity::Fatal)
    }

    fn judge(facts: &Facts) -> Self {
        let version = version(&facts.release);
        let overlay = match facts.file_systems.split_whitespace().any(|name| name == "overlay") {
            false => Overlay::Absent,
            true if version >= LOWERDIR_PLUS => Overlay::LayerByLayer,
            true => Overlay::OptionPage,
        };
        let missing = |name: &&str| !facts.bounding.contains(name);
        let mut support = Self {
            kernel: facts.release.clone(),
            root: facts.root,
            overlay,
            cgroup: facts.cgroup.unwrap_or(CgroupVersion::None),
            controllers: facts.controllers.clone(),
            seccomp: facts.seccomp,
            user_namespaces: facts.max_user_namespaces > 0,
            user_namespace: facts.user_namespace.clone(),
            time_namespaces: facts.time_namespaces,
            apparmor: facts.apparmor,
            erofs: facts.file_systems.split_whitespace().any(|name| name == "erofs"),
            missing_capabilities: DEFAULT_CAPABILITIES.iter().filter(|n| missing(n)).map(|n| (*n).to_owned()).collect(),
            shortcomings: Vec::new(),
        };
        support.fatal(facts, version);
        support.degraded(facts);
        support
    }

    fn fatal(&mut self, facts: &Facts, version: (u32, u32)) {
        let mut lacks = |what: &str, consequence: &str, remedy: &str| {
            self.shortcomings.push(Shortcoming::new(Severity::Fatal, what, consequence, remedy));
        };
        if version < OLDEST_KERNEL {
            let (major, minor) = OLDEST_KERNEL;
            lacks(&format!("Linux {major}.{minor}"), "no sandbox starts", "run a newer kernel");
        }
        if !facts.openat2 {
            lacks(
                "the system call openat2",
                "no path can be confined",
                "allow it in the seccomp profile around rbuild",
            );
        }
        if !facts.root {
            lacks("root, also in a user namespace", "namespaces and overlays cannot be made", USER_NAMESPACES);
        } else if !facts.bounding.contains("SYS_ADMIN") {
            lacks("CAP_SYS_ADMIN", "namespaces and mounts cannot be made", "give the capability to the caller");
        }
        if !facts.seccomp {
            lacks("seccomp filters", "only unconfined sandboxes start", "use a kernel with CONFIG_SECCOMP_FILTER");
        }
    }

    fn degraded(&mut self, facts: &Facts) {
        let nested = facts.user_namespace.is_some();
        let mut lacks = |what: &str, consequence: &str, remedy: &str| {
            self.shortcomings.push(Shortcoming::new(Severity::Degraded, what, consequence, remedy));
        };
        if self.cgroup == CgroupVersion::None || !facts.cgroup_writable {
            lacks(
                "a writable cgroup hierarchy",
                "limits are refused, running out of memory is not told apart",
                if nested { DELEGATE } else { "mount /sys/fs/cgroup for writing" },
            );
        } else {
            for controller in ["memory", "pids"] {
                if !facts.controllers.iter().any(|c| c == controller) {
                    lacks(
                        &format!("the {controller} controller"),
                        &format!("there is no {controller} limit"),
                        "enable it at the top of the cgroup hierarchy",
                    );
                }
            }
        }
        if facts.user_namespace.as_ref().is_some_and(IdMap::is_single) {
            lacks(
                "subordinate user and group ids",
                "every file belongs to one user: chown to others fails in steps, and is left out of layers",
                "install uidmap, then: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
            );
        }
        if self.overlay == Overlay::Absent {
            lacks(
                "overlayfs",
                "layers go through fuse-overlayfs or are copied",
                "load the kernel module: modprobe overlay",
            );
        }
        if !facts.time_namespaces {
            lacks("time namespaces", "sandboxes see how long the host has been up", "run Linux 5.6 or later");
        }
        for capability in &self.missing_capabilities {
            let shortcoming = Shortcoming::new(
                Severity::Degraded,
                &format!("CAP_{capability}"),
                "programs that need it fail in sandboxes, too",
                "give the capability to the caller",
            );
            self.shortcomings.push(shortcoming);
        }
    }
}

impl Shortcoming {
    fn new(severity: Severity, what: &str, consequence: &str, remedy: &str) -> Self {
        let owned = str::to_owned;
        Self { severity, what: owned(what), consequence: owned(consequence), remedy: owned(remedy) }
    }
}

impl Facts {
    fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cgroups = cgroup::Hierarchies::detect();
        let directories = cgroups.directories();
        let writable = |path: &std::path::PathBuf| {
            rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
                && rustix::fs::statvfs(path).is_ok_and(|fs| !fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        };
        let confined = rustix::fs::openat2(
            CWD,
            c".",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            root: rustix::process::geteuid().is_root(),
            openat2: !matches!(confined, Err(Errno::NOSYS | Errno::PERM)),
            file_systems: read("/proc/filesystems"),
            cgroup: Some(cgroups.version()),
            controllers: cgroups.controllers(),
            cgroup_writable: !directories.is_empty() && directories.iter().all(writable),
            seccomp: fs::exists("/proc/sys/kernel/seccomp/actions_avail").unwrap_or(false),
            max_user_namespaces: read("/proc/sys/user/max_user_namespaces").trim().parse().unwrap_or(0),
            user_namespace: current_ids().ok().filter(|map| !map.is_identity()),
            time_namespaces: fs::exists("/proc/self/ns/time").unwrap_or(false),
            apparmor: read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
            bounding: Capabilities::caller_bounding(),
        }
    }
}

/// Major and minor number of a release such as `6.18.44-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            release: "6.18.44-fc".to_owned(),
            root: true,
            openat2: true,
            file_systems: "nodev\tsysfs\nnodev\toverlay\n\text4\n".to_owned(),
            cgroup: Some(CgroupVersion::V2),
            controllers: vec!["memory".to_owned(), "pids".to_owned()],
            cgroup_writable: true,
            seccomp: true,
            max_user_namespaces: 1,
            user_namespace: None,
            time_namespaces: true,
            apparmor: false,
            bounding: Capabilities::from_names(crate::capability::ALL_CAPABILITIES).unwrap(),
        }
    }

    #[test]
    fn a_good_host_lacks_nothing() {
        let support = HostSupport::judge(&good());
        assert!(support.usable() && support.shortcomings.is_empty(), "{support:?}");
        assert_eq!(support.overlay, Overlay::LayerByLayer);
    }

    #[test]
    fn each_missing_piece_is_named_with_its_consequence() {
        let none = Capabilities::default();
        for (facts, what, usable) in [
            (Facts { release: "5.10.0".to_owned(), ..good() }, "Linux 5.12", false),
            (Facts { root: false, ..good() }, "root, also in a user namespace", false),
            (Facts { openat2: false, ..good() }, "the system call openat2", false),
            (Facts { seccomp: false, ..good() }, "seccomp filters", false),
            (Facts { file_systems: "ext4".to_owned(), ..good() }, "overlayfs", true),
            (Facts { bounding: none, ..good() }, "CAP_SYS_ADMIN", false),
            (Facts { bounding: Capabilities::SYS_ADMIN, ..good() }, "CAP_CHOWN", true),
            (Facts { time_namespaces: false, ..good() }, "time namespaces", true),
            (Facts { user_namespace: Some(IdMap::default()), ..good() }, "subordinate user and group ids", true),
            (Facts { cgroup: None, ..good() }, "a writable cgroup hierarchy", true),
            (Facts { cgroup_writable: false, ..good() }, "a writable cgroup hierarchy", true),
            (Facts { controllers: vec!["memory".to_owned()], ..good() }, "the pids controller", true),
        ] {
            let support = HostSupport::judge(&facts);
            assert_eq!(support.usable(), usable, "{what}: {support:?}");
            assert!(support.shortcomings.iter().any(|s| s.what == what), "{what}: {support:?}");
        }
        let older = HostSupport::judge(&Facts { release: "5.15.0".to_owned(), ..good() });
        assert_eq!((older.overlay, older.usable()), (Overlay::OptionPage, true));
    }

    #[test]
    fn probing_finds_this_kernel() {
        assert!(version(&HostSupport::probe().kernel) > (2, 6));
    }
}
