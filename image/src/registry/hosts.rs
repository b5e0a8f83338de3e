//! Settings by host: named ones, and those of whole networks whose registries need not prove who they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use super::options::{Access, ClearText, ClientOptions, HostConfig, Mirror, RepositoryRule, Scheme, Verify};

/// Addresses with a common beginning: `10.1.0.0/16`, `::1/128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    length: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a network, e.g. 10.1.0.0/16")]
pub struct InvalidNetwork {
    /// What was given.
    pub text: String,
}

impl IpNetwork {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u32| {
            let length = u32::from(self.length);
            length == 0 || (a ^ b) >> (bits - length) == 0
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for IpNetwork {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork { text: text.chars().take(100).collect() };
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let length: u8 = length.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most { Err(invalid()) } else { Ok(Self { address, length }) }
    }
}

/// What is known of hosts: those that were named, else the networks that they are in.
#[derive(Clone, Debug, Default)]
pub(super) struct HostTable {
    pub(super) named: BTreeMap<String, HostConfig>,
    networks: Vec<IpNetwork>,
    insecure: HostConfig,
    default_mirrors: Vec<Mirror>,
    /// The longest prefix first.
    rules: Vec<RepositoryRule>,
}

impl HostTable {
    pub(super) fn new(named: BTreeMap<String, HostConfig>, networks: Vec<IpNetwork>) -> Self {
        let insecure = HostConfig {
            scheme: Scheme::Either,
            verify: Verify::Nothing,
            clear_text: ClearText::Anything,
            ..HostConfig::default()
        };
        Self { named, networks, insecure, default_mirrors: Vec::new(), rules: Vec::new() }
    }

    /// The table that options describe.
    pub(super) fn of(options: &ClientOptions) -> Self {
        let mut rules = options.repositories.clone();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        let default_mirrors = options.default_mirrors.clone();
        Self { default_mirrors, rules, ..Self::new(options.hosts.clone(), options.insecure_networks.clone()) }
    }

    /// The rule for a repository, and what follows its prefix.
    pub(super) fn rule<'n>(&self, name: &'n str) -> Option<(&RepositoryRule, &'n str)> {
        self.rules.iter().find_map(|rule| Some((rule, rule.rest(name)?)))
    }

    /// The entry by which a repository may not be used.
    pub(super) fn blocked(&self, registry: &str, repository: &str) -> Option<&str> {
        if repository.is_empty() {
            return None;
        }
        let (rule, _) = self.rule(&format!("{registry}/{repository}"))?;
        (rule.access == Access::Blocked).then_some(rule.prefix.as_str())
    }

    /// Whether a registry may be pushed to.
    pub(super) fn takes_pushes(&self, registry: &str) -> bool {
        self.get(registry).is_none_or(|host| host.push != Some(Access::Blocked))
    }

    /// The same settings under other names.
    pub(super) fn renamed(&self, name: impl Fn(&str) -> Option<String>) -> Self {
        let named = self.named.iter().filter_map(|(old, host)| Some((name(old)?, host.clone()))).collect();
        Self { named, ..self.clone() }
    }

    /// The settings of a host, named with its port where it has one. Only literal addresses are in networks.
    pub(super) fn get(&self, host: &str) -> Option<&HostConfig> {
        self.named.get(host).or_else(|| {
            let address = address_of(host)?;
            self.networks.iter().any(|network| network.contains(address)).then_some(&self.insecure)
        })
    }

    /// Whom to ask before a registry itself.
    pub(super) fn mirrors(&self, registry: &str) -> &[Mirror] {
        self.get(registry).map_or(&self.default_mirrors, |host| &host.mirrors)
    }
}

/// The address that a host is named by: `10.0.0.1:5000`, `[::1]:5000`, `10.0.0.1`.
fn address_of(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return host.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    }
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_addresses() {
        for (network, address, inside) in [
            ("10.1.0.0/16", "10.1.255.3", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "10.0.0.1", false),
        ] {
            let network: IpNetwork = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
        for bad in ["10.1.0.0", "10.1.0.0/33", "::/129", "r.example/8", "10.1.0.0/x", ""] {
            let error = bad.parse::<IpNetwork>().unwrap_err();
            assert_eq!(error.to_string(), format!("{bad:?} is not a network, e.g. 10.1.0.0/16"));
        }
    }

    #[test]
    fn a_host_takes_pushes_unless_it_is_said_not_to() {
        let host = |push| HostConfig { push, ..HostConfig::default() };
        let named =
            [("a.example", None), ("b.example:5000", Some(Access::Blocked)), ("c.example", Some(Access::Allowed))];
        let named = named.map(|(name, push)| (name.to_owned(), host(push)));
        let table = HostTable::new(named.into(), vec!["10.1.0.0/16".parse().unwrap()]);
        for (registry, takes) in [
            ("a.example", true),
            ("b.example:5000", false),
            ("b.example", true),
            ("c.example", true),
            ("10.1.0.1", true),
            ("docker.io", true),
        ] {
            assert_eq!(table.takes_pushes(registry), takes, "{registry}");
        }
    }

    #[test]
    fn hosts_are_found_by_name_then_by_network() {
        let own = HostConfig { scheme: Scheme::Https, ..HostConfig::default() };
        let table = HostTable::new(
            [("10.1.0.1:5000".to_owned(), own.clone())].into(),
            vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        );
        assert_eq!(table.get("10.1.0.1:5000"), Some(&own));
        for inside in ["10.1.0.1", "10.1.0.2:5000", "[fd00::1]:5000", "[fd00::1]"] {
            assert_eq!(table.get(inside).map(|host| host.scheme), Some(Scheme::Either), "{inside}");
        }
        for outside in ["10.2.0.1", "r.example:5000", "docker.io", "[fe80::1]:5000"] {
            assert_eq!(table.get(outside), None, "{outside}");
        }
    }
}
