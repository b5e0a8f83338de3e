//! `--sysctl`: settings of the kernel that belong to one of the container's own namespaces, as runc has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::IpcChoice;
use crate::network::NetworkChoice;

/// Settings by name, with dots as they were typed or with slashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sysctls(BTreeMap<String, String>);

/// A setting that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSysctl {
    /// Not `NAME=VALUE`.
    #[error("invalid sysctl {text:?}: NAME=VALUE is wanted")]
    Format {
        /// What was given.
        text: String,
    },
    /// It is the whole machine's.
    #[error("sysctl {name:?} is not in a separate kernel namespace: it would change the host")]
    NotSeparate {
        /// Which.
        name: String,
    },
    /// The namespace that it belongs to is not the container's own.
    #[error("sysctl {name:?} is not allowed: the container has no {kind} namespace of its own")]
    Shared {
        /// Which.
        name: String,
        /// `network` or `IPC`.
        kind: &'static str,
    },
}

/// Settings of an IPC namespace, beside those of `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

impl Sysctls {
    /// Takes one more `NAME=VALUE`.
    pub fn add(&mut self, text: &str) -> Result<(), InvalidSysctl> {
        let invalid = || InvalidSysctl::Format { text: text.to_owned() };
        let (name, value) = text.split_once('=').ok_or_else(invalid)?;
        let path = path(name);
        let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        if value.is_empty() || path.split('/').any(odd) {
            return Err(invalid());
        }
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Settings as they were typed.
    pub fn typed(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Settings by their paths below `/proc/sys`.
    pub(crate) fn paths(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, value)| (path(name), value.clone())).collect()
    }

    /// Whether each belongs to a namespace of the container's own.
    pub(super) fn check(&self, network: &NetworkChoice, ipc: &IpcChoice) -> Result<(), InvalidSysctl> {
        let own_network = !matches!(network, NetworkChoice::Host | NetworkChoice::Container(_));
        let own_ipc = !matches!(ipc, IpcChoice::Host | IpcChoice::Container(_));
        for name in self.0.keys() {
            let path = path(name);
            let (own, kind) = if path.starts_with("net/") {
                (own_network, "network")
            } else if path.starts_with("fs/mqueue/") || IPC.contains(&path.as_str()) {
                (own_ipc, "IPC")
            } else {
                return Err(InvalidSysctl::NotSeparate { name: name.clone() });
            };
            if !own {
                return Err(InvalidSysctl::Shared { name: name.clone(), kind });
            }
        }
        Ok(())
    }
}

/// The path of a setting below `/proc/sys`: of dots and slashes, the first that comes parts names, and the other one is a letter
/// of a name, as of an interface.
fn path(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name.to_owned(),
        _ => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, network: &NetworkChoice, ipc: &IpcChoice) -> Result<(), String> {
        let mut sysctls = Sysctls::default();
        sysctls.add(text).and_then(|()| sysctls.check(network, ipc)).map_err(|error| error.to_string())
    }

    #[test]
    fn only_settings_of_own_namespaces_are_taken() {
        let (network, ipc) = (NetworkChoice::Default, IpcChoice::Private);
        for text in [
            "net.ipv4.ip_forward=1",
            "net/ipv4/conf/eth0.1/rp_filter=0",
            "net.core.somaxconn=1 2",
            "kernel.shmmax=1",
            "kernel.msgmnb=1",
            "kernel.sem=1 2 3 4",
            "fs.mqueue.msg_max=5",
        ] {
            assert_eq!(check(text, &network, &ipc), Ok(()), "{text}");
        }
        for text in [
            "kernel.hostname=x",
            "kernel.domainname=x",
            "kernel.core_pattern=|x",
            "vm.swappiness=1",
            "fs.file-max=1",
            "net=1",
            "kernel.sem.x=1",
        ] {
            let error = check(text, &network, &ipc).unwrap_err();
            let name = text.split_once('=').unwrap().0;
            assert_eq!(
                error,
                format!("sysctl {name:?} is not in a separate kernel namespace: it would change the host")
            );
        }
        for text in ["net.ipv4.ip_forward", "=1", "net.ipv4.x=", "net/../kernel/x=1", "net..x=1", "net./../x=1"] {
            assert!(check(text, &network, &ipc).is_err(), "{text}");
        }
        for other in [NetworkChoice::Host, NetworkChoice::Container("web".into())] {
            let error = check("net.core.somaxconn=1", &other, &ipc).unwrap_err();
            assert_eq!(
                error,
                "sysctl \"net.core.somaxconn\" is not allowed: the container has no network namespace of its own"
            );
        }
        for other in [IpcChoice::Host, IpcChoice::Container("web".into())] {
            assert!(check("kernel.sem=1", &network, &other).unwrap_err().contains("no IPC namespace of its own"));
        }
        assert_eq!(check("kernel.sem=1", &network, &IpcChoice::None), Ok(()));
    }

    #[test]
    fn dots_are_slashes_unless_slashes_were_typed() {
        for (name, want) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/x", "net/ipv4/conf/eth0.1/x"),
            ("net.ipv4.conf.eth0/1.x", "net/ipv4/conf/eth0.1/x"),
        ] {
            assert_eq!(path(name), want);
        }
    }
}
