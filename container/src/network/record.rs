//! A network as it is kept: `networks/ID/network.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use rbuild_executor::network::bridge::Address;
use rbuild_executor::network::firewall::Reach;
use rbuild_executor::network::subnet::Subnet;
use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use super::options::DriverOptions;

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

    /// The bridge on the host, unless its maker chose a name: as long as the name of an interface may be.
    pub(super) fn bridge(&self) -> String {
        format!("rb-{}", self.short())
    }

    /// The table of packet filter rules.
    pub fn table(&self) -> String {
        format!("rbuild-{}", self.short())
    }
}

impl FromStr for NetworkId {
    type Err = NetworkError;

    /// What is no identifier is nobody's: [`NetworkError::NotFound`].
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        Self::parse(text).ok_or_else(|| NetworkError::NotFound { name: text.to_owned() })
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
    /// The host's own; nothing of it is ours.
    Host,
    /// No network; listed as Docker lists it.
    None,
}

impl Purpose {
    /// Its name where it has no other.
    pub fn name(self) -> &'static str {
        match self {
            // No name that a user could give.
            Self::Build => "build steps",
            Self::Default => "bridge",
            Self::User => "",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// What Docker calls the driver of such a network.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Build | Self::Default | Self::User => "bridge",
            Self::Host => "host",
            Self::None => "null",
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
    /// The part from which addresses are given that nobody chose (`--ip-range`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Subnet>,
}

impl NetworkRange {
    /// A range with its first address for the host; `None` when it has none to give.
    pub fn of(subnet: Subnet) -> Option<Self> {
        Some(Self { subnet, gateway: subnet.hosts().next()?, pool: None })
    }

    /// Whether the address is one that a machine may have: neither the first nor, in IPv4, the last.
    pub(super) fn has_host(&self, address: IpAddr) -> bool {
        let last = !self.subnet.is_ipv6() && address == self.subnet.last();
        self.subnet.contains(address) && address != self.subnet.first() && !last
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
    /// What its maker chose of the driver.
    #[serde(default)]
    pub options: DriverOptions,
    /// Whether its maker chose its addresses; then containers may choose theirs.
    #[serde(default)]
    pub addressing: Addressing,
    /// Addresses in its ranges that belong to other machines (`--aux-address`), by what they are called.
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
    /// Shown, as in Docker, and without a meaning but in a swarm (`--attachable`).
    #[serde(default)]
    pub attachable: bool,
}

/// Who chose a network's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// Nobody: a free range was taken.
    #[default]
    Automatic,
    /// Its maker.
    Chosen,
}

impl Network {
    /// Its bridge on the host.
    pub fn bridge(&self) -> String {
        self.options.bridge_name.clone().unwrap_or_else(|| self.id.bridge())
    }

    /// Whether it has IPv6 addresses.
    pub fn has_ipv6(&self) -> bool {
        self.ranges.iter().any(|range| range.subnet.is_ipv6())
    }
}

/// Version of the documents that this program writes.
pub(super) const FORMAT: u32 = 1;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A network without addresses.
    pub(in crate::network) fn sample() -> Network {
        Network { name: "front".to_owned(), ..Network::empty(Purpose::User, Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn records_of_before_are_read() {
        let id = "0".repeat(64);
        let text = format!(
            r#"{{"format":1,"id":"{id}","name":"bridge","created":"2026-01-01T00:00:00Z","purpose":"default",
            "ranges":[{{"subnet":"172.24.0.0/22","gateway":"172.24.0.1"}}],"reach":"outside","labels":{{}}}}"#
        );
        let network: Network = serde_json::from_str(&text).unwrap();
        assert_eq!(network.bridge(), "rb-000000000000");
        assert_eq!((network.addressing, network.ranges[0].pool), (Addressing::Automatic, None));
    }
}
