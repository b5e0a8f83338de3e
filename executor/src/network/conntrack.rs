//! Connections that the kernel remembers: those through a published port go on to lead to the address that the port led to,
//! whatever the rules say by now. When a port is withdrawn they are forgotten, so that whoever gets the address next does not
//! get them, too.
//!
//! Messages of `linux/netfilter/nfnetlink_conntrack.h`. They are listed and deleted one by one: kernels before 5.8 know no
//! filters, and would forget every connection of the machine where they are given one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::firewall::Published;
use super::nftables::{ACK, DUMP, REQUEST, attribute, attributes, each_answer, message, open};

/// Messages about connections, in their upper byte.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// Attributes of a connection.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// An attribute that holds others.
const NESTED: u16 = 0x8000;

/// One direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

/// Forgets the connections of the calling thread's namespace that these ports led. A kernel that remembers none is fine.
pub fn forget(ports: &[Published]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    match listed(ports) {
        Ok(found) => found.iter().try_for_each(delete),
        Err(error) if is_without(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_without(error: &io::Error) -> bool {
    let without = [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EINVAL, libc::ENOENT];
    without.map(Some).contains(&error.raw_os_error())
}

/// What names each of the connections to the kernel: family and attributes.
fn listed(ports: &[Published]) -> io::Result<Vec<(u8, Vec<u8>)>> {
    let socket = open()?;
    // Of every family.
    let request = message(GET, REQUEST | DUMP, 1, [0, 0, 0, 0], &[]);
    rustix::net::send(&socket, &request, rustix::net::SendFlags::empty())?;
    let mut found = Vec::new();
    each_answer(&socket, |kind, body| {
        if kind == NEW {
            found.extend(led_by(ports, body));
        }
    })?;
    Ok(found)
}

fn delete((family, named): &(u8, Vec<u8>)) -> io::Result<()> {
    let socket = open()?;
    let request = message(DELETE, REQUEST | ACK, 1, [*family, 0, 0, 0], named);
    rustix::net::send(&socket, &request, rustix::net::SendFlags::empty())?;
    match each_answer(&socket, |_, _| ()) {
        // It ended meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// What names the connection of a message, if one of these ports leads it.
fn led_by(ports: &[Published], body: &[u8]) -> Option<(u8, Vec<u8>)> {
    let family = *body.first()?;
    let all = attributes(body.get(4..)?);
    let value = |kind| all.iter().find(|(own, _)| *own == kind).map(|(_, value)| *value);
    let (original, reply) = (tuple(value(ORIGINAL)?)?, tuple(value(REPLY)?)?);
    let leads = |port: &Published| {
        port.protocol.number() == original.protocol
            && port.inside.ip() == reply.source
            && port.inside.port() == reply.source_port
            && port.host.port() == original.destination_port
            // Who calls the container itself is led by nothing.
            && original.destination != reply.source
    };
    if !ports.iter().any(leads) {
        return None;
    }
    let mut named = attribute(ORIGINAL | NESTED, value(ORIGINAL)?);
    for kind in [ID, ZONE] {
        named.extend(value(kind).map(|value| attribute(kind, value)).unwrap_or_default());
    }
    Some((family, named))
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let both = attributes(bytes);
    let part = |kind| Some(attributes(both.iter().find(|(own, _)| *own == kind)?.1));
    let (addresses, ports) = (part(1)?, part(2)?);
    let address = |v4, v6| {
        addresses.iter().find_map(|(kind, value)| match *kind {
            kind if kind == v4 => Some(Ipv4Addr::from(*value.first_chunk::<4>()?).into()),
            kind if kind == v6 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
            _ => None,
        })
    };
    let port = |wanted| {
        let (_, value) = ports.iter().find(|(kind, _)| *kind == wanted)?;
        Some(u16::from_be_bytes(*value.first_chunk::<2>()?))
    };
    Some(Tuple {
        source: address(1, 3)?,
        destination: address(2, 4)?,
        protocol: *ports.iter().find(|(kind, _)| *kind == 1)?.1.first()?,
        source_port: port(2)?,
        destination_port: port(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::firewall::Protocol;

    fn side(source: [u8; 4], destination: [u8; 4], protocol: u8, ports: [u16; 2]) -> Vec<u8> {
        let addresses = [attribute(1, &source), attribute(2, &destination)].concat();
        let [from, to] = ports.map(u16::to_be_bytes);
        let numbers = [attribute(1, &[protocol]), attribute(2, &from), attribute(3, &to)].concat();
        [attribute(1 | NESTED, &addresses), attribute(2 | NESTED, &numbers)].concat()
    }

    #[test]
    fn only_what_a_port_led_is_found() {
        let port = Published {
            protocol: Protocol::Udp,
            host: "0.0.0.0:5353".parse().unwrap(),
            inside: "172.24.0.2:53".parse().unwrap(),
        };
        let (caller, host, inside) = ([203, 0, 113, 9], [203, 0, 113, 2], [172, 24, 0, 2]);
        let body = |original: Vec<u8>, reply: Vec<u8>| {
            let all = [attribute(1 | NESTED, &original), attribute(2 | NESTED, &reply), attribute(12, &[0, 0, 0, 7])];
            [&[2, 0, 0, 0][..], &all.concat()].concat()
        };
        let led = body(side(caller, host, 17, [999, 5353]), side(inside, caller, 17, [53, 999]));
        let (family, named) = led_by(&[port], &led).unwrap();
        assert_eq!(family, 2);
        assert_eq!(
            named,
            [attribute(1 | NESTED, &side(caller, host, 17, [999, 5353])), attribute(12, &[0, 0, 0, 7])].concat()
        );
        for other in [
            // Another protocol, another port of the host, another container, nobody's rule.
            body(side(caller, host, 6, [999, 5353]), side(inside, caller, 6, [53, 999])),
            body(side(caller, host, 17, [999, 5354]), side(inside, caller, 17, [53, 999])),
            body(side(caller, host, 17, [999, 5353]), side([172, 24, 0, 3], caller, 17, [53, 999])),
            body(side(caller, inside, 17, [999, 5353]), side(inside, caller, 17, [53, 999])),
            vec![2, 0, 0, 0],
            vec![],
        ] {
            assert_eq!(led_by(&[port], &other), None);
        }
    }
}
