//! What can go wrong with a network.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use rbuild_cache::PathError;
use rbuild_executor::network::bridge::BridgeError;
use rbuild_executor::network::firewall::FirewallError;
use rbuild_executor::network::forwarding::Obstacle;
use rbuild_executor::network::subnet::Subnet;

/// Names that mean something else.
pub(super) const RESERVED: [&str; 4] = ["bridge", "host", "none", "default"];

/// Something with a network that did not work.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is none.
    #[error("network {name} not found")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// Several begin like that.
    #[error("multiple networks found with provided prefix: {text}")]
    Ambiguous {
        /// What was asked for.
        text: String,
    },
    /// There is one already.
    #[error("network with name {name} already exists")]
    Exists {
        /// Its name.
        name: String,
    },
    /// It cannot be called that.
    #[error("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and {} mean something else", RESERVED.join(", "))]
    Name {
        /// What was given.
        name: String,
    },
    /// It comes with the store.
    #[error("{name} is a pre-defined network and cannot be removed")]
    Predefined {
        /// Its name.
        name: String,
    },
    /// Somebody is connected.
    #[error("error while removing network: network {name} has active endpoints{}", listed(endpoints))]
    InUse {
        /// Its name.
        name: String,
        /// Names of containers, as far as they have one.
        endpoints: Vec<String>,
    },
    /// Its name is one that the command line gives a meaning.
    #[error("operation is not permitted on predefined {name} network")]
    Restricted {
        /// Its name.
        name: String,
    },
    /// A container is connected already.
    #[error("endpoint with name {container} already exists in network {name}")]
    Connected {
        /// The container.
        container: String,
        /// The network.
        name: String,
    },
    /// A container is not connected.
    #[error("container {container} is not connected to network {name}")]
    NotConnected {
        /// The container.
        container: String,
        /// The network.
        name: String,
    },
    /// Only networks whose addresses were chosen let containers choose.
    #[error(
        "invalid endpoint settings: user specified IP address is supported only when connecting to networks with user configured subnets"
    )]
    NotConfigured,
    /// Another network has a bridge of this name.
    #[error("networks have same bridge name: {bridge} is the one of network {name}")]
    SameBridge {
        /// The bridge.
        bridge: String,
        /// The other network.
        name: String,
    },
    /// Another network or a route of the host has these addresses.
    #[error("pool overlaps with other one on this address space: {subnet} overlaps {other}, which is in use")]
    Overlap {
        /// What was wanted.
        subnet: Subnet,
        /// What is there.
        other: Subnet,
    },
    /// A subnet that has no two addresses to give, or a second one of its family.
    #[error("the subnet {subnet} cannot be used: {reason}")]
    Unusable {
        /// Which.
        subnet: Subnet,
        /// Why.
        reason: &'static str,
    },
    /// All ranges for networks are in use.
    #[error("no range of addresses is free for a network: choose one with --subnet")]
    Exhausted,
    /// All addresses are given.
    #[error("no address of {subnet} is free")]
    Full {
        /// The range.
        subnet: Subnet,
    },
    /// Another endpoint or the host has it.
    #[error("address already in use: {address}")]
    AddressTaken {
        /// Which.
        address: IpAddr,
    },
    /// The network has no such address.
    #[error("the address {address} is in no subnet of the network")]
    OutsideSubnet {
        /// Which.
        address: IpAddr,
    },
    /// No subnet of a new network has this gateway.
    #[error("no matching subnet for gateway {address}")]
    StrayGateway {
        /// Which.
        address: IpAddr,
    },
    /// No subnet of a new network has this address of another machine.
    #[error("no matching subnet for aux-address {address}")]
    StrayAuxiliary {
        /// Which.
        address: IpAddr,
    },
    /// A subnet of a new network has two gateways.
    #[error("cannot configure multiple gateways ({first}, {second}) for the same subnet ({subnet})")]
    Gateways {
        /// One.
        first: IpAddr,
        /// The other.
        second: IpAddr,
        /// Of which.
        subnet: Subnet,
    },
    /// A subnet of a new network has two parts from which addresses are given.
    #[error("cannot configure multiple ranges ({first}, {second}) on the same subnet ({subnet})")]
    Pools {
        /// One.
        first: Subnet,
        /// The other.
        second: Subnet,
        /// Of which.
        subnet: Subnet,
    },
    /// Parts of subnets are chosen, and no subnet.
    #[error("every ip-range or gateway must have a corresponding subnet")]
    WithoutSubnet,
    /// No subnet of the network has this part.
    #[error("no matching subnet for range {pool}")]
    OutsidePool {
        /// Which.
        pool: Subnet,
    },
    /// The host's routes cannot be read.
    #[error("cannot read the routes of this host")]
    Routes(#[source] io::Error),
    /// Nobody can be kept from changing the host's network meanwhile.
    #[error("cannot lock this host's network namespace")]
    HostLock(#[source] io::Error),
    /// The record makes no sense.
    #[error("the network record {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The host does not pass on what a bridge sends.
    #[error(transparent)]
    Obstacle(Obstacle),
    /// The bridge.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The rules.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] PathError),
}

fn listed(endpoints: &[String]) -> String {
    let named: Vec<&str> = endpoints.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_names_the_network_or_the_address() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let (name, container) = (|| "front".to_owned(), || "web".to_owned());
        let subnet = |text: &str| text.parse::<Subnet>().unwrap();
        let address: IpAddr = "10.6.0.2".parse().unwrap();
        let errors = [
            NetworkError::NotFound { name: name() },
            NetworkError::Ambiguous { text: "f".to_owned() },
            NetworkError::Exists { name: name() },
            NetworkError::Name { name: "host".to_owned() },
            NetworkError::Predefined { name: "bridge".to_owned() },
            NetworkError::InUse { name: name(), endpoints: vec!["web".to_owned(), String::new(), "db".to_owned()] },
            NetworkError::InUse { name: name(), endpoints: vec![String::new()] },
            NetworkError::Restricted { name: "host".to_owned() },
            NetworkError::Connected { container: container(), name: name() },
            NetworkError::NotConnected { container: container(), name: name() },
            NetworkError::NotConfigured,
            NetworkError::SameBridge { bridge: "br0".to_owned(), name: name() },
            NetworkError::Overlap { subnet: subnet("10.6.0.0/24"), other: subnet("10.6.0.0/16") },
            NetworkError::Unusable { subnet: subnet("10.6.0.0/31"), reason: "it has no address for a container" },
            NetworkError::Exhausted,
            NetworkError::Full { subnet: subnet("10.6.0.0/24") },
            NetworkError::AddressTaken { address },
            NetworkError::OutsideSubnet { address },
            NetworkError::StrayGateway { address },
            NetworkError::StrayAuxiliary { address },
            NetworkError::Gateways { first: address, second: address, subnet: subnet("10.6.0.0/24") },
            NetworkError::Pools {
                first: subnet("10.6.0.0/25"),
                second: subnet("10.6.0.128/25"),
                subnet: subnet("10.6.0.0/24"),
            },
            NetworkError::WithoutSubnet,
            NetworkError::OutsidePool { pool: subnet("10.6.0.0/16") },
            NetworkError::Routes(denied()),
            NetworkError::HostLock(denied()),
            NetworkError::Damaged { path: "/s/networks/7.json".into() },
        ];
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r#"
        network front not found
        multiple networks found with provided prefix: f
        network with name front already exists
        invalid network name "host": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and bridge, host, none, default mean something else
        bridge is a pre-defined network and cannot be removed
        error while removing network: network front has active endpoints: web, db
        error while removing network: network front has active endpoints
        operation is not permitted on predefined host network
        endpoint with name web already exists in network front
        container web is not connected to network front
        invalid endpoint settings: user specified IP address is supported only when connecting to networks with user configured subnets
        networks have same bridge name: br0 is the one of network front
        pool overlaps with other one on this address space: 10.6.0.0/24 overlaps 10.6.0.0/16, which is in use
        the subnet 10.6.0.0/31 cannot be used: it has no address for a container
        no range of addresses is free for a network: choose one with --subnet
        no address of 10.6.0.0/24 is free
        address already in use: 10.6.0.2
        the address 10.6.0.2 is in no subnet of the network
        no matching subnet for gateway 10.6.0.2
        no matching subnet for aux-address 10.6.0.2
        cannot configure multiple gateways (10.6.0.2, 10.6.0.2) for the same subnet (10.6.0.0/24)
        cannot configure multiple ranges (10.6.0.0/25, 10.6.0.128/25) on the same subnet (10.6.0.0/24)
        every ip-range or gateway must have a corresponding subnet
        no matching subnet for range 10.6.0.0/16
        cannot read the routes of this host
        cannot lock this host's network namespace
        the network record /s/networks/7.json is damaged
        "#);
    }
}
