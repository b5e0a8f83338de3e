//! What a container is given that others do not have, because somebody asked for it by name: namespaces that are not its own,
//! settings of the kernel, devices of the host, other containers' volumes.
//!
//! Plain data, checked here against the rest of the request. Each of them is the empty default unless it was asked for;
//! docs/security.md says what each gives up.

mod device;
mod namespaces;
mod sysctl;
mod volumes_from;

use std::collections::BTreeMap;

use rbuild_executor::DeviceRule;
use serde::{Deserialize, Serialize};

pub(crate) use device::{DeviceError, devices};
pub use device::{DeviceRequest, InvalidDevice};
pub use namespaces::{InvalidNamespace, IpcChoice, ProcessChoice, UtsChoice};
pub use sysctl::{InvalidSysctl, Sysctls};
pub(crate) use volumes_from::inherit;
pub use volumes_from::{InvalidVolumesFrom, VolumesFrom};

use crate::network::NetworkChoice;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Particulars {
    /// `--pid`.
    pub processes: ProcessChoice,
    /// `--ipc`.
    pub ipc: IpcChoice,
    /// `--uts`.
    pub uts: UtsChoice,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `--sysctl`.
    pub sysctls: Sysctls,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--device`.
    pub devices: Vec<DeviceRequest>,
    /// `--device-cgroup-rule`.
    pub device_rules: Vec<DeviceRule>,
    /// `--volumes-from`.
    pub volumes_from: Vec<VolumesFrom>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
}

/// Particulars that do not go together, or that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParticulars {
    /// The host's names are not changed.
    #[error("conflicting options: {what} and the UTS mode")]
    HostNames {
        /// What was to be changed.
        what: &'static str,
    },
    /// Scores run from -1000 to 1000.
    #[error("invalid value {score}, range for oom score adj is [-1000, 1000]")]
    OomScore {
        /// What was given.
        score: i32,
    },
    /// No name that a domain can have.
    #[error("invalid domain name: {name:?}")]
    Domainname {
        /// What was given.
        name: String,
    },
    /// A setting that is not the container's own.
    #[error(transparent)]
    Sysctl(#[from] InvalidSysctl),
}

/// The kernel's limit for domain names.
const MAX_DOMAINNAME: usize = 64;

impl Particulars {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Gives them back when they go together, and with the rest of the request.
    pub(crate) fn checked(&self, network: &NetworkChoice, hostname: Option<&str>) -> Result<Self, InvalidParticulars> {
        if self.uts == UtsChoice::Host {
            let given = [(hostname.is_some(), "hostname"), (self.domainname.is_some(), "domain name")];
            if let Some((_, what)) = given.into_iter().find(|(given, _)| *given) {
                return Err(InvalidParticulars::HostNames { what });
            }
        }
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(InvalidParticulars::OomScore { score });
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if let Some(name) = &self.domainname
            && (name.is_empty() || name.len() > MAX_DOMAINNAME || !name.bytes().all(fits))
        {
            return Err(InvalidParticulars::Domainname { name: name.clone() });
        }
        self.sysctls.check(network, &self.ipc)?;
        Ok(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut Particulars), hostname: Option<&str>) -> Result<Particulars, String> {
        let mut asked = Particulars::default();
        change(&mut asked);
        asked.checked(&NetworkChoice::Default, hostname).map_err(|error| error.to_string())
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(checked(|_| {}, Some("h")).unwrap().is_default());
        assert!(checked(|asked| asked.oom_score_adj = Some(-1000), None).is_ok());
        assert!(checked(|asked| asked.domainname = Some("example.org".into()), Some("h")).is_ok());
        assert!(checked(|asked| asked.uts = UtsChoice::Host, None).is_ok());
        assert_eq!(
            checked(|asked| asked.uts = UtsChoice::Host, Some("h")).unwrap_err(),
            "conflicting options: hostname and the UTS mode"
        );
        let both = |asked: &mut Particulars| (asked.uts, asked.domainname) = (UtsChoice::Host, Some("d".into()));
        assert_eq!(checked(both, None).unwrap_err(), "conflicting options: domain name and the UTS mode");
        assert_eq!(
            checked(|asked| asked.oom_score_adj = Some(1001), None).unwrap_err(),
            "invalid value 1001, range for oom score adj is [-1000, 1000]"
        );
        assert_eq!(
            checked(|asked| asked.domainname = Some("a b".into()), None).unwrap_err(),
            "invalid domain name: \"a b\""
        );
    }

    #[test]
    fn a_record_without_them_reads_as_the_default() {
        assert_eq!(serde_json::from_str::<Particulars>("{}").unwrap(), Particulars::default());
        let asked = Particulars {
            processes: ProcessChoice::Container("web".into()),
            ipc: IpcChoice::Shareable,
            device_rules: vec!["c 10:* rw".parse().unwrap()],
            ..Particulars::default()
        };
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Particulars>(&text).unwrap(), asked);
    }
}
