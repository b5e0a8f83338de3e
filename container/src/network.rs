//! Which network a container joins.
//!
//! Served: the host's and none. An own bridge is the default of Docker; until containers can have one, a container
//! without a choice of its user's shares the host's network, and whoever starts it is told so
//! ([`NetworkChoice::is_fallback`]).

use std::str::FromStr;

use rbuild_executor::NetworkMode;
use serde::{Deserialize, Serialize};

/// The network of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkChoice {
    /// Nothing was chosen.
    #[default]
    Default,
    /// The host's own network.
    Host,
    /// Only a loopback interface.
    None,
}

/// A network that containers cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network {name} is not supported: use --network=host or --network=none")]
pub struct UnsupportedNetwork {
    /// What was given.
    pub name: String,
}

impl NetworkChoice {
    /// Whether the container shares the host's network without its user having asked for that.
    pub fn is_fallback(self) -> bool {
        self == Self::Default
    }

    /// The name as `inspect` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// The namespace that the sandbox gets.
    pub(crate) fn mode(self) -> NetworkMode {
        match self {
            Self::Default | Self::Host => NetworkMode::Host,
            Self::None => NetworkMode::None,
        }
    }
}

impl FromStr for NetworkChoice {
    type Err = UnsupportedNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" => Ok(Self::Default),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => Err(UnsupportedNetwork { name: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_served_is_a_network() {
        assert_eq!("none".parse(), Ok(NetworkChoice::None));
        assert_eq!("host".parse(), Ok(NetworkChoice::Host));
        assert!(NetworkChoice::default().is_fallback() && !NetworkChoice::Host.is_fallback());
        for other in ["bridge", "container:web", "my-net", ""] {
            assert_eq!(other.parse::<NetworkChoice>(), Err(UnsupportedNetwork { name: other.to_owned() }));
        }
    }
}
