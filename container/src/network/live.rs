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

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_cache::PathError;
use rbuild_executor::network::bridge::{Address, Bridge, BridgeError, Endpoint, Interface, Neighbours, mac_of};
use rbuild_executor::network::firewall::{self, FirewallError, Published, Reach, Rules, Source};
use rbuild_executor::network::{Namespace, Turn, bridge, conntrack, forwarding, subnet};

use super::allocate::allocate;
use super::create::{free_range, free_range_v6};
use super::endpoint::{EndpointRecord, EndpointRequest, HostPort, Life, Place};
use super::error::NetworkError;
use super::grace;
use super::mac::MacAddress;
use super::presence::Presence;
use super::record::{Addressing, Network, NetworkId, Purpose};
use super::store;
use crate::document::{AtPath, if_present};

/// How long another process may take to bring up a network before it is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// An endpoint of a network, with a namespace that is connected. It has to be ended with [`Joined::leave`]; when it is only
/// dropped, the next one who comes tidies up.
#[derive(Debug)]
pub struct Joined {
    network: Network,
    directory: PathBuf,
    owner: String,
    path: PathBuf,
    /// Held for as long as the endpoint lives with its file.
    file: Option<File>,
    record: EndpointRecord,
    /// Where one was made for it.
    namespace: Option<Namespace>,
}

impl Joined {
    /// The host's first address in the network.
    pub(super) fn gateway(&self) -> Option<IpAddr> {
        self.network.ranges.first().map(|range| range.gateway)
    }

    /// The namespace that was made for it, for as long as this lives.
    pub fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().expect("asked only of an endpoint that was joined with a new namespace")
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.record.addresses
    }

    /// All about it.
    pub fn record(&self) -> &EndpointRecord {
        &self.record
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where it sends what is not for its network; empty where there is no way out.
    pub fn gateways(&self) -> Vec<IpAddr> {
        gateways(&self.network)
    }

    /// Ends it; the last one takes the bridge and the rules along.
    pub fn leave(self) -> Result<(), NetworkError> {
        self.end(Bridges::Remove)
    }

    /// Ends it; the last one leaves the bridge for the next. Then [`Networks::outlast`] has to be called.
    ///
    /// [`Networks::outlast`]: super::Networks::outlast
    pub(crate) fn leave_warm(self) -> Result<(), NetworkError> {
        self.end(Bridges::Keep)
    }

    fn end(mut self, bridge: Bridges) -> Result<(), NetworkError> {
        // Its interfaces go with it.
        drop(self.namespace.take());
        let live = match Live::lock(&self.directory, &self.network.id, &self.owner) {
            // Somebody disconnected it, and removed the network; or the whole store is gone.
            Err(NetworkError::NotFound { .. }) => {
                return take_down_lost(&self.directory, &self.owner, &self.network.id, &self.network.bridge());
            }
            other => other?,
        };
        // Somebody disconnected it, and did what has to be done then.
        let Some(last) = if_present(fs::read(&self.path)).at("read", &self.path)? else { return Ok(()) };
        // Its ports may have come later.
        let last = serde_json::from_slice::<EndpointRecord>(&last).unwrap_or(self.record);
        let rules_changed = !last.published.is_empty();
        if_present(fs::remove_file(&self.path)).at("remove", &self.path)?;
        drop(self.file.take());
        live.withdraw(last.published);
        if bridge == Bridges::Keep && live.endpoints()?.is_empty() {
            if rules_changed {
                live.write_rules(&self.network)?;
            }
            return Ok(grace::leave_warm(&self.directory)?);
        }
        live.settle(&self.network, rules_changed)
    }
}

/// What the last endpoint does with its bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bridges {
    Remove,
    Keep,
}

fn gateways(network: &Network) -> Vec<IpAddr> {
    match network.reach {
        Reach::Outside => network.ranges.iter().map(|range| range.gateway).collect(),
        Reach::Internal => Vec::new(),
    }
}

/// Joins a network: the bridge and the rules are there afterwards.
pub(super) fn join(
    networks: &Path,
    owner: &str,
    id: &NetworkId,
    request: &EndpointRequest,
    place: Place<'_>,
) -> Result<Joined, NetworkError> {
    let directory = networks.join(id.as_str());
    let live = Live::lock(&directory, id, owner)?;
    let mut network = store::load(&directory)?.ok_or_else(|| NetworkError::NotFound { name: id.to_string() })?;
    if network.ranges.is_empty() {
        return Err(NetworkError::Restricted { name: network.name });
    }
    let others = live.endpoints()?;
    if let Some(container) = &request.container
        && others.iter().any(|other| other.container.as_ref().is_some_and(|one| one.id == container.id))
    {
        return Err(NetworkError::Connected { container: container.name.clone(), name: network.name });
    }
    let name = network.bridge();
    let bridge = Bridge { name: &name, owner };
    // Until the bridge is there with its route, so that no other store takes the same addresses meanwhile.
    let turn = if bridge.exists()? { None } else { Some(take_turn()?) };
    if turn.is_some() && others.is_empty() {
        find_room(&mut network, &directory)?;
    }
    let addresses = allocate(&network, &others, &request.addresses)?;
    let (interface, life) = match place {
        Place::New => (format!("{}0", network.options.interface_prefix()), Life::File),
        Place::In { interface, life, .. } => (interface.to_owned(), life),
    };
    let record = EndpointRecord {
        id: crate::id::random_hex(),
        published: request.ports.iter().filter_map(|port| port.published(&addresses)).collect(),
        names: request.names.clone(),
        mac: request.mac.or_else(|| addresses.first().map(|address| MacAddress::new(mac_of(*address)))),
        interface,
        container: request.container.clone(),
        addresses,
        life,
    };
    let (path, file) = live.register(&record)?;
    let mut joined = Joined {
        network,
        directory,
        owner: owner.to_owned(),
        path,
        file: (life == Life::File).then_some(file),
        record,
        namespace: None,
    };
    if let Err(error) = live.bring_up(&joined, bridge, others.is_empty()) {
        drop(live);
        give_up(joined);
        return Err(error);
    }
    drop((turn, live));
    match connect(&joined, bridge, place) {
        Ok(namespace) => joined.namespace = namespace,
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

/// Gives the namespace, if one is made.
fn connect(joined: &Joined, bridge: Bridge<'_>, place: Place<'_>) -> Result<Option<Namespace>, BridgeError> {
    let network = &joined.network;
    let prefixes = network.ranges.iter().map(|range| range.subnet.prefix());
    let addresses: Vec<Address> =
        joined.record.addresses.iter().zip(prefixes).map(|(ip, prefix)| Address { ip: *ip, prefix }).collect();
    let neighbours = match network.purpose {
        Purpose::Build => Neighbours::Unseen,
        _ => network.options.neighbours(),
    };
    let interface = |name| Interface { name, mac: joined.record.mac.map(MacAddress::bytes), mtu: network.options.mtu };
    match place {
        Place::New => {
            let endpoint = Endpoint { addresses: &addresses, gateways: &gateways(network), neighbours };
            bridge.new_namespace_with(&endpoint, interface(&joined.record.interface)).map(Some)
        }
        Place::In { namespace, interface: name, .. } => {
            let endpoint = Endpoint { addresses: &addresses, gateways: &[], neighbours };
            bridge.connect(namespace, &endpoint, interface(name)).map(|()| None)
        }
    }
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
        None => live.take_down(&id.bridge()),
    }
}

fn take_turn() -> Result<Turn, NetworkError> {
    Namespace::current().and_then(|host| host.turn(PATIENCE)).map_err(NetworkError::HostLock)
}

/// Networks that nobody chose the addresses of get others when the host uses theirs by now.
fn find_room(network: &mut Network, directory: &Path) -> Result<(), NetworkError> {
    let taken = subnet::in_use().map_err(NetworkError::Routes)?;
    let overlapped = |subnet: subnet::Subnet| taken.iter().copied().find(|other| other.overlaps(subnet));
    let mut moved = false;
    for range in &mut network.ranges {
        let Some(other) = overlapped(range.subnet) else { continue };
        if network.addressing == Addressing::Chosen {
            return Err(NetworkError::Overlap { subnet: range.subnet, other });
        }
        *range = if range.subnet.is_ipv6() { free_range_v6(&taken)? } else { free_range(&taken)? };
        moved = true;
    }
    if moved { store::save(directory, network) } else { Ok(()) }
}

/// The right to change what a network has on the host.
pub(super) struct Live {
    directory: PathBuf,
    networks: PathBuf,
    id: NetworkId,
    owner: String,
    /// Ports that lead nowhere any more, as soon as the rules say so.
    withdrawn: RefCell<Vec<Published>>,
    _lock: File,
}

impl Live {
    pub(super) fn lock(directory: &Path, id: &NetworkId, owner: &str) -> Result<Self, NetworkError> {
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
        let networks = directory.parent().unwrap_or(directory).to_owned();
        let (directory, owner) = (directory.to_owned(), owner.to_owned());
        Ok(Self { directory, networks, id: id.clone(), owner, withdrawn: RefCell::default(), _lock: file })
    }

    pub(super) fn endpoints(&self) -> Result<Vec<EndpointRecord>, PathError> {
        Ok(self.living()?.into_iter().map(|(_, record)| record).collect())
    }

    /// The living and their files; the files of the dead are removed.
    fn living(&self) -> Result<Vec<(PathBuf, EndpointRecord)>, PathError> {
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
            let locked = match file.try_lock() {
                Ok(()) => false,
                Err(TryLockError::WouldBlock) => true,
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            };
            let text = fs::read(&path).at("read", &path)?;
            // One that was killed while it wrote left anything.
            let record = serde_json::from_slice::<EndpointRecord>(&text).map_err(io::Error::from);
            let lives = locked
                || record.as_ref().is_ok_and(|record| record.life == Life::Container) && {
                    let container = record.as_ref().ok().and_then(|record| record.container.as_ref());
                    match container {
                        Some(container) => Presence::is_there(&self.networks, &container.id)?,
                        None => false,
                    }
                };
            if lives {
                living.push((path.clone(), record.at("read", &path)?));
            } else {
                if_present(fs::remove_file(&path)).at("remove", &path)?;
                self.withdraw(record.map(|record| record.published).unwrap_or_default());
            }
        }
        Ok(living)
    }

    /// These ports are no longer anybody's; what they led is forgotten when the rules are written next.
    fn withdraw(&self, ports: Vec<Published>) {
        self.withdrawn.borrow_mut().extend(ports);
    }

    /// The rules lead nobody there any more: nor do the connections that the kernel remembers.
    fn forget_withdrawn(&self) {
        if let Err(error) = conntrack::forget(&self.withdrawn.take()) {
            tracing::warn!(%error, "connections through withdrawn ports go on until they time out");
        }
    }

    fn of_container(&self, container: &str) -> Result<Option<(PathBuf, EndpointRecord)>, PathError> {
        let has = |record: &EndpointRecord| record.container.as_ref().is_some_and(|one| one.id == container);
        Ok(self.living()?.into_iter().find(|(_, record)| has(record)))
    }

    fn register(&self, record: &EndpointRecord) -> Result<(PathBuf, File), PathError> {
        let directory = self.directory.join("endpoints");
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", &directory),
            _ => {}
        }
        let path = directory.join(&record.id[..16]);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).at("create", &path)?;
        file.lock().at("lock", &path)?;
        write_record(&mut file, &path, record)?;
        Ok((path, file))
    }

    /// `first`: nobody else has looked yet whether the host passes on what the bridge sends.
    fn bring_up(&self, joined: &Joined, bridge: Bridge<'_>, first: bool) -> Result<(), NetworkError> {
        let network = &joined.network;
        let hosts: Vec<Address> = network.ranges.iter().map(|range| range.address()).collect();
        let warm = grace::take_warm(&self.directory)?;
        let found = bridge.ensure(&hosts)? == bridge::Presence::Found;
        let whole = found && (warm || !first);
        if !whole || !joined.record.published.is_empty() || !self.withdrawn.borrow().is_empty() {
            self.write_rules(network)?;
        }
        if first
            && !whole
            && network.reach == Reach::Outside
            && let Some(obstacle) = forwarding::obstacle(bridge.name)?
        {
            return Err(NetworkError::Obstacle(obstacle));
        }
        Ok(())
    }

    fn write_rules(&self, network: &Network) -> Result<(), NetworkError> {
        let published: Vec<Published> = self.endpoints()?.into_iter().flat_map(|one| one.published).collect();
        let subnets: Vec<_> = network.ranges.iter().map(|range| range.subnet).collect();
        let (table, bridge) = (self.id.table(), network.bridge());
        let source = if network.options.masquerade == Some(false) { Source::Own } else { Source::Host };
        let (reach, published) = (network.reach, published.as_slice());
        let rules = Rules { table: &table, bridge: &bridge, subnets: &subnets, reach, source, published };
        firewall::apply(&rules)?;
        self.forget_withdrawn();
        Ok(())
    }

    /// After an endpoint has gone.
    fn settle(&self, network: &Network, rules_changed: bool) -> Result<(), NetworkError> {
        if self.endpoints()?.is_empty() {
            return self.take_down(&network.bridge());
        }
        if rules_changed { self.write_rules(network) } else { Ok(()) }
    }

    /// The rules go before the bridge and came after it.
    pub(super) fn take_down(&self, bridge: &str) -> Result<(), NetworkError> {
        grace::take_warm(&self.directory)?;
        take_down(&self.owner, &self.id, bridge)?;
        self.forget_withdrawn();
        Ok(())
    }
}

/// Takes down what a network has on the host whose store is gone. Where only the network was removed there is nothing, or its
/// bridge's name is another's by now.
pub(super) fn take_down_lost(directory: &Path, owner: &str, id: &NetworkId, bridge: &str) -> Result<(), NetworkError> {
    if directory.parent().is_some_and(Path::exists) { Ok(()) } else { take_down(owner, id, bridge) }
}

fn take_down(owner: &str, id: &NetworkId, bridge: &str) -> Result<(), NetworkError> {
    let bridge = Bridge { name: bridge, owner };
    let exists = match bridge.exists() {
        Err(BridgeError::Foreign { .. }) => return Ok(()),
        other => other?,
    };
    match firewall::remove(&id.table()) {
        Ok(()) => {}
        // Then it was not made either.
        Err(FirewallError::Missing) => {}
        // Somebody without the power to make rules, and nothing of ours is here.
        Err(FirewallError::Kernel(error)) if !exists && error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(error.into()),
    }
    if exists { Ok(bridge.remove()?) } else { Ok(()) }
}

fn write_record(file: &mut File, path: &Path, record: &EndpointRecord) -> Result<(), PathError> {
    use std::io::Seek;
    let text = serde_json::to_vec(record).expect("an endpoint is plain data");
    // Read only by who has the network's lock.
    file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&text)).at("write", path)
}

/// Ends what a container has in a network.
pub(super) fn disconnect(
    networks: &Path,
    owner: &str,
    id: &NetworkId,
    container: &str,
) -> Result<Option<EndpointRecord>, NetworkError> {
    let directory = networks.join(id.as_str());
    let live = match Live::lock(&directory, id, owner) {
        Err(NetworkError::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    let Some((path, record)) = live.of_container(container)? else { return Ok(None) };
    if_present(fs::remove_file(&path)).at("remove", &path)?;
    live.withdraw(record.published.clone());
    if let Some(network) = store::load(&directory)? {
        live.settle(&network, !record.published.is_empty())?;
    }
    Ok(Some(record))
}

/// Changes what is written of a container's endpoint, if it has one.
pub(super) fn change(
    networks: &Path,
    owner: &str,
    id: &NetworkId,
    container: &str,
    change: &dyn Fn(&mut EndpointRecord),
) -> Result<(), NetworkError> {
    let live = Live::lock(&networks.join(id.as_str()), id, owner)?;
    let Some((path, mut record)) = live.of_container(container)? else { return Ok(()) };
    change(&mut record);
    let mut file = OpenOptions::new().write(true).open(&path).at("open", &path)?;
    Ok(write_record(&mut file, &path, &record)?)
}

/// Leads these ports to a container's endpoint and no others; the endpoint, if it has one there.
pub(super) fn publish(
    networks: &Path,
    owner: &str,
    id: &NetworkId,
    container: &str,
    ports: &[HostPort],
) -> Result<Option<EndpointRecord>, NetworkError> {
    let directory = networks.join(id.as_str());
    let live = match Live::lock(&directory, id, owner) {
        // A network that is gone leads nowhere.
        Err(NetworkError::NotFound { .. }) if ports.is_empty() => return Ok(None),
        other => other?,
    };
    let network = store::load(&directory)?.ok_or_else(|| NetworkError::NotFound { name: id.to_string() })?;
    let Some((path, mut record)) = live.of_container(container)? else { return Ok(None) };
    let published: Vec<Published> = ports.iter().filter_map(|port| port.published(&record.addresses)).collect();
    if published != record.published {
        live.withdraw(record.published.iter().filter(|one| !published.contains(one)).copied().collect());
        record.published = published;
        let mut file = OpenOptions::new().write(true).open(&path).at("open", &path)?;
        write_record(&mut file, &path, &record)?;
        live.write_rules(&network)?;
    }
    Ok(Some(record))
}

/// Endpoints of a network that are alive, as `inspect` and the name server see them.
pub(super) fn endpoints(networks: &Path, owner: &str, id: &NetworkId) -> Result<Vec<EndpointRecord>, NetworkError> {
    Ok(Live::lock(&networks.join(id.as_str()), id, owner)?.endpoints()?)
}

/// Removes a network that nobody uses.
pub(super) fn remove(networks: &Path, owner: &str, network: &Network) -> Result<(), NetworkError> {
    let directory = networks.join(network.id.as_str());
    let live = Live::lock(&directory, &network.id, owner)?;
    let endpoints = live.endpoints()?;
    if !endpoints.is_empty() {
        let names = endpoints.into_iter().map(|one| one.container.map_or_else(String::new, |one| one.name)).collect();
        return Err(NetworkError::InUse { name: network.name.clone(), endpoints: names });
    }
    live.take_down(&network.bridge())?;
    fs::remove_dir_all(&directory).at("remove", &directory)?;
    Ok(())
}
