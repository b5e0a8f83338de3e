//! What a user asks of a new container: the flags of `run` and `create` as plain data, nothing merged yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rbuild_executor::{AppArmor, ProfileError, Resources, Rlimit, Seccomp, SeccompProfile};

use crate::capability::CapabilityRequest;
use crate::etc_files::{DnsSettings, ExtraHost};
use crate::health::HealthRequest;
use crate::logs::LogOptions;
use crate::mounts::MountRequest;
use crate::name::ContainerName;
use crate::network::{NetworkRequest, PortRequest};
use crate::particulars::Particulars;
use crate::restart::RestartPolicy;
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
    /// `--network` and its kin.
    pub network: NetworkRequest,
    /// `-p`.
    pub ports: Vec<PortRequest>,
    /// `-P`.
    pub publish_all: bool,
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
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--log-driver` and `--log-opt`.
    pub log: LogOptions,
    /// `--pid`, `--ipc`, `--device`, `--sysctl` and other things that few containers have.
    pub particulars: Particulars,
    /// `--health-*`.
    pub health: HealthRequest,
    /// Whether its input ends with the first client: `-i` without `-d`.
    pub input_once: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityOptions {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=…`.
    pub seccomp: Seccomp,
    /// `apparmor=…`.
    pub apparmor: AppArmor,
    /// `systempaths=unconfined`: nothing in `/proc` and `/sys` is masked or write-protected.
    pub unmasked: bool,
}

impl Default for SecurityOptions {
    fn default() -> Self {
        Self { no_new_privileges: false, seccomp: Seccomp::Default, apparmor: AppArmor::HostDefault, unmasked: false }
    }
}

/// A `--security-opt` that is not served.
#[derive(Debug, thiserror::Error)]
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
    /// The file with the profile cannot be read.
    #[error("--security-opt seccomp: cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds no profile.
    #[error("--security-opt seccomp: {}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ProfileError,
    },
}

/// No profile that anybody wrote is larger.
const MAX_PROFILE: u64 = 4 << 20;

impl SecurityOptions {
    /// Takes one more `--security-opt`; key and value may be parted by `=` or, as before, by `:`. The path of a profile counts
    /// from `cwd`.
    pub fn apply(&mut self, text: &str, cwd: &Path) -> Result<(), InvalidSecurityOption> {
        let unknown = || InvalidSecurityOption::Unknown { text: text.to_owned() };
        let not_served = |instead| InvalidSecurityOption::NotServed { text: text.to_owned(), instead };
        let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => self.no_new_privileges = true,
            ("no-new-privileges", Some("false")) => self.no_new_privileges = false,
            ("seccomp", Some("unconfined")) => self.seccomp = Seccomp::Unconfined,
            ("seccomp", Some("builtin")) => self.seccomp = Seccomp::Default,
            ("seccomp", Some(path)) if !path.is_empty() => {
                self.seccomp = Seccomp::Profile(read_profile(&cwd.join(path))?)
            }
            ("apparmor", Some("unconfined")) => self.apparmor = AppArmor::Unconfined,
            ("apparmor", Some(name)) if !name.is_empty() => self.apparmor = AppArmor::Profile(name.to_owned()),
            // No label is applied by default, so that there is nothing to switch off.
            ("label", Some("disable")) => {}
            ("label", Some(_)) => return Err(not_served("no SELinux label is applied to containers")),
            ("systempaths", Some("unconfined")) => self.unmasked = true,
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn read_profile(path: &Path) -> Result<SeccompProfile, InvalidSecurityOption> {
    let unreadable = |source| InvalidSecurityOption::Unreadable { path: path.to_owned(), source };
    let mut json = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_PROFILE).read_to_end(&mut json)).map_err(unreadable)?;
    SeccompProfile::parse(&json).map_err(|source| InvalidSecurityOption::Profile { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_a_closed_list() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.json"), r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        std::fs::write(dir.path().join("bad.json"), r#"{"defaultAction": "?"}"#).unwrap();
        let mut options = SecurityOptions::default();
        let words = [
            "no-new-privileges",
            "seccomp=unconfined",
            "label=disable",
            "apparmor:unconfined",
            "systempaths=unconfined",
        ];
        for text in words {
            options.apply(text, dir.path()).unwrap();
        }
        let all = SecurityOptions {
            no_new_privileges: true,
            seccomp: Seccomp::Unconfined,
            apparmor: AppArmor::Unconfined,
            unmasked: true,
        };
        assert_eq!(options, all);
        for text in ["no-new-privileges:false", "seccomp=p.json", "apparmor=mine"] {
            options.apply(text, dir.path()).unwrap();
        }
        assert!(!options.no_new_privileges);
        assert!(matches!(options.seccomp, Seccomp::Profile(_)));
        assert_eq!(options.apparmor, AppArmor::Profile("mine".to_owned()));
        for bad in ["", "seccomp", "seccomp=", "no-new-privileges=maybe", "foo=bar"] {
            let error = options.apply(bad, dir.path());
            assert!(matches!(error, Err(InvalidSecurityOption::Unknown { .. })), "{bad:?}");
        }
        for bad in ["label=type:x", "label:user:x"] {
            let error = options.apply(bad, dir.path());
            assert!(matches!(error, Err(InvalidSecurityOption::NotServed { .. })), "{bad:?}");
        }
        let error = options.apply("seccomp=/no/such", dir.path());
        assert!(matches!(error, Err(InvalidSecurityOption::Unreadable { .. })));
        let error = options.apply("seccomp=bad.json", dir.path());
        assert!(matches!(error, Err(InvalidSecurityOption::Profile { .. })));
    }
}
