//! Packet filter rules of a network: a table of its own, written by `nft` in one transaction.
//!
//! The rules masquerade what leaves the network, let nothing in from outside but answers and published ports, and lead
//! published ports to their containers. They are always written as a whole: the text is pure, and equal for equal networks.
//! Nobody else's table is changed. Other tables may drop what these accept ([`super::forwarding`]).

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::nftables;
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
    /// There is no `nft`.
    #[error("the program nft is not installed, and without it a network has no way out")]
    Missing,
    /// It cannot be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// The kernel does not tell of rules, or does not let them be changed.
    #[error("cannot speak to the kernel's packet filter")]
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
    write(&script(rules))
}

/// Removes a table; one that is gone already is fine.
pub fn remove(table: &str) -> Result<(), FirewallError> {
    nftables::delete_table(table).map_err(FirewallError::Kernel)
}

/// Leads what is sent to `address`, port 53, to other ports of the same address: a name server that takes no port away from
/// the programs of the calling thread's namespace, which is a container's.
pub fn redirect_names(address: Ipv4Addr, udp: u16, tcp: u16) -> Result<(), FirewallError> {
    write(&format!(
        "table ip rbuild-names {{\n\tchain output {{\n\t\ttype nat hook output priority -100; policy accept;\n\
         \t\tip daddr {address} udp dport 53 dnat to {address}:{udp}\n\
         \t\tip daddr {address} tcp dport 53 dnat to {address}:{tcp}\n\t}}\n}}\n"
    ))
}

/// Feeds `nft` with one transaction.
fn write(script: &str) -> Result<(), FirewallError> {
    run(&["-f", "-"], script).map(drop)
}

/// A table with its rules, as JSON.
pub(super) fn table(family: &str, name: &str) -> Result<Vec<u8>, FirewallError> {
    run(&["-j", "list", "table", family, name], "")
}

fn run(arguments: &[&str], script: &str) -> Result<Vec<u8>, FirewallError> {
    let program = PLACES.iter().find(|place| Path::new(place).exists()).ok_or(FirewallError::Missing)?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FirewallError::Run)?;
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(script.as_bytes()));
    let out = child.wait_with_output().map_err(FirewallError::Run)?;
    if !out.status.success() {
        let message = String::from_utf8_lossy(&out.stderr);
        let message = message.lines().next().unwrap_or("it said nothing").trim().to_owned();
        return Err(FirewallError::Refused { message });
    }
    written.map_err(FirewallError::Run)?;
    Ok(out.stdout)
}

/// The rules as `nft` reads them.
pub fn script(rules: &Rules<'_>) -> String {
    let Rules { table, bridge, .. } = rules;
    let mut text = format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    for family in [Family::V4, Family::V6] {
        maps(&mut text, family, rules.published);
    }
    if !rules.published.is_empty() {
        for (chain, hook, priority, besides) in [
            ("prerouting", "prerouting", "dstnat", ["", ""]),
            // What goes to a loopback address never leaves it: a relay on the host serves that.
            ("output", "output", "-100", ["ip daddr != 127.0.0.0/8 ", "ip6 daddr != ::1 "]),
        ] {
            line(&mut text, 1, &format!("chain {chain} {{"));
            line(&mut text, 2, &format!("type nat hook {hook} priority {priority}; policy accept;"));
            if chain == "prerouting" {
                // The network's own go to the relay on the host: with br_netfilter a translated packet would be bridged back
                // to the port that it came from, and is dropped there.
                line(&mut text, 2, &format!("iifname \"{bridge}\" return"));
            }
            for (family, besides) in [Family::V4, Family::V6].into_iter().zip(besides) {
                translations(&mut text, family, besides, rules.published);
            }
            line(&mut text, 1, "}");
        }
    }
    line(&mut text, 1, "chain forward {");
    line(&mut text, 2, "type filter hook forward priority filter; policy accept;");
    let inwards = format!("oifname \"{bridge}\" iifname != \"{bridge}\"");
    line(&mut text, 2, &format!("{inwards} ct state established,related accept"));
    if !rules.published.is_empty() {
        line(&mut text, 2, &format!("{inwards} ct status dnat accept"));
    }
    line(&mut text, 2, &format!("{inwards} drop"));
    if rules.reach == Reach::Internal {
        line(&mut text, 2, &format!("iifname \"{bridge}\" oifname != \"{bridge}\" drop"));
    }
    line(&mut text, 1, "}");
    line(&mut text, 1, "chain postrouting {");
    line(&mut text, 2, "type nat hook postrouting priority srcnat; policy accept;");
    for subnet in rules.subnets {
        let ip = if subnet.is_ipv6() { "ip6" } else { "ip" };
        if rules.reach == Reach::Outside && rules.source == Source::Host {
            line(&mut text, 2, &format!("{ip} saddr {subnet} oifname != \"{bridge}\" masquerade"));
        }
    }
    line(&mut text, 1, "}");
    text.push_str("}\n");
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Name of the type of its addresses, suffix of its maps, word in rules.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::V4 => ("ipv4_addr", "4", "ip"),
            Self::V6 => ("ipv6_addr", "6", "ip6"),
        }
    }
}

/// Published ports of a family, those on all addresses or those on one.
fn of_kind(published: &[Published], family: Family, everywhere: bool) -> Vec<Published> {
    let mut found: Vec<Published> = published
        .iter()
        .filter(|one| Family::of(one.inside.ip()) == family && one.host.ip().is_unspecified() == everywhere)
        .copied()
        .collect();
    found.sort_unstable();
    found.dedup_by_key(|one| (one.protocol, one.host));
    found
}

fn maps(text: &mut String, family: Family, published: &[Published]) {
    let (kind, suffix, _) = family.words();
    for (name, everywhere, key) in [
        ("everywhere", true, "inet_proto . inet_service".to_owned()),
        ("bound", false, format!("{kind} . inet_proto . inet_service")),
    ] {
        let found = of_kind(published, family, everywhere);
        if found.is_empty() {
            continue;
        }
        line(text, 1, &format!("map {name}{suffix} {{"));
        line(text, 2, &format!("type {key} : {kind} . inet_service"));
        let elements: Vec<String> = found
            .iter()
            .map(|one| {
                let on = if everywhere { String::new() } else { format!("{} . ", one.host.ip()) };
                let (protocol, port) = (one.protocol.name(), one.host.port());
                format!("{on}{protocol} . {port} : {} . {}", one.inside.ip(), one.inside.port())
            })
            .collect();
        line(text, 2, &format!("elements = {{ {} }}", elements.join(", ")));
        line(text, 1, "}");
    }
}

fn translations(text: &mut String, family: Family, besides: &str, published: &[Published]) {
    let (_, suffix, ip) = family.words();
    if !of_kind(published, family, false).is_empty() {
        line(text, 2, &format!("{besides}dnat {ip} to {ip} daddr . meta l4proto . th dport map @bound{suffix}"));
    }
    if !of_kind(published, family, true).is_empty() {
        line(
            text,
            2,
            &format!("{besides}fib daddr type local dnat {ip} to meta l4proto . th dport map @everywhere{suffix}"),
        );
    }
}

fn line(text: &mut String, depth: usize, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}{content}", "\t".repeat(depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets() -> Vec<Subnet> {
        vec!["172.24.0.0/22".parse().unwrap(), "fd00:1::/64".parse().unwrap()]
    }

    #[test]
    fn a_plain_network_masquerades_and_lets_answers_in() {
        let rules = Rules {
            table: "rbuild-0123",
            bridge: "rb-0123",
            subnets: &subnets()[..1],
            reach: Reach::Outside,
            source: Source::Host,
            published: &[],
        };
        insta::assert_snapshot!(script(&rules), @r#"
        add table inet rbuild-0123
        delete table inet rbuild-0123
        table inet rbuild-0123 {
        	chain forward {
        		type filter hook forward priority filter; policy accept;
        		oifname "rb-0123" iifname != "rb-0123" ct state established,related accept
        		oifname "rb-0123" iifname != "rb-0123" drop
        	}
        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		ip saddr 172.24.0.0/22 oifname != "rb-0123" masquerade
        	}
        }
        "#);
    }

    #[test]
    fn published_ports_are_maps() {
        let publish = |protocol, host: &str, inside: &str| Published {
            protocol,
            host: host.parse().unwrap(),
            inside: inside.parse().unwrap(),
        };
        let published = [
            publish(Protocol::Udp, "0.0.0.0:53", "172.24.0.2:53"),
            publish(Protocol::Tcp, "0.0.0.0:8080", "172.24.0.3:80"),
            publish(Protocol::Tcp, "192.0.2.1:443", "172.24.0.3:443"),
            publish(Protocol::Tcp, "[::]:8080", "[fd00:1::3]:80"),
        ];
        let rules = Rules {
            table: "t",
            bridge: "b",
            subnets: &subnets(),
            reach: Reach::Internal,
            source: Source::Host,
            published: &published,
        };
        insta::assert_snapshot!(script(&rules), @r#"
        add table inet t
        delete table inet t
        table inet t {
        	map everywhere4 {
        		type inet_proto . inet_service : ipv4_addr . inet_service
        		elements = { tcp . 8080 : 172.24.0.3 . 80, udp . 53 : 172.24.0.2 . 53 }
        	}
        	map bound4 {
        		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        		elements = { 192.0.2.1 . tcp . 443 : 172.24.0.3 . 443 }
        	}
        	map everywhere6 {
        		type inet_proto . inet_service : ipv6_addr . inet_service
        		elements = { tcp . 8080 : fd00:1::3 . 80 }
        	}
        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		iifname "b" return
        		dnat ip to ip daddr . meta l4proto . th dport map @bound4
        		fib daddr type local dnat ip to meta l4proto . th dport map @everywhere4
        		fib daddr type local dnat ip6 to meta l4proto . th dport map @everywhere6
        	}
        	chain output {
        		type nat hook output priority -100; policy accept;
        		ip daddr != 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @bound4
        		ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @everywhere4
        		ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @everywhere6
        	}
        	chain forward {
        		type filter hook forward priority filter; policy accept;
        		oifname "b" iifname != "b" ct state established,related accept
        		oifname "b" iifname != "b" ct status dnat accept
        		oifname "b" iifname != "b" drop
        		iifname "b" oifname != "b" drop
        	}
        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        	}
        }
        "#);
    }
}
