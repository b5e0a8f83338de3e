//! What a container is, once image and request are merged: everything a start needs, as it is persisted.
//!
//! Written once when the container is created and never changed by a run. `start` turns it into a sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rbuild_executor::{Access, AppArmor, BindManner, Resources, Rlimit, Seccomp, TmpfsOptions};
use rbuild_image::{ContainerPath, Healthcheck};
use serde::{Deserialize, Serialize};

use crate::etc_files::{DnsSettings, ExtraHost};
use crate::health::Probe;
use crate::logs::LogOptions;
use crate::mounts::{CopyUp, MissingSource};
use crate::network::{EndpointSettings, NetworkChoice, NetworkRequest, PortRequest};
use crate::particulars::Particulars;
use crate::request::{Console, InitChoice, Lifetime, RootAccess};
use crate::restart::RestartPolicy;
use crate::signal::Signal;
use crate::volume::VolumeName;

/// A container's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The fixed first words of its process.
    pub entrypoint: Vec<String>,
    /// The words behind them; together never empty.
    pub command: Vec<String>,
    /// The user's variables, then the image's others; a bare `NAME` takes a default away.
    pub env: Vec<String>,
    /// User and group as written; empty for root. Looked up in the container's own files at each start.
    pub user: String,
    /// Further groups as written.
    pub group_add: Vec<String>,
    /// Working directory; made at the start when it is missing.
    pub working_dir: ContainerPath,
    /// Host name.
    pub hostname: String,
    /// The image's labels and the user's.
    pub labels: BTreeMap<String, String>,
    /// What the standard streams are connected to.
    pub console: Console,
    /// Whether the container outlives its process.
    pub lifetime: Lifetime,
    /// Its mounts, sorted so that outer ones come before what lies inside them.
    pub mounts: Vec<ContainerMount>,
    /// Its network.
    pub network: NetworkChoice,
    /// What is wanted of each network; without it of `network` alone. Empty when it is a kind that needs nothing of ours, or
    /// when the container was disconnected from all.
    #[serde(default)]
    pub networks: Option<Vec<EndpointSettings>>,
    /// Ports of the host that lead to it.
    #[serde(default)]
    pub ports: Vec<PortRequest>,
    /// Whether all declared ports are published (`-P`).
    #[serde(default)]
    pub publish_all: bool,
    /// Further lines for `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Settings for `/etc/resolv.conf`.
    pub dns: DnsSettings,
    /// Ports the image or the user declared, e.g. `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// Capabilities of its root user, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Whether kernel paths and devices are open and no system call is filtered.
    pub privileged: bool,
    /// Whether set-user-id programs gain nothing.
    pub no_new_privileges: bool,
    /// Whether nothing in `/proc` and `/sys` is masked or write-protected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmasked: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The AppArmor profile.
    pub apparmor: AppArmor,
    /// Whether the root can be written.
    pub root: RootAccess,
    /// Resource limits of the process.
    pub ulimits: Vec<Rlimit>,
    /// Limits of the control group.
    pub resources: Resources,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Who is PID 1.
    pub init: InitChoice,
    /// What `stop` sends.
    pub stop_signal: Signal,
    /// How long `stop` waits, in seconds.
    pub stop_timeout: u32,
    /// When it is started again.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How its output is kept.
    #[serde(default)]
    pub log: LogOptions,
    /// What few containers have.
    #[serde(default, skip_serializing_if = "Particulars::is_default")]
    pub particulars: Particulars,
    /// How to see whether it works; a test of `NONE` says that nobody looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What a health check that is a line of text is given to; empty for `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Whether its input ends when the first client that typed into it has gone.
    #[serde(default)]
    pub input_once: bool,
}

impl ContainerConfig {
    /// What it wants of each of its networks.
    pub fn endpoints(&self) -> Vec<EndpointSettings> {
        match &self.networks {
            Some(networks) => networks.clone(),
            // Written before there were several.
            None => NetworkRequest::of(&self.network).resolve().map(|(_, networks)| networks).unwrap_or_default(),
        }
    }

    /// What its health check executes; empty when there is none.
    pub fn health_command(&self) -> Vec<String> {
        Probe::of(self.healthcheck.as_ref(), &self.shell).map(|probe| probe.command).unwrap_or_default()
    }

    /// Entrypoint and command in one: what is executed.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.command).cloned().collect()
    }
}

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// Where it appears.
    pub target: ContainerPath,
    /// What appears there.
    pub source: ContainerMountSource,
    /// Whether it can be written.
    pub access: Access,
}

/// What a mount of a container shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ContainerMountSource {
    /// A volume of the store.
    Volume {
        /// Its name.
        name: VolumeName,
        /// Whether it was made for this container and goes with it.
        ownership: VolumeOwnership,
        /// Whether the image's files are copied into it while it is empty.
        copy: CopyUp,
        /// Labels for it if it has to be made.
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute host path, as given.
        path: PathBuf,
        /// What to do when it does not exist.
        missing: MissingSource,
        /// How it is tied to the host's mounts.
        #[serde(default)]
        manner: BindManner,
    },
    /// Memory.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
        /// What else it is.
        #[serde(default)]
        options: TmpfsOptions,
        /// What stood behind the place in `--tmpfs`; nothing for one of `--mount`.
        #[serde(default)]
        typed: Option<String>,
    },
}

/// Whose a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeOwnership {
    /// The user named it; it outlives the container.
    Named,
    /// It has a random name and is removed with its container by `rm -v` and `--rm`.
    Anonymous,
}
