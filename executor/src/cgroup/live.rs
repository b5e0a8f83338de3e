//! A sandbox that another process runs, seen through the control groups of its first process: what it uses, its processes,
//! its limits, and whether it is frozen.
//!
//! Where a controller has no group of the sandbox's own (an ordinary user, a v1 hierarchy in which nothing was limited), what
//! it would have counted is summed up over the sandbox's processes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::hierarchy::{self, CgroupVersion, Hierarchies};
use super::{PARENT, limits};
use crate::plan::CgroupPlan;
use crate::spawn_error::SpawnError;
use crate::spec::Resources;

/// Controllers that are asked about a live sandbox.
const ASKED: [&str; 6] = ["memory", "pids", "cpu", "cpuset", "freezer", "devices"];
/// Clock ticks in a second, as the kernel shows them to programs on every architecture that we serve.
const TICKS: u64 = 100;
/// How long the kernel may take to freeze every process.
const FREEZING: Duration = Duration::from_secs(10);

/// A running sandbox of somebody else's.
#[derive(Debug)]
pub struct LiveSandbox {
    pid: u32,
    id: String,
    hierarchies: Hierarchies,
}

/// What a sandbox uses at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveUsage {
    /// Processor time so far.
    pub cpu: Duration,
    /// Bytes of memory, without what the kernel could give up at once.
    pub memory: u64,
    /// How much memory it may use: its limit, else all there is.
    pub memory_limit: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
    /// Bytes received over its network.
    pub received: u64,
    /// Bytes sent over its network.
    pub sent: u64,
}

impl LiveSandbox {
    /// The sandbox with this first process, by the id it was started with. The caller knows that the process lives.
    pub fn of(pid: u32, id: &str) -> io::Result<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self { pid, id: id.to_owned(), hierarchies: Hierarchies::parse_for(&mounts, &groups, &ASKED) })
    }

    /// Its processes, as the host numbers them.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let own = self.own("pids").or_else(|| self.own("memory"));
        if let Some(group) = own {
            let mut pids = BTreeSet::new();
            collect(&group, &mut pids)?;
            return Ok(pids.into_iter().collect());
        }
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid"));
        let own = namespace(self.pid)?;
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if namespace(pid).is_ok_and(|other| other == own) {
                pids.push(pid);
            }
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// What it uses now.
    pub fn usage(&self) -> io::Result<LiveUsage> {
        let mut usage = LiveUsage { memory_limit: total_memory()?, ..LiveUsage::default() };
        let mut resident = 0;
        let mut threads = 0;
        for pid in self.processes()? {
            // It may end meanwhile.
            let Some(process) = process_usage(pid) else { continue };
            usage.cpu += process.cpu;
            resident += process.resident;
            threads += process.threads;
            usage.read += process.read;
            usage.written += process.written;
        }
        let number = |group: &Path, file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let (current, limit, inactive) = match self.hierarchies.version() {
            CgroupVersion::V2 => ("memory.current", "memory.max", "inactive_file"),
            _ => ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
        };
        usage.memory = resident;
        if let Some(group) = self.own("memory") {
            let cached = field(&group.join("memory.stat"), inactive).unwrap_or(0);
            usage.memory = number(&group, current).map_or(resident, |bytes| bytes.saturating_sub(cached));
            usage.memory_limit = number(&group, limit).unwrap_or(u64::MAX).min(usage.memory_limit);
        }
        usage.pids = self.own("pids").and_then(|group| number(&group, "pids.current")).unwrap_or(threads);
        if self.hierarchies.version() == CgroupVersion::V2
            && let Some(group) = self.own("cpu")
        {
            usage.cpu = field(&group.join("cpu.stat"), "usage_usec").map_or(usage.cpu, Duration::from_micros);
        }
        (usage.received, usage.sent) = traffic(&fs::read_to_string(format!("/proc/{}/net/dev", self.pid))?);
        Ok(usage)
    }

    /// Changes limits while it runs; those that are not given stay as they are.
    pub fn limit(&self, changes: &Resources) -> Result<(), SpawnError> {
        let plan = CgroupPlan {
            limits: changes.clone(),
            default_pids: None,
            confine_devices: false,
            devices: Vec::new(),
            kill_leftovers: false,
        };
        if self.hierarchies.version() == CgroupVersion::V2 {
            return match self.own("memory") {
                Some(group) => limits::apply_v2(&plan, &group, &mut Vec::new()),
                None => limits::none_available(&plan, &mut Vec::new()),
            };
        }
        let mut groups = Vec::new();
        for hierarchy in self.hierarchies.v1() {
            let wanted = limits::wanted_v1(&hierarchy.controllers, changes);
            if !wanted {
                continue;
            }
            let group = match hierarchy.controllers.iter().find_map(|controller| self.own(controller)) {
                Some(group) => group,
                None => self.join(hierarchy).map_err(|error| SpawnError::Limit {
                    limit: hierarchy.controllers.join(","),
                    reason: error.to_string(),
                })?,
            };
            groups.extend(hierarchy.controllers.iter().map(|controller| (controller.clone(), group.clone())));
        }
        limits::apply_v1(&plan, &groups, &mut Vec::new())
    }

    /// Stops every process where it is.
    pub fn freeze(&self) -> io::Result<()> {
        if let (CgroupVersion::V2, Some(group)) = (self.hierarchies.version(), self.own("memory")) {
            fs::write(group.join("cgroup.freeze"), "1")?;
            return wait_for("cgroup.events", || Ok(field(&group.join("cgroup.events"), "frozen") == Some(1)));
        }
        let group = self.freezer().ok_or_else(no_freezer)?;
        fs::create_dir_all(&group)?;
        let frozen = self.freeze_in(&group);
        if frozen.is_err() {
            self.thaw()?;
        }
        frozen
    }

    fn freeze_in(&self, group: &Path) -> io::Result<()> {
        // What is started while we move is started by what was not moved yet.
        loop {
            let here = fs::read_to_string(group.join("cgroup.procs"))?;
            let here: BTreeSet<u32> = here.lines().filter_map(|line| line.parse().ok()).collect();
            let missing: Vec<u32> = self.processes()?.into_iter().filter(|pid| !here.contains(pid)).collect();
            if missing.is_empty() {
                break;
            }
            for pid in missing {
                move_process(pid, group)?;
            }
        }
        fs::write(group.join("freezer.state"), "FROZEN")?;
        let state = group.join("freezer.state");
        wait_for("freezer.state", || Ok(fs::read_to_string(&state)?.trim() == "FROZEN"))
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> io::Result<()> {
        if let (CgroupVersion::V2, Some(group)) = (self.hierarchies.version(), self.own("memory")) {
            return fs::write(group.join("cgroup.freeze"), "0");
        }
        thaw_v1(&self.freezer().ok_or_else(no_freezer)?)
    }

    /// The group of one controller that is the sandbox's own.
    fn own(&self, controller: &str) -> Option<PathBuf> {
        let group = match self.hierarchies.version() {
            CgroupVersion::V2 => self.hierarchies.own_v2()?.to_owned(),
            _ => {
                let has = |h: &&hierarchy::V1| h.controllers.iter().any(|c| c == controller);
                self.hierarchies.v1().iter().find(has)?.directory.clone()
            }
        };
        (group.file_name()?.to_str()? == self.id).then_some(group)
    }

    /// Where this sandbox is frozen on v1.
    fn freezer(&self) -> Option<PathBuf> {
        freezer_group(&self.id)
    }

    /// Moves the sandbox into a new group of a v1 hierarchy, beside the one it has for memory or processes.
    fn join(&self, hierarchy: &hierarchy::V1) -> io::Result<PathBuf> {
        let beside = self.own("pids").or_else(|| self.own("memory")).ok_or(io::ErrorKind::NotFound)?;
        let owner = beside.parent().and_then(Path::file_name).ok_or(io::ErrorKind::NotFound)?;
        let parent = Path::new(PARENT).join(owner);
        hierarchy::make_v1(hierarchy, &parent, &self.id)?;
        let group = hierarchy.directory.join(parent).join(&self.id);
        for pid in self.processes()? {
            move_process(pid, &group)?;
        }
        Ok(group)
    }
}

/// Lets what is left of a sandbox go on that was frozen when its owner died, so that it can die, too.
pub fn thaw_leftover(id: &str) -> io::Result<()> {
    freezer_group(id).map_or(Ok(()), |group| if group.exists() { thaw_v1(&group) } else { Ok(()) })
}

fn freezer_group(id: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let found = Hierarchies::parse_for(&mounts, &own, &["freezer"]);
    Some(found.v1().first()?.directory.join(PARENT).join(id))
}

fn thaw_v1(group: &Path) -> io::Result<()> {
    fs::write(group.join("freezer.state"), "THAWED")?;
    let above = group.parent().and_then(Path::parent).ok_or(io::ErrorKind::NotFound)?;
    loop {
        let processes = fs::read_to_string(group.join("cgroup.procs"))?;
        if processes.is_empty() {
            break;
        }
        for pid in processes.lines().filter_map(|line| line.parse().ok()) {
            move_process(pid, above)?;
        }
    }
    fs::remove_dir(group)?;
    // Not empty where another sandbox is frozen.
    drop(group.parent().map(fs::remove_dir));
    Ok(())
}

fn no_freezer() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this host has no freezer control group that this user may use")
}

/// Moves a process, which may end meanwhile.
fn move_process(pid: u32, group: &Path) -> io::Result<()> {
    match fs::write(group.join("cgroup.procs"), pid.to_string()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

fn wait_for(what: &str, is: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let start = Instant::now();
    while !is()? {
        if start.elapsed() > FREEZING {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} does not change")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The processes of a group and of those in it.
pub(super) fn collect(group: &Path, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    let listed = fs::read_to_string(group.join("cgroup.procs"))?;
    pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid > 0));
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// A line `NAME NUMBER` of a file.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn total_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

struct ProcessUsage {
    cpu: Duration,
    resident: u64,
    threads: u64,
    read: u64,
    written: u64,
}

fn process_usage(pid: u32) -> Option<ProcessUsage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // Its own time and that of the children it has waited for.
    let spent = (11..15).filter_map(number).sum::<u64>();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let of_io = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    Some(ProcessUsage {
        cpu: Duration::from_millis(spent * (1000 / TICKS)),
        resident: resident.unwrap_or(0_u64) * 1024,
        threads: number(17).unwrap_or(1),
        read: of_io("read_bytes:"),
        written: of_io("write_bytes:"),
    })
}

/// Bytes received and sent, from the text of `/proc/PID/net/dev`; the loopback interface does not count.
fn traffic(text: &str) -> (u64, u64) {
    let mut total = (0, 0);
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        total.0 += numbers.first().copied().unwrap_or(0);
        total.1 += numbers.get(8).copied().unwrap_or(0);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_interfaces_but_loopback() {
        let text = "Inter-|   Receive\n face |bytes packets\n    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  \
                    eth0: 2000 5 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n  eth1:7 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (2007, 309));
        assert_eq!(traffic(""), (0, 0));
    }

    #[test]
    fn any_process_can_be_measured() {
        let own = LiveSandbox::of(std::process::id(), "no group is called that").unwrap();
        assert!(own.processes().unwrap().contains(&std::process::id()));
        let usage = process_usage(std::process::id()).unwrap();
        assert!(usage.resident > 0 && usage.threads > 0);
        assert!(total_memory().unwrap() >= usage.resident);
        thaw_leftover("no group is called that").unwrap();
    }
}
