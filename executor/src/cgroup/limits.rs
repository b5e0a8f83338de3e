//! Limits as the files of v1 and v2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{NOT_DELEGATED, Warning, disks};
use crate::plan::CgroupPlan;
use crate::spawn_error::SpawnError;
use crate::spec::Resources;

/// Length of a scheduling period in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Whether a v1 hierarchy is worth a group for these limits. Memory and pids always are: they tell of OOM kills, the peak,
/// and stop fork bombs.
pub(super) fn wanted_v1(controllers: &[String], limits: &Resources) -> bool {
    controllers.iter().any(|controller| match controller.as_str() {
        "memory" | "pids" => true,
        "cpu" => limits.cpu_millis.is_some() || limits.cpu_shares.is_some(),
        "cpuset" => limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some(),
        "blkio" => !limits.disks.is_empty(),
        _ => false,
    })
}

/// Without any cgroup: what was asked for is an error.
pub(super) fn none_available(plan: &CgroupPlan, warnings: &mut Vec<Warning>) -> Result<(), SpawnError> {
    refuse_all(plan, "no cgroup hierarchy can be written on this host")?;
    if plan.default_pids.is_some() {
        warnings.push(Warning::NoProcessLimit { reason: "no cgroup hierarchy can be written".to_owned() });
    }
    Ok(())
}

/// Where an ordinary user may make no cgroup: the same, and one sentence about all defaults.
pub(super) fn not_delegated(plan: &CgroupPlan, warnings: &mut Vec<Warning>) -> Result<(), SpawnError> {
    refuse_all(plan, NOT_DELEGATED)?;
    *warnings = vec![Warning::NotDelegated];
    Ok(())
}

fn refuse_all(plan: &CgroupPlan, reason: &str) -> Result<(), SpawnError> {
    let limits = &plan.limits;
    for (name, asked) in [
        ("memory", limits.memory.is_some()),
        ("memory-swap", limits.memory_swap.is_some()),
        ("cpus", limits.cpu_millis.is_some()),
        ("cpu-shares", limits.cpu_shares.is_some()),
        ("cpuset-cpus", limits.cpuset_cpus.is_some()),
        ("cpuset-mems", limits.cpuset_mems.is_some()),
        ("memory-reservation", limits.memory_reservation.is_some()),
        ("memory-swappiness", limits.memory_swappiness.is_some()),
        ("oom-kill-disable", limits.oom_kill_disable),
        ("of disks", !limits.disks.is_empty()),
        ("pids-limit", limits.pids.is_some()),
    ] {
        if asked {
            return Err(refused(name, reason));
        }
    }
    Ok(())
}

/// Writes the limits into the v1 groups, each given with its controller.
pub(super) fn apply_v1(
    plan: &CgroupPlan,
    groups: &[(String, PathBuf)],
    warnings: &mut Vec<Warning>,
) -> Result<(), SpawnError> {
    let limits = &plan.limits;
    let set = |name: &str, controller: &str, file: &str, value: String| {
        let Some((_, group)) = groups.iter().find(|(c, _)| c == controller) else {
            return Err(refused(name, &format!("the {controller} controller of cgroup v1 is not available")));
        };
        write(name, &group.join(file), &value)
    };
    let set_swap = |value: String| set("memory-swap", "memory", "memory.memsw.limit_in_bytes", value);
    // Kernels without accounting of swap have no such file; then there is nothing to limit.
    let default_swap = || match (limits.memory, limits.memory_swap) {
        (Some(memory), None) => drop(set_swap(memory.saturating_mul(2).to_string())),
        (_, Some(u64::MAX)) => drop(set_swap("-1".to_owned())),
        _ => {}
    };
    if let Some(bytes) = limits.memory {
        // It may not exceed the limit of both together, which must not be below it either: whichever way it changes.
        default_swap();
        set("memory", "memory", "memory.limit_in_bytes", bytes.to_string())?;
    }
    match limits.memory_swap {
        Some(bytes) if bytes != u64::MAX => set_swap(bytes.to_string())?,
        _ => default_swap(),
    }
    if let Some(millis) = limits.cpu_millis {
        set("cpus", "cpu", "cpu.cfs_period_us", CPU_PERIOD.to_string())?;
        set("cpus", "cpu", "cpu.cfs_quota_us", quota(millis).to_string())?;
    }
    if let Some(shares) = limits.cpu_shares {
        set("cpu-shares", "cpu", "cpu.shares", shares.to_string())?;
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        set("cpuset-cpus", "cpuset", "cpuset.cpus", cpus.clone())?;
    }
    if let Some(nodes) = &limits.cpuset_mems {
        set("cpuset-mems", "cpuset", "cpuset.mems", nodes.clone())?;
    }
    if let Some(bytes) = limits.memory_reservation {
        set("memory-reservation", "memory", "memory.soft_limit_in_bytes", bytes.to_string())?;
    }
    if let Some(percent) = limits.memory_swappiness {
        set("memory-swappiness", "memory", "memory.swappiness", percent.to_string())?;
    }
    if limits.oom_kill_disable {
        set("oom-kill-disable", "memory", "memory.oom_control", "1".to_owned())?;
    }
    disks::apply_v1(&limits.disks, &set)?;
    if let Some(count) = limits.pids {
        set("pids-limit", "pids", "pids.max", pids(count))?;
    } else if let Some(count) = plan.default_pids {
        default_pids(set("pids-limit", "pids", "pids.max", count.to_string()), warnings);
    }
    Ok(())
}

/// Writes the limits into a v2 group.
pub(super) fn apply_v2(plan: &CgroupPlan, group: &Path, warnings: &mut Vec<Warning>) -> Result<(), SpawnError> {
    let limits = &plan.limits;
    let set = |name: &str, file: &str, value: String| write(name, &group.join(file), &value);
    if let Some(bytes) = limits.memory {
        set("memory", "memory.max", bytes.to_string())?;
    }
    match (limits.memory, limits.memory_swap) {
        // Kernels without accounting of swap have no such file; then there is nothing to limit.
        (_, Some(u64::MAX)) => drop(set("memory-swap", "memory.swap.max", "max".to_owned())),
        (Some(memory), None) => drop(set("memory-swap", "memory.swap.max", memory.to_string())),
        // v2 counts swap alone, Docker's option both together.
        (memory, Some(both)) => {
            set("memory-swap", "memory.swap.max", both.saturating_sub(memory.unwrap_or(0)).to_string())?;
        }
        (None, None) => {}
    }
    if let Some(millis) = limits.cpu_millis {
        set("cpus", "cpu.max", format!("{} {CPU_PERIOD}", quota(millis)))?;
    }
    if let Some(shares) = limits.cpu_shares {
        set("cpu-shares", "cpu.weight", weight(shares).to_string())?;
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        set("cpuset-cpus", "cpuset.cpus", cpus.clone())?;
    }
    if let Some(nodes) = &limits.cpuset_mems {
        set("cpuset-mems", "cpuset.mems", nodes.clone())?;
    }
    if let Some(bytes) = limits.memory_reservation {
        set("memory-reservation", "memory.low", bytes.to_string())?;
    }
    if limits.memory_swappiness.is_some() {
        return Err(refused("memory-swappiness", "cgroup v2 has no such setting"));
    }
    if limits.oom_kill_disable {
        return Err(refused("oom-kill-disable", "cgroup v2 has no such setting"));
    }
    disks::apply_v2(&limits.disks, &set)?;
    if let Some(count) = limits.pids {
        set("pids-limit", "pids.max", pids(count))?;
    } else if let Some(count) = plan.default_pids {
        default_pids(set("pids-limit", "pids.max", count.to_string()), warnings);
    }
    Ok(())
}

/// What is more than a machine can have is no limit.
fn pids(count: u64) -> String {
    if count == u64::MAX { "max".to_owned() } else { count.to_string() }
}

fn quota(cpu_millis: u64) -> u64 {
    cpu_millis.saturating_mul(CPU_PERIOD / 1000)
}

/// Docker's shares (2 to 262144) on v2's scale (1 to 10000), as runc converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn default_pids(result: Result<(), SpawnError>, warnings: &mut Vec<Warning>) {
    if let Err(SpawnError::Limit { reason, .. }) = result {
        warnings.push(Warning::NoProcessLimit { reason });
    }
}

fn write(limit: &str, file: &Path, value: &str) -> Result<(), SpawnError> {
    fs::write(file, value).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let file = file.display();
            refused(limit, &format!("{file} does not exist: the controller is not delegated (systemd: Delegate=yes)"))
        }
        _ => refused(limit, &format!("writing {value:?} to {}: {error}", file.display())),
    })
}

pub(super) fn refused(limit: &str, reason: &str) -> SpawnError {
    SpawnError::Limit { limit: limit.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_span_the_whole_scale_of_weights() {
        for (shares, want) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), want, "{shares}");
        }
        assert_eq!(quota(1500), 150_000);
    }

    #[test]
    fn an_asked_limit_that_cannot_be_applied_is_an_error_and_a_default_a_warning() {
        let plan = |memory, default_pids| CgroupPlan {
            limits: Resources { memory, ..Resources::default() },
            default_pids,
            confine_devices: false,
            devices: Vec::new(),
            kill_leftovers: false,
        };
        let mut warnings = Vec::new();
        let error = apply_v1(&plan(Some(1), None), &[], &mut warnings).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot apply the limit memory: the memory controller of cgroup v1 is not available"
        );
        assert!(none_available(&plan(Some(1), None), &mut warnings).is_err());
        assert!(warnings.is_empty());
        apply_v1(&plan(None, Some(2048)), &[], &mut warnings).unwrap();
        assert!(matches!(warnings[..], [Warning::NoProcessLimit { .. }]));
    }
}
