//! A network as it is kept: `networks/ID/network.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use rbuild_executor::network::bridge::Address;
use rbuild_executor::network::firewall::Reach;
use rbuild_executor::network::subnet::Subnet;
use serde::{Deserialize, Serialize};

/// Identifies a network: 64 random hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId(String);

impl NetworkId {
    pub(super) fn random() -> Self {
        Self(crate::id::random_hex())
    }

    /// The identifier that `text` is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as lists show it.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// The bridge on the host: as long as the name of an interface may be.
    pub fn bridge(&self) -> String {
        format!("rb-{}", self.short())
    }

    /// The table of packet filter rules.
    pub fn table(&self) -> String {
        format!("rbuild-{}", self.short())
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// `RUN` steps, which do not see each other.
    Build,
    /// Containers that name no network.
    Default,
    /// Made by a user.
    User,
}

impl Purpose {
    /// Its name where it has no other.
    pub fn name(self) -> &'static str {
        match self {
            // No name that a user could give.
            Self::Build => "build steps",
            Self::Default => "bridge",
            Self::User => "",
        }
    }
}

/// A range of a network's addresses, and the host's one in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRange {
    /// All addresses.
    pub subnet: Subnet,
    /// The host's, to which everything else is sent.
    pub gateway: IpAddr,
}

impl NetworkRange {
    /// A range with its first address for the host; `None` when it has none to give.
    pub fn of(subnet: Subnet) -> Option<Self> {
        Some(Self { subnet, gateway: subnet.hosts().next()? })
    }

    /// The host's address with its prefix.
    pub(super) fn address(self) -> Address {
        Address { ip: self.gateway, prefix: self.subnet.prefix() }
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Version of this document.
    pub(super) format: u32,
    /// Its identifier.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// What for.
    pub purpose: Purpose,
    /// Its addresses: one range of IPv4, and maybe one of IPv6.
    pub ranges: Vec<NetworkRange>,
    /// Whether there is a way out of it.
    pub reach: Reach,
    /// What its maker wrote on it.
    pub labels: BTreeMap<String, String>,
}

/// Version of the documents that this program writes.
pub(super) const FORMAT: u32 = 1;
