//! The name server of a container: 127.0.0.11 in its namespace, as in Docker.
//!
//! Each container of a network with names has its own, in the process that runs it. It listens on ports that the kernel
//! chose, and rules in the container's namespace lead port 53 there, so that no port is taken from the container. It answers
//! for the containers of the same networks, and asks others for everything else: the host's servers from the host's network,
//! those of `--dns` from the container's own. What it does not know it never asks itself, as no server is at this address.
//!
//! Bounded: one question at a time is answered from the records, at most [`WAITING`] wait for other servers, and a server
//! that is silent is left after [`PATIENCE`]. What is no question is dropped.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use rbuild_executor::network::Namespace;
use rbuild_executor::network::firewall::{self, FirewallError};
use rustix::event::{PollFd, PollFlags, poll};

/// Where containers find it.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Questions of one container that wait for other servers.
const WAITING: usize = 128;
/// How long another server may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many other servers are asked.
const SERVERS: usize = 3;
/// How long an answer may be kept, in seconds: Docker's.
const TTL: u32 = 600;
/// How large an answer to who says nothing of it may be.
const SMALL: u16 = 512;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Who knows the names of a container's networks.
pub trait Names: Send + Sync {
    /// Addresses of a name, in lower case and without the dot at its end; `None` when it is not one of theirs.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;
    /// The name of an address.
    fn name(&self, address: IpAddr) -> Option<String>;
}

/// From where another server is asked.
#[derive(Debug)]
pub enum Via {
    /// This process's network.
    Host,
    /// The container's.
    Container,
}

/// Who is asked for everything else.
#[derive(Debug)]
pub struct Upstream {
    /// The servers; none where the container's networks have no way out.
    pub servers: Vec<IpAddr>,
    /// From where.
    pub via: Via,
}

/// A name server that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NameServerError {
    /// It cannot listen.
    #[error("cannot start the container's name server")]
    Listen(#[from] io::Error),
    /// Nobody would find it.
    #[error(transparent)]
    Redirect(#[from] FirewallError),
}

/// A container's name server, until dropped.
#[derive(Debug)]
pub struct NameServer {
    resolver: Arc<Resolver>,
    /// The threads end when this is closed.
    life: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Starts it in a container's namespace.
    pub fn start(namespace: &Namespace, names: Arc<dyn Names>, upstream: Upstream) -> Result<Self, NameServerError> {
        let listen = || -> Result<(UdpSocket, TcpListener), NameServerError> {
            let udp = UdpSocket::bind((ADDRESS, 0))?;
            let tcp = TcpListener::bind((ADDRESS, 0))?;
            firewall::redirect_names(ADDRESS, udp.local_addr()?.port(), tcp.local_addr()?.port())?;
            Ok((udp, tcp))
        };
        let (udp, tcp) = namespace.enter(listen)??;
        let others = RwLock::new(Arc::new(Others::of(namespace, upstream)?));
        Ok(Self::serve(udp, tcp, Resolver { names, others, port: 53, waiting: AtomicUsize::new(0) })?)
    }

    /// Others are asked from now on.
    pub fn ask(&self, namespace: &Namespace, upstream: Upstream) -> io::Result<()> {
        let others = Arc::new(Others::of(namespace, upstream)?);
        *self.resolver.others.write().unwrap_or_else(PoisonError::into_inner) = others;
        Ok(())
    }

    fn serve(udp: UdpSocket, tcp: TcpListener, resolver: Resolver) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (ended, life) = io::pipe()?;
        let (udp, resolver) = (Arc::new(udp), Arc::new(resolver));
        let thread = std::thread::Builder::new().name("names".to_owned());
        let own = Arc::clone(&resolver);
        let thread = thread.spawn(move || listen(&udp, &tcp, &ended, &own))?;
        Ok(Self { resolver, life: Some(life), threads: vec![thread] })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        drop(self.life.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a container's name server panicked");
            }
        }
    }
}

struct Resolver {
    names: Arc<dyn Names>,
    others: RwLock<Arc<Others>>,
    /// Of the other servers.
    port: u16,
    waiting: AtomicUsize,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("others", &self.others).finish_non_exhaustive()
    }
}

/// The other servers.
#[derive(Debug)]
struct Others {
    servers: Vec<IpAddr>,
    /// The container's namespace, when they are asked from there.
    inside: Option<Namespace>,
}

impl Others {
    fn of(namespace: &Namespace, upstream: Upstream) -> io::Result<Self> {
        let inside = match upstream.via {
            Via::Host => None,
            Via::Container => Some(namespace.try_clone()?),
        };
        // Asking itself would never end.
        let servers =
            upstream.servers.into_iter().filter(|server| *server != IpAddr::V4(ADDRESS)).take(SERVERS).collect();
        Ok(Self { servers, inside })
    }
}

/// How a question came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// Does not wait for those who wait for other servers: their answers come too late for anybody.
fn listen(udp: &Arc<UdpSocket>, tcp: &TcpListener, ended: &PipeReader, resolver: &Arc<Resolver>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut polled =
            [PollFd::new(ended, PollFlags::IN), PollFd::new(&**udp, PollFlags::IN), PollFd::new(tcp, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return tracing::warn!(%error, "a container's name server ended"),
        }
        let [end, question, connection] = polled.map(|one| !one.revents().is_empty());
        if end {
            return;
        }
        if question && let Ok((length, from)) = udp.recv_from(&mut buffer) {
            answer_datagram(&buffer[..length], from, udp, resolver);
        }
        if connection && let Ok((stream, _)) = tcp.accept() {
            let own = Arc::clone(resolver);
            resolver.on_thread(move || drop(answer_stream(stream, &own)));
        }
    }
}

fn answer_datagram(question: &[u8], from: SocketAddr, udp: &Arc<UdpSocket>, resolver: &Arc<Resolver>) {
    let Some(message) = read_question(question) else { return };
    // The sender may be gone.
    let send = |answer: &[u8]| drop(udp.send_to(answer, from));
    if let Some(answer) = resolver.own_answer(&message, Transport::Udp) {
        return send(&answer);
    }
    let (own, socket, bytes) = (Arc::clone(resolver), Arc::clone(udp), question.to_vec());
    let failure = encoded(&reply_to(&message, ResponseCode::ServFail), Transport::Udp, &message);
    let asked = resolver.on_thread(move || {
        if let Some(answer) = own.ask_others(&bytes, &message, Transport::Udp) {
            drop(socket.send_to(&answer, from));
        }
    });
    if !asked && let Some(failure) = failure {
        send(&failure);
    }
}

/// Questions of a connection, one after the other.
fn answer_stream(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    loop {
        let question = read_framed(&mut stream)?;
        let Some(message) = read_question(&question) else { return Ok(()) };
        let own = resolver.own_answer(&message, Transport::Tcp);
        let Some(answer) = own.or_else(|| resolver.ask_others(&question, &message, Transport::Tcp)) else {
            return Ok(());
        };
        write_framed(&mut stream, &answer)?;
    }
}

/// A question as a name server gets it: one name.
fn read_question(bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let sound = message.metadata.message_type == MessageType::Query
        && message.metadata.op_code == OpCode::Query
        && message.queries.len() == 1;
    sound.then_some(message)
}

fn reply_to(question: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    let Metadata { recursion_desired, .. } = question.metadata;
    reply.metadata.recursion_desired = recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(question.queries.iter().cloned());
    reply
}

/// An answer that is too large for its way has as many records as fit, and says that there are more: who wants them asks
/// again over a connection. C libraries that never do (musl's until 1.2.4) have something, as with Docker.
fn encoded(reply: &Message, transport: Transport, question: &Message) -> Option<Vec<u8>> {
    let room = match transport {
        Transport::Udp => question.edns.as_ref().map_or(SMALL, |edns| edns.max_payload().max(SMALL)),
        Transport::Tcp => u16::MAX,
    };
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(room);
    reply.emit(&mut encoder).ok()?;
    // The third number of a message: how many answers it has (RFC 1035 §4.1.1).
    let answers = usize::from(u16::from_be_bytes(bytes.get(6..8)?.try_into().ok()?));
    if answers == reply.answers.len() {
        return Some(bytes);
    }
    // Behind the last one that fits the encoder leaves a piece of the next.
    let mut short = reply.clone();
    short.answers.truncate(answers);
    short.metadata.truncation = transport == Transport::Udp;
    short.to_vec().ok()
}

/// Another order for each question, as in Docker: who takes the first of several addresses does not always take the same.
fn shuffle(addresses: &mut [IpAddr]) {
    if addresses.len() > 1 {
        addresses.sort_by_cached_key(|_| {
            getrandom::u64().expect("the kernel's random source never fails once the system is up")
        });
    }
}

impl Resolver {
    /// Does something that waits, unless too much does already.
    fn on_thread(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let own = Arc::clone(self);
        let started = std::thread::Builder::new().name("names-ask".to_owned()).spawn(move || {
            work();
            own.waiting.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        started.is_ok()
    }

    /// What the networks' records say; `None` when others are to be asked.
    fn own_answer(&self, question: &Message, transport: Transport) -> Option<Vec<u8>> {
        let query = question.queries.first().filter(|query| query.query_class == DNSClass::IN)?;
        let mut reply = reply_to(question, ResponseCode::NoError);
        let record = |data| Record::from_rdata(query.name.clone(), TTL, data);
        if query.query_type == RecordType::PTR {
            let address = query.name.parse_arpa_name().ok().map(|net| net.addr())?;
            let name = Name::from_ascii(self.names.name(address)?).ok()?;
            reply.add_answer(record(RData::PTR(PTR(name))));
        } else {
            let name = query.name.to_lowercase().to_ascii();
            let mut addresses = self.names.addresses(name.trim_end_matches('.'))?;
            shuffle(&mut addresses);
            for address in addresses {
                match (query.query_type, address) {
                    (RecordType::A, IpAddr::V4(address)) => reply.add_answer(record(RData::A(A(address)))),
                    (RecordType::AAAA, IpAddr::V6(address)) => reply.add_answer(record(RData::AAAA(AAAA(address)))),
                    // A name that is there, without records of the kind.
                    _ => &mut reply,
                };
            }
        }
        encoded(&reply, transport, question)
    }

    /// The first answer of another server; a failure when there is none.
    fn ask_others(&self, bytes: &[u8], question: &Message, transport: Transport) -> Option<Vec<u8>> {
        let others = Arc::clone(&self.others.read().unwrap_or_else(PoisonError::into_inner));
        for server in &others.servers {
            let to = SocketAddr::new(*server, self.port);
            let ask = || match transport {
                Transport::Udp => ask_datagram(to, bytes, question),
                Transport::Tcp => ask_stream(to, bytes),
            };
            let answer = match &others.inside {
                Some(namespace) => namespace.enter(ask).and_then(|answered| answered),
                None => ask(),
            };
            match answer {
                Ok(answer) => return Some(answer),
                Err(error) => tracing::debug!(%error, %server, "no answer to a container's question"),
            }
        }
        encoded(&reply_to(question, ResponseCode::ServFail), transport, question)
    }
}

/// Asks with a port of its own, and takes only the answer to this very question.
fn ask_datagram(to: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if to.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.send(bytes)?;
    let until = Instant::now() + PATIENCE;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        let Ok(reply) = Message::from_vec(&buffer[..length]) else { continue };
        let same = reply
            .queries
            .iter()
            .zip(&question.queries)
            .all(|(a, b)| a.query_type == b.query_type && a.name.eq_ignore_root_case(&b.name));
        if reply.metadata.message_type == MessageType::Response
            && reply.metadata.id == question.metadata.id
            && reply.queries.len() == question.queries.len()
            && same
        {
            return Ok(buffer[..length].to_vec());
        }
    }
}

fn ask_stream(to: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write_framed(&mut stream, bytes)?;
    read_framed(&mut stream)
}

/// Each message is preceded by its length (RFC 1035 §4.2.2).
fn write_framed(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut framed = u16::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed)
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
