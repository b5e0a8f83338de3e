//! The relay of published ports: what arrives at a listener on the host (from loopback, from the network itself, on hosts
//! without rules) is passed to the container.
//!
//! Two threads wait for all ports of a container, one for streams and one for datagrams; each connection has its own two,
//! and there are at most [`CONNECTIONS`] of them: more wait in the kernel's queue. Everything ends with the value.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rbuild_executor::network::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::port::{Listener, ReservedPort};

/// Connections of one container that are relayed at once.
const CONNECTIONS: usize = 1024;
/// How long nobody waits when there are too many.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How often it is looked for senders of datagrams to forget.
const TIDYING: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// How long nobody has to say anything until a datagram's sender is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Senders of datagrams to one port that are remembered at once.
const SENDERS: usize = 1024;
/// How long a container may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a container's addresses can be reached.
#[derive(Debug)]
pub enum Reached {
    /// From the host.
    FromHost(Vec<IpAddr>),
    /// From inside its namespace only.
    FromInside(Namespace),
}

/// Where all ports of a container lead; replaced when that changes.
#[derive(Debug)]
struct Destination(RwLock<Arc<Reached>>);

impl Destination {
    fn now(&self) -> Arc<Reached> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ports that are relayed, until dropped.
#[derive(Debug)]
pub struct PortRelays {
    destination: Arc<Destination>,
    /// The threads end when this is closed.
    life: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl PortRelays {
    /// Relays what arrives at the ports, from the calling thread's network namespace or inside the container's.
    pub fn start(ports: Vec<ReservedPort>, reached: Reached) -> io::Result<Self> {
        let destination = Arc::new(Destination(RwLock::new(Arc::new(reached))));
        let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
        for port in ports {
            let target =
                Target { ipv6: port.address.is_ipv6(), port: port.inside, destination: Arc::clone(&destination) };
            match port.listener {
                Listener::Tcp(listener) => {
                    listener.set_nonblocking(true)?;
                    streams.push((listener, target));
                }
                Listener::Udp(socket) => {
                    socket.set_nonblocking(true)?;
                    datagrams.push((socket, target));
                }
            }
        }
        let (ended, life) = io::pipe()?;
        let mut relays = Self { destination, life: Some(life), threads: Vec::new() };
        if !streams.is_empty() {
            let ended = ended.try_clone()?;
            relays.spawn("ports-tcp", move || relay_streams(&streams, &ended, &Connections::default()))?;
        }
        if !datagrams.is_empty() {
            relays.spawn("ports-udp", move || relay_datagrams(&datagrams, &ended))?;
        }
        Ok(relays)
    }

    /// From now on they lead there. Connections that are open stay.
    pub fn lead_to(&self, reached: Reached) {
        *self.destination.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reached);
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }
}

impl Drop for PortRelays {
    fn drop(&mut self) {
        drop(self.life.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("the relay of published ports panicked");
            }
        }
    }
}

/// What is behind a port.
#[derive(Debug)]
struct Target {
    ipv6: bool,
    port: u16,
    destination: Arc<Destination>,
}

impl Target {
    fn connect(&self) -> io::Result<TcpStream> {
        match &*self.destination.now() {
            Reached::FromHost(addresses) => TcpStream::connect_timeout(&self.among(addresses)?, CONNECT),
            Reached::FromInside(namespace) => namespace.enter(|| {
                let own = SocketAddr::new(address_inside()?, self.port);
                TcpStream::connect_timeout(&own, CONNECT)
            })?,
        }
    }

    fn connect_datagrams(&self, reached: &Reached) -> io::Result<UdpSocket> {
        let connected = |to: SocketAddr| {
            let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(to)?;
            Ok(socket)
        };
        match reached {
            Reached::FromHost(addresses) => connected(self.among(addresses)?),
            Reached::FromInside(namespace) => {
                namespace.enter(|| connected(SocketAddr::new(address_inside()?, self.port)))?
            }
        }
    }

    /// One of the port's family if there is one.
    fn among(&self, addresses: &[IpAddr]) -> io::Result<SocketAddr> {
        let same = addresses.iter().find(|address| address.is_ipv6() == self.ipv6);
        let address = same.or(addresses.first()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(SocketAddr::new(*address, self.port))
    }
}

/// The address with which the calling thread's namespace speaks to others, its own where it speaks to none. Nothing is sent.
fn address_inside() -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    match socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)) {
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => Ok(Ipv4Addr::LOCALHOST.into()),
        connected => connected.and_then(|()| Ok(socket.local_addr()?.ip())),
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
struct Connections(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    all: Vec<Weak<Connection>>,
    /// One that is made now is ended at once.
    ended: bool,
}

#[derive(Debug)]
struct Connection {
    outer: TcpStream,
    inner: TcpStream,
}

impl Connection {
    /// Neither side waits for what will not come.
    fn end(&self) {
        // It may have ended already.
        drop(self.outer.shutdown(Shutdown::Both));
        drop(self.inner.shutdown(Shutdown::Both));
    }
}

impl Connections {
    fn open(&self) -> usize {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.all.retain(|one| one.strong_count() > 0);
        open.all.len()
    }

    fn add(&self, connection: &Arc<Connection>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.ended {
            connection.end();
        }
        open.all.push(Arc::downgrade(connection));
    }

    fn end(&self) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.ended = true;
        open.all.iter().filter_map(Weak::upgrade).for_each(|connection| connection.end());
    }
}

fn relay_streams(listeners: &[(TcpListener, Target)], ended: &PipeReader, connections: &Connections) {
    std::thread::scope(|scope| {
        loop {
            let full = connections.open() >= CONNECTIONS;
            let mut polled = vec![PollFd::new(ended, PollFlags::IN)];
            if !full {
                polled.extend(listeners.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)));
            }
            match poll(&mut polled, full.then_some(&PAUSE)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return tracing::warn!(%error, "published ports are not relayed any more"),
            }
            if !polled[0].revents().is_empty() {
                connections.end();
                return;
            }
            let ready: Vec<bool> = polled.iter().skip(1).map(|one| !one.revents().is_empty()).collect();
            for ((listener, target), _) in listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
                let Ok((outer, _)) = listener.accept() else { continue };
                let relayed =
                    std::thread::Builder::new().name("port-stream".to_owned()).spawn_scoped(scope, move || {
                        relay_stream(outer, target, connections);
                    });
                if let Err(error) = relayed {
                    // The connection is closed; the next one may have more luck.
                    tracing::debug!(%error, "no thread for a connection");
                }
            }
        }
    });
}

/// Copies both ways until both have ended; each end is passed on by itself.
fn relay_stream(outer: TcpStream, target: &Target, connections: &Connections) {
    let Ok(inner) = target.connect() else { return };
    if outer.set_nonblocking(false).is_err() {
        return;
    }
    let connection = Arc::new(Connection { outer, inner });
    connections.add(&connection);
    let (outer, inner) = (&connection.outer, &connection.inner);
    std::thread::scope(|scope| {
        scope.spawn(|| copy(outer, inner));
        copy(inner, outer);
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
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
}

/// A sender of datagrams, and the socket by which its answers come back.
struct Sender {
    port: usize,
    address: SocketAddr,
    socket: UdpSocket,
    heard: Instant,
    /// Where the port led when it was made.
    reached: Arc<Reached>,
}

fn relay_datagrams(sockets: &[(UdpSocket, Target)], ended: &PipeReader) {
    let mut senders: Vec<Sender> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut polled = vec![PollFd::new(ended, PollFlags::IN)];
        polled.extend(sockets.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::IN)));
        polled.extend(senders.iter().map(|sender| PollFd::new(&sender.socket, PollFlags::IN)));
        match poll(&mut polled, Some(&TIDYING)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return tracing::warn!(%error, "published ports are not relayed any more"),
        }
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        drop(polled);
        if ready[0] {
            return;
        }
        let (ports, answers) = ready[1..].split_at(sockets.len());
        for (sender, _) in senders.iter_mut().zip(answers).filter(|(_, ready)| **ready) {
            // An error is the container's "port unreachable", for which datagrams have no answer.
            if let Ok(count) = sender.socket.recv(&mut buffer) {
                sender.heard = Instant::now();
                drop(sockets[sender.port].0.send_to(&buffer[..count], sender.address));
            }
        }
        for (port, (socket, target)) in sockets.iter().enumerate().filter(|(port, _)| ports[*port]) {
            let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
            if let Some(sender) = sender_of(&mut senders, port, from, target) {
                sender.heard = Instant::now();
                drop(sender.socket.send(&buffer[..count]));
            }
        }
        senders.retain(|sender| sender.heard.elapsed() < IDLE);
    }
}

/// The known sender, or a new one in place of the one that was silent for longest.
fn sender_of<'a>(
    senders: &'a mut Vec<Sender>,
    port: usize,
    from: SocketAddr,
    target: &Target,
) -> Option<&'a mut Sender> {
    let reached = target.destination.now();
    if let Some(index) = senders.iter().position(|sender| sender.port == port && sender.address == from) {
        if Arc::ptr_eq(&senders[index].reached, &reached) {
            return senders.get_mut(index);
        }
        senders.swap_remove(index);
    }
    let socket = target.connect_datagrams(&reached).ok()?;
    if senders.iter().filter(|sender| sender.port == port).count() >= SENDERS {
        let of_port = senders.iter().enumerate().filter(|(_, sender)| sender.port == port);
        let oldest = of_port.min_by_key(|(_, sender)| sender.heard).map(|(index, _)| index)?;
        senders.swap_remove(oldest);
    }
    senders.push(Sender { port, address: from, socket, heard: Instant::now(), reached });
    senders.last_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::port::{EVERYWHERE, PortRequest};

    fn relayed(request: String) -> (Vec<SocketAddr>, PortRelays) {
        let ports = request.parse::<PortRequest>().unwrap().reserve(&EVERYWHERE).unwrap();
        let addresses = ports.iter().map(|port| port.address).collect();
        let reached = Reached::FromHost(vec![Ipv4Addr::LOCALHOST.into()]);
        (addresses, PortRelays::start(ports, reached).unwrap())
    }

    #[test]
    fn streams_are_relayed_both_ways_and_each_end_by_itself() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let inside = server.local_addr().unwrap().port();
        let (addresses, relays) = relayed(format!("127.0.0.1::{inside}"));
        let mut client = TcpStream::connect(addresses[0]).unwrap();
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
        // One that is open when everything ends.
        let mut open = TcpStream::connect(addresses[0]).unwrap();
        let (_peer, _) = server.accept().unwrap();
        drop(relays);
        assert_eq!(open.read(&mut [0]).unwrap_or(0), 0);
        assert!(TcpStream::connect(addresses[0]).is_err(), "the port is free again");
    }

    #[test]
    fn a_connection_that_is_made_while_all_are_ended_is_ended_too() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ends = Vec::new();
        let mut connected = || {
            let one = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            ends.push(server.accept().unwrap().0);
            one
        };
        let connection = Arc::new(Connection { outer: connected(), inner: connected() });
        let connections = Connections::default();
        connections.end();
        connections.add(&connection);
        assert!(ends.iter_mut().all(|end| end.read(&mut [0]).unwrap() == 0));
    }

    #[test]
    fn datagrams_find_back_to_their_senders() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(CONNECT)).unwrap();
        let inside = server.local_addr().unwrap().port();
        let (addresses, _relays) = relayed(format!("127.0.0.1::{inside}/udp"));
        let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut buffer = [0; 64];
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(CONNECT)).unwrap();
            client.send_to(format!("from {number}").as_bytes(), addresses[0]).unwrap();
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            let mut text = b"echo ".to_vec();
            text.extend_from_slice(&buffer[..count]);
            server.send_to(&text, from).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let (count, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..count], from), (format!("echo from {number}").as_bytes(), addresses[0]));
        }
    }
}
