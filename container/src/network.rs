//! Networks: which one a container joins, what there is of them, and the ways out of a namespace.
//!
//! `RUN` steps and containers share the mechanism: a [`Network`] is a bridge with its addresses, an [`Uplink`] a namespace
//! that is connected to one. Everything about a network is in its directory below the store's `networks/`.

mod live;
mod port;
mod record;
mod resolver;
mod store;
mod uplink;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use live::{EndpointRecord, EndpointRequest, Joined};
pub use port::{InvalidPortRequest, PortRelay, PortRequest, PortTaken, ReservedPort};
pub use record::{Network, NetworkId, NetworkRange, Purpose};
pub use resolver::{HostResolver, Reachable};
pub use store::{NetworkError, Networks, NewNetwork, OUTSIDE_KIND};
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
    /// A network that a user made.
    Named(String),
}

/// A network that containers cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedNetwork {
    /// It is another container's.
    #[error("network {name} is not supported: containers cannot share a network namespace yet")]
    Container {
        /// What was given.
        name: String,
    },
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
            Self::Named(name) => name,
        }
    }
}

impl fmt::Display for NetworkChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            other => other.name(),
        })
    }
}

impl FromStr for NetworkChoice {
    type Err = UnsupportedNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" | "bridge" => Ok(Self::Default),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            name if name.starts_with("container:") => Err(UnsupportedNetwork::Container { name: name.to_owned() }),
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
        ] {
            let read: NetworkChoice = text.parse().unwrap();
            assert_eq!(read, want);
            assert_eq!(read.to_string().parse(), Ok(want));
        }
        for bad in ["container:web", "", "a b", "-x"] {
            assert!(bad.parse::<NetworkChoice>().is_err(), "{bad}");
        }
    }
}
