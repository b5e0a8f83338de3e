//! The flags of `run` and `create` for what few containers have: namespaces of others, settings of the kernel, devices.

use rbuild_container::{DeviceRequest, IpcChoice, Particulars, ProcessChoice, Sysctls, UtsChoice, VolumesFrom};
use rbuild_executor::DeviceRule;

use crate::cli::report::Failure;

/// Names are Docker's.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ParticularArgs {
    /// Mount what another container has mounted: CONTAINER[:ro]
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<VolumesFrom>,
    /// Device of this machine inside: HOST[:INSIDE[:rwm]]; a directory stands for all devices in it
    #[arg(long, value_name = "DEVICE")]
    device: Vec<DeviceRequest>,
    /// Devices that may be used, e.g. 'c 42:* rmw'
    #[arg(long, value_name = "RULE", value_parser = device_rule)]
    device_cgroup_rule: Vec<DeviceRule>,
    /// Setting of the container's own network or IPC namespace
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Processes that it sees: its own, host, container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<ProcessChoice>,
    /// Shared memory: private, shareable, none, host, container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<IpcChoice>,
    /// Host name: its own, or host
    #[arg(long, value_name = "MODE")]
    uts: Option<UtsChoice>,
    /// NIS domain name inside
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// How readily the kernel kills it for lack of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Note for tools, shown by inspect
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

fn device_rule(text: &str) -> Result<DeviceRule, String> {
    text.parse().map_err(|()| format!("invalid device cgroup format '{text}'"))
}

impl ParticularArgs {
    /// What is asked for.
    pub(super) fn request(&self) -> Result<Particulars, Failure> {
        let mut sysctls = Sysctls::default();
        for text in &self.sysctl {
            sysctls.add(text)?;
        }
        let annotation = |text: &String| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            if key.is_empty() {
                return Err(Failure::new(format!("invalid annotation format: {text:?}")));
            }
            Ok((key.to_owned(), value.to_owned()))
        };
        Ok(Particulars {
            processes: self.pid.clone().unwrap_or_default(),
            ipc: self.ipc.clone().unwrap_or_default(),
            uts: self.uts.unwrap_or_default(),
            domainname: self.domainname.clone().filter(|name| !name.is_empty()),
            sysctls,
            oom_score_adj: self.oom_score_adj,
            devices: self.device.clone(),
            device_rules: self.device_cgroup_rule.clone(),
            volumes_from: self.volumes_from.clone(),
            annotations: self.annotation.iter().map(annotation).collect::<Result<_, _>>()?,
        })
    }
}
