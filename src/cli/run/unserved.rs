//! Flags of `docker run` and `docker create` that are refused by name, with what to do instead. What asks for nothing but what
//! happens anyway is taken.

use crate::cli::report::Failure;

/// See the module.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = None)]
pub(super) struct UnservedArgs {
    #[arg(long, hide = true, value_name = "DRIVER")]
    volume_driver: Option<String>,
    #[arg(long, hide = true, value_name = "CONTAINER")]
    link: Vec<String>,
    #[arg(long, hide = true, value_name = "ADDRESS")]
    link_local_ip: Vec<String>,
    #[arg(long, hide = true, value_name = "GPUS")]
    gpus: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    userns: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    cgroupns: Option<String>,
    #[arg(long, hide = true, value_name = "NAME")]
    runtime: Option<String>,
    #[arg(long, hide = true, value_name = "OPTION")]
    storage_opt: Vec<String>,
    #[arg(long, hide = true, value_name = "NAME")]
    isolation: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
    #[arg(long, hide = true, value_name = "BYTES")]
    kernel_memory: Option<String>,
    #[arg(long, hide = true, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<String>,
    #[arg(long, hide = true, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<String>,
    #[arg(long, hide = true, value_name = "NUMBER")]
    cpu_count: Option<String>,
    #[arg(long, hide = true, value_name = "NUMBER")]
    cpu_percent: Option<String>,
    #[arg(long, hide = true, value_name = "BYTES")]
    io_maxbandwidth: Option<String>,
    #[arg(long, hide = true, value_name = "NUMBER")]
    io_maxiops: Option<String>,
    #[arg(long, hide = true)]
    use_api_socket: bool,
}

const REAL_TIME: &str = "processor time is limited with --cpus and weighed with --cpu-shares";
const WINDOWS: &str = "it is for containers of Windows; use --cpus and --device-read-bps and its kin";

impl UnservedArgs {
    /// Refuses the first flag that was given, unless it asks for what happens anyway.
    pub(super) fn refuse(&self) -> Result<(), Failure> {
        let given = |value: &Option<String>, harmless: &[&str]| {
            value.as_deref().is_some_and(|value| !harmless.contains(&value))
        };
        let flags = [
            (given(&self.volume_driver, &["local"]), "--volume-driver", "volumes are local directories"),
            (
                !self.link.is_empty(),
                "--link",
                "containers of a network that `network create` made find each other by name; use --network-alias",
            ),
            (!self.link_local_ip.is_empty(), "--link-local-ip", "use --ip and --ip6, with addresses of the network"),
            (
                given(&self.gpus, &[]),
                "--gpus",
                "use --device with the device files, and -v with the driver's libraries",
            ),
            (
                given(&self.userns, &["", "host"]),
                "--userns",
                "containers are in the user namespace of the rbuild that starts them; start it as an ordinary user for one of its own",
            ),
            (
                given(&self.cgroupns, &["", "private"]),
                "--cgroupns",
                "containers have a cgroup namespace of their own where the host is on cgroup v2",
            ),
            (given(&self.runtime, &[]), "--runtime", "there is only the built-in one"),
            (!self.storage_opt.is_empty(), "--storage-opt", "containers take what space there is"),
            (given(&self.isolation, &["", "default"]), "--isolation", "on Linux there is only the default"),
            (
                self.disable_content_trust == Some(false),
                "--disable-content-trust=false",
                "signatures of Notary are not verified; name the image by its digest",
            ),
            (given(&self.kernel_memory, &["0"]), "--kernel-memory", "kernels count it in --memory"),
            (given(&self.cpu_rt_period, &["0"]), "--cpu-rt-period", REAL_TIME),
            (given(&self.cpu_rt_runtime, &["0"]), "--cpu-rt-runtime", REAL_TIME),
            (given(&self.cpu_count, &["0"]), "--cpu-count", WINDOWS),
            (given(&self.cpu_percent, &["0"]), "--cpu-percent", WINDOWS),
            (given(&self.io_maxbandwidth, &["0"]), "--io-maxbandwidth", WINDOWS),
            (given(&self.io_maxiops, &["0"]), "--io-maxiops", WINDOWS),
            (self.use_api_socket, "--use-api-socket", "there is no daemon and no socket"),
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
            ("--gpus all", "--gpus"),
            ("--userns=private", "--userns"),
            ("--link web:db", "--link"),
            ("--disable-content-trust=false", "--disable-content-trust=false"),
        ] {
            assert_eq!(refused(line), Some(format!("{flag} is not supported")), "{line}");
        }
    }

    #[test]
    fn what_happens_anyway_is_accepted() {
        for line in [
            "--cgroupns private",
            "--userns=host",
            "--isolation=default",
            "--disable-content-trust",
            "--cpu-rt-period=0",
        ] {
            assert_eq!(refused(line), None, "{line}");
        }
    }
}
