//! Ports of the host that lead to a container: what `-p` asks for.
//!
//! A port is reserved by listening on it, which the kernel gives to one process only, whatever store it works for. What
//! arrives at the listener is relayed ([`super::relay`]); rules lead most past it ([`rbuild_executor::network::firewall`]).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::str::FromStr;

use rbuild_executor::network::firewall::Protocol;
use serde::{Deserialize, Serialize};

use super::endpoint::HostPort;

/// How often another port is drawn when the drawn one is free on some of the addresses only.
const DRAWS: usize = 16;

/// One `-p [[ADDRESS:][HOST[-END]]:]CONTAINER[-END][/PROTOCOL]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRequest {
    /// Address of the host; all of both families when none was given.
    pub address: Option<IpAddr>,
    /// Ports of the host; any free one when none was given.
    pub host: Option<RangeInclusive<u16>>,
    /// The container's ports.
    pub inside: RangeInclusive<u16>,
    /// TCP, unless UDP was asked for.
    pub protocol: Protocol,
}

/// A `-p` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPortRequest {
    /// A port or a range of them is wrong.
    #[error("invalid port {port:?} in {text:?}")]
    Port {
        /// The part.
        port: String,
        /// What was given.
        text: String,
    },
    /// The address is none.
    #[error("invalid IP address {address:?} in {text:?}")]
    Address {
        /// The part.
        address: String,
        /// What was given.
        text: String,
    },
    /// Neither TCP nor UDP.
    #[error("invalid protocol {protocol:?} in {text:?}: tcp and udp are served")]
    Protocol {
        /// The part.
        protocol: String,
        /// What was given.
        text: String,
    },
    /// No field of the long form.
    #[error("invalid field {field:?} in {text:?}: known are published, target, protocol and mode")]
    Field {
        /// The part.
        field: String,
        /// What was given.
        text: String,
    },
    /// The two ranges are not equally long.
    #[error("invalid ranges in {text:?}: as many ports of the host are needed as of the container")]
    Ranges {
        /// What was given.
        text: String,
    },
}

impl FromStr for PortRequest {
    type Err = InvalidPortRequest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('=') {
            return from_fields(text);
        }
        let (ports, protocol) = text.rsplit_once('/').map_or((text, None), |(ports, own)| (ports, Some(own)));
        let protocol = protocol.map_or(Ok(Protocol::Tcp), |own| protocol_of(own, text))?;
        let (before, inside) = ports.rsplit_once(':').map_or((None, ports), |(before, inside)| (Some(before), inside));
        let (address, host) = match before {
            None => (None, ""),
            Some(before) => before.rsplit_once(':').map_or((None, before), |(address, host)| (Some(address), host)),
        };
        let address = match address {
            None | Some("") => None,
            Some(address) => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
                let invalid = || InvalidPortRequest::Address { address: address.to_owned(), text: text.to_owned() };
                Some(bare.parse().map_err(|_| invalid())?)
            }
        };
        let inside = range(inside, text)?;
        let host = if host.is_empty() || host == "0" { None } else { Some(range(host, text)?) };
        Self { address, host, inside, protocol }.checked(text)
    }
}

fn protocol_of(word: &str, text: &str) -> Result<Protocol, InvalidPortRequest> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(InvalidPortRequest::Protocol { protocol: word.to_owned(), text: text.to_owned() }),
    }
}

/// `published=8080,target=80,protocol=tcp`, as Docker takes it, too.
fn from_fields(text: &str) -> Result<PortRequest, InvalidPortRequest> {
    let (mut published, mut target, mut protocol) = (None, "", Protocol::Tcp);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = Some(range(value, text)?),
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = protocol_of(value, text)?,
            // What it is for a container of this machine.
            Some(("mode", "host" | "ingress")) => {}
            _ => return Err(InvalidPortRequest::Field { field: field.to_owned(), text: text.to_owned() }),
        }
    }
    PortRequest { address: None, host: published, inside: range(target, text)?, protocol }.checked(text)
}

impl PortRequest {
    /// As many ports on both sides, or one port of the container.
    fn checked(self, text: &str) -> Result<Self, InvalidPortRequest> {
        let unequal = self.host.as_ref().is_some_and(|host| host.len() != self.inside.len() && self.inside.len() != 1);
        if unequal { Err(InvalidPortRequest::Ranges { text: text.to_owned() }) } else { Ok(self) }
    }
}

fn range(ports: &str, text: &str) -> Result<RangeInclusive<u16>, InvalidPortRequest> {
    let invalid = || InvalidPortRequest::Port { port: ports.to_owned(), text: text.to_owned() };
    let port = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|port| plain && *port > 0).ok_or_else(invalid)
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let range = port(first)?..=port(last)?;
    if range.is_empty() { Err(invalid()) } else { Ok(range) }
}

impl fmt::Display for PortRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host = self.host.as_ref().map(span).unwrap_or_default();
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{host}:")?,
            Some(address) => write!(f, "{address}:{host}:")?,
            None if !host.is_empty() => write!(f, "{host}:")?,
            None => {}
        }
        write!(f, "{}/{}", span(&self.inside), self.protocol.name())
    }
}

impl TryFrom<String> for PortRequest {
    type Error = InvalidPortRequest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PortRequest> for String {
    fn from(request: PortRequest) -> Self {
        request.to_string()
    }
}

/// A port of the host that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PortTaken {
    /// Somebody listens there.
    #[error("Bind for {address} failed: port is already allocated{}", by(holder))]
    InUse {
        /// Where.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// Who has it, where that is known.
        holder: Option<String>,
    },
    /// All of a range are taken.
    #[error("Bind for {address} failed: all ports are allocated (up to {last})")]
    RangeInUse {
        /// The first.
        address: SocketAddr,
        /// The last port.
        last: u16,
    },
    /// The host cannot listen there.
    #[error("cannot listen on {}/{}", address, protocol.name())]
    Listen {
        /// Where.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn by(holder: &Option<String>) -> String {
    holder.as_ref().map_or_else(String::new, |holder| format!(" (by {holder})"))
}

/// A port of the host that is ours, and leads nowhere yet.
#[derive(Debug)]
pub struct ReservedPort {
    pub(super) listener: Listener,
    /// On the host.
    pub address: SocketAddr,
    /// The container's port.
    pub inside: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl PortRequest {
    /// One port of the container on any port of the host (`-P`).
    pub fn any(inside: u16, protocol: Protocol) -> Self {
        Self { address: None, host: None, inside: inside..=inside, protocol }
    }

    /// Reserves all its ports in the calling thread's network namespace, on `everywhere` when it names no address. A host
    /// without IPv6 has none of its ports there.
    pub fn reserve(&self, everywhere: &[IpAddr]) -> Result<Vec<ReservedPort>, PortTaken> {
        let own = self.address.map(|address| [address]);
        let addresses = own.as_ref().map_or(everywhere, |own| own.as_slice());
        let mut reserved = Vec::new();
        for (number, inside) in self.inside.clone().enumerate() {
            let candidates: Vec<u16> = match &self.host {
                None => vec![0; DRAWS],
                Some(range) if self.inside.len() == 1 => range.clone().collect(),
                Some(range) => range.clone().nth(number).into_iter().collect(),
            };
            reserved.extend(self.reserve_one(addresses, &candidates, inside)?);
        }
        Ok(reserved)
    }

    /// The first of the candidates that is free on all addresses.
    fn reserve_one(
        &self,
        addresses: &[IpAddr],
        candidates: &[u16],
        inside: u16,
    ) -> Result<Vec<ReservedPort>, PortTaken> {
        let mut last = None;
        for port in candidates {
            match self.reserve_on_all(addresses, *port, inside) {
                Err(PortTaken::InUse { address, .. }) => last = Some(address),
                other => return other,
            }
        }
        let address = last.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
        match candidates {
            [first, .., last] if first != last => {
                Err(PortTaken::RangeInUse { address: SocketAddr::new(address.ip(), *first), last: *last })
            }
            _ => Err(PortTaken::InUse { address, protocol: self.protocol, holder: None }),
        }
    }

    /// The same port on all addresses.
    fn reserve_on_all(&self, addresses: &[IpAddr], port: u16, inside: u16) -> Result<Vec<ReservedPort>, PortTaken> {
        let mut reserved: Vec<ReservedPort> = Vec::new();
        for address in addresses {
            let port = reserved.first().map_or(port, |first| first.address.port());
            let wanted = SocketAddr::new(*address, port);
            match ReservedPort::listen(wanted, inside, self.protocol) {
                Ok(one) => reserved.push(one),
                Err(error) if address.is_ipv6() && addresses.len() > 1 && lacks_ipv6(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(PortTaken::InUse { address: wanted, protocol: self.protocol, holder: None });
                }
                Err(source) => return Err(PortTaken::Listen { address: wanted, protocol: self.protocol, source }),
            }
        }
        Ok(reserved)
    }
}

/// All addresses of a host: where a port is published that names none.
pub(crate) const EVERYWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(code) if
        [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL].iter().any(|errno| errno.raw_os_error() == code))
}

impl ReservedPort {
    fn listen(address: SocketAddr, inside: u16, protocol: Protocol) -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = match protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if address.is_ipv6() {
            // IPv4 has a listener of its own.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        let listener = match protocol {
            Protocol::Tcp => {
                // Connections of an earlier container that still linger do not keep the port.
                sockopt::set_socket_reuseaddr(&socket, true)?;
                bind(&socket, &address)?;
                listen(&socket, 1024)?;
                Listener::Tcp(socket.into())
            }
            Protocol::Udp => {
                bind(&socket, &address)?;
                Listener::Udp(socket.into())
            }
        };
        let address = match &listener {
            Listener::Tcp(listener) => listener.local_addr()?,
            Listener::Udp(socket) => socket.local_addr()?,
        };
        Ok(Self { listener, address, inside, protocol })
    }

    /// What a network is to do with it.
    pub fn host_port(&self) -> HostPort {
        HostPort { protocol: self.protocol, host: self.address, inside: self.inside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_dockers() {
        let shown = |text: &str| match text.parse::<PortRequest>() {
            Ok(request) => {
                assert_eq!(request.to_string().parse(), Ok(request.clone()), "{text}");
                let PortRequest { address, host, inside, protocol } = request;
                let address = address.map_or_else(|| "all".to_owned(), |address| address.to_string());
                format!("{address} {host:?} {inside:?} {}", protocol.name())
            }
            Err(error) => error.to_string(),
        };
        for (text, want) in [
            ("80", "all None 80..=80 tcp"),
            ("8080:80", "all Some(8080..=8080) 80..=80 tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1 Some(8080..=8080) 80..=80 udp"),
            ("127.0.0.1::80", "127.0.0.1 None 80..=80 tcp"),
            ("[::1]:8080:80", "::1 Some(8080..=8080) 80..=80 tcp"),
            ("7000-7002:80-82", "all Some(7000..=7002) 80..=82 tcp"),
            ("7000-7002:80", "all Some(7000..=7002) 80..=80 tcp"),
            (
                "7000-7001:80-82",
                "invalid ranges in \"7000-7001:80-82\": as many ports of the host are needed as of the container",
            ),
            ("published=8300,target=83,protocol=udp,mode=host", "all Some(8300..=8300) 83..=83 udp"),
            ("target=83", "all None 83..=83 tcp"),
            ("published=83", "invalid port \"\" in \"published=83\""),
            (
                "target=80,name=x",
                "invalid field \"name=x\" in \"target=80,name=x\": known are published, target, protocol and mode",
            ),
            ("53:53/UDP", "all Some(53..=53) 53..=53 udp"),
            ("0:80", "all None 80..=80 tcp"),
            (":8080:80", "all Some(8080..=8080) 80..=80 tcp"),
            ("80:0", "invalid port \"0\" in \"80:0\""),
            ("82-80", "invalid port \"82-80\" in \"82-80\""),
            ("+80", "invalid port \"+80\" in \"+80\""),
            ("65536", "invalid port \"65536\" in \"65536\""),
            ("80/sctp", "invalid protocol \"sctp\" in \"80/sctp\": tcp and udp are served"),
            ("host:80:80", "invalid IP address \"host\" in \"host:80:80\""),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    fn loopback(request: &str) -> PortRequest {
        format!("127.0.0.1:{request}").parse().unwrap()
    }

    #[test]
    fn a_range_gives_the_first_free_port_and_says_when_there_is_none() {
        let held = loopback(":80").reserve(&EVERYWHERE).unwrap();
        let port = held[0].address.port();
        let one = loopback(&format!("{port}-{}:80", port.saturating_add(50))).reserve(&EVERYWHERE).unwrap();
        assert!(one.len() == 1 && one[0].address.port() > port);
        let both = "80".parse::<PortRequest>().unwrap().reserve(&EVERYWHERE).unwrap();
        assert!(both.iter().all(|one| one.address.port() == both[0].address.port() && one.inside == 80));
        let next = one[0].address.port();
        if next == port + 1 {
            let none = loopback(&format!("{port}-{next}:80")).reserve(&EVERYWHERE).unwrap_err();
            let said = format!("Bind for 127.0.0.1:{port} failed: all ports are allocated (up to {next})");
            assert_eq!(none.to_string(), said);
        }
    }

    #[test]
    fn a_reserved_port_is_nobody_elses() {
        let mut first = loopback(":80").reserve(&EVERYWHERE).unwrap();
        let held = first.pop().unwrap();
        let port = held.address.port();
        let taken = loopback(&format!("{port}:81")).reserve(&EVERYWHERE).unwrap_err();
        assert_eq!(taken.to_string(), format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
        let own = HostPort { protocol: Protocol::Tcp, host: held.address, inside: 80 };
        assert_eq!(held.host_port(), own);
        drop(held);
        assert!(loopback(&format!("{port}:81")).reserve(&EVERYWHERE).is_ok());
    }

    #[test]
    fn ports_that_cannot_be_had_say_whose_they_are() {
        let address = "0.0.0.0:80".parse().unwrap();
        let protocol = Protocol::Udp;
        for (error, words) in [
            (
                PortTaken::InUse { address, protocol, holder: None },
                "Bind for 0.0.0.0:80 failed: port is already allocated",
            ),
            (
                PortTaken::RangeInUse { address, last: 89 },
                "Bind for 0.0.0.0:80 failed: all ports are allocated (up to 89)",
            ),
            (
                PortTaken::Listen { address, protocol, source: io::ErrorKind::PermissionDenied.into() },
                "cannot listen on 0.0.0.0:80/udp",
            ),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
