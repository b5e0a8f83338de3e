//! Packet filter rules of a network: a table of its own, written in one transaction.
//!
//! The rules masquerade what leaves the network, let nothing in from outside but answers and published ports, and lead
//! published ports to their containers. They are always written as a whole, equal for equal networks.
//! Nobody else's table is changed. Other tables may drop what these accept ([`super::forwarding`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::nftables;
use super::ruleset::{
    Be, Connection, Family, Hook, Interface, Place, Rule, TableFamily, Transaction, Verdict, bytes_of, joined,
};
use super::subnet::Subnet;

/// Where `nft` may be; it is often not in the search path of ordinary shells.
const PLACES: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];

/// The rules of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    /// Name of the table.
    pub table: &'a str,
    /// The network's bridge.
    pub bridge: &'a str,
    /// Its addresses.
    pub subnets: &'a [Subnet],
    /// Whether there is a way out.
    pub reach: Reach,
    /// With whose address packets leave.
    pub source: Source,
    /// Ports of the host that lead inside.
    pub published: &'a [Published],
}

/// How far a network's packets get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Everywhere.
    #[default]
    Outside,
    /// Only inside the network and to the host (`--internal`).
    Internal,
}

/// The address with which packets leave a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host's.
    Host,
    /// Their own: others have routes to the network.
    Own,
}

/// A port of the host that leads into a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On this address of the host; unspecified means on all of its family.
    pub host: SocketAddr,
    /// The endpoint, of the same family.
    pub inside: SocketAddr,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Its number in packets.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Its name as in `80/tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Rules that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is no `nft`, which lists the rules of others.
    #[error("the program nft is not installed, and without it nobody can tell what the firewall does with a network")]
    Missing,
    /// It cannot be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// The kernel does not tell of rules, or does not let them be changed.
    #[error("cannot speak to the kernel's packet filter, nftables")]
    Kernel(#[source] io::Error),
    /// It does not accept the rules.
    #[error("nft refused the rules: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
}

/// Writes the rules, in place of what the table had.
pub fn apply(rules: &Rules<'_>) -> Result<(), FirewallError> {
    transaction(rules).commit().map_err(FirewallError::Kernel)
}

/// Removes a table; one that is gone already is fine.
pub fn remove(table: &str) -> Result<(), FirewallError> {
    nftables::delete_table(table).map_err(FirewallError::Kernel)
}

/// Leads what is sent to `address`, port 53, to other ports of the same address: a name server that takes no port away from
/// the programs of the calling thread's namespace, which is a container's.
pub fn redirect_names(address: Ipv4Addr, udp: u16, tcp: u16) -> Result<(), FirewallError> {
    let mut names = Transaction::replacing(TableFamily::V4, "rbuild-names");
    names.chain("output", Hook { kind: "nat", place: Place::Output, priority: DESTINATION });
    let only = Subnet::new(address.into(), 32).expect("32 bits are what an address has");
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        let asked = Rule::new().to(Be::Equal, only).protocol(protocol.number()).port(53);
        names.rule("output", &asked.translated_to(address.into(), port));
    }
    names.commit().map_err(FirewallError::Kernel)
}

/// A table with its rules, as JSON.
pub(super) fn table(family: &str, name: &str) -> Result<Vec<u8>, FirewallError> {
    let program = PLACES.iter().find(|place| Path::new(place).exists()).ok_or(FirewallError::Missing)?;
    let mut list = Command::new(program);
    list.args(["-j", "list", "table", family, name]).env_clear().stdin(Stdio::null());
    let out = list.output().map_err(FirewallError::Run)?;
    if !out.status.success() {
        let message = String::from_utf8_lossy(&out.stderr);
        let message = message.lines().next().unwrap_or("it said nothing").trim().to_owned();
        return Err(FirewallError::Refused { message });
    }
    Ok(out.stdout)
}

/// Before what others do with destinations, and after what they do with sources.
const DESTINATION: i32 = -100;
const SOURCE: i32 = 100;

fn transaction(rules: &Rules<'_>) -> Transaction {
    let Rules { table, bridge, published, .. } = rules;
    let mut all = Transaction::replacing(TableFamily::Inet, table);
    for kind in PortKind::ALL {
        let found = kind.of(published);
        if !found.is_empty() {
            let elements: Vec<_> = found.iter().map(|port| kind.element(port)).collect();
            all.map(kind.map(), kind.family, kind.bound, &elements);
        }
    }
    if !published.is_empty() {
        let hook = |place| Hook { kind: "nat", place, priority: DESTINATION };
        all.chain("prerouting", hook(Place::Prerouting));
        // The network's own go to the relay on the host: with br_netfilter a translated packet would be bridged back to the
        // port that it came from, and is dropped there.
        all.rule("prerouting", &Rule::new().interface(Interface::In, Be::Equal, bridge).verdict(Verdict::Return));
        all.chain("output", hook(Place::Output));
        for kind in PortKind::ALL.into_iter().filter(|kind| !kind.of(published).is_empty()) {
            let own = Rule::new().family(kind.family);
            // What goes to a loopback address never leaves it: a relay on the host serves that.
            let beyond = own.clone().to(Be::Other, loopback(kind.family));
            for (chain, rule) in [("prerouting", own), ("output", beyond)] {
                let rule = if kind.bound { rule } else { rule.for_this_machine() };
                all.rule(chain, &rule.translated_by(kind.map(), kind.family, kind.bound));
            }
        }
    }
    all.chain("forward", Hook { kind: "filter", place: Place::Forward, priority: 0 });
    let inwards =
        || Rule::new().interface(Interface::Out, Be::Equal, bridge).interface(Interface::In, Be::Other, bridge);
    all.rule("forward", &inwards().connection(Connection::Established).verdict(Verdict::Accept));
    if !published.is_empty() {
        all.rule("forward", &inwards().connection(Connection::Translated).verdict(Verdict::Accept));
    }
    all.rule("forward", &inwards().verdict(Verdict::Drop));
    if rules.reach == Reach::Internal {
        let outwards =
            Rule::new().interface(Interface::In, Be::Equal, bridge).interface(Interface::Out, Be::Other, bridge);
        all.rule("forward", &outwards.verdict(Verdict::Drop));
    }
    all.chain("postrouting", Hook { kind: "nat", place: Place::Postrouting, priority: SOURCE });
    if rules.reach == Reach::Outside && rules.source == Source::Host {
        for subnet in rules.subnets {
            let leaving = Rule::new().family(Family::of(subnet.first())).from(*subnet);
            all.rule("postrouting", &leaving.interface(Interface::Out, Be::Other, bridge).masquerade());
        }
    }
    all
}

fn loopback(family: Family) -> Subnet {
    let (address, prefix): (IpAddr, u8) = match family {
        Family::V4 => (Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        Family::V6 => (Ipv6Addr::LOCALHOST.into(), 128),
    };
    Subnet::new(address, prefix).expect("no longer than an address")
}

/// Published ports of a family, those on all addresses or those on one.
#[derive(Clone, Copy, Debug)]
struct PortKind {
    family: Family,
    bound: bool,
}

impl PortKind {
    /// Those on one address first: they say more.
    const ALL: [Self; 4] = [
        Self { family: Family::V4, bound: true },
        Self { family: Family::V6, bound: true },
        Self { family: Family::V4, bound: false },
        Self { family: Family::V6, bound: false },
    ];

    fn map(self) -> &'static str {
        match (self.family, self.bound) {
            (Family::V4, false) => "everywhere4",
            (Family::V6, false) => "everywhere6",
            (Family::V4, true) => "bound4",
            (Family::V6, true) => "bound6",
        }
    }

    fn of(self, published: &[Published]) -> Vec<Published> {
        let own = |one: &&Published| {
            Family::of(one.inside.ip()) == self.family && one.host.ip().is_unspecified() != self.bound
        };
        let mut found: Vec<Published> = published.iter().filter(own).copied().collect();
        found.sort_unstable();
        found.dedup_by_key(|one| (one.protocol, one.host));
        found
    }

    fn element(self, port: &Published) -> (Vec<u8>, Vec<u8>) {
        let protocol = [port.protocol.number()];
        let (outer, inner) = (port.host.port().to_be_bytes(), port.inside.port().to_be_bytes());
        let address = bytes_of(port.host.ip());
        let key = if self.bound { joined(&[&address, &protocol, &outer]) } else { joined(&[&protocol, &outer]) };
        (key, joined(&[&bytes_of(port.inside.ip()), &inner]))
    }
}

#[cfg(test)]
mod tests;
