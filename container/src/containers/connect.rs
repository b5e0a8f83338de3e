//! A container and its networks while it runs: what it is connected to, and what its files say of that.

use std::net::IpAddr;

use rbuild_cache::Lease;
use rbuild_executor::NetworkMode;

use super::start::StartError;
use super::{Containers, durability};
use crate::document::{self, AtPath};
use crate::etc_files;
use crate::network::{EndpointRequest, HostResolver, NetworkChoice, Networks, Purpose, Reachable, Uplink};
use crate::record::ContainerRecord;

impl Containers {
    /// Connects a container to its network, and writes its addresses into its files.
    pub(super) fn connect(&self, record: &ContainerRecord, lease: &Lease) -> Result<Connected, StartError> {
        let config = &record.config;
        let network = match &config.network {
            NetworkChoice::Host => return Ok(Connected::Not(NetworkMode::Host)),
            NetworkChoice::None => return Ok(Connected::Not(NetworkMode::None)),
            NetworkChoice::Default => Networks::new(self.store())?.of_purpose(Purpose::Default, self.now())?,
            NetworkChoice::Named(name) => Networks::new(self.store())?.find(name)?,
        };
        let names = [record.name.as_str(), record.id.short(), &config.hostname].map(str::to_owned).to_vec();
        let request = EndpointRequest { addresses: Vec::new(), names };
        let uplink = Networks::new(self.store())?.uplink(&network.id, &request, lease)?;
        let directory = self.directory(&record.id);
        let durability = durability(config.lifetime);
        let hosts = etc_files::hosts_with_own(&config.extra_hosts, uplink.addresses(), &config.hostname);
        let connected = Connected::Through(Some(uplink));
        document::write(&directory.join("hosts"), &hosts, 0o644, durability)?;
        if let (Some(server), true) = (connected.name_server(), config.dns.servers.is_empty()) {
            let path = directory.join("resolv.conf");
            let conf = String::from_utf8_lossy(&std::fs::read(&path).at("read", &path)?).into_owned();
            let own = HostResolver { conf, upstream: None };
            document::write(&path, own.resolv_conf(Reachable::Only(server)).as_bytes(), 0o644, durability)?;
        }
        Ok(connected)
    }
}

/// A container's network while it runs.
pub(super) enum Connected {
    /// It needs nothing of ours.
    Not(NetworkMode),
    /// Taken only when it ends.
    Through(Option<Uplink>),
}

impl Connected {
    pub(super) fn mode(&self) -> NetworkMode {
        match self {
            Self::Not(mode) => mode.clone(),
            Self::Through(uplink) => uplink.as_ref().map_or(NetworkMode::None, |uplink| uplink.namespace().mode()),
        }
    }

    fn name_server(&self) -> Option<IpAddr> {
        match self {
            Self::Through(Some(uplink)) => uplink.name_server(),
            _ => None,
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Self::Through(uplink) = self
            && let Some(uplink) = uplink.take()
            && let Err(error) = uplink.end()
        {
            tracing::warn!(%error, "a container's network is left for the next invocation");
        }
    }
}
