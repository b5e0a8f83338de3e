//! Networks: which one a container joins, what there is of them, and the ways out of a namespace.
//!
//! `RUN` steps and containers share the mechanism: a [`Network`] is a bridge with its addresses, an [`Uplink`] a namespace
//! that is connected to one. Everything about a network is in its directory below the store's `networks/`.

mod allocate;
mod attachment;
mod create;
mod endpoint;
mod error;
mod grace;
mod live;
mod mac;
mod name_server;
mod options;
mod port;
mod port_holder;
mod presence;
mod record;
mod relay;
mod resolver;
mod state;
mod store;
mod uplink;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use attachment::{EndpointSettings, InvalidAttachment, NetworkRequest, parse_address};
pub use create::NewNetwork;
pub use endpoint::{EndpointOwner, EndpointRecord, EndpointRequest, HostPort, Life, Place};
pub use error::NetworkError;
pub use live::Joined;
pub use mac::{InvalidMacAddress, MacAddress};
pub(crate) use name_server::ADDRESS as NAME_SERVER;
pub use name_server::{NameServer, NameServerError, Names, Upstream, Via};
pub use options::{DriverOptions, InvalidDriverOption};
pub(crate) use port::EVERYWHERE;
pub use port::{InvalidPortRequest, PortRequest, PortTaken, ReservedPort};
pub(crate) use port_holder::process_with;
pub use presence::Presence;
pub use record::{Addressing, Network, NetworkId, NetworkRange, Purpose};
pub use relay::{PortRelays, Reached};
pub use resolver::{HostResolver, Reachable};
pub use state::{Connection, NetworkState, PublishedPort};
pub use store::{Networks, OUTSIDE_KIND};
pub use uplink::{NoBridge, PROCESS_KIND, Uplink, UplinkError};

use crate::name::is_restricted_name;

/// The network of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkChoice {
    /// Nothing was chosen, or `bridge`: the network that comes with the store.
    #[default]
    Default,
    /// The host's own network.
    Host,
    /// Only a loopback interface.
    None,
    /// That of another container, by name or identifier.
    Container(String),
    /// A network that a user made.
    Named(String),
}

/// A network that containers cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedNetwork {
    /// No container is named.
    #[error("invalid container format container:<name|id>")]
    Container,
    /// Nothing can be called that.
    #[error("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name {
        /// What was given.
        name: String,
    },
}

impl NetworkChoice {
    /// The name as `inspect` shows it.
    pub fn name(&self) -> &str {
        match self {
            Self::Default => "bridge",
            Self::Host => "host",
            Self::None => "none",
            Self::Named(name) | Self::Container(name) => name,
        }
    }
}

impl fmt::Display for NetworkChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Container(name) => write!(f, "container:{name}"),
            other => f.write_str(other.name()),
        }
    }
}

impl FromStr for NetworkChoice {
    type Err = UnsupportedNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" | "bridge" => Ok(Self::Default),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            name if name.starts_with("container:") => match name.trim_start_matches("container:") {
                "" => Err(UnsupportedNetwork::Container),
                other => Ok(Self::Container(other.to_owned())),
            },
            name if is_restricted_name(name) => Ok(Self::Named(name.to_owned())),
            name => Err(UnsupportedNetwork::Name { name: name.to_owned() }),
        }
    }
}

impl TryFrom<String> for NetworkChoice {
    type Error = UnsupportedNetwork;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NetworkChoice> for String {
    fn from(choice: NetworkChoice) -> Self {
        choice.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_kept() {
        let named = NetworkChoice::Named("my-net".to_owned());
        for (text, want) in [
            ("none", NetworkChoice::None),
            ("host", NetworkChoice::Host),
            ("default", NetworkChoice::Default),
            ("bridge", NetworkChoice::Default),
            ("my-net", named),
            ("container:web", NetworkChoice::Container("web".to_owned())),
        ] {
            let read: NetworkChoice = text.parse().unwrap();
            assert_eq!(read, want);
            assert_eq!(read.to_string().parse(), Ok(want));
        }
        for bad in ["container:", "", "a b", "-x"] {
            assert!(bad.parse::<NetworkChoice>().is_err(), "{bad}");
        }
    }
}
