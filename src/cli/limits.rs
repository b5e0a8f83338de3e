//! The flags that limit what programs may use: those of `build` (each `RUN` step) and of `run` are the same.

use std::path::PathBuf;

use rbuild_container::{parse_bytes, parse_cpus};
use rbuild_executor::{DiskLimits, Resources};

use super::report::Failure;

/// Limits; names and short forms are Docker's.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Memory limit, e.g. 512m
    #[arg(short, long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Limit of memory and swap together; -1 is no limit of swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = parse_swap)]
    memory_swap: Option<Swap>,
    /// Number of processors, e.g. 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus, conflicts_with_all = ["cpu_period", "cpu_quota"])]
    cpus: Option<u64>,
    /// Length of a scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    cpu_period: Option<u64>,
    /// Processor time in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1000..))]
    cpu_quota: Option<u64>,
    /// Relative weight among those who want the processor
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Processors to run on, e.g. 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, e.g. 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory that it is pushed back to when the machine runs out of it
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_reservation: Option<u64>,
    /// How readily its memory is swapped out, 0 to 100 (cgroup v1)
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-1..=100))]
    memory_swappiness: Option<i64>,
    /// Let it wait for memory instead of killing it (cgroup v1)
    #[arg(long)]
    oom_kill_disable: bool,
    /// Relative weight among those who want the disks, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u64>,
    /// The same for one disk
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = device_number)]
    blkio_weight_device: Vec<(PathBuf, u64)>,
    /// Limit of what is read from a disk in a second
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = device_bytes)]
    device_read_bps: Vec<(PathBuf, u64)>,
    /// Limit of what is written to a disk in a second
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = device_bytes)]
    device_write_bps: Vec<(PathBuf, u64)>,
    /// Limit of reads from a disk in a second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = device_number)]
    device_read_iops: Vec<(PathBuf, u64)>,
    /// Limit of writes to a disk in a second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = device_number)]
    device_write_iops: Vec<(PathBuf, u64)>,
    /// Number of processes; -1 or 0 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pids_limit: Option<i64>,
    /// Parent control group
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
}

/// A value of `--memory-swap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swap {
    Unlimited,
    Bytes(u64),
}

fn parse_swap(text: &str) -> Result<Swap, String> {
    if text == "-1" {
        return Ok(Swap::Unlimited);
    }
    parse_bytes(text).map(Swap::Bytes).map_err(|error| error.to_string())
}

fn device_bytes(text: &str) -> Result<(PathBuf, u64), String> {
    device_with(text, |value| parse_bytes(value).ok())
}

fn device_number(text: &str) -> Result<(PathBuf, u64), String> {
    device_with(text, |value| value.parse().ok())
}

fn device_with(text: &str, value: impl Fn(&str) -> Option<u64>) -> Result<(PathBuf, u64), String> {
    let bad = || format!("bad format: {text:?}: /dev/NAME:NUMBER is wanted");
    let (device, number) = text.rsplit_once(':').ok_or_else(bad)?;
    if !device.starts_with("/dev/") {
        return Err(bad());
    }
    Ok((device.into(), value(number).ok_or_else(bad)?))
}

impl LimitArgs {
    /// What is to be enforced, once the limits agree with one another.
    pub(super) fn resources(&self) -> Result<Resources, Failure> {
        /// Docker's default, in microseconds.
        const PERIOD: u64 = 100_000;
        let of_quota = self.cpu_quota.map(|quota| quota * 1000 / self.cpu_period.unwrap_or(PERIOD));
        if self.cpu_period.is_some() && self.cpu_quota.is_none() {
            return Err(Failure::usage("--cpu-period needs --cpu-quota beside it", "or use --cpus"));
        }
        let resources = Resources {
            memory: self.memory,
            memory_swap: match self.memory_swap {
                Some(Swap::Bytes(bytes)) => Some(bytes),
                Some(Swap::Unlimited) => Some(u64::MAX),
                // As much swap as memory.
                None => None,
            },
            cpu_millis: self.cpus.or(of_quota),
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            memory_reservation: self.memory_reservation,
            memory_swappiness: self.memory_swappiness.and_then(|percent| u64::try_from(percent).ok()),
            oom_kill_disable: self.oom_kill_disable,
            disks: DiskLimits {
                weight: self.blkio_weight.filter(|weight| *weight != 0),
                device_weights: self.blkio_weight_device.clone(),
                read_bytes: self.device_read_bps.clone(),
                write_bytes: self.device_write_bps.clone(),
                reads: self.device_read_iops.clone(),
                writes: self.device_write_iops.clone(),
            },
            pids: self.pids_limit.map(|count| u64::try_from(count).ok().filter(|count| *count > 0).unwrap_or(u64::MAX)),
            cgroup_parent: self.cgroup_parent.clone(),
        };
        rbuild_container::check_limits(&resources)
            .map_err(|error| Failure::usage(error.to_string(), "see the limits in --help"))
    }
}

impl LimitArgs {
    /// What is to be enforced for a container: unlike a step, which takes what the machine has, it gets no more processors than
    /// there are.
    pub(super) fn of_container(&self) -> Result<Resources, Failure> {
        let resources = self.resources()?;
        let there = rustix::thread::sched_getaffinity(None).map_or(u64::MAX, |set| u64::from(set.count()));
        if self.cpus.is_some_and(|millis| millis > there.saturating_mul(1000)) {
            let message = format!("range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available");
            return Err(Failure::new(message));
        }
        Ok(resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn parse(line: &str) -> Result<Resources, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.limits.resources().map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn limits_are_dockers() {
        let none = Resources::default();
        for (line, want) in [
            ("", none.clone()),
            (
                "-m 64m --memory-swap 128m",
                Resources { memory: Some(64 << 20), memory_swap: Some(128 << 20), ..none.clone() },
            ),
            ("-m 64m", Resources { memory: Some(64 << 20), ..none.clone() }),
            (
                "-m 64m --memory-swap -1",
                Resources { memory: Some(64 << 20), memory_swap: Some(u64::MAX), ..none.clone() },
            ),
            ("--memory-swap -1", Resources { memory_swap: Some(u64::MAX), ..none.clone() }),
            ("--cpus 1.5", Resources { cpu_millis: Some(1500), ..none.clone() }),
            ("--cpu-quota 50000", Resources { cpu_millis: Some(500), ..none.clone() }),
            ("--cpu-period 50000 --cpu-quota 25000", Resources { cpu_millis: Some(500), ..none.clone() }),
            ("-c 512 --pids-limit 7", Resources { cpu_shares: Some(512), pids: Some(7), ..none.clone() }),
            ("--pids-limit -1", Resources { pids: Some(u64::MAX), ..none.clone() }),
            ("--blkio-weight 0 --memory-swappiness -1", none.clone()),
            (
                "--memory-reservation 8m --memory-swappiness 5 --cpuset-mems 0 --oom-kill-disable",
                Resources {
                    memory_reservation: Some(8 << 20),
                    memory_swappiness: Some(5),
                    cpuset_mems: Some("0".into()),
                    oom_kill_disable: true,
                    ..none.clone()
                },
            ),
            (
                "--blkio-weight 10 --device-read-bps /dev/sda:1m --device-write-iops /dev/sda:7",
                Resources {
                    disks: DiskLimits {
                        weight: Some(10),
                        read_bytes: vec![("/dev/sda".into(), 1 << 20)],
                        writes: vec![("/dev/sda".into(), 7)],
                        ..DiskLimits::default()
                    },
                    ..none.clone()
                },
            ),
        ] {
            assert_eq!(parse(line), Ok(want), "{line}");
        }
        for line in [
            "-m 1k",
            "--memory-swap 1g",
            "--cpus 1 --cpu-quota 5000",
            "--cpu-period 5000",
            "--cpuset-cpus x",
            "--pids-limit -2",
            "--memory-swappiness 101",
            "--blkio-weight 5",
            "--device-read-bps sda:1m",
            "--device-read-iops /dev/sda:1m",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
