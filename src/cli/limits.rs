//! The flags that limit what programs may use: those of `build` (each `RUN` step) and of `run` are the same.

use rbuild_container::{parse_bytes, parse_cpus};
use rbuild_executor::Resources;

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
    /// Number of processes
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
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
                // Not limiting it is the default.
                Some(Swap::Unlimited) | None => None,
            },
            cpu_millis: self.cpus.or(of_quota),
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            pids: self.pids_limit,
            cgroup_parent: self.cgroup_parent.clone(),
        };
        rbuild_container::check_limits(&resources)
            .map_err(|error| Failure::usage(error.to_string(), "see the limits in --help"))
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
            ("-m 64m --memory-swap -1", Resources { memory: Some(64 << 20), ..none.clone() }),
            ("--cpus 1.5", Resources { cpu_millis: Some(1500), ..none.clone() }),
            ("--cpu-quota 50000", Resources { cpu_millis: Some(500), ..none.clone() }),
            ("--cpu-period 50000 --cpu-quota 25000", Resources { cpu_millis: Some(500), ..none.clone() }),
            ("-c 512 --pids-limit 7", Resources { cpu_shares: Some(512), pids: Some(7), ..none.clone() }),
        ] {
            assert_eq!(parse(line), Ok(want), "{line}");
        }
        for line in [
            "-m 1k",
            "--memory-swap 1g",
            "--cpus 1 --cpu-quota 5000",
            "--cpu-period 5000",
            "--cpuset-cpus x",
            "--pids-limit 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
