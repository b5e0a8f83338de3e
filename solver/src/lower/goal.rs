//! What is asked for, as plain data: the command line's part of a build.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rbuild_image::Platform;
use rbuild_parser::Ignore;

use super::cache_use::StepName;
use crate::op::RunNetwork;

/// What to build, and how.
#[derive(Clone, Debug)]
pub struct Goal {
    /// `--target`: a stage's name; the last stage without.
    pub target: Option<String>,
    /// `--build-arg`, those that have a value.
    pub build_args: BTreeMap<String, String>,
    /// `--platform`; empty when nobody asked.
    pub platforms: Vec<Platform>,
    /// Whether the result is an index of platforms, so that steps are shown with theirs.
    pub multi_platform: bool,
    /// The platform of this machine.
    pub build_platform: Platform,
    /// `--build-context NAME=target:STAGE`, as `(name, stage)`.
    pub stage_contexts: Vec<(String, String)>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--no-cache`, `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--no-cache-step`.
    pub no_cache_steps: Vec<StepName>,
    /// `--cache-max-age`: results that were made before are not used.
    pub oldest: Option<Timestamp>,
    /// `--network`.
    pub network: RunNetwork,
    /// `--allow`.
    pub entitlements: Entitlements,
    /// The host name in steps.
    pub hostname: Option<String>,
    /// `--add-host`, as `(host, address)`.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// What the main context leaves out, for a check of sources.
    pub ignore: Option<Ignore>,
    /// Which stages are lowered.
    pub stages: StageChoice,
    /// Put before the ids of cache mounts, so that users of one store can be kept apart.
    pub cache_namespace: String,
}

/// Which stages are lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StageChoice {
    /// Those that the target needs.
    #[default]
    Needed,
    /// All, so that all are checked.
    All,
}

/// Which stages run again although they were recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Nothing,
    /// All (`--no-cache`).
    Everything,
    /// Those with these names, whatever their case (`--no-cache-filter`).
    Stages(Vec<String>),
}

impl NoCache {
    /// Whether a stage of this name runs again; unnamed stages have the empty name.
    pub fn covers(&self, stage: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

/// What steps may do that endangers the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `RUN --network=host`.
    pub network_host: bool,
    /// `RUN --security=insecure`.
    pub security_insecure: bool,
}

/// A resource limit of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// The limit that holds.
    pub soft: u64,
    /// The limit up to which a process may raise it.
    pub hard: u64,
}

impl Goal {
    /// The defaults on a machine of this platform.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            platforms: Vec::new(),
            multi_platform: false,
            build_platform,
            stage_contexts: Vec::new(),
            labels: BTreeMap::new(),
            no_cache: NoCache::Nothing,
            no_cache_steps: Vec::new(),
            oldest: None,
            network: RunNetwork::Default,
            entitlements: Entitlements::default(),
            hostname: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            ignore: None,
            stages: StageChoice::Needed,
            cache_namespace: String::new(),
        }
    }
}
