//! The ports of this host that lead to a running container: had before it starts, and led through its way out as it is.

use std::net::{IpAddr, SocketAddr};

use rbuild_executor::network::firewall::Protocol;

use super::Containers;
use super::start::StartError;
use crate::config::ContainerConfig;
use crate::network::{
    EVERYWHERE, EndpointRecord, HostPort, Network, NetworkId, Networks, PortRelays, PortRequest, PortTaken,
    PublishedPort, Reached, ReservedPort, process_with,
};

/// Ports of the host that lead to a container.
pub(super) struct ServedPorts {
    relays: PortRelays,
    ports: Vec<HostPort>,
    /// Through which network; none where a process is the way out.
    through: Option<NetworkId>,
    /// Where its ports are that name no address.
    host_binding: Option<IpAddr>,
}

impl ServedPorts {
    /// Serves ports through a network whose rules lead to them already, or through a process.
    pub(super) fn start(
        reserved: Vec<ReservedPort>,
        reached: Reached,
        network: Option<&Network>,
    ) -> Result<Self, StartError> {
        let ports = reserved.iter().map(ReservedPort::host_port).collect();
        let relays = PortRelays::start(reserved, reached).map_err(StartError::Relay)?;
        let host_binding = network.and_then(|network| network.options.host_binding);
        Ok(Self { relays, ports, through: network.map(|network| network.id.clone()), host_binding })
    }

    /// As the container's record shows them.
    pub(super) fn published(&self) -> impl Iterator<Item = PublishedPort> + '_ {
        self.ports.iter().map(|port| PublishedPort { inside: port.inside, protocol: port.protocol, host: port.host })
    }
}

impl Containers {
    /// Reserves the ports that are asked for and, with `-P`, all that are declared.
    pub(super) fn reserve_ports(
        &self,
        config: &ContainerConfig,
        network: &Network,
    ) -> Result<Vec<ReservedPort>, StartError> {
        let own = network.options.host_binding.map(|address| [address]);
        let everywhere = own.as_ref().map_or(EVERYWHERE.as_slice(), |own| own.as_slice());
        let mut reserved = Vec::new();
        for request in requests(config) {
            let more = request.reserve(everywhere).map_err(|error| self.naming_the_holder(error, &reserved))?;
            reserved.extend(more);
        }
        Ok(reserved)
    }

    /// A port that is taken, with who has it: this container itself, another one of this store, or a process.
    fn naming_the_holder(&self, error: PortTaken, own: &[ReservedPort]) -> PortTaken {
        let PortTaken::InUse { address, protocol, holder: None } = error else { return error };
        if own.iter().any(|port| port.protocol == protocol && meet(port.address, address)) {
            let holder = Some("this container, which publishes it twice".to_owned());
            return PortTaken::InUse { address, protocol, holder };
        }
        let container = || {
            let all = self.list().ok()?.containers;
            let found = all.into_iter().find(|record| {
                let ports = &record.state.network.ports;
                record.state.status.is_live()
                    && ports.iter().any(|port| port.protocol == protocol && meet(port.host, address))
            })?;
            Some(format!("container {}", found.name))
        };
        let holder = container().or_else(|| process_with(address, protocol));
        PortTaken::InUse { address, protocol, holder }
    }

    /// Leads a container's ports through this network, which is its way out now; without one they are free again.
    pub(super) fn lead_ports(
        &self,
        served: &mut Option<ServedPorts>,
        networks: &Networks,
        record: &crate::record::ContainerRecord,
        way: Option<&Network>,
    ) -> Result<(), StartError> {
        let container = record.id.as_str();
        let before = served.as_ref().and_then(|served| served.through.clone());
        if let Some(before) = before.filter(|before| way.is_none_or(|way| way.id != *before)) {
            networks.publish_ports(&before, container, &[])?;
        }
        let Some(way) = way else {
            *served = None;
            return Ok(());
        };
        // Elsewhere they would be others; the old ones must be free for that.
        let mut kept = served.take().filter(|served| served.host_binding == way.options.host_binding);
        let mut reserved = Vec::new();
        if kept.is_none() {
            reserved = self.reserve_ports(&record.config, way)?;
        }
        let own = reserved.iter().map(ReservedPort::host_port).collect();
        let ports = kept.as_ref().map_or(own, |kept| kept.ports.clone());
        if ports.is_empty() {
            return Ok(());
        }
        // Somebody may have disconnected it again.
        let endpoint: Option<EndpointRecord> = networks.publish_ports(&way.id, container, &ports)?;
        let Some(EndpointRecord { addresses, .. }) = endpoint else { return Ok(()) };
        let reached = Reached::FromHost(addresses);
        *served = Some(match kept.take() {
            Some(kept) => {
                kept.relays.lead_to(reached);
                ServedPorts { through: Some(way.id.clone()), ..kept }
            }
            None => ServedPorts::start(reserved, reached, Some(way))?,
        });
        Ok(())
    }
}

/// Whether one of two addresses is the other, or all of its family.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = |address: IpAddr| address.is_unspecified();
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || everywhere(one.ip()) || everywhere(other.ip()))
}

/// What is asked for and, with `-P`, what is declared besides.
fn requests(config: &ContainerConfig) -> Vec<PortRequest> {
    let mut requests = config.ports.clone();
    if !config.publish_all {
        return requests;
    }
    let declared = config.exposed_ports.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        Some((port.parse::<u16>().ok()?, protocol))
    });
    for (port, protocol) in declared {
        if !requests.iter().any(|one| one.protocol == protocol && one.inside.contains(&port)) {
            requests.push(PortRequest::any(port, protocol));
        }
    }
    requests
}
