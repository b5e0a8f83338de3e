//! What a user asks of a new container: the flags of `run` and `create` as plain data, nothing merged yet.

use std::collections::BTreeMap;

use rbuild_executor::{Resources, Rlimit};

use crate::capability::CapabilityRequest;
use crate::etc_files::{DnsSettings, ExtraHost};
use crate::mounts::MountRequest;
use crate::name::ContainerName;
use crate::network::NetworkChoice;
use crate::signal::Signal;

/// A new container as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunRequest {
    /// `--name`; a random one is drawn without it.
    pub name: Option<ContainerName>,
    /// The words behind the image.
    pub command: Vec<String>,
    /// `--entrypoint`; an empty one takes the image's away.
    pub entrypoint: Option<String>,
    /// `-e` and `--env-file`: `NAME=value`, or a bare `NAME` that takes the variable away.
    pub env: Vec<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `--group-add`.
    pub group_add: Vec<String>,
    /// `-w`.
    pub working_dir: Option<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `-t` and `-i`.
    pub console: Console,
    /// `--rm`.
    pub lifetime: Lifetime,
    /// `-v`, `--mount` and `--tmpfs`, in that order.
    pub mounts: Vec<MountRequest>,
    /// `--network`.
    pub network: NetworkChoice,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--dns`, `--dns-search`, `--dns-option`.
    pub dns: DnsSettings,
    /// `--expose`.
    pub expose: Vec<String>,
    /// `--cap-add`, `--cap-drop`, `--privileged`.
    pub capabilities: CapabilityRequest,
    /// `--security-opt`.
    pub security: SecurityOptions,
    /// `--read-only`.
    pub root: RootAccess,
    /// `--ulimit`.
    pub ulimits: Vec<Rlimit>,
    /// `--memory` and its kin.
    pub resources: Resources,
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--init`.
    pub init: InitChoice,
    /// `--stop-signal`.
    pub stop_signal: Option<Signal>,
    /// `--stop-timeout`, in seconds.
    pub stop_timeout: Option<u32>,
}

/// What the container's standard streams are connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Console {
    /// `-t`: the process gets a terminal.
    pub terminal: bool,
    /// `-i`: its input is open.
    pub interactive: bool,
}

/// Whether a container outlives its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// It stays until it is removed.
    #[default]
    Kept,
    /// It goes, with its anonymous volumes, when its process ends (`--rm`).
    Process,
}

/// Whether the container's root file system can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootAccess {
    /// It can.
    #[default]
    ReadWrite,
    /// Only the mounts in it can.
    ReadOnly,
}

/// Who is PID 1 in the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitChoice {
    /// The container's own process.
    #[default]
    Process,
    /// A minimal init that forwards signals and reaps.
    Reaper,
}

/// What `--security-opt` can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=unconfined`.
    pub seccomp_unconfined: bool,
}

/// A `--security-opt` that is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecurityOption {
    /// Docker does not know it either.
    #[error("invalid --security-opt: {text:?}")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// Understood, and not served.
    #[error("--security-opt {text:?} is not supported: {instead}")]
    NotServed {
        /// What was given.
        text: String,
        /// What to do.
        instead: &'static str,
    },
}

impl SecurityOptions {
    /// Takes one more `--security-opt`; key and value may be parted by `=` or, as before, by `:`.
    pub fn apply(&mut self, text: &str) -> Result<(), InvalidSecurityOption> {
        let unknown = || InvalidSecurityOption::Unknown { text: text.to_owned() };
        let not_served = |instead| InvalidSecurityOption::NotServed { text: text.to_owned(), instead };
        let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => self.no_new_privileges = true,
            ("no-new-privileges", Some("false")) => self.no_new_privileges = false,
            ("seccomp", Some("unconfined")) => self.seccomp_unconfined = true,
            ("seccomp", Some("builtin")) => self.seccomp_unconfined = false,
            ("seccomp", Some(_)) => return Err(not_served("only the built-in profile and unconfined are served")),
            // No label and no profile is applied by default, so that there is nothing to switch off.
            ("label", Some("disable")) | ("apparmor", Some("unconfined")) => {}
            ("label", Some(_)) => return Err(not_served("no SELinux label is applied to containers")),
            ("apparmor", Some(_)) => return Err(not_served("no AppArmor profile is applied to containers")),
            ("systempaths", Some("unconfined")) => return Err(not_served("use --privileged")),
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_a_closed_list() {
        let mut options = SecurityOptions::default();
        for text in ["no-new-privileges", "seccomp=unconfined", "label=disable", "apparmor:unconfined"] {
            options.apply(text).unwrap();
        }
        assert_eq!(options, SecurityOptions { no_new_privileges: true, seccomp_unconfined: true });
        options.apply("no-new-privileges:false").unwrap();
        assert!(!options.no_new_privileges);
        for bad in ["", "seccomp", "no-new-privileges=maybe", "foo=bar"] {
            assert!(matches!(options.apply(bad), Err(InvalidSecurityOption::Unknown { .. })), "{bad:?}");
        }
        for bad in ["seccomp=/p.json", "label=type:x", "apparmor=docker-default", "systempaths=unconfined"] {
            assert!(matches!(options.apply(bad), Err(InvalidSecurityOption::NotServed { .. })), "{bad:?}");
        }
    }
}
