//! A network comes into being: the ranges of addresses that were asked for, or free ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use jiff::Timestamp;
use rbuild_executor::network::firewall::Reach;
use rbuild_executor::network::subnet::{self, Subnet};

use super::error::{NetworkError, RESERVED};
use super::options::DriverOptions;
use super::record::{Addressing, FORMAT, Network, NetworkId, NetworkRange, Purpose};
use super::store::Networks;
use crate::name::is_restricted_name;

/// Where subnets come from that nobody chose: first those that home and company networks seldom use.
const POOLS: [(&str, u8); 2] = [("172.24.0.0/14", 22), ("10.224.0.0/12", 22)];

/// A network that a user wants.
#[derive(Clone, Debug, Default)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its addresses; a free IPv4 range when none is given.
    pub subnets: Vec<Subnet>,
    /// The host's addresses in them; the first ones when none are given.
    pub gateways: Vec<IpAddr>,
    /// Parts of them from which addresses are given.
    pub pools: Vec<Subnet>,
    /// Addresses in them that belong to others.
    pub reserved: BTreeMap<String, IpAddr>,
    /// Whether it has IPv6 addresses although none are chosen: a random private range.
    pub ipv6: bool,
    /// Options of the driver.
    pub options: DriverOptions,
    /// Whether it is shown as one that can be attached to.
    pub attachable: bool,
    /// Whether there is a way out.
    pub reach: Reach,
    /// What its maker writes on it.
    pub labels: BTreeMap<String, String>,
}

impl Networks {
    /// Makes a network.
    pub fn create(&self, new: NewNetwork, now: Timestamp) -> Result<Network, NetworkError> {
        if RESERVED.contains(&new.name.as_str()) {
            return Err(NetworkError::Restricted { name: new.name });
        }
        if !is_restricted_name(&new.name) {
            return Err(NetworkError::Name { name: new.name });
        }
        let _lock = self.lock()?;
        let all = self.list()?;
        if all.iter().any(|network| network.name == new.name) {
            return Err(NetworkError::Exists { name: new.name });
        }
        if let Some(bridge) = &new.options.bridge_name
            && let Some(other) = all.iter().find(|network| network.bridge() == *bridge)
        {
            return Err(NetworkError::SameBridge { bridge: bridge.clone(), name: other.name.clone() });
        }
        let ranges = ranges(&new, &taken(&all)?)?;
        let chosen = !new.subnets.is_empty();
        let network = Network {
            name: new.name,
            ranges,
            reach: new.reach,
            labels: new.labels,
            options: new.options,
            addressing: if chosen { Addressing::Chosen } else { Addressing::Automatic },
            reserved: new.reserved,
            attachable: new.attachable,
            ..Network::empty(Purpose::User, now)
        };
        self.publish(&network)?;
        Ok(network)
    }

    /// The network that comes with the store for this purpose; made when it is first asked for.
    pub fn of_purpose(&self, purpose: Purpose, now: Timestamp) -> Result<Network, NetworkError> {
        if let Some(found) = self.list()?.into_iter().find(|network| network.purpose == purpose) {
            return Ok(found);
        }
        let _lock = self.lock()?;
        let all = self.list()?;
        if let Some(found) = all.iter().find(|network| network.purpose == purpose) {
            return Ok(found.clone());
        }
        let ranges = match purpose {
            Purpose::Host | Purpose::None => Vec::new(),
            Purpose::Build | Purpose::Default | Purpose::User => vec![free_range(&taken(&all)?)?],
        };
        let network = Network { ranges, ..Network::empty(purpose, now) };
        self.publish(&network)?;
        Ok(network)
    }
}

impl Network {
    /// One without addresses, called as what it is for.
    pub(super) fn empty(purpose: Purpose, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            id: NetworkId::random(),
            name: purpose.name().to_owned(),
            created: now,
            purpose,
            ranges: Vec::new(),
            reach: Reach::Outside,
            labels: BTreeMap::new(),
            options: DriverOptions::default(),
            addressing: Addressing::Automatic,
            reserved: BTreeMap::new(),
            attachable: false,
        }
    }
}

/// Ranges that a new network must not have.
fn taken(networks: &[Network]) -> Result<Vec<Subnet>, NetworkError> {
    let mut taken = subnet::in_use().map_err(NetworkError::Routes)?;
    taken.extend(networks.iter().flat_map(|network| &network.ranges).map(|range| range.subnet));
    Ok(taken)
}

/// A range that nobody uses.
pub(super) fn free_range(taken: &[Subnet]) -> Result<NetworkRange, NetworkError> {
    let candidates = POOLS.iter().flat_map(|(pool, prefix)| {
        let pool: Subnet = pool.parse().expect("the pools are subnets");
        pool.parts(*prefix)
    });
    subnet::first_free(candidates, taken).and_then(NetworkRange::of).ok_or(NetworkError::Exhausted)
}

/// The ranges of a network that a user wants.
fn ranges(new: &NewNetwork, taken: &[Subnet]) -> Result<Vec<NetworkRange>, NetworkError> {
    if new.subnets.is_empty() && !(new.gateways.is_empty() && new.pools.is_empty()) {
        return Err(NetworkError::WithoutSubnet);
    }
    let mut ranges: Vec<NetworkRange> = Vec::new();
    for subnet in &new.subnets {
        if let Some(other) = taken.iter().find(|other| other.overlaps(*subnet)) {
            return Err(NetworkError::Overlap { subnet: *subnet, other: *other });
        }
        if ranges.iter().any(|range| range.subnet.is_ipv6() == subnet.is_ipv6()) {
            let reason = "there is one of its family already";
            return Err(NetworkError::Unusable { subnet: *subnet, reason });
        }
        let few = NetworkError::Unusable { subnet: *subnet, reason: "it has no address for a container" };
        if subnet.hosts().nth(1).is_none() {
            return Err(few);
        }
        let mut range = NetworkRange::of(*subnet).ok_or(few)?;
        if let Some(gateway) = new.gateways.iter().find(|gateway| subnet.contains(**gateway)) {
            range.gateway = *gateway;
        }
        range.pool = new.pools.iter().find(|pool| subnet.contains(pool.first())).copied();
        ranges.push(range);
    }
    for range in &ranges {
        one_of_each(new, range.subnet)?;
        if !range.has_host(range.gateway) {
            return Err(NetworkError::AddressTaken { address: range.gateway });
        }
    }
    let stray = new
        .pools
        .iter()
        .find(|pool| !new.subnets.iter().any(|subnet| subnet.contains(pool.first()) && subnet.contains(pool.last())));
    if let Some(pool) = stray {
        return Err(NetworkError::OutsidePool { pool: *pool });
    }
    for address in new.reserved.values() {
        let Some(range) = ranges.iter().find(|range| range.subnet.contains(*address)) else {
            return Err(NetworkError::StrayAuxiliary { address: *address });
        };
        let twice = new.reserved.values().filter(|other| *other == address).count() > 1;
        if twice || *address == range.gateway || !range.has_host(*address) {
            return Err(NetworkError::AddressTaken { address: *address });
        }
    }
    if let Some(stray) = new.gateways.iter().find(|gateway| !new.subnets.iter().any(|one| one.contains(**gateway))) {
        return Err(NetworkError::StrayGateway { address: *stray });
    }
    if !ranges.iter().any(|range| !range.subnet.is_ipv6()) {
        ranges.insert(0, free_range(taken)?);
    }
    if new.ipv6 && !ranges.iter().any(|range| range.subnet.is_ipv6()) {
        ranges.push(free_range_v6(taken)?);
    }
    Ok(ranges)
}

/// A subnet has one gateway and one part from which addresses are given.
fn one_of_each(new: &NewNetwork, subnet: Subnet) -> Result<(), NetworkError> {
    let mut gateways = new.gateways.iter().filter(|gateway| subnet.contains(**gateway));
    if let (Some(first), Some(second)) = (gateways.next(), gateways.next()) {
        return Err(NetworkError::Gateways { first: *first, second: *second, subnet });
    }
    let mut pools = new.pools.iter().filter(|pool| subnet.contains(pool.first()));
    match (pools.next(), pools.next()) {
        (Some(first), Some(second)) => Err(NetworkError::Pools { first: *first, second: *second, subnet }),
        _ => Ok(()),
    }
}

/// A random range for private use (RFC 4193) that nobody uses.
pub(super) fn free_range_v6(taken: &[Subnet]) -> Result<NetworkRange, NetworkError> {
    let candidates = std::iter::repeat_with(|| {
        let mut bytes = [0; 16];
        bytes[0] = 0xfd;
        getrandom::fill(&mut bytes[1..8]).expect("the kernel's random source never fails once the system is up");
        Subnet::new(Ipv6Addr::from(bytes).into(), 64).expect("64 bits are less than an address has")
    });
    subnet::first_free(candidates.take(16), taken).and_then(NetworkRange::of).ok_or(NetworkError::Exhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(subnets: &[&str], gateways: &[&str]) -> NewNetwork {
        NewNetwork {
            subnets: subnets.iter().map(|text| text.parse().unwrap()).collect(),
            gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
            ..NewNetwork::default()
        }
    }

    #[test]
    fn ranges_are_what_was_asked_for_or_free() {
        let taken: [Subnet; 2] = ["172.24.0.0/22".parse().unwrap(), "10.5.0.0/16".parse().unwrap()];
        let shown = |new: NewNetwork| match ranges(&new, &taken) {
            Ok(ranges) => ranges.iter().map(|r| format!("{} {}", r.subnet, r.gateway)).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown(wanted(&[], &[])), "172.24.4.0/22 172.24.4.1");
        assert_eq!(shown(wanted(&["10.6.0.0/24"], &["10.6.0.254"])), "10.6.0.0/24 10.6.0.254");
        assert_eq!(shown(wanted(&["fd00:7::/64"], &[])), "172.24.4.0/22 172.24.4.1, fd00:7::/64 fd00:7::1");
        assert_eq!(
            shown(wanted(&["10.5.1.0/24"], &[])),
            "pool overlaps with other one on this address space: 10.5.1.0/24 overlaps 10.5.0.0/16, which is in use"
        );
        assert_eq!(
            shown(wanted(&["10.6.0.0/24", "10.7.0.0/24"], &[])),
            "the subnet 10.7.0.0/24 cannot be used: there is one of its family already"
        );
        assert_eq!(
            shown(wanted(&["10.6.0.0/31"], &[])),
            "the subnet 10.6.0.0/31 cannot be used: it has no address for a container"
        );
        let pool = |text: &str| NewNetwork { pools: vec![text.parse().unwrap()], ..wanted(&["10.6.0.0/24"], &[]) };
        assert_eq!(ranges(&pool("10.6.0.128/25"), &taken).unwrap()[0].pool, Some("10.6.0.128/25".parse().unwrap()));
        assert_eq!(shown(pool("10.6.0.0/16")), "no matching subnet for range 10.6.0.0/16");
        let both = ranges(&NewNetwork { ipv6: true, ..wanted(&[], &[]) }, &taken).unwrap();
        assert!(both.len() == 2 && both[1].subnet.to_string().starts_with("fd"), "{both:?}");
        for never in ["10.6.0.0", "10.6.0.255"] {
            assert_eq!(shown(wanted(&["10.6.0.0/24"], &[never])), format!("address already in use: {never}"));
        }
        assert_eq!(
            shown(wanted(&["10.6.0.0/24"], &["10.6.0.1", "10.6.0.2"])),
            "cannot configure multiple gateways (10.6.0.1, 10.6.0.2) for the same subnet (10.6.0.0/24)"
        );
        let pools = ["10.6.0.0/25", "10.6.0.128/25"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(
            shown(NewNetwork { pools, ..wanted(&["10.6.0.0/24"], &[]) }),
            "cannot configure multiple ranges (10.6.0.0/25, 10.6.0.128/25) on the same subnet (10.6.0.0/24)"
        );
        let reserving = |addresses: &[&str]| {
            let named = addresses.iter().enumerate().map(|(at, text)| (at.to_string(), text.parse().unwrap()));
            shown(NewNetwork { reserved: named.collect(), ..wanted(&["10.6.0.0/24"], &[]) })
        };
        assert_eq!(reserving(&["10.6.0.9", "10.6.0.10"]), "10.6.0.0/24 10.6.0.1");
        assert_eq!(reserving(&["10.7.0.9"]), "no matching subnet for aux-address 10.7.0.9");
        for taken in ["10.6.0.0", "10.6.0.1", "10.6.0.255"] {
            assert_eq!(reserving(&[taken]), format!("address already in use: {taken}"));
        }
        assert_eq!(reserving(&["10.6.0.9", "10.6.0.9"]), "address already in use: 10.6.0.9");
        assert_eq!(shown(wanted(&["10.6.0.0/24"], &["10.8.0.1"])), "no matching subnet for gateway 10.8.0.1");
        assert_eq!(shown(wanted(&[], &["10.8.0.1"])), "every ip-range or gateway must have a corresponding subnet");
    }
}
