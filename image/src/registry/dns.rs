//! Questions to name servers: the A and AAAA records of one full name, over UDP, over TCP when truncated.
//!
//! An answer counts only if it comes from the server asked (connected socket), carries the question's random id and
//! repeats the question. Aliases are followed inside the answer, as a recursive server gives it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::cancel::SLICE;
use super::resolver::ResolvConf;
use super::transport::{self, cancelled};

/// More aliases in a row are not followed.
const MAX_ALIASES: usize = 16;

/// What the servers said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Addresses, and how long they may be kept.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// There is no such name, or it has no address.
    Nothing,
    /// No server gave a usable answer; what the last one did.
    Failed(String),
}

/// Asks the servers of `conf` in turn.
pub(super) fn query(name: &Name, conf: &ResolvConf, port: u16, deadline: Instant) -> Result<Answer, ureq::Error> {
    let mut reason = "no name server answered".to_owned();
    for _ in 0..conf.attempts {
        for server in &conf.servers {
            if Instant::now() >= deadline {
                return Ok(Answer::Failed(reason));
            }
            let until = deadline.min(Instant::now() + conf.timeout);
            match ask(name, SocketAddr::new(*server, port), until)? {
                Answer::Failed(why) => reason = format!("name server {server}: {why}"),
                answer => return Ok(answer),
            }
        }
    }
    Ok(Answer::Failed(reason))
}

/// Asks one server for both families.
fn ask(name: &Name, server: SocketAddr, until: Instant) -> Result<Answer, ureq::Error> {
    let questions = [RecordType::AAAA, RecordType::A].map(|kind| question(name, kind));
    let mut replies = match over_udp(&questions, server, until) {
        Ok(replies) => replies,
        Err(error) => return failed(error),
    };
    for (question, reply) in questions.iter().zip(&mut replies) {
        if reply.as_ref().is_some_and(|reply| reply.metadata.truncation) {
            *reply = match over_tcp(question, server, until) {
                Ok(reply) => Some(reply),
                Err(error) => return failed(error),
            };
        }
    }
    Ok(combine(name, &replies))
}

/// A server that cannot be reached is no reason to stop; being cancelled is.
fn failed(error: io::Error) -> Result<Answer, ureq::Error> {
    if cancelled(&error) { Err(error.into()) } else { Ok(Answer::Failed(error.to_string())) }
}

fn question(name: &Name, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    message
}

fn combine(name: &Name, replies: &[Option<Message>]) -> Answer {
    let mut addresses = Vec::new();
    let mut ttl = u32::MAX;
    let mut trouble = None;
    for reply in replies {
        let Some(reply) = reply else {
            trouble = Some("timed out".to_owned());
            continue;
        };
        match reply.metadata.response_code {
            ResponseCode::NoError => collect(name, reply, &mut addresses, &mut ttl),
            ResponseCode::NXDomain => {}
            code => trouble = Some(format!("answered {code}")),
        }
    }
    match trouble {
        _ if !addresses.is_empty() => Answer::Addresses { addresses, ttl: Duration::from_secs(ttl.into()) },
        Some(reason) => Answer::Failed(reason),
        None => Answer::Nothing,
    }
}

fn collect(name: &Name, reply: &Message, addresses: &mut Vec<IpAddr>, ttl: &mut u32) {
    let mut wanted = name.clone();
    for _ in 0..MAX_ALIASES {
        let mut alias = None;
        for record in reply.answers.iter().filter(|record| record.name.eq_ignore_root_case(&wanted)) {
            let address = match &record.data {
                RData::A(a) => IpAddr::V4(a.0),
                RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
                RData::CNAME(cname) => {
                    alias = Some(cname.0.clone());
                    *ttl = (*ttl).min(record.ttl);
                    continue;
                }
                _ => continue,
            };
            *ttl = (*ttl).min(record.ttl);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match alias {
            Some(next) => wanted = next,
            None => return,
        }
    }
}

/// Whether `reply` answers `question`.
fn answers(reply: &Message, question: &Message) -> bool {
    let same = |(a, b): (&Query, &Query)| a.query_type == b.query_type && a.name.eq_ignore_root_case(&b.name);
    reply.metadata.message_type == MessageType::Response
        && reply.metadata.id == question.metadata.id
        && reply.queries.len() == question.queries.len()
        && reply.queries.iter().zip(&question.queries).all(same)
}

/// Sends all questions at once and collects what arrives in time.
fn over_udp(questions: &[Message], server: SocketAddr, until: Instant) -> io::Result<Vec<Option<Message>>> {
    let any: SocketAddr = if server.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    for question in questions {
        socket.send(&question.to_vec().map_err(io::Error::other)?)?;
    }
    socket.set_read_timeout(Some(SLICE))?;
    let mut replies: Vec<Option<Message>> = questions.iter().map(|_| None).collect();
    let mut buffer = [0; 4096];
    while replies.iter().any(Option::is_none) && Instant::now() < until {
        transport::check_cancelled()?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Ok(reply) = Message::from_vec(&buffer[..length]) else { continue };
        if let Some(at) = questions.iter().position(|question| answers(&reply, question)) {
            replies[at] = Some(reply);
        }
    }
    if replies.iter().all(Option::is_none) {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
    }
    Ok(replies)
}

/// Asks again over TCP: each message is preceded by its length (RFC 1035 §4.2.2).
fn over_tcp(question: &Message, server: SocketAddr, until: Instant) -> io::Result<Message> {
    let mut stream = transport::connect(&[server], Some(until))?;
    let message = question.to_vec().map_err(io::Error::other)?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(message);
    exchange(&mut stream, until, |stream| {
        let written = stream.write(&framed)?;
        framed.drain(..written);
        Ok(framed.is_empty())
    })?;
    let mut reply = Vec::new();
    exchange(&mut stream, until, |stream| {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reply.extend_from_slice(&buffer[..read]);
        let wanted = reply.first_chunk().map(|length| 2 + usize::from(u16::from_be_bytes(*length)));
        Ok(wanted.is_some_and(|wanted| reply.len() >= wanted))
    })?;
    let reply = Message::from_vec(&reply[2..]).map_err(io::Error::other)?;
    if answers(&reply, question) { Ok(reply) } else { Err(io::Error::other("answered another question")) }
}

/// Repeats `step` on a non-blocking stream until it says that it is done.
fn exchange(
    stream: &mut TcpStream,
    until: Instant,
    mut step: impl FnMut(&mut TcpStream) -> io::Result<bool>,
) -> io::Result<()> {
    loop {
        match step(stream) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                transport::wait_either(stream, until)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::str::FromStr;

    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};

    use super::*;
    use crate::registry::cancel::Cancel;

    /// What the fake server says: `big` is truncated over UDP, `broken` fails, `silent` says nothing.
    fn reply(question: &Message, tcp: bool) -> Option<Message> {
        let query = question.queries[0].clone();
        let name = query.name.to_string();
        let mut reply = Message::response(question.metadata.id, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        let six = query.query_type == RecordType::AAAA;
        match name.as_str() {
            "r.example." => {
                let target = Name::from_str("cdn.example.").unwrap();
                reply.add_answer(Record::from_rdata(query.name, 30, RData::CNAME(CNAME(target.clone()))));
                let data = if six {
                    RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))
                } else {
                    RData::A(A(Ipv4Addr::new(192, 0, 2, 1)))
                };
                reply.add_answer(Record::from_rdata(target, 20, data));
                let stranger = Name::from_str("evil.example.").unwrap();
                reply.add_answer(Record::from_rdata(stranger, 1, RData::A(A(Ipv4Addr::new(6, 6, 6, 6)))));
            }
            "big.example." if tcp => {
                reply.add_answer(Record::from_rdata(query.name, 9, RData::A(A(Ipv4Addr::new(192, 0, 2, 7)))));
            }
            "big.example." => reply.metadata.truncation = true,
            "broken.example." => reply.metadata.response_code = ResponseCode::ServFail,
            "empty.example." => {}
            "silent.example." => return None,
            _ => reply.metadata.response_code = ResponseCode::NXDomain,
        }
        Some(reply)
    }

    /// Starts the fake server; it ends with the test process.
    fn server() -> u16 {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let port = udp.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                if let Some(reply) = reply(&question, false) {
                    let mut forged = reply.clone();
                    forged.metadata.id ^= 1;
                    forged.answers.clear();
                    udp.send_to(&forged.to_vec().unwrap(), from).unwrap();
                    udp.send_to(b"junk", from).unwrap();
                    udp.send_to(&reply.to_vec().unwrap(), from).unwrap();
                }
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut message = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut message).unwrap();
                let bytes = reply(&Message::from_vec(&message).unwrap(), true).unwrap().to_vec().unwrap();
                stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&bytes[..5]).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                stream.write_all(&bytes[5..]).unwrap();
            }
        });
        port
    }

    fn conf() -> ResolvConf {
        ResolvConf { attempts: 1, timeout: Duration::from_millis(300), ..ResolvConf::parse("") }
    }

    #[test]
    fn servers_are_asked_over_udp_and_tcp() {
        let port = server();
        let lookup = |name: &str| {
            let deadline = Instant::now() + Duration::from_secs(5);
            query(&Name::from_str(name).unwrap(), &conf(), port, deadline).unwrap()
        };
        let found = |list: &[&str], ttl| Answer::Addresses {
            addresses: list.iter().map(|text| text.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
        };
        assert_eq!(lookup("r.example."), found(&["2001:db8::1", "192.0.2.1"], 20));
        assert_eq!(lookup("big.example."), found(&["192.0.2.7"], 9));
        assert_eq!(lookup("empty.example."), Answer::Nothing);
        assert_eq!(lookup("nowhere.example."), Answer::Nothing);
        let broken = lookup("broken.example.");
        assert!(matches!(&broken, Answer::Failed(why) if why.contains("Server Failure")), "{broken:?}");
        let silent = lookup("silent.example.");
        assert!(matches!(&silent, Answer::Failed(why) if why.contains("timed out")), "{silent:?}");
    }

    #[test]
    fn a_lookup_can_be_cancelled() {
        let port = server();
        let start = Instant::now();
        let _scope = Cancel::when(move || start.elapsed() > Duration::from_millis(30)).enter();
        let conf = ResolvConf { timeout: Duration::from_secs(20), ..conf() };
        let name = Name::from_str("silent.example.").unwrap();
        let result = query(&name, &conf, port, Instant::now() + Duration::from_secs(20));
        assert!(result.is_err());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
