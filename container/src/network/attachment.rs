//! What a container wants of each of its networks: `--network NAME`, `--network name=NAME,alias=…`, and the flags that
//! speak of the first one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::mac::{InvalidMacAddress, MacAddress};
use super::{NetworkChoice, UnsupportedNetwork};

/// What a container wants of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSettings {
    /// The network's name or identifier, as given; `bridge` for the default one.
    pub network: String,
    /// Further names by which others of the network find it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Addresses it must have, at most one of each family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Its hardware address there.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// The highest one of a container's networks is its way out; of equals the first by name.
    #[serde(default)]
    pub gateway_priority: i32,
}

/// A `--network` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttachment {
    /// It names no network.
    #[error(transparent)]
    Network(#[from] UnsupportedNetwork),
    /// Not `KEY=VALUE`.
    #[error("invalid field {field:?} in --network {text:?}: expected key=value")]
    Field {
        /// The part.
        field: String,
        /// What was given.
        text: String,
    },
    /// A key that is not served.
    #[error("--network {text:?}: {key} is not supported: known are name, alias, ip, ip6, mac-address and gw-priority")]
    Key {
        /// Which.
        key: String,
        /// What was given.
        text: String,
    },
    /// No address of its family.
    #[error("invalid {family} address: {address}")]
    Address {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// What was given.
        address: String,
    },
    /// No hardware address.
    #[error(transparent)]
    Mac(#[from] InvalidMacAddress),
    /// No number.
    #[error("invalid gw-priority {value:?}")]
    Priority {
        /// What was given.
        value: String,
    },
    /// Host, none or another container's, together with others.
    #[error("conflicting options: cannot attach both user-defined and non-user-defined network-modes")]
    Mixed,
    /// The same network twice.
    #[error("network {network:?} is specified multiple times")]
    Twice {
        /// Which.
        network: String,
    },
    /// Only networks that a user made have names.
    #[error("network-scoped aliases are only supported for user-defined networks")]
    AliasOnDefault,
    /// Only networks that a user made let one choose.
    #[error("user specified IP address is supported on user defined networks only")]
    AddressOnDefault,
    /// Flags of one network with several, or with none.
    #[error("conflicting options: cannot specify both {flag} and per-network {key}")]
    Both {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: &'static str,
    },
    /// An option that makes no sense when the network is another container's.
    #[error("conflicting options: {what} and the network mode")]
    WithContainer {
        /// Which.
        what: &'static str,
    },
    /// Ports are those of the container whose network it is.
    #[error("conflicting options: {what} and the container type network mode")]
    PortsWithContainer {
        /// Which.
        what: &'static str,
    },
    /// An option that makes no sense without a network of the container's own.
    #[error("conflicting options: {what} and the network mode ({mode})")]
    WithMode {
        /// Which option.
        what: &'static str,
        /// Which mode.
        mode: String,
    },
}

/// A choice as it is typed.
fn typed(choice: &NetworkChoice) -> String {
    match choice {
        NetworkChoice::Default => choice.name().to_owned(),
        other => other.to_string(),
    }
}

/// An address of the family that a flag is for.
pub fn parse_address(text: &str, ipv6: bool) -> Result<IpAddr, InvalidAttachment> {
    let parsed = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv6() == ipv6 && !address.is_unspecified());
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    parsed.ok_or_else(|| InvalidAttachment::Address { family, address: text.to_owned() })
}

impl std::str::FromStr for EndpointSettings {
    type Err = InvalidAttachment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains('=') {
            return Ok(Self { network: typed(&text.parse()?), ..Self::default() });
        }
        let mut settings = Self::default();
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=') else {
                return Err(InvalidAttachment::Field { field: field.to_owned(), text: text.to_owned() });
            };
            match key.to_ascii_lowercase().as_str() {
                "name" => settings.network = typed(&value.parse()?),
                "alias" => settings.aliases.push(value.to_owned()),
                "ip" => settings.addresses.push(parse_address(value, false)?),
                "ip6" => settings.addresses.push(parse_address(value, true)?),
                "mac-address" => settings.mac = Some(value.parse()?),
                "gw-priority" => {
                    let invalid = |_| InvalidAttachment::Priority { value: value.to_owned() };
                    settings.gateway_priority = value.parse().map_err(invalid)?;
                }
                _ => return Err(InvalidAttachment::Key { key: key.to_owned(), text: text.to_owned() }),
            }
        }
        if settings.network.is_empty() {
            return Err(UnsupportedNetwork::Name { name: String::new() }.into());
        }
        Ok(settings)
    }
}

/// The networks of a container as its flags say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Each `--network`.
    pub networks: Vec<EndpointSettings>,
    /// `--network-alias`, `--link-local-ip` left out: names in the first network.
    pub aliases: Vec<String>,
    /// `--ip` and `--ip6`.
    pub addresses: Vec<IpAddr>,
    /// `--mac-address`.
    pub mac: Option<MacAddress>,
}

impl NetworkRequest {
    /// One network, by what was chosen.
    pub fn of(choice: &NetworkChoice) -> Self {
        let network = EndpointSettings { network: typed(choice), ..EndpointSettings::default() };
        Self { networks: vec![network], ..Self::default() }
    }

    /// The kind of network and, unless it is not the container's own, what is wanted of each.
    pub(crate) fn resolve(&self) -> Result<(NetworkChoice, Vec<EndpointSettings>), InvalidAttachment> {
        let mut endpoints = self.networks.clone();
        if endpoints.is_empty() {
            endpoints.push(EndpointSettings { network: typed(&NetworkChoice::Default), ..Default::default() });
        }
        for (number, endpoint) in endpoints.iter().enumerate() {
            if endpoints[..number].iter().any(|other| other.network == endpoint.network) {
                return Err(InvalidAttachment::Twice { network: endpoint.network.clone() });
            }
        }
        let first = &mut endpoints[0];
        for (flag, key, given, own) in [
            ("--network-alias", "alias", !self.aliases.is_empty(), !first.aliases.is_empty()),
            ("--ip", "ip", !self.addresses.is_empty(), !first.addresses.is_empty()),
            ("--mac-address", "MAC address", self.mac.is_some(), first.mac.is_some()),
        ] {
            if given && own {
                return Err(InvalidAttachment::Both { flag, key });
            }
        }
        first.aliases.extend(self.aliases.iter().cloned());
        first.addresses.extend(&self.addresses);
        first.mac = first.mac.or(self.mac);
        let choice: NetworkChoice = first.network.parse()?;
        let own = |choice: &NetworkChoice| matches!(choice, NetworkChoice::Default | NetworkChoice::Named(_));
        let modes: Vec<NetworkChoice> =
            endpoints.iter().map(|endpoint| endpoint.network.parse()).collect::<Result<_, _>>()?;
        if modes.len() > 1 && !modes.iter().all(own) {
            return Err(InvalidAttachment::Mixed);
        }
        for (mode, endpoint) in modes.iter().zip(&endpoints) {
            let unnamed = !matches!(mode, NetworkChoice::Named(_));
            if unnamed && !endpoint.aliases.is_empty() {
                return Err(InvalidAttachment::AliasOnDefault);
            }
            if unnamed && !endpoint.addresses.is_empty() {
                return Err(InvalidAttachment::AddressOnDefault);
            }
        }
        if own(&choice) {
            return Ok((choice, endpoints));
        }
        if endpoints[0].mac.is_some() {
            let mode = choice.to_string();
            return Err(InvalidAttachment::WithMode { what: "mac-address", mode });
        }
        Ok((choice, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(networks: &[&str], change: impl FnOnce(&mut NetworkRequest)) -> String {
        let mut request = NetworkRequest::default();
        for text in networks {
            match text.parse() {
                Ok(network) => request.networks.push(network),
                Err(error) => return InvalidAttachment::to_string(&error),
            }
        }
        change(&mut request);
        match request.resolve() {
            Ok((choice, endpoints)) => {
                let shown = |one: &EndpointSettings| {
                    let addresses: Vec<String> = one.addresses.iter().map(ToString::to_string).collect();
                    let mac = one.mac.map(|mac| format!(" {mac}")).unwrap_or_default();
                    format!(
                        " [{} {} {}{mac} {}]",
                        one.network,
                        one.aliases.join("+"),
                        addresses.join("+"),
                        one.gateway_priority
                    )
                };
                format!("{choice}{}", endpoints.iter().map(shown).collect::<String>())
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn flags_become_endpoints() {
        assert_eq!(resolved(&[], |_| ()), "default [bridge   0]");
        assert_eq!(resolved(&["host"], |_| ()), "host");
        assert_eq!(resolved(&["container:db"], |_| ()), "container:db");
        assert_eq!(resolved(&["front", "back"], |_| ()), "front [front   0] [back   0]");
        let flags = |request: &mut NetworkRequest| {
            request.aliases = vec!["www".into()];
            request.addresses = vec!["10.6.0.5".parse().unwrap()];
            request.mac = Some("02:42:00:00:00:05".parse().unwrap());
        };
        assert_eq!(resolved(&["front", "back"], flags), "front [front www 10.6.0.5 02:42:00:00:00:05 0] [back   0]");
        assert_eq!(
            resolved(&["name=front,alias=a,alias=b,ip=10.6.0.5,ip6=fd00::5,gw-priority=7"], |_| ()),
            "front [front a+b 10.6.0.5+fd00::5 7]"
        );
    }

    #[test]
    fn contradictions_are_refused_in_dockers_words() {
        let alias = |request: &mut NetworkRequest| request.aliases = vec!["www".into()];
        let address = |request: &mut NetworkRequest| request.addresses = vec!["10.6.0.5".parse().unwrap()];
        assert_eq!(
            resolved(&["front", "host"], |_| ()),
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        );
        assert_eq!(resolved(&["a1", "a1"], |_| ()), "network \"a1\" is specified multiple times");
        assert_eq!(resolved(&[], alias), "network-scoped aliases are only supported for user-defined networks");
        assert_eq!(resolved(&[], address), "user specified IP address is supported on user defined networks only");
        assert_eq!(
            resolved(&["name=front,alias=x"], alias),
            "conflicting options: cannot specify both --network-alias and per-network alias"
        );
        assert_eq!(resolved(&["name=front,ip=fd00::1"], |_| ()), "invalid IPv4 address: fd00::1");
        assert!(resolved(&["name=front,driver-opt=x"], |_| ()).contains("driver-opt is not supported"));
        assert!(resolved(&["name=front,alias"], |_| ()).contains("expected key=value"));
        assert!(resolved(&["a b"], |_| ()).starts_with("invalid network name"));
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let errors = [
            "name=front,oops".parse::<EndpointSettings>().unwrap_err(),
            InvalidAttachment::WithContainer { what: "hostname" },
            InvalidAttachment::PortsWithContainer { what: "port publishing" },
            InvalidAttachment::WithMode { what: "mac-address", mode: "host".into() },
        ];
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r#"
        invalid field "oops" in --network "name=front,oops": expected key=value
        conflicting options: hostname and the network mode
        conflicting options: port publishing and the container type network mode
        conflicting options: mac-address and the network mode (host)
        "#);
    }
}
