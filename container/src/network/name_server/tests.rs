//! Questions over loopback; the answers of other servers come from one of the test's own.

use std::collections::BTreeMap;

use hickory_proto::op::{Edns, Query};

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
    let several =
        |count: u16| (0..count).map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0100 + u32::from(n)))).collect();
    let names = Arc::new(Table(
        [
            ("db", addresses(&["10.0.0.2", "fd00::2"])),
            ("four", addresses(&["10.0.0.4"])),
            ("few", several(20)),
            ("many", several(200)),
            ("most", several(5000)),
        ]
        .into(),
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
fn what_does_not_fit_is_cut_off_and_whole_over_a_connection() {
    let (at, stream_at, _server) = started(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    let by_datagram = |name: &str, room: Option<u16>| {
        let mut message = Message::from_vec(&question(name, RecordType::A)).unwrap();
        if let Some(room) = room {
            message.set_edns(Edns::new());
            message.edns.as_mut().unwrap().set_max_payload(room);
        }
        socket.send_to(&message.to_vec().unwrap(), at).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let length = socket.recv(&mut buffer).unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert!(length <= usize::from(room.unwrap_or(512).max(512)), "{name} {room:?}: {length}");
        assert_eq!(reply.to_vec().unwrap().len(), length, "{name} {room:?}: nothing follows the last record");
        (reply.answers.len(), reply.metadata.truncation)
    };
    // A header and a question take 22 bytes, an address 16.
    assert_eq!(by_datagram("few", None), (20, false));
    assert_eq!(by_datagram("many", None), (30, true));
    assert_eq!(by_datagram("many", Some(100)), (30, true), "less than 512 there never is");
    assert_eq!(by_datagram("many", Some(1232)), (75, true));
    assert_eq!(by_datagram("many", Some(4096)), (200, false));
    let mut stream = TcpStream::connect(stream_at).unwrap();
    let mut by_stream = |name: &str| {
        write_framed(&mut stream, &question(name, RecordType::A)).unwrap();
        let reply = Message::from_vec(&read_framed(&mut stream).unwrap()).unwrap();
        (reply.answers.len(), reply.metadata.truncation)
    };
    assert_eq!(by_stream("many"), (200, false));
    // More than any message holds; there is no other way to ask for it.
    let (answers, truncated) = by_stream("most");
    assert!((3000..5000).contains(&answers) && !truncated, "{answers} {truncated}");
}

#[test]
fn several_addresses_come_in_another_order_each_time() {
    let (at, _, _server) = started(&[]);
    let orders: std::collections::BTreeSet<String> = (0..10).map(|_| asked(at, "few", RecordType::A)).collect();
    // 20! orders: that ten are the same is not to be expected in the life of the universe.
    assert!(orders.len() > 1, "{orders:?}");
    let sorted = |text: &String| {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        words.sort();
        words
    };
    let contents: std::collections::BTreeSet<Vec<String>> = orders.iter().map(sorted).collect();
    assert_eq!(contents.len(), 1, "each has all");
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
