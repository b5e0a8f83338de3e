//! A place in a network: what is wanted of it, and what is written down of it.

use std::net::{IpAddr, SocketAddr};

use rbuild_executor::network::Namespace;
use rbuild_executor::network::firewall::{Protocol, Published};
use serde::{Deserialize, Serialize};

use super::mac::MacAddress;

/// What is written in an endpoint's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its identifier: 64 hexadecimal digits.
    #[serde(default)]
    pub id: String,
    /// Its addresses, in the order of the network's ranges.
    pub addresses: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    pub published: Vec<Published>,
    /// The names by which others of the network find it.
    pub names: Vec<String>,
    /// Its hardware address.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// Its interface inside.
    #[serde(default)]
    pub interface: String,
    /// The container that has it; a step has none.
    #[serde(default)]
    pub container: Option<EndpointOwner>,
    /// What it lives with.
    #[serde(default)]
    pub life: Life,
}

/// Whose endpoint it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointOwner {
    /// The container's identifier.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What an endpoint lives with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    /// The lock on its own file.
    #[default]
    File,
    /// Its container, which another process runs (`super::presence`).
    Container,
}

/// What is wanted of an endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointRequest {
    /// Addresses it must have; for the other ranges the first free one is taken.
    pub addresses: Vec<IpAddr>,
    /// The names by which others of the network find it.
    pub names: Vec<String>,
    /// Its hardware address; one that goes with its first address when none is given.
    pub mac: Option<MacAddress>,
    /// Ports of the host that are to lead to it.
    pub ports: Vec<HostPort>,
    /// The container that has it.
    pub container: Option<EndpointOwner>,
}

/// A port of the host, and the port inside that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On the host.
    pub host: SocketAddr,
    /// Inside.
    pub inside: u16,
}

/// Where an endpoint's interface is made.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a new namespace, which is sent out through it.
    New,
    /// In a namespace that is there, whose ways out stay.
    In {
        /// Which.
        namespace: &'a Namespace,
        /// Name of the interface.
        interface: &'a str,
        /// What the endpoint lives with.
        life: Life,
    },
}

impl HostPort {
    /// The rule that leads to an endpoint with these addresses; `None` when it has none of the family.
    pub(super) fn published(&self, endpoint: &[IpAddr]) -> Option<Published> {
        let inside = endpoint.iter().find(|address| address.is_ipv4() == self.host.is_ipv4())?;
        Some(Published { protocol: self.protocol, host: self.host, inside: SocketAddr::new(*inside, self.inside) })
    }
}
