//! What a running container is connected to, as its record says.
//!
//! Written by whoever connects it, when it is done; `ps`, `port` and `inspect` read nothing else.

use std::net::{IpAddr, SocketAddr};

use rbuild_executor::network::firewall::Protocol;
use serde::{Deserialize, Serialize};

use super::endpoint::EndpointRecord;
use super::mac::MacAddress;
use super::record::{Network, NetworkId};

/// All that a container is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// Its networks.
    pub connections: Vec<Connection>,
    /// Ports of the host that lead to it.
    pub ports: Vec<PublishedPort>,
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The network's name.
    pub network: String,
    /// Its identifier.
    pub id: NetworkId,
    /// The endpoint's identifier.
    pub endpoint: String,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
    /// How much of each names the subnet.
    pub prefixes: Vec<u8>,
    /// The network's gateways.
    pub gateways: Vec<IpAddr>,
    /// The container's hardware address.
    pub mac: Option<MacAddress>,
    /// The names by which others find it.
    pub names: Vec<String>,
}

/// A port of the host that leads to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The container's port.
    pub inside: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On the host.
    pub host: SocketAddr,
}

impl Connection {
    pub(crate) fn of(network: &Network, endpoint: &EndpointRecord) -> Self {
        Self {
            network: network.name.clone(),
            id: network.id.clone(),
            endpoint: endpoint.id.clone(),
            addresses: endpoint.addresses.clone(),
            prefixes: network.ranges.iter().map(|range| range.subnet.prefix()).collect(),
            gateways: network.ranges.iter().map(|range| range.gateway).collect(),
            mac: endpoint.mac,
            names: endpoint.names.clone(),
        }
    }
}
