//! Containers that are there are connected to networks and disconnected (`network connect`, `network disconnect`), running
//! or not.
//!
//! The container's record says to which networks it belongs; a start follows it. Into a running container an interface is
//! put by whoever connects it; the endpoint lives with the container, and whoever runs that takes it down in the end.

use std::io;
use std::net::IpAddr;

use rbuild_cache::{Lease, PathError};
use rbuild_executor::network::firewall::Reach;
use rbuild_executor::network::{Namespace, bridge};

use super::connect::{endpoint_request, free_interface, way_out};
use super::{Containers, LoadError, UpdateError, durability};
use crate::document::{self, AtPath};
use crate::etc_files;
use crate::monitor::{LinkError, MonitorLink};
use crate::network::{
    Connection, EndpointSettings, InvalidAttachment, Life, Network, NetworkChoice, NetworkError, Networks, Place,
    Purpose,
};
use crate::record::ContainerRecord;

/// A container that was not connected or disconnected.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The network, or the container's place in it.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// What is wanted does not go with the network.
    #[error(transparent)]
    Settings(#[from] InvalidAttachment),
    /// The container has no network of its own.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    Shared,
    /// The host's network is no network that one is connected to.
    #[error("container cannot be disconnected from host network or connected to host network")]
    Host,
    /// The container is to have none.
    #[error("container cannot be connected to multiple networks with one of the networks in private (none) mode")]
    Private,
    /// Its network is a process's, into which no interface can be put.
    #[error("the network of container {name} is served by a process: restart the container to connect it")]
    Process {
        /// Which.
        name: String,
    },
    /// Its network namespace cannot be changed.
    #[error("cannot change the network of the running container")]
    Inside(#[source] io::Error),
    /// Its ports or names cannot be served there.
    #[error("{message}")]
    Serve {
        /// What the process that runs it said.
        message: String,
    },
    /// The process that runs it cannot be talked to.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its record cannot be changed.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// Its record cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] PathError),
}

/// What a new connection does not give at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Everything is there.
    Whole,
    /// Its names and ports are served accordingly only when it is started again: nobody could be told.
    ServedAfterRestart,
}

/// The network namespace of a running container; `None` when it does not run.
pub(super) fn namespace_of(record: &ContainerRecord) -> io::Result<Option<Namespace>> {
    let Some(process) = record.state.process.filter(|_| record.state.status.is_live()) else { return Ok(None) };
    // Held while the number is used, so that it is not another's.
    let Some(_held) = process.open()? else { return Ok(None) };
    match Namespace::of_process(process.pid) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

impl Containers {
    /// Connects a container to one more network.
    pub fn attach(
        &self,
        record: &ContainerRecord,
        settings: &EndpointSettings,
        lease: &Lease,
    ) -> Result<Attached, AttachError> {
        match &record.config.network {
            NetworkChoice::Host | NetworkChoice::Container(_) => return Err(AttachError::Shared),
            NetworkChoice::None => return Err(AttachError::Private),
            NetworkChoice::Default | NetworkChoice::Named(_) => {}
        }
        let networks = Networks::new(self.store())?;
        let network = self.network(&networks, &settings.network)?;
        check(&network, settings)?;
        let mut settings = settings.clone();
        settings.network.clone_from(&network.name);
        let own = self.resolved(&networks, &record.config.endpoints());
        let before = own.iter().find(|(other, _)| other.id == network.id).map(|(_, settings)| settings.network.clone());
        let mut connection = None;
        // One whose mark is gone is ending, as its monitor has ended: the next start joins the network.
        let lives = networks.is_present(record.id.as_str())?;
        let namespace = namespace_of(record).map_err(AttachError::Inside)?;
        if let Some(namespace) = namespace.filter(|_| lives) {
            if before.is_some() {
                let container = record.name.to_string();
                return Err(NetworkError::Connected { container, name: network.name }.into());
            }
            if record.state.network.connections.is_empty() && !own.is_empty() {
                return Err(AttachError::Process { name: record.name.to_string() });
            }
            networks.hold(&network.id, lease)?;
            let interface = free_interface(&namespace, &network).map_err(AttachError::Inside)?;
            let place = Place::In { namespace: &namespace, interface: &interface, life: Life::Container };
            let joined = networks.join_held(&network.id, &endpoint_request(record, &settings), place)?;
            let made = Connection::of(joined.network(), joined.record());
            let mut all = own.clone();
            all.push((network.clone(), settings.clone()));
            set_way_out(&namespace, &all)?;
            self.add_hosts(record, &made)?;
            connection = Some(made);
        }
        let runs = connection.is_some();
        self.update(&record.id, |record| {
            let mut endpoints = record.config.endpoints();
            // Of a container that does not run the new settings are the ones that hold, as in Docker.
            match endpoints.iter_mut().find(|one| before.as_ref() == Some(&one.network)) {
                Some(one) => one.clone_from(&settings),
                None => endpoints.push(settings.clone()),
            }
            record.config.networks = Some(endpoints);
            record.state.network.connections.extend(connection.clone());
            Ok(())
        })?;
        self.tell_of_network("connect", &network, Some(&record.id));
        if !runs {
            return Ok(Attached::Whole);
        }
        match self.renew_at_monitor(record) {
            Ok(true) => Ok(Attached::Whole),
            Ok(false) => Ok(Attached::ServedAfterRestart),
            Err(error) => {
                // As it was before, as far as that can be had.
                if let Some(record) = self.load(&record.id)?
                    && let Err(error) = self.detach(&record, network.id.as_str())
                {
                    tracing::warn!(%error, "the container stays connected");
                }
                Err(error)
            }
        }
    }

    /// Disconnects a container from a network.
    pub fn detach(&self, record: &ContainerRecord, network: &str) -> Result<(), AttachError> {
        let networks = Networks::new(self.store())?;
        let network = self.network(&networks, network)?;
        if network.purpose == Purpose::Host {
            return Err(AttachError::Host);
        }
        let mut own = self.resolved(&networks, &record.config.endpoints());
        let Some(at) = own.iter().position(|(other, _)| other.id == network.id) else {
            let container = record.name.to_string();
            return Err(NetworkError::NotConnected { container, name: network.name }.into());
        };
        let (_, removed) = own.remove(at);
        let mut runs = false;
        if let Some(namespace) = namespace_of(record).map_err(AttachError::Inside)? {
            let endpoints = networks.endpoints(&network.id)?;
            let is_own = |id: &str| id == record.id.as_str();
            let endpoint = endpoints.iter().find(|one| one.container.as_ref().is_some_and(|one| is_own(&one.id)));
            if let Some(endpoint) = endpoint {
                bridge::disconnect(&namespace, &endpoint.interface).map_err(AttachError::Inside)?;
                networks.disconnect(&network.id, record.id.as_str())?;
                set_way_out(&namespace, &own)?;
                self.remove_hosts(record, &endpoint.addresses)?;
                runs = true;
            }
        }
        self.update(&record.id, |record| {
            let mut endpoints = record.config.endpoints();
            endpoints.retain(|one| one.network != removed.network);
            record.config.networks = Some(endpoints);
            record.state.network.connections.retain(|one| one.id != network.id);
            Ok(())
        })?;
        self.tell_of_network("disconnect", &network, Some(&record.id));
        if runs {
            self.renew_at_monitor(record)?;
        }
        Ok(())
    }

    /// Lets the process that runs the container serve its ports and names as its networks want it now; `false` when nobody
    /// could be told.
    fn renew_at_monitor(&self, record: &ContainerRecord) -> Result<bool, AttachError> {
        let Some(link) = MonitorLink::connect(&self.directory(&record.id))? else { return Ok(false) };
        match link.networks_changed()? {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(message)) => Err(AttachError::Serve { message }),
        }
    }

    /// The container's networks that are still there.
    pub(super) fn resolved(
        &self,
        networks: &Networks,
        settings: &[EndpointSettings],
    ) -> Vec<(Network, EndpointSettings)> {
        let found = |one: &EndpointSettings| Some((self.network(networks, &one.network).ok()?, one.clone()));
        settings.iter().filter_map(found).collect()
    }

    /// The addresses that it no longer has do not lead to its name. The file stays the one that is mounted.
    fn remove_hosts(&self, record: &ContainerRecord, addresses: &[IpAddr]) -> Result<(), PathError> {
        let path = self.directory(&record.id).join("hosts");
        let config = &record.config;
        let names = etc_files::own_names(&config.hostname, config.particulars.domainname.as_deref());
        let text = std::fs::read(&path).at("read", &path)?;
        let kept = etc_files::hosts_without(&text, addresses, &names);
        if kept == text { Ok(()) } else { document::write(&path, &kept, 0o644, durability(config.lifetime)) }
    }

    /// Its new addresses lead to its name. The file stays the one that is mounted.
    fn add_hosts(&self, record: &ContainerRecord, connection: &Connection) -> Result<(), PathError> {
        use std::io::Write;
        let path = self.directory(&record.id).join("hosts");
        let config = &record.config;
        let names = etc_files::own_names(&config.hostname, config.particulars.domainname.as_deref());
        let lines: String = connection.addresses.iter().map(|address| format!("{address}\t{names}\n")).collect();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).at("open", &path)?;
        file.write_all(lines.as_bytes()).at("write", &path)
    }
}

fn check(network: &Network, settings: &EndpointSettings) -> Result<(), AttachError> {
    if network.ranges.is_empty() {
        return Err(if network.purpose == Purpose::None { AttachError::Private } else { AttachError::Host });
    }
    if network.purpose != Purpose::User {
        if !settings.aliases.is_empty() {
            return Err(InvalidAttachment::AliasOnDefault.into());
        }
        if !settings.addresses.is_empty() {
            return Err(InvalidAttachment::AddressOnDefault.into());
        }
    }
    Ok(())
}

fn set_way_out(namespace: &Namespace, networks: &[(Network, EndpointSettings)]) -> Result<(), AttachError> {
    let way = way_out(networks).map(|number| &networks[number].0);
    let gateways = match way {
        Some(network) if network.reach == Reach::Outside => network.ranges.iter().map(|range| range.gateway).collect(),
        _ => Vec::new(),
    };
    match bridge::set_gateways(namespace, &gateways) {
        // The interface that leads there has just gone: the container ends, or another command disconnects it, which sees to
        // the way out after this one.
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => Ok(()),
        other => other.map_err(AttachError::Inside),
    }
}
