//! The flags of `run` and `create` that speak of networks and ports.

use rbuild_container::{EndpointSettings, MacAddress, NetworkRequest, PortRequest, parse_address};

use crate::cli::report::Failure;

/// Names and short forms are Docker's.
#[derive(Debug, clap::Args)]
pub(super) struct NetworkArgs {
    /// Network: bridge, host, none, container:NAME, the name of one, or name=…,alias=…,ip=…; several are possible
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<EndpointSettings>,
    /// Further name by which others of the network find the container
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<MacAddress>,
    /// Port of this machine that leads to one of the container: [[ADDRESS:]HOST:]CONTAINER[/udp]; ranges are possible
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<PortRequest>,
    /// Publish all declared ports on free ports of this machine
    #[arg(short = 'P', long)]
    pub(super) publish_all: bool,
}

impl NetworkArgs {
    /// The networks.
    pub(super) fn networks(&self) -> Result<NetworkRequest, Failure> {
        let mut addresses = Vec::new();
        addresses.extend(self.ip.as_deref().map(|text| parse_address(text, false)).transpose()?);
        addresses.extend(self.ip6.as_deref().map(|text| parse_address(text, true)).transpose()?);
        Ok(NetworkRequest {
            networks: self.network.clone(),
            aliases: self.network_alias.clone(),
            addresses,
            mac: self.mac_address,
        })
    }

    /// The ports.
    pub(super) fn ports(&self) -> Vec<PortRequest> {
        self.publish.clone()
    }

    /// What is asked for and means nothing, in Docker's words.
    pub(super) fn warning(&self) -> Option<&'static str> {
        let publishes = self.publish_all || !self.publish.is_empty();
        (publishes && self.network.first().is_some_and(|one| one.network == "host"))
            .then_some("published ports are discarded when using host network mode")
    }
}
