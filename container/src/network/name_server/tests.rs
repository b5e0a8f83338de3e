//! Questions over loopback; the answers of other servers come from one of the test's own.

use std::collections::BTreeMap;

use hickory_proto::op::Query;

use super::*;

/// What is known by name.
struct Table(BTreeMap<&'static str, Vec<IpAddr>>);

impl Names for Table {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.0.get(name).cloned()
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        self.0.iter().find(|(_, all)| all.contains(&address)).map(|(name, _)| format!("{name}.front"))
    }
}

/// A server that knows one name and counts what it is asked; silent ones are asked for nothing.
fn other() -> (SocketAddr, Arc<AtomicUsize>) {
    // A port that is free for one may be somebody's for the other.
    let both = || {
        let udp = UdpSocket::bind("127.0.0.1:0").ok()?;
        let address = udp.local_addr().ok()?;
        Some((TcpListener::bind(address).ok()?, udp, address))
    };
    let (tcp, udp, address) = std::iter::repeat_with(both).take(100).flatten().next().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = |question: &[u8], asked: &AtomicUsize, transport| {
        asked.fetch_add(1, Ordering::Relaxed);
        let question = Message::from_vec(question).unwrap();
        let mut reply = reply_to(&question, ResponseCode::NoError);
        let name = question.queries[0].name.clone();
        reply.add_answer(Record::from_rdata(name, 5, RData::A(A(Ipv4Addr::new(192, 0, 2, 80)))));
        encoded(&reply, transport, &question).unwrap()
    };
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            // What somebody else says first is not taken for the answer.
            udp.send_to(b"nonsense", from).unwrap();
            udp.send_to(&answer(&buffer[..length], &counted, Transport::Udp), from).unwrap();
        }
    });
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let question = read_framed(&mut stream).unwrap();
            write_framed(&mut stream, &answer(&question, &counted, Transport::Tcp)).unwrap();
        }
    });
    (address, asked)
}

/// A name server on ports of loopback.
fn started(servers: &[SocketAddr]) -> (SocketAddr, SocketAddr, NameServer) {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, stream_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let addresses = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect();
    let many = (1..=200).map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 1, last))).collect();
    let names = Arc::new(Table(
        [("db", addresses(&["10.0.0.2", "fd00::2"])), ("four", addresses(&["10.0.0.4"])), ("many", many)].into(),
    ));
    let port = servers.first().map_or(53, |server| server.port());
    let servers = servers.iter().map(SocketAddr::ip).collect();
    let resolver = Resolver {
        names,
        others: RwLock::new(Arc::new(Others { servers, inside: None })),
        port,
        waiting: AtomicUsize::new(0),
    };
    (at, stream_at, NameServer::serve(udp, tcp, resolver).unwrap())
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn shown(reply: &[u8]) -> String {
    let reply = Message::from_vec(reply).unwrap();
    let data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    let short = if reply.metadata.truncation { " truncated" } else { "" };
    format!("{}{short} {}", reply.metadata.response_code, data.join(" "))
}

fn asked(at: SocketAddr, name: &str, kind: RecordType) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    socket.send_to(&question(name, kind), at).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    shown(&buffer[..length])
}

#[test]
fn names_of_the_networks_are_answered_and_the_rest_is_asked_for() {
    let (other, count) = other();
    let (at, stream_at, server) = started(&[other]);
    for (name, kind, want) in [
        ("db", RecordType::A, "No Error 10.0.0.2"),
        ("DB.", RecordType::AAAA, "No Error fd00::2"),
        ("four", RecordType::AAAA, "No Error "),
        ("db", RecordType::MX, "No Error "),
        ("2.0.0.10.in-addr.arpa.", RecordType::PTR, "No Error db.front."),
        ("many", RecordType::A, "No Error truncated "),
    ] {
        assert_eq!(asked(at, name, kind), want, "{name} {kind}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 0, "what is known is asked of nobody");
    assert_eq!(asked(at, "example.org", RecordType::A), "No Error 192.0.2.80");
    assert_eq!(asked(at, "9.0.0.10.in-addr.arpa.", RecordType::PTR), "No Error 192.0.2.80");
    let mut stream = TcpStream::connect(stream_at).unwrap();
    for (name, want) in [("db", "No Error 10.0.0.2"), ("example.org", "No Error 192.0.2.80")] {
        write_framed(&mut stream, &question(name, RecordType::A)).unwrap();
        assert_eq!(shown(&read_framed(&mut stream).unwrap()), want);
    }
    write_framed(&mut stream, &question("many", RecordType::A)).unwrap();
    assert_eq!(Message::from_vec(&read_framed(&mut stream).unwrap()).unwrap().answers.len(), 200);
    assert_eq!(count.load(Ordering::Relaxed), 3);
    drop(server);
    assert!(TcpStream::connect(stream_at).is_err());
}

#[test]
fn without_others_there_is_a_failure_and_nonsense_is_dropped() {
    let (at, _, _server) = started(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut answer = Message::from_vec(&question("db", RecordType::A)).unwrap();
    answer.metadata.message_type = MessageType::Response;
    for nonsense in [b"".to_vec(), vec![0xff; 600], answer.to_vec().unwrap()] {
        socket.send_to(&nonsense, at).unwrap();
    }
    assert_eq!(asked(at, "example.org", RecordType::A), "Server Failure ");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 512]).is_err(), "an answer to an answer would never end");
}

#[test]
fn a_server_that_cannot_listen_says_so() {
    let error = NameServerError::from(io::Error::from(io::ErrorKind::AddrInUse));
    assert_eq!(error.to_string(), "cannot start the container's name server");
}
