//! Flags of `docker run` and `docker create` that are refused by name, with what to do instead.

use crate::cli::report::Failure;

/// See the module.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = None)]
pub(super) struct UnservedArgs {
    #[arg(long, hide = true, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    #[arg(long, hide = true, value_name = "DRIVER")]
    volume_driver: Option<String>,
    #[arg(long, hide = true, value_name = "CONTAINER")]
    link: Vec<String>,
    #[arg(long, hide = true, value_name = "DEVICE")]
    device: Vec<String>,
    #[arg(long, hide = true, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    #[arg(long, hide = true, value_name = "GPUS")]
    gpus: Option<String>,
    #[arg(long, hide = true, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    pid: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    ipc: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    uts: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    userns: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    cgroupns: Option<String>,
    #[arg(long, hide = true, value_name = "NAME")]
    runtime: Option<String>,
    #[arg(long, hide = true, value_name = "OPTION")]
    storage_opt: Vec<String>,
    #[arg(long, hide = true, value_name = "BYTES")]
    memory_reservation: Option<String>,
    #[arg(long, hide = true, value_name = "PERCENT")]
    memory_swappiness: Option<String>,
    #[arg(long, hide = true)]
    oom_kill_disable: bool,
    #[arg(long, hide = true, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<String>,
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true, value_name = "WEIGHT")]
    blkio_weight: Option<String>,
    #[arg(long, hide = true, value_name = "NAME")]
    domainname: Option<String>,
}

const DEVICE: &str = "--privileged gives a container the host's devices";
const NAMESPACE: &str = "containers have their own";
const LIMIT: &str = "use --memory, --memory-swap, --cpus, --cpu-shares, --cpuset-cpus and --pids-limit";

impl UnservedArgs {
    /// Refuses the first flag that was given, unless it asks for what happens anyway.
    pub(super) fn refuse(&self) -> Result<(), Failure> {
        let given = |value: &Option<String>, harmless: &[&str]| {
            value.as_deref().is_some_and(|value| !harmless.contains(&value))
        };
        let flags = [
            (!self.volumes_from.is_empty(), "--volumes-from", "name the volumes with -v"),
            (given(&self.volume_driver, &["local"]), "--volume-driver", "volumes are local directories"),
            (
                !self.link.is_empty(),
                "--link",
                "containers of a network that `network create` made find each other by name; use --network-alias",
            ),
            (!self.device.is_empty(), "--device", DEVICE),
            (!self.device_cgroup_rule.is_empty(), "--device-cgroup-rule", DEVICE),
            (given(&self.gpus, &[]), "--gpus", DEVICE),
            (!self.sysctl.is_empty(), "--sysctl", "set it on the host, or inside with --privileged"),
            (given(&self.pid, &[""]), "--pid", NAMESPACE),
            (given(&self.ipc, &["", "private"]), "--ipc", NAMESPACE),
            (given(&self.uts, &[""]), "--uts", NAMESPACE),
            (given(&self.userns, &["", "host"]), "--userns", "containers of root have no user namespace"),
            (given(&self.cgroupns, &[]), "--cgroupns", "it follows the host's cgroup version"),
            (given(&self.runtime, &[]), "--runtime", "there is only the built-in one"),
            (!self.storage_opt.is_empty(), "--storage-opt", "containers take what space there is"),
            (given(&self.memory_reservation, &[]), "--memory-reservation", LIMIT),
            (given(&self.memory_swappiness, &[]), "--memory-swappiness", LIMIT),
            (self.oom_kill_disable, "--oom-kill-disable", LIMIT),
            (given(&self.oom_score_adj, &["0"]), "--oom-score-adj", LIMIT),
            (given(&self.cpuset_mems, &[]), "--cpuset-mems", LIMIT),
            (given(&self.blkio_weight, &["0"]), "--blkio-weight", LIMIT),
            (given(&self.domainname, &[]), "--domainname", "give the whole name with --hostname"),
        ];
        match flags.into_iter().find(|(given, _, _)| *given) {
            Some((_, flag, instead)) => Err(Failure::new(format!("{flag} is not supported")).with_help(instead)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn refused(line: &str) -> Option<String> {
        let command = UnservedArgs::augment_args(clap::Command::new("run").no_binary_name(true));
        let matches = command.try_get_matches_from(line.split_whitespace()).unwrap();
        let args = UnservedArgs::from_arg_matches(&matches).unwrap();
        args.refuse().err().map(|failure| failure.message().to_owned())
    }

    #[test]
    fn each_flag_is_refused_by_its_name() {
        for (line, flag) in [
            ("--device /dev/kvm", "--device"),
            ("--pid host", "--pid"),
            ("--ipc=host", "--ipc"),
            ("--oom-score-adj -500", "--oom-score-adj"),
        ] {
            assert_eq!(refused(line), Some(format!("{flag} is not supported")), "{line}");
        }
    }

    #[test]
    fn what_happens_anyway_is_accepted() {
        for line in ["--ipc private", "--userns=host"] {
            assert_eq!(refused(line), None, "{line}");
        }
    }
}
