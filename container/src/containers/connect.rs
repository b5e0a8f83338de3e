//! A container and its networks while it runs: what it is connected to, and what its files say of that.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::Lease;
use rbuild_executor::NetworkMode;
use rbuild_executor::network::firewall::Reach;
use rbuild_executor::network::{Namespace, bridge};

use super::ports::ServedPorts;
use super::start::StartError;
use super::{Containers, durability};
use crate::document::{self, AtPath};
use crate::etc_files::{self, HostAddress};
use crate::events::{Event, EventKind};
use crate::id::ContainerId;
use crate::network::{
    Connection, EndpointOwner, EndpointRequest, EndpointSettings, HostResolver, Joined, Life, NAME_SERVER, NameServer,
    NameServerError, Names, Network, NetworkChoice, NetworkError, NetworkId, NetworkState, Networks, Place, Presence,
    PublishedPort, Purpose, Reachable, Reached, ReservedPort, Uplink, UplinkError, Upstream, Via,
};
use crate::record::ContainerRecord;

impl Containers {
    /// Connects a container to its networks, and writes its addresses into its files.
    pub(super) fn connect(&self, record: &ContainerRecord, lease: &Lease) -> Result<Connected, StartError> {
        match &record.config.network {
            NetworkChoice::Host => Ok(Connected::plain(NetworkMode::Host)),
            NetworkChoice::None => Ok(Connected::plain(NetworkMode::None)),
            NetworkChoice::Container(other) => self.share(other),
            NetworkChoice::Default | NetworkChoice::Named(_) => self.join(record, lease),
        }
    }

    /// The namespace of a running container, and its files.
    fn share(&self, other: &str) -> Result<Connected, StartError> {
        let other = self.find(other)?;
        let namespace = super::attach::namespace_of(&other)
            .map_err(StartError::Follow)?
            .ok_or_else(|| StartError::SharedNotRunning { id: other.id.clone() })?;
        Ok(Connected {
            mode: namespace.mode(),
            etc: Some(self.directory(&other.id)),
            state: NetworkState::default(),
            lack: None,
            links: None,
            _shared: Some(namespace),
        })
    }

    fn join(&self, record: &ContainerRecord, lease: &Lease) -> Result<Connected, StartError> {
        let config = &record.config;
        let networks = Networks::new(self.store())?;
        let wanted = self.wanted(&networks, &config.endpoints())?;
        let Some(way) = way_out(&wanted) else { return Ok(Connected::plain(NetworkMode::None)) };
        let reserved = match wanted[way].0.reach {
            Reach::Outside => self.reserve_ports(config, &wanted[way].0)?,
            // Nobody outside is to get in.
            Reach::Internal => Vec::new(),
        };
        for (network, _) in &wanted {
            networks.hold(&network.id, lease)?;
        }
        let presence = networks.presence(record.id.as_str(), lease)?;
        let request = |number: usize| {
            let mut request = endpoint_request(record, &wanted[number].1);
            if number == way {
                request.ports = reserved.iter().map(ReservedPort::host_port).collect();
            }
            request
        };
        let first = &wanted[0].0;
        let mut lack = None;
        let uplink = match networks.over_bridge(&first.id, &request(0))? {
            Ok(uplink) => uplink,
            Err(why) if wanted.len() == 1 && first.purpose == Purpose::Default => {
                match networks.through_process(&why, lease) {
                    // Who publishes ports wants to be reached first of all, and can be.
                    Err(error @ UplinkError::Neither { .. }) if !reserved.is_empty() => {
                        lack = Some(format!("the container's ports are served, and nothing leads out of it: {error}"));
                        networks.ports_only()?
                    }
                    other => other?,
                }
            }
            Err(why) => return Err(UplinkError::NeedsBridge { name: first.name.clone(), why }.into()),
        };
        let mut links = Links {
            networks,
            container: record.id.clone(),
            dns: config.dns.servers.clone(),
            ports: None,
            names: None,
            others: Vec::new(),
            first: Some(uplink),
            warm: false,
            _presence: presence,
        };
        for (number, (network, _)) in wanted.iter().enumerate().skip(1) {
            let interface = free_interface(links.uplink().namespace(), network).map_err(StartError::Routes)?;
            let place = Place::In { namespace: links.uplink().namespace(), interface: &interface, life: Life::File };
            let joined = links.networks.join_held(&network.id, &request(number), place)?;
            links.others.push(joined);
        }
        if wanted.len() > 1 {
            let gateways = links.endpoint(way).map(Joined::gateways).unwrap_or_default();
            bridge::set_gateways(links.uplink().namespace(), &gateways).map_err(StartError::Routes)?;
        }
        self.write_own_files(record, &links, &wanted)?;
        links.serve_ports(reserved, way)?;
        if has_names(&wanted) {
            links.serve_names(&wanted)?;
        }
        let state = NetworkState { connections: links.connections(&wanted), ports: links.published() };
        let mode = links.uplink().namespace().mode();
        Ok(Connected { mode, etc: None, state, lack, links: Some(links), _shared: None })
    }

    /// Others connected a running container to a network or disconnected it: its ports lead through its way out as it is
    /// now, and names are served from the first network on that has some.
    pub(super) fn renew(&self, id: &ContainerId, connected: &mut Connected) -> Result<(), StartError> {
        let Some(links) = &mut connected.links else { return Ok(()) };
        let (Some(record), Uplink::Bridge(_)) = (self.load(id)?, links.uplink()) else { return Ok(()) };
        let wanted = self.resolved(&links.networks, &record.config.endpoints());
        if has_names(&wanted) {
            // The server is there before anybody is sent to it; whom it asks follows the networks, too.
            links.serve_names(&wanted)?;
            self.write_names(&record)?;
        }
        let way = way_out(&wanted).map(|number| &wanted[number].0);
        let way = way.filter(|network| network.reach == Reach::Outside);
        let led = self.lead_ports(&mut links.ports, &links.networks, &record, way);
        let ports = links.published();
        self.record(id, |record| {
            record.state.network.ports.clone_from(&ports);
            connected.state.clone_from(&record.state.network);
            Ok(())
        })?;
        led
    }

    /// Tells that a container came to its networks, or went.
    pub(super) fn tell_of_networks(&self, action: &str, id: &ContainerId, state: &NetworkState) {
        self.event_log().tell(&self.of_networks(action, id, state));
    }

    /// What tells what happened to a container in its networks.
    pub(super) fn of_networks(&self, action: &str, id: &ContainerId, state: &NetworkState) -> Vec<Event> {
        let told = |connection: &Connection| {
            let network = (connection.id.to_string(), connection.network.as_str());
            network_event(self.now(), action, network, Some(id))
        };
        state.connections.iter().map(told).collect()
    }

    /// Tells what happened to a network, and to whom in it.
    pub fn tell_of_network(&self, action: &str, network: &Network, container: Option<&ContainerId>) {
        let event = network_event(self.now(), action, (network.id.to_string(), &network.name), container);
        self.event_log().tell(&[event]);
    }

    /// The networks that are wanted, as they are now.
    fn wanted(
        &self,
        networks: &Networks,
        settings: &[EndpointSettings],
    ) -> Result<Vec<(Network, EndpointSettings)>, NetworkError> {
        let mut wanted = Vec::new();
        for settings in settings {
            let network = self.network(networks, &settings.network)?;
            if wanted.iter().any(|(other, _): &(Network, _)| other.id == network.id) {
                let container = settings.network.clone();
                return Err(NetworkError::Connected { container, name: network.name });
            }
            wanted.push((network, settings.clone()));
        }
        Ok(wanted)
    }

    /// The network by what was typed.
    pub(super) fn network(&self, networks: &Networks, name: &str) -> Result<Network, NetworkError> {
        if name == NetworkChoice::Default.name() {
            return networks.of_purpose(Purpose::Default, self.now());
        }
        networks.find(name)
    }

    /// `/etc/hosts` with its addresses, and `/etc/resolv.conf` where the host's is not for it.
    fn write_own_files(
        &self,
        record: &ContainerRecord,
        links: &Links,
        wanted: &[(Network, EndpointSettings)],
    ) -> Result<(), StartError> {
        let config = &record.config;
        let directory = self.directory(&record.id);
        let durability = durability(config.lifetime);
        let here = links.uplink().gateway();
        if here.is_none() && config.extra_hosts.iter().any(|host| host.address == HostAddress::Gateway) {
            return Err(StartError::HostGateway);
        }
        let names = etc_files::own_names(&config.hostname, config.particulars.domainname.as_deref());
        let hosts = etc_files::hosts_with_own(&config.extra_hosts, &links.addresses(), &names, here);
        document::write(&directory.join("hosts"), &hosts, 0o644, durability)?;
        let path = directory.join("resolv.conf");
        if has_names(wanted) {
            self.write_names(record)?;
        } else if let (Some(server), true) = (links.uplink().name_server(), config.dns.servers.is_empty()) {
            let conf = String::from_utf8_lossy(&std::fs::read(&path).at("read", &path)?).into_owned();
            let own = HostResolver { conf, upstream: None };
            document::write(&path, own.resolv_conf(Reachable::Only(server)).as_bytes(), 0o644, durability)?;
        }
        Ok(())
    }
}

impl Containers {
    /// `/etc/resolv.conf` of a container whose name server is its own. The file stays the one that is mounted.
    fn write_names(&self, record: &ContainerRecord) -> Result<(), StartError> {
        let path = self.directory(&record.id).join("resolv.conf");
        let conf = etc_files::resolv_conf_with_own(&HostResolver::read(), IpAddr::V4(NAME_SERVER), &record.config.dns);
        Ok(document::write(&path, &conf, 0o644, durability(record.config.lifetime))?)
    }
}

/// The first name that no interface has.
pub(super) fn free_interface(namespace: &Namespace, network: &Network) -> io::Result<String> {
    let (taken, prefix) = (namespace.interfaces()?, network.options.interface_prefix());
    let mut candidates = (0..).map(|number: u32| format!("{prefix}{number}"));
    Ok(candidates.find(|name| !taken.contains(name)).expect("there are more numbers than interfaces"))
}

/// Which network is the way out: the first by name of those with the highest priority; one without any only when all are.
pub(super) fn way_out(wanted: &[(Network, EndpointSettings)]) -> Option<usize> {
    let rank = |(network, settings): &(Network, EndpointSettings)| {
        (network.reach == Reach::Outside, settings.gateway_priority, Reverse(network.name.clone()))
    };
    wanted.iter().enumerate().max_by_key(|(_, one)| rank(one)).map(|(number, _)| number)
}

/// Only in networks that a user made are there names, as in Docker.
fn has_names(wanted: &[(Network, EndpointSettings)]) -> bool {
    wanted.iter().any(|(network, _)| network.purpose == Purpose::User)
}

fn network_event(
    time: jiff::Timestamp,
    action: &str,
    (id, name): (String, &str),
    container: Option<&ContainerId>,
) -> Event {
    let mut attributes =
        BTreeMap::from([("name".to_owned(), name.to_owned()), ("type".to_owned(), "bridge".to_owned())]);
    attributes.extend(container.map(|id| ("container".to_owned(), id.to_string())));
    Event { time, kind: EventKind::Network, action: action.to_owned(), id, attributes }
}

/// What is asked of a network for a container.
pub(super) fn endpoint_request(record: &ContainerRecord, settings: &EndpointSettings) -> EndpointRequest {
    let mut names: Vec<String> = Vec::new();
    let own = [record.name.as_str(), record.id.short(), &record.config.hostname].map(str::to_owned);
    for name in own.into_iter().chain(settings.aliases.iter().cloned()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    EndpointRequest {
        addresses: settings.addresses.clone(),
        names,
        mac: settings.mac,
        ports: Vec::new(),
        container: Some(EndpointOwner { id: record.id.to_string(), name: record.name.to_string() }),
    }
}

/// A container's network while it runs.
pub(super) struct Connected {
    /// First, so that nothing leads into a namespace that is gone.
    links: Option<Links>,
    mode: NetworkMode,
    /// The directory of the container whose files are its own.
    etc: Option<PathBuf>,
    state: NetworkState,
    /// What it was to have and cannot.
    lack: Option<String>,
    /// Held, so that the path in `mode` leads to it.
    _shared: Option<Namespace>,
}

impl Connected {
    fn plain(mode: NetworkMode) -> Self {
        Self { mode, etc: None, state: NetworkState::default(), lack: None, links: None, _shared: None }
    }

    pub(super) fn mode(&self) -> NetworkMode {
        self.mode.clone()
    }

    /// Where its files below `/etc` are, if not in its own directory.
    pub(super) fn etc_files(&self) -> Option<&Path> {
        self.etc.as_deref()
    }

    /// What it was to have and this host cannot give.
    pub(super) fn lack(&self) -> Option<&str> {
        self.lack.as_deref()
    }

    /// When it ends its bridges stay for the next; the networks that somebody has to see to then ([`Networks::outlast`]).
    pub(super) fn stay_warm(&mut self) -> Vec<NetworkId> {
        let Some(links) = &mut self.links else { return Vec::new() };
        links.warm = true;
        self.state.connections.iter().map(|connection| connection.id.clone()).collect()
    }

    /// What its record is to say.
    pub(super) fn state(&self) -> &NetworkState {
        &self.state
    }
}

/// Networks that a container has joined; left when dropped.
struct Links {
    networks: Networks,
    container: ContainerId,
    /// `--dns`.
    dns: Vec<IpAddr>,
    ports: Option<ServedPorts>,
    names: Option<NameServer>,
    others: Vec<Joined>,
    /// Taken only when it ends.
    first: Option<Uplink>,
    /// Bridges stay for the next.
    warm: bool,
    _presence: Presence,
}

impl Links {
    fn uplink(&self) -> &Uplink {
        self.first.as_ref().expect("it goes only when this does")
    }

    /// The endpoint in the network of this number; a process has none.
    fn endpoint(&self, number: usize) -> Option<&Joined> {
        match (number, self.uplink()) {
            (0, Uplink::Bridge(joined)) => Some(joined),
            (0, Uplink::Process(..) | Uplink::PortsOnly(_)) => None,
            _ => self.others.get(number - 1),
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let others = self.others.iter().flat_map(Joined::addresses);
        self.uplink().addresses().iter().chain(others).copied().collect()
    }

    fn connections(&self, wanted: &[(Network, EndpointSettings)]) -> Vec<Connection> {
        let of = |number| self.endpoint(number).map(|joined| Connection::of(joined.network(), joined.record()));
        (0..wanted.len()).filter_map(of).collect()
    }

    /// The ports that lead to it.
    fn published(&self) -> Vec<PublishedPort> {
        self.ports.iter().flat_map(ServedPorts::published).collect()
    }

    /// Begins to serve ports through the network of this number, whose rules lead to them already.
    fn serve_ports(&mut self, reserved: Vec<ReservedPort>, way: usize) -> Result<(), StartError> {
        if reserved.is_empty() {
            return Ok(());
        }
        self.ports = Some(match self.endpoint(way) {
            Some(joined) => {
                let reached = Reached::FromHost(joined.addresses().to_vec());
                ServedPorts::start(reserved, reached, Some(joined.network()))?
            }
            None => {
                let inside = self.uplink().namespace().try_clone().map_err(StartError::Relay)?;
                ServedPorts::start(reserved, Reached::FromInside(inside), None)?
            }
        });
        Ok(())
    }

    /// Serves the names of its networks, or goes on to.
    fn serve_names(&mut self, wanted: &[(Network, EndpointSettings)]) -> Result<(), StartError> {
        let outside = wanted.iter().any(|(network, _)| network.reach == Reach::Outside);
        let upstream = match () {
            () if !outside => Upstream { servers: Vec::new(), via: Via::Container },
            () if self.dns.is_empty() => Upstream { servers: HostResolver::read().name_servers(), via: Via::Host },
            () => Upstream { servers: self.dns.clone(), via: Via::Container },
        };
        let namespace = self.uplink().namespace();
        match &self.names {
            Some(names) => names.ask(namespace, upstream).map_err(NameServerError::from)?,
            None => {
                let known = Known { networks: self.networks.clone(), container: self.container.to_string() };
                self.names = Some(NameServer::start(namespace, Arc::new(known), upstream)?);
            }
        }
        Ok(())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        drop((self.ports.take(), self.names.take()));
        let warm = self.warm;
        let others = self.others.drain(..).map(|one| if warm { one.leave_warm() } else { one.leave() });
        let first = self.first.take().map_or(Ok(()), |one| if warm { one.end_warm() } else { one.end() });
        let left = others.chain([first, self.networks.disconnect_all(self.container.as_str())]);
        for error in left.filter_map(Result::err) {
            tracing::warn!(%error, "a container's network is left for the next invocation");
        }
    }
}

/// The names of a container's networks, looked up when they are asked for.
struct Known {
    networks: Networks,
    container: String,
}

impl Known {
    /// The networks with names that the container is in, with everybody there.
    fn neighbours(&self) -> Vec<(String, Vec<crate::network::EndpointRecord>)> {
        let all = self.networks.list().unwrap_or_default();
        let mut found = Vec::new();
        for network in all.into_iter().filter(|network| network.purpose == Purpose::User) {
            // One that is removed at this moment has nobody.
            let endpoints = self.networks.endpoints(&network.id).unwrap_or_default();
            let own = |endpoint: &crate::network::EndpointRecord| {
                endpoint.container.as_ref().is_some_and(|one| one.id == self.container)
            };
            if endpoints.iter().any(own) {
                found.push((network.name, endpoints));
            }
        }
        found
    }
}

impl Names for Known {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut found = None;
        for (network, endpoints) in self.neighbours() {
            let bare = name.strip_suffix(&network.to_ascii_lowercase()).and_then(|rest| rest.strip_suffix('.'));
            for endpoint in endpoints {
                let called = |wanted: &str| endpoint.names.iter().any(|own| own.eq_ignore_ascii_case(wanted));
                if called(name) || bare.is_some_and(called) {
                    found.get_or_insert_with(Vec::new).extend(endpoint.addresses);
                }
            }
        }
        found
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        self.neighbours().into_iter().find_map(|(network, endpoints)| {
            let endpoint = endpoints.into_iter().find(|endpoint| endpoint.addresses.contains(&address))?;
            Some(format!("{}.{network}", endpoint.names.first()?))
        })
    }
}
