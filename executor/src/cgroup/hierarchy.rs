//! Which cgroup hierarchies the host has and where the caller is in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use serde::{Deserialize, Serialize};

use crate::user_namespace::{Powers, powers};

/// The kind of cgroups that sandboxes get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// Controllers in hierarchies of their own; also on hybrid hosts.
    V1,
    /// The unified hierarchy.
    V2,
    /// None is mounted.
    None,
}

/// One v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct V1 {
    pub(crate) controllers: Vec<String>,
    /// The name of its mount point.
    pub(crate) label: String,
    /// The caller's own group.
    pub(crate) directory: PathBuf,
}

/// All hierarchies that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    v1: Vec<V1>,
    /// The unified hierarchy: its visible top, and the caller's own group.
    v2: Option<V2>,
}

/// The unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct V2 {
    top: PathBuf,
    own: PathBuf,
}

/// Controllers worth a group of their own.
const USED: [&str; 6] = ["memory", "pids", "cpu", "cpuset", "devices", "blkio"];

impl Hierarchies {
    pub(crate) fn detect() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let mut found = Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        if let Some(v2) = &mut found.v2 {
            v2.top = v2.delegated(|group| may_write(group) && may_write(&group.join("cgroup.procs")));
        }
        found
    }

    /// Whether this error says that the caller was given no group to make others in.
    pub(super) fn denied(&self, error: &io::Error) -> bool {
        let refused = matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
        refused && powers() != Powers::All
    }

    /// From the text of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
        Self::parse_for(mountinfo, own, &USED)
    }

    /// The same, for these controllers.
    pub(super) fn parse_for(mountinfo: &str, own: &str, used: &[&str]) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(point), Some(kind)) = (left.get(3), left.get(4), right.first()) else { continue };
            let point = unescape(point);
            if *kind == "cgroup2" {
                let own = own_path(own, "").unwrap_or("/");
                let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or("").trim_matches('/');
                let own = if below.is_empty() { point.clone() } else { point.join(below) };
                found.v2.get_or_insert(V2 { top: point, own });
            } else if *kind == "cgroup" {
                let options = right.get(2).copied().unwrap_or_default();
                let controllers: Vec<_> = options.split(',').filter(|o| used.contains(o)).map(str::to_owned).collect();
                let (Some(path), Some(first)) =
                    (controllers.first().and_then(|c| own_path(own, c)), controllers.first())
                else {
                    continue;
                };
                if found.v1.iter().any(|h| h.controllers.contains(first)) {
                    continue;
                }
                // Inside a container the mount shows a subtree only.
                let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("").trim_matches('/');
                let directory = if below.is_empty() { point.clone() } else { point.join(below) };
                let label = point.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                found.v1.push(V1 { controllers, label, directory });
            }
        }
        found
    }

    pub(crate) fn version(&self) -> CgroupVersion {
        match (&self.v1[..], &self.v2) {
            ([_, ..], _) => CgroupVersion::V1,
            ([], Some(_)) => CgroupVersion::V2,
            ([], None) => CgroupVersion::None,
        }
    }

    pub(crate) fn v1(&self) -> &[V1] {
        &self.v1
    }

    pub(crate) fn v2(&self) -> Option<&Path> {
        self.v2.as_ref().map(|v2| v2.top.as_path())
    }

    /// The v2 group that the process is in whose groups these are.
    pub(super) fn own_v2(&self) -> Option<&Path> {
        self.v2.as_ref().map(|v2| v2.own.as_path())
    }

    /// Controllers that sandboxes can have limits of.
    pub(crate) fn controllers(&self) -> Vec<String> {
        match (self.version(), &self.v2) {
            (CgroupVersion::V2, Some(V2 { top, .. })) => {
                let listed = fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
                listed.split_whitespace().filter(|c| USED.contains(c)).map(str::to_owned).collect()
            }
            _ => self.v1.iter().flat_map(|h| h.controllers.iter().cloned()).collect(),
        }
    }

    /// The groups below which ours are made.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        match self.version() {
            CgroupVersion::V1 => self.v1.iter().map(|h| h.directory.clone()).collect(),
            CgroupVersion::V2 => self.v2.iter().map(|v2| v2.top.clone()).collect(),
            CgroupVersion::None => Vec::new(),
        }
    }
}

impl V2 {
    /// The topmost group on the way to the caller's own that it may make others in, as `systemd` delegates them to users; the
    /// top itself when there is none.
    fn delegated(&self, may_write: impl Fn(&Path) -> bool) -> PathBuf {
        let mut way: Vec<&Path> = self.own.ancestors().take_while(|group| group.starts_with(&self.top)).collect();
        way.reverse();
        way.into_iter().find(|group| may_write(group)).unwrap_or(&self.top).to_owned()
    }
}

fn may_write(path: &Path) -> bool {
    rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Makes `parent/id`. Another spawner that ends may remove our common, still empty parent meanwhile.
pub(super) fn make_v1(hierarchy: &V1, parent: &Path, id: &str) -> io::Result<()> {
    retry_not_found(|| try_make_v1(hierarchy, parent, id))
}

/// Makes `parent/id` and hands the controllers down to it, as far as the host lets us.
pub(super) fn make_v2(base: &Path, parent: &Path, id: &str) -> io::Result<()> {
    retry_not_found(|| try_make_v2(base, parent, id))
}

fn retry_not_found(mut make: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    const ATTEMPTS: usize = 5;
    for _ in 1..ATTEMPTS {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    make()
}

/// A new cpuset is empty until it is told what it may use.
fn try_make_v1(hierarchy: &V1, parent: &Path, id: &str) -> io::Result<()> {
    let cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
    let mut directory = hierarchy.directory.clone();
    let parts = parent.iter().chain([id.as_ref()]);
    for part in parts {
        let above = directory.clone();
        directory.push(part);
        make(&directory)?;
        if cpuset {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if fs::read_to_string(directory.join(file))?.trim().is_empty() {
                    fs::write(directory.join(file), fs::read(above.join(file))?)?;
                }
            }
        }
    }
    Ok(())
}

fn try_make_v2(base: &Path, parent: &Path, id: &str) -> io::Result<()> {
    let mut directory = base.to_owned();
    for part in parent {
        for controller in ["memory", "pids", "cpu", "cpuset", "io"] {
            // Each for itself: one that is missing must not keep the others away.
            drop(fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}")));
        }
        directory.push(part);
        make(&directory)?;
    }
    for controller in ["memory", "pids", "cpu", "cpuset", "io"] {
        drop(fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}")));
    }
    make(&directory.join(id))
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The caller's group in the hierarchy of `controller`, from `/proc/self/cgroup`.
fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        controllers.split(',').any(|c| c == controller).then(|| fields.next()).flatten()
    })
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(text: &str) -> PathBuf {
    let plain = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
20 19 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
21 20 0:20 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
22 20 0:21 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
23 20 0:22 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
24 20 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw
";

    #[test]
    fn a_hybrid_host_uses_its_v1_controllers() {
        let found = Hierarchies::parse(HYBRID, "3:memory:/a/b\n2:cpu,cpuacct:/\n0::/x\n");
        assert_eq!(found.version(), CgroupVersion::V1);
        let directories: Vec<_> = found.v1().iter().map(|h| h.directory.to_str().unwrap()).collect();
        assert_eq!(directories, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory/a/b"]);
        assert_eq!(found.v1()[0].label, "cpu,cpuacct");
    }

    #[test]
    fn a_subtree_mounted_in_a_container_is_not_prefixed_twice() {
        let mountinfo = "22 20 0:21 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = Hierarchies::parse(mountinfo, "3:memory:/docker/x\n");
        assert_eq!(found.v1()[0].directory, Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn a_unified_host_and_a_bare_one() {
        let unified = Hierarchies::parse("9 8 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/user.slice\n");
        assert_eq!((unified.version(), unified.v2()), (CgroupVersion::V2, Some(Path::new("/sys/fs/cgroup"))));
        assert_eq!(Hierarchies::parse("", "").version(), CgroupVersion::None);
    }

    #[test]
    fn a_user_works_in_the_topmost_group_that_was_delegated() {
        let found = Hierarchies::parse(
            "9 8 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n",
        );
        let v2 = found.v2.unwrap();
        let service = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(v2.delegated(|group| group.starts_with(service)), Path::new(service));
        assert_eq!(v2.delegated(|_| true), Path::new("/sys/fs/cgroup"));
        assert_eq!(v2.delegated(|_| false), Path::new("/sys/fs/cgroup"));
    }
}
