//! The networks of a store: what there is, and who may use it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rbuild_cache::{Hold, Lease, PathError, Store};
use rbuild_executor::network::bridge::BridgeError;
use rbuild_executor::network::firewall::{FirewallError, Reach};
use rbuild_executor::network::subnet::{self, Subnet};

use super::live::{self, EndpointRecord, EndpointRequest, Joined};
use super::record::{FORMAT, Network, NetworkId, NetworkRange, Purpose};
use crate::document::{self, AtPath, Durability, if_present};
use crate::name::is_restricted_name;

const RECORD: &str = "network.json";
/// Kind of what a lease holds outside the store for a network that is in use; its name is the network's id.
pub const OUTSIDE_KIND: &str = "network";
/// Where subnets come from that nobody chose: first those that home and company networks seldom use.
const POOLS: [(&str, u8); 2] = [("172.24.0.0/14", 22), ("10.224.0.0/12", 22)];
/// Names that mean something else.
const RESERVED: [&str; 4] = ["bridge", "host", "none", "default"];

/// The networks of one store.
#[derive(Clone, Debug)]
pub struct Networks {
    directory: PathBuf,
    /// Written on every interface that this store makes.
    owner: String,
}

/// A network that a user wants.
#[derive(Clone, Debug, Default)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its addresses; a free IPv4 range when none is given.
    pub subnets: Vec<Subnet>,
    /// The host's addresses in them; the first ones when none are given.
    pub gateways: Vec<IpAddr>,
    /// Whether there is a way out.
    pub reach: Reach,
    /// What its maker writes on it.
    pub labels: BTreeMap<String, String>,
}

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
    #[error("network {name} is predefined and cannot be removed")]
    Predefined {
        /// Its name.
        name: String,
    },
    /// Somebody is connected.
    #[error("network {name} has {count} active endpoints")]
    InUse {
        /// Its name.
        name: String,
        /// How many.
        count: usize,
    },
    /// Another network or a route of the host has these addresses.
    #[error("the subnet {subnet} overlaps {other}, which is in use")]
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
    #[error("the address {address} is in use")]
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

impl Networks {
    /// The networks of `store`.
    pub fn new(store: &Store) -> Result<Self, PathError> {
        Self::below(store.layout().root())
    }

    /// The networks of the store in the directory `root`.
    pub fn below(root: &Path) -> Result<Self, PathError> {
        let metadata = fs::metadata(root).at("inspect", root)?;
        // A copy of a store is another one; a moved one is the same.
        let owner = format!("rbuild store {}:{}", metadata.dev(), metadata.ino());
        Ok(Self { directory: root.join("networks"), owner })
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
        let taken = taken(&all)?;
        let network = Network {
            format: FORMAT,
            id: NetworkId::random(),
            name: purpose.name().to_owned(),
            created: now,
            purpose,
            ranges: vec![free_range(&taken)?],
            reach: Reach::Outside,
            labels: BTreeMap::new(),
        };
        self.publish(&network)?;
        Ok(network)
    }

    /// Makes a network.
    pub fn create(&self, new: NewNetwork, now: Timestamp) -> Result<Network, NetworkError> {
        if !is_restricted_name(&new.name) || RESERVED.contains(&new.name.as_str()) {
            return Err(NetworkError::Name { name: new.name });
        }
        let _lock = self.lock()?;
        let all = self.list()?;
        if all.iter().any(|network| network.name == new.name) {
            return Err(NetworkError::Exists { name: new.name });
        }
        let ranges = ranges(&new, &taken(&all)?)?;
        let network = Network {
            format: FORMAT,
            id: NetworkId::random(),
            name: new.name,
            created: now,
            purpose: Purpose::User,
            ranges,
            reach: new.reach,
            labels: new.labels,
        };
        self.publish(&network)?;
        Ok(network)
    }

    /// All networks with a record, by name.
    pub fn list(&self) -> Result<Vec<Network>, NetworkError> {
        let Some(entries) = if_present(fs::read_dir(&self.directory)).at("list", &self.directory)? else {
            return Ok(Vec::new());
        };
        let mut networks = Vec::new();
        for entry in entries {
            let path = entry.at("list", &self.directory)?.path();
            if path.file_name().and_then(|name| name.to_str()).and_then(NetworkId::parse).is_some() {
                networks.extend(load(&path)?);
            }
        }
        networks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(networks)
    }

    /// The network that `text` names: its name, its identifier, or the beginning of that.
    pub fn find(&self, text: &str) -> Result<Network, NetworkError> {
        let all = self.list()?;
        if let Some(found) = all.iter().find(|network| network.name == text) {
            return Ok(found.clone());
        }
        let mut matching = all.into_iter().filter(|network| !text.is_empty() && network.id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(NetworkError::Ambiguous { text: text.to_owned() }),
            _ => Err(NetworkError::NotFound { name: text.to_owned() }),
        }
    }

    /// Joins a network: gives an endpoint with a namespace. What has to be taken down if this process dies is held by the
    /// lease before it is made.
    pub fn join(&self, id: &NetworkId, request: &EndpointRequest, lease: &Lease) -> Result<Joined, NetworkError> {
        self.hold(id, lease)?;
        self.join_held(id, request)
    }

    /// Lets a lease name the network as something to be taken down.
    pub fn hold(&self, id: &NetworkId, lease: &Lease) -> Result<(), PathError> {
        lease.hold(Hold::Outside { kind: OUTSIDE_KIND.to_owned(), name: id.to_string() })
    }

    /// Joins a network that a lease of this process holds ([`Self::hold`]).
    pub fn join_held(&self, id: &NetworkId, request: &EndpointRequest) -> Result<Joined, NetworkError> {
        live::join(&self.directory, &self.owner, id, request)
    }

    /// Takes down what dead processes left of the network with this identifier.
    pub fn sweep(&self, id: &str) -> Result<(), NetworkError> {
        match NetworkId::parse(id) {
            Some(id) => live::sweep(&self.directory, &self.owner, &id),
            None => Ok(()),
        }
    }

    /// Endpoints of a network that are alive.
    pub fn endpoints(&self, id: &NetworkId) -> Result<Vec<EndpointRecord>, NetworkError> {
        live::endpoints(&self.directory, &self.owner, id)
    }

    /// Removes a network that a user made and nobody uses.
    pub fn remove(&self, network: &Network) -> Result<(), NetworkError> {
        if network.purpose != Purpose::User {
            return Err(NetworkError::Predefined { name: network.name.clone() });
        }
        let _lock = self.lock()?;
        live::remove(&self.directory, &self.owner, network)
    }

    /// Makes a network appear, whole, by one rename.
    fn publish(&self, network: &Network) -> Result<(), NetworkError> {
        let place = self.directory.join(network.id.as_str());
        let hidden = self.directory.join(format!("{}.new", network.id));
        DirBuilder::new().mode(0o700).create(&hidden).at("create", &hidden)?;
        save(&hidden, network)?;
        fs::rename(&hidden, &place).at("create", &place)?;
        Ok(document::sync_directory(&self.directory)?)
    }

    /// Only one makes or removes networks at a time. Who has it clears away what others could not finish.
    fn lock(&self) -> Result<File, PathError> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).at("create", &self.directory);
            }
            _ => {}
        }
        let file = File::open(&self.directory).at("open", &self.directory)?;
        file.lock().at("lock", &self.directory)?;
        for entry in fs::read_dir(&self.directory).at("list", &self.directory)? {
            let path = entry.at("list", &self.directory)?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_dir_all(&path).at("remove", &path)?;
            }
        }
        Ok(file)
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
        ranges.push(range);
    }
    if let Some(stray) = new.gateways.iter().find(|gateway| !new.subnets.iter().any(|one| one.contains(**gateway))) {
        return Err(NetworkError::OutsideSubnet { address: *stray });
    }
    if !ranges.iter().any(|range| !range.subnet.is_ipv6()) {
        ranges.insert(0, free_range(taken)?);
    }
    Ok(ranges)
}

pub(super) fn load(directory: &Path) -> Result<Option<Network>, NetworkError> {
    let path = directory.join(RECORD);
    let Some(text) = if_present(fs::read(&path)).at("read", &path)? else { return Ok(None) };
    match serde_json::from_slice::<Network>(&text) {
        Ok(network) if network.format == FORMAT => Ok(Some(network)),
        _ => Err(NetworkError::Damaged { path }),
    }
}

pub(super) fn save(directory: &Path, network: &Network) -> Result<(), NetworkError> {
    let text = serde_json::to_vec_pretty(network).expect("a network is plain data");
    Ok(document::replace(&directory.join(RECORD), &text, Durability::Synced)?)
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
            "the subnet 10.5.1.0/24 overlaps 10.5.0.0/16, which is in use"
        );
        assert_eq!(
            shown(wanted(&["10.6.0.0/24", "10.7.0.0/24"], &[])),
            "the subnet 10.7.0.0/24 cannot be used: there is one of its family already"
        );
        assert_eq!(
            shown(wanted(&["10.6.0.0/31"], &[])),
            "the subnet 10.6.0.0/31 cannot be used: it has no address for a container"
        );
        assert_eq!(
            shown(wanted(&["10.6.0.0/24"], &["10.8.0.1"])),
            "the address 10.8.0.1 is in no subnet of the network"
        );
    }
}
