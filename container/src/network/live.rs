//! What a network has on the host while somebody uses it: a bridge, rules, and endpoints with their addresses.
//!
//! ```text
//! networks/ID/ network.json      the record
//!              lock              held while something below or on the host changes
//!              endpoints/NAME    one locked file per endpoint: its addresses and published ports
//! ```
//!
//! An endpoint lives exactly as long as its file's lock is held, so that of a killed process is void at once. Whoever comes
//! next, under the lock, removes the files of the dead; nobody gives an address twice, because only live files count. The
//! first endpoint brings the bridge and the rules, the last one takes them away; if that one was killed, the next process
//! that opens the store does so, as its lease names the network (R-24).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_cache::PathError;
use rbuild_executor::network::bridge::{Address, Bridge, BridgeError, Endpoint, Neighbours, Presence};
use rbuild_executor::network::firewall::{self, FirewallError, Published, Rules};
use rbuild_executor::network::{Namespace, Turn, subnet};
use serde::{Deserialize, Serialize};

use super::record::{Network, NetworkId, NetworkRange, Purpose};
use super::store::{self, NetworkError};
use crate::document::{AtPath, if_present};

/// How long another process may take to bring up a network before it is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is written in an endpoint's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its addresses, in the order of the network's ranges.
    pub addresses: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    pub published: Vec<Published>,
    /// The names by which others of the network find it.
    pub names: Vec<String>,
}

/// What is wanted of an endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointRequest {
    /// Addresses it must have; for the other ranges the first free one is taken.
    pub addresses: Vec<IpAddr>,
    /// The names by which others of the network find it.
    pub names: Vec<String>,
}

/// An endpoint of a network, with a namespace that is connected. It has to be ended with [`Joined::leave`]; when it is only
/// dropped, the next one who comes tidies up.
#[derive(Debug)]
pub struct Joined {
    network: Network,
    directory: PathBuf,
    owner: String,
    file: Option<(PathBuf, File)>,
    record: EndpointRecord,
    namespace: Option<Namespace>,
}

impl Joined {
    /// The namespace, for as long as this lives.
    pub fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().expect("it goes only when this does")
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.record.addresses
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Lets ports of the host lead to it, in place of those that did.
    pub fn publish(&mut self, ports: Vec<Published>) -> Result<(), NetworkError> {
        let live = Live::lock(&self.directory, &self.network.id, &self.owner)?;
        if let Some((path, file)) = &mut self.file {
            self.record.published = ports;
            write_record(file, path, &self.record)?;
        }
        live.write_rules(&self.network)
    }

    /// Ends it; the last one takes the bridge and the rules along.
    pub fn leave(mut self) -> Result<(), NetworkError> {
        // Its interfaces go with it.
        drop(self.namespace.take());
        let live = Live::lock(&self.directory, &self.network.id, &self.owner)?;
        if let Some((path, file)) = self.file.take() {
            if_present(fs::remove_file(&path)).at("remove", &path)?;
            drop(file);
        }
        live.settle(&self.network, !self.record.published.is_empty())
    }
}

/// Joins a network: the bridge and the rules are there afterwards.
pub(super) fn join(
    networks: &Path,
    owner: &str,
    id: &NetworkId,
    request: &EndpointRequest,
) -> Result<Joined, NetworkError> {
    let directory = networks.join(id.as_str());
    let live = Live::lock(&directory, id, owner)?;
    let mut network = store::load(&directory)?.ok_or_else(|| NetworkError::NotFound { name: id.to_string() })?;
    let others = live.endpoints()?;
    let name = id.bridge();
    let bridge = Bridge { name: &name, owner };
    // Until the bridge is there with its route, so that no other store takes the same addresses meanwhile.
    let turn = if bridge.exists()? { None } else { Some(take_turn()?) };
    if turn.is_some() && others.is_empty() {
        find_room(&mut network, &directory)?;
    }
    let addresses = allocate(&network.ranges, &others, &request.addresses)?;
    let record = EndpointRecord { addresses, published: Vec::new(), names: request.names.clone() };
    let file = live.register(&record)?;
    let mut joined = Joined { network, directory, owner: owner.to_owned(), file: Some(file), record, namespace: None };
    match live.bring_up(&joined, bridge) {
        Ok(()) => {}
        Err(error) => {
            drop(live);
            give_up(joined);
            return Err(error);
        }
    }
    drop((turn, live));
    match connect(&joined, bridge) {
        Ok(namespace) => joined.namespace = Some(namespace),
        Err(error) => {
            give_up(joined);
            return Err(error.into());
        }
    }
    Ok(joined)
}

fn give_up(joined: Joined) {
    if let Err(error) = joined.leave() {
        tracing::warn!(%error, "a network that could not be joined is left for the next invocation");
    }
}

fn connect(joined: &Joined, bridge: Bridge<'_>) -> Result<Namespace, BridgeError> {
    let network = &joined.network;
    let prefixes = network.ranges.iter().map(|range| range.subnet.prefix());
    let addresses: Vec<Address> =
        joined.record.addresses.iter().zip(prefixes).map(|(ip, prefix)| Address { ip: *ip, prefix }).collect();
    let gateways: Vec<IpAddr> = match network.reach {
        firewall::Reach::Outside => network.ranges.iter().map(|range| range.gateway).collect(),
        firewall::Reach::Internal => Vec::new(),
    };
    let neighbours = match network.purpose {
        Purpose::Build => Neighbours::Unseen,
        Purpose::Default | Purpose::User => Neighbours::Seen,
    };
    bridge.new_namespace(&Endpoint { addresses: &addresses, gateways: &gateways, neighbours })
}

/// Takes down what dead processes left of a network.
pub(super) fn sweep(networks: &Path, owner: &str, id: &NetworkId) -> Result<(), NetworkError> {
    let directory = networks.join(id.as_str());
    if !directory.exists() {
        return Ok(());
    }
    let live = Live::lock(&directory, id, owner)?;
    match store::load(&directory)? {
        Some(network) => live.settle(&network, true),
        None => live.take_down(),
    }
}

fn take_turn() -> Result<Turn, NetworkError> {
    Namespace::current().and_then(|host| host.turn(PATIENCE)).map_err(NetworkError::HostLock)
}

/// Networks that nobody chose the addresses of get others when the host uses theirs by now.
fn find_room(network: &mut Network, directory: &Path) -> Result<(), NetworkError> {
    let taken = subnet::in_use().map_err(NetworkError::Routes)?;
    for range in &network.ranges {
        let Some(other) = taken.iter().find(|other| other.overlaps(range.subnet)) else { continue };
        if network.purpose == Purpose::User {
            return Err(NetworkError::Overlap { subnet: range.subnet, other: *other });
        }
        network.ranges = vec![store::free_range(&taken)?];
        return store::save(directory, network);
    }
    Ok(())
}

/// An address of each range: the asked-for one, else the first that nobody has.
fn allocate(ranges: &[NetworkRange], others: &[EndpointRecord], asked: &[IpAddr]) -> Result<Vec<IpAddr>, NetworkError> {
    if let Some(stray) = asked.iter().find(|address| !ranges.iter().any(|range| range.subnet.contains(**address))) {
        return Err(NetworkError::OutsideSubnet { address: *stray });
    }
    let taken = |address: IpAddr| others.iter().any(|other| other.addresses.contains(&address));
    let of = |range: &NetworkRange| {
        if let Some(asked) = asked.iter().find(|address| range.subnet.contains(**address)) {
            let usable = *asked != range.gateway && range.subnet.hosts().any(|host| host == *asked);
            return if usable && !taken(*asked) {
                Ok(*asked)
            } else {
                Err(NetworkError::AddressTaken { address: *asked })
            };
        }
        let free = range.subnet.hosts().find(|host| *host != range.gateway && !taken(*host));
        free.ok_or(NetworkError::Full { subnet: range.subnet })
    };
    ranges.iter().map(of).collect()
}

/// The right to change what a network has on the host.
struct Live {
    directory: PathBuf,
    id: NetworkId,
    owner: String,
    _lock: File,
}

impl Live {
    fn lock(directory: &Path, id: &NetworkId, owner: &str) -> Result<Self, NetworkError> {
        let path = directory.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NetworkError::NotFound { name: id.to_string() });
            }
            other => other.at("open", &path)?,
        };
        // Held for milliseconds, by processes that cannot hang in it but in the kernel.
        file.lock().at("lock", &path)?;
        Ok(Self { directory: directory.to_owned(), id: id.clone(), owner: owner.to_owned(), _lock: file })
    }

    /// The living; the files of the dead are removed.
    fn endpoints(&self) -> Result<Vec<EndpointRecord>, PathError> {
        let directory = self.directory.join("endpoints");
        let Some(entries) = if_present(fs::read_dir(&directory)).at("list", &directory)? else { return Ok(Vec::new()) };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.at("list", &directory)?.path());
        }
        paths.sort();
        let mut living = Vec::new();
        for path in paths {
            let Some(file) = if_present(File::open(&path)).at("open", &path)? else { continue };
            match file.try_lock() {
                Ok(()) => if_present(fs::remove_file(&path)).at("remove", &path).map(drop)?,
                Err(TryLockError::WouldBlock) => {
                    let text = fs::read(&path).at("read", &path)?;
                    living.push(serde_json::from_slice(&text).map_err(io::Error::from).at("read", &path)?);
                }
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
        }
        Ok(living)
    }

    fn register(&self, record: &EndpointRecord) -> Result<(PathBuf, File), PathError> {
        let directory = self.directory.join("endpoints");
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", &directory),
            _ => {}
        }
        let path = directory.join(&crate::id::random_hex()[..16]);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).at("create", &path)?;
        file.lock().at("lock", &path)?;
        write_record(&mut file, &path, record)?;
        Ok((path, file))
    }

    fn bring_up(&self, joined: &Joined, bridge: Bridge<'_>) -> Result<(), NetworkError> {
        let hosts: Vec<Address> = joined.network.ranges.iter().map(|range| range.address()).collect();
        if bridge.ensure(&hosts)? == Presence::Made {
            self.write_rules(&joined.network)?;
        }
        Ok(())
    }

    fn write_rules(&self, network: &Network) -> Result<(), NetworkError> {
        let published: Vec<Published> = self.endpoints()?.into_iter().flat_map(|one| one.published).collect();
        let subnets: Vec<_> = network.ranges.iter().map(|range| range.subnet).collect();
        let (table, bridge) = (self.id.table(), self.id.bridge());
        let rules =
            Rules { table: &table, bridge: &bridge, subnets: &subnets, reach: network.reach, published: &published };
        Ok(firewall::apply(&rules)?)
    }

    /// After an endpoint has gone.
    fn settle(&self, network: &Network, rules_changed: bool) -> Result<(), NetworkError> {
        if self.endpoints()?.is_empty() {
            return self.take_down();
        }
        if rules_changed { self.write_rules(network) } else { Ok(()) }
    }

    /// The rules go before the bridge and came after it: without it there are none.
    fn take_down(&self) -> Result<(), NetworkError> {
        let name = self.id.bridge();
        let bridge = Bridge { name: &name, owner: &self.owner };
        match bridge.exists() {
            Ok(true) => {}
            Ok(false) | Err(BridgeError::Foreign { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        match firewall::remove(&self.id.table()) {
            // Then it was not made either.
            Ok(()) | Err(FirewallError::Missing) => Ok(bridge.remove()?),
            Err(error) => Err(error.into()),
        }
    }
}

fn write_record(file: &mut File, path: &Path, record: &EndpointRecord) -> Result<(), PathError> {
    use std::io::Seek;
    let text = serde_json::to_vec(record).expect("an endpoint is plain data");
    // Read only by who has the network's lock.
    file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&text)).at("write", path)
}

/// Endpoints of a network that are alive, as `inspect` and the name server see them.
pub(super) fn endpoints(networks: &Path, owner: &str, id: &NetworkId) -> Result<Vec<EndpointRecord>, NetworkError> {
    Ok(Live::lock(&networks.join(id.as_str()), id, owner)?.endpoints()?)
}

/// Removes a network that nobody uses.
pub(super) fn remove(networks: &Path, owner: &str, network: &Network) -> Result<(), NetworkError> {
    let directory = networks.join(network.id.as_str());
    let live = Live::lock(&directory, &network.id, owner)?;
    let count = live.endpoints()?.len();
    if count > 0 {
        return Err(NetworkError::InUse { name: network.name.clone(), count });
    }
    live.take_down()?;
    fs::remove_dir_all(&directory).at("remove", &directory)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> NetworkRange {
        NetworkRange::of(text.parse().unwrap()).unwrap()
    }

    fn with(addresses: &[&str]) -> EndpointRecord {
        EndpointRecord {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..EndpointRecord::default()
        }
    }

    #[test]
    fn the_first_free_address_is_taken() {
        let ranges = [range("10.0.0.0/29"), range("fd00::/64")];
        let shown = |others: &[EndpointRecord], asked: &[&str]| {
            let asked: Vec<IpAddr> = asked.iter().map(|a| a.parse().unwrap()).collect();
            match allocate(&ranges, others, &asked) {
                Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(shown(&[], &[]), "10.0.0.2 fd00::2");
        assert_eq!(shown(&[with(&["10.0.0.2", "fd00::3"])], &[]), "10.0.0.3 fd00::2");
        assert_eq!(shown(&[], &["10.0.0.5"]), "10.0.0.5 fd00::2");
        assert_eq!(shown(&[with(&["10.0.0.5"])], &["10.0.0.5"]), "the address 10.0.0.5 is in use");
        for never in ["10.0.0.0", "10.0.0.1", "10.0.0.7"] {
            assert_eq!(shown(&[], &[never]), format!("the address {never} is in use"));
        }
        assert_eq!(shown(&[], &["10.0.1.5"]), "the address 10.0.1.5 is in no subnet of the network");
        let all = with(&["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(shown(&[all], &[]), "no address of 10.0.0.0/29 is free");
    }
}
