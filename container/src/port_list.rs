//! The PORTS column of `ps`, in Docker's words: published ports with where they are, declared ones without.
//!
//! Ports that follow each other are shown as a range, when they have the same number on both sides.

use std::net::SocketAddr;

use crate::record::ContainerRecord;

impl ContainerRecord {
    /// `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp`; nothing for a container that is not connected.
    pub fn ports_text(&self) -> String {
        let state = &self.state.network;
        if state.connections.is_empty() && state.ports.is_empty() {
            return String::new();
        }
        let mut ports: Vec<Port> = state
            .ports
            .iter()
            .map(|port| Port { inside: port.inside, host: Some(port.host), protocol: port.protocol.name().to_owned() })
            .collect();
        for declared in &self.config.exposed_ports {
            let Some((inside, protocol)) = declared.split_once('/') else { continue };
            let Ok(inside) = inside.parse() else { continue };
            if !ports.iter().any(|port| port.inside == inside && port.protocol == protocol) {
                ports.push(Port { inside, host: None, protocol: protocol.to_owned() });
            }
        }
        shown(ports)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    inside: u16,
    host: Option<SocketAddr>,
    protocol: String,
}

/// Ports in a row that are shown as one.
struct Group {
    /// Where on the host, and the protocol.
    key: (Option<std::net::IpAddr>, String),
    first: u16,
    last: u16,
}

impl Group {
    fn text(&self) -> String {
        let Self { key: (address, protocol), first, last } = self;
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        match address {
            Some(address) if address.is_ipv6() => format!("[{address}]:{range}->{range}/{protocol}"),
            Some(address) => format!("{address}:{range}->{range}/{protocol}"),
            None => format!("{range}/{protocol}"),
        }
    }
}

fn shown(mut ports: Vec<Port>) -> String {
    ports.sort();
    let (mut groups, mut done, mut mapped): (Vec<Group>, Vec<String>, Vec<String>) = Default::default();
    for Port { inside, host, protocol } in ports {
        if let Some(host) = host.filter(|host| host.port() != inside) {
            mapped.push(format!("{host}->{inside}/{protocol}"));
            continue;
        }
        let key = (host.map(|host| host.ip()), protocol);
        match groups.iter_mut().find(|group| group.key == key) {
            Some(group) if group.last.checked_add(1) == Some(inside) => group.last = inside,
            Some(group) => {
                done.push(group.text());
                (group.first, group.last) = (inside, inside);
            }
            None => groups.push(Group { key, first: inside, last: inside }),
        }
    }
    done.extend(groups.iter().map(Group::text));
    done.extend(mapped);
    done.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_dockers() {
        let port = |text: &str| {
            let (host, inside) = text.split_once("->").map_or((None, text), |(host, inside)| (Some(host), inside));
            let (inside, protocol) = inside.split_once('/').unwrap();
            Port {
                inside: inside.parse().unwrap(),
                host: host.map(|host| host.parse().unwrap()),
                protocol: protocol.to_owned(),
            }
        };
        let text = |ports: &[&str]| shown(ports.iter().map(|text| port(text)).collect());
        assert_eq!(text(&[]), "");
        assert_eq!(text(&["80/tcp", "443/tcp"]), "80/tcp, 443/tcp");
        assert_eq!(
            text(&["0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp", "443/tcp"]),
            "443/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            text(&["0.0.0.0:7001->7001/tcp", "0.0.0.0:7000->7000/tcp", "0.0.0.0:7003->7003/tcp", "9/udp", "8/udp"]),
            "0.0.0.0:7000-7001->7000-7001/tcp, 8-9/udp, 0.0.0.0:7003->7003/tcp"
        );
        assert_eq!(text(&["127.0.0.1:53->53/udp", "65535/tcp"]), "127.0.0.1:53->53/udp, 65535/tcp");
    }
}
