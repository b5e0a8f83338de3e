//! Ports of the host that lead to a container: what `-p` asks for, and the relay that serves it.
//!
//! A port is reserved by listening on it, which the kernel gives to one process only, whatever store it works for. What
//! arrives at the listener (from loopback, from the network itself, on hosts without rules) is relayed; rules lead
//! everything else past it ([`rbuild_executor::network::firewall`]).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rbuild_executor::network::firewall::{Protocol, Published};

/// How long a listener waits before it looks whether it should end.
const PAUSE: Duration = Duration::from_millis(100);
/// How long nobody has to say anything until a datagram's sender is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Senders of datagrams that are remembered at once.
const SENDERS: usize = 1024;
/// How long a container may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// One `-p [[ADDRESS:][HOST[-END]]:]CONTAINER[-END][/PROTOCOL]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// Addresses of the host; both unspecified ones when none was given.
    pub addresses: Vec<IpAddr>,
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
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, protocol)) => {
                return Err(InvalidPortRequest::Protocol { protocol: protocol.to_owned(), text: text.to_owned() });
            }
        };
        let (before, inside) = ports.rsplit_once(':').map_or((None, ports), |(before, inside)| (Some(before), inside));
        let (address, host) = match before {
            None => (None, ""),
            Some(before) => before.rsplit_once(':').map_or((None, before), |(address, host)| (Some(address), host)),
        };
        let addresses = match address {
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            Some(address) => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
                let invalid = || InvalidPortRequest::Address { address: address.to_owned(), text: text.to_owned() };
                vec![bare.parse().map_err(|_| invalid())?]
            }
        };
        let inside = range(inside, text)?;
        let host = if host.is_empty() { None } else { Some(range(host, text)?) };
        if host.as_ref().is_some_and(|host| host.len() != inside.len() && inside.len() != 1) {
            return Err(InvalidPortRequest::Ranges { text: text.to_owned() });
        }
        Ok(Self { addresses, host, inside, protocol })
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

/// A port of the host that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}/{}", address, protocol.name())]
pub struct PortTaken {
    /// Where.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A port of the host that is ours, and leads nowhere yet.
#[derive(Debug)]
pub struct ReservedPort {
    listener: Listener,
    /// On the host.
    pub address: SocketAddr,
    /// The container's port.
    pub inside: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl PortRequest {
    /// Reserves all its ports in the calling thread's network namespace. A host without IPv6 has none of its ports there.
    pub fn reserve(&self) -> Result<Vec<ReservedPort>, PortTaken> {
        let mut reserved = Vec::new();
        for (number, inside) in self.inside.clone().enumerate() {
            let candidates: Vec<u16> = match &self.host {
                None => vec![0],
                Some(range) if self.inside.len() == 1 => range.clone().collect(),
                Some(range) => range.clone().nth(number).into_iter().collect(),
            };
            let mut last = None;
            for port in candidates {
                match self.reserve_on_all(port, inside) {
                    Ok(ports) => {
                        reserved.extend(ports);
                        last = None;
                        break;
                    }
                    Err(error) => last = Some(error),
                }
            }
            if let Some(error) = last {
                return Err(error);
            }
        }
        Ok(reserved)
    }

    /// The same port on all addresses.
    fn reserve_on_all(&self, port: u16, inside: u16) -> Result<Vec<ReservedPort>, PortTaken> {
        let mut reserved: Vec<ReservedPort> = Vec::new();
        for address in &self.addresses {
            let port = reserved.first().map_or(port, |first| first.address.port());
            let wanted = SocketAddr::new(*address, port);
            match ReservedPort::listen(wanted, inside, self.protocol) {
                Ok(one) => reserved.push(one),
                Err(error) if address.is_ipv6() && self.addresses.len() > 1 && lacks_ipv6(&error) => {}
                Err(source) => return Err(PortTaken { address: wanted, protocol: self.protocol, source }),
            }
        }
        Ok(reserved)
    }
}

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

    /// The rule that leads to an endpoint with these addresses; `None` when it has none of the family.
    pub fn published(&self, endpoint: &[IpAddr]) -> Option<Published> {
        let inside = endpoint.iter().find(|address| address.is_ipv4() == self.address.is_ipv4())?;
        Some(Published { protocol: self.protocol, host: self.address, inside: SocketAddr::new(*inside, self.inside) })
    }

    /// Relays what arrives to the endpoint, from the calling thread's network namespace.
    pub fn relay(self, endpoint: &[IpAddr]) -> io::Result<PortRelay> {
        let same = endpoint.iter().find(|address| address.is_ipv4() == self.address.is_ipv4());
        let to = same.or(endpoint.first()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let to = SocketAddr::new(*to, self.inside);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(format!("port-{}", self.address.port()));
        let thread = match self.listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                thread.spawn(move || relay_streams(&listener, to, &stopping))?
            }
            Listener::Udp(socket) => {
                socket.set_read_timeout(Some(PAUSE))?;
                thread.spawn(move || relay_datagrams(&socket, to, &stopping))?
            }
        };
        Ok(PortRelay { stop, thread: Some(thread) })
    }
}

/// A port that is relayed, until dropped.
#[derive(Debug)]
pub struct PortRelay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for PortRelay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the relay of a published port panicked");
        }
    }
}

fn relay_streams(listener: &TcpListener, to: SocketAddr, stop: &Arc<AtomicBool>) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
    while !stop.load(Ordering::Relaxed) {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        if !poll(&mut polled, Some(&pause)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        let relayed =
            std::thread::Builder::new().name("port-stream".to_owned()).spawn(move || relay_stream(&stream, to));
        if let Err(error) = relayed {
            // The connection is closed; the next one may have more luck.
            tracing::debug!(%error, "no thread for a connection");
        }
    }
}

/// Copies both ways until both have ended; each end is passed on by itself.
fn relay_stream(outer: &TcpStream, to: SocketAddr) {
    let Ok(inner) = TcpStream::connect_timeout(&to, CONNECT) else { return };
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    // Broken: neither side is to wait for the other.
                    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
                    return;
                }
            }
        }
        drop(to.shutdown(Shutdown::Write));
    };
    if outer.set_nonblocking(false).is_err() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| copy(outer, &inner));
        copy(&inner, outer);
    });
}

/// A sender of datagrams, and the socket by which its answers come back.
struct Sender {
    address: SocketAddr,
    socket: UdpSocket,
    heard: Instant,
}

fn relay_datagrams(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
    let mut senders: Vec<Sender> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let mut polled = vec![PollFd::new(socket, PollFlags::IN)];
        polled.extend(senders.iter().map(|sender| PollFd::new(&sender.socket, PollFlags::IN)));
        if !poll(&mut polled, Some(&pause)).is_ok_and(|ready| ready > 0) {
            senders.retain(|sender| sender.heard.elapsed() < IDLE);
            continue;
        }
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        drop(polled);
        for (sender, _) in senders.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            // An error is the container's "port unreachable", for which datagrams have no answer.
            if let Ok(count) = sender.socket.recv(&mut buffer) {
                sender.heard = Instant::now();
                drop(socket.send_to(&buffer[..count], sender.address));
            }
        }
        if !ready[0] {
            continue;
        }
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(sender) = sender_of(&mut senders, from, to) {
            sender.heard = Instant::now();
            drop(sender.socket.send(&buffer[..count]));
        }
    }
}

/// The known sender, or a new one in place of the one that was silent for longest.
fn sender_of(senders: &mut Vec<Sender>, from: SocketAddr, to: SocketAddr) -> Option<&mut Sender> {
    if let Some(index) = senders.iter().position(|sender| sender.address == from) {
        return senders.get_mut(index);
    }
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    if senders.len() >= SENDERS {
        let oldest = senders.iter().enumerate().min_by_key(|(_, sender)| sender.heard).map(|(index, _)| index)?;
        senders.swap_remove(oldest);
    }
    senders.push(Sender { address: from, socket, heard: Instant::now() });
    senders.last_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_dockers() {
        let shown = |text: &str| match text.parse::<PortRequest>() {
            Ok(PortRequest { addresses, host, inside, protocol }) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                format!("{} {host:?} {inside:?} {}", addresses.join(","), protocol.name())
            }
            Err(error) => error.to_string(),
        };
        for (text, want) in [
            ("80", "0.0.0.0,:: None 80..=80 tcp"),
            ("8080:80", "0.0.0.0,:: Some(8080..=8080) 80..=80 tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1 Some(8080..=8080) 80..=80 udp"),
            ("127.0.0.1::80", "127.0.0.1 None 80..=80 tcp"),
            ("[::1]:8080:80", "::1 Some(8080..=8080) 80..=80 tcp"),
            ("7000-7002:80-82", "0.0.0.0,:: Some(7000..=7002) 80..=82 tcp"),
            ("7000-7002:80", "0.0.0.0,:: Some(7000..=7002) 80..=80 tcp"),
            (
                "7000-7001:80-82",
                "invalid ranges in \"7000-7001:80-82\": as many ports of the host are needed as of the container",
            ),
            ("0:80", "invalid port \"0\" in \"0:80\""),
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
    fn a_reserved_port_is_nobody_elses() {
        let mut first = loopback(":80").reserve().unwrap();
        let held = first.pop().unwrap();
        let port = held.address.port();
        let taken = loopback(&format!("{port}:81")).reserve().unwrap_err();
        assert_eq!(taken.to_string(), format!("cannot listen on 127.0.0.1:{port}/tcp"));
        assert_eq!(taken.source.kind(), io::ErrorKind::AddrInUse);
        let published = held.published(&["172.24.0.2".parse().unwrap()]).unwrap();
        assert_eq!(published.inside, "172.24.0.2:80".parse().unwrap());
        assert_eq!(held.published(&["fd00::2".parse().unwrap()]), None);
        drop(held);
        assert!(loopback(&format!("{port}:81")).reserve().is_ok());
    }

    #[test]
    fn streams_are_relayed_both_ways_and_each_end_by_itself() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let inside = server.local_addr().unwrap().port();
        let reserved = loopback(&format!(":{inside}")).reserve().unwrap().pop().unwrap();
        let address = reserved.address;
        let relay = reserved.relay(&["127.0.0.1".parse().unwrap()]).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&vec![7; 300_000]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut peer, _) = server.accept().unwrap();
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        assert_eq!(got, vec![7; 300_000]);
        peer.write_all(b"answer after the end of the question").unwrap();
        drop(peer);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer after the end of the question");
        drop(relay);
        assert!(TcpStream::connect(address).is_err(), "the port is free again");
    }

    #[test]
    fn datagrams_find_back_to_their_senders() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(CONNECT)).unwrap();
        let inside = server.local_addr().unwrap().port();
        let reserved = loopback(&format!(":{inside}/udp")).reserve().unwrap().pop().unwrap();
        let address = reserved.address;
        let _relay = reserved.relay(&["127.0.0.1".parse().unwrap()]).unwrap();
        let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut buffer = [0; 64];
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(CONNECT)).unwrap();
            client.send_to(format!("from {number}").as_bytes(), address).unwrap();
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            let mut text = b"echo ".to_vec();
            text.extend_from_slice(&buffer[..count]);
            server.send_to(&text, from).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let (count, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..count], from), (format!("echo from {number}").as_bytes(), address));
        }
    }
}
