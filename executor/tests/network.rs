//! Bridges, rules and user-mode ways out, as root, in namespaces that play the host and the rest of the world: nothing here
//! touches the machine's own network.
//!
//! ```text
//!   world 203.0.113.1 ── bridge "world" ── eth0 203.0.113.2 host ── bridge ── eth0 172.24.0.x namespace
//! ```

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "it is a test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rbuild_executor::network::bridge::{Address, Bridge, BridgeError, Endpoint, Neighbours, Presence};
use rbuild_executor::network::firewall::{self, Protocol, Published, Reach, Rules, Source};
use rbuild_executor::network::forwarding::{self, Obstacle};
use rbuild_executor::network::user_mode::{self, Program, Target, UserMode, UserModeError};
use rbuild_executor::network::{Namespace, subnet};

const WAIT: Duration = Duration::from_secs(3);
const BRIDGE: Bridge<'static> = Bridge { name: "rb-test", owner: "rbuild: a test" };
const GATEWAY: &str = "172.24.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str, prefix: u8) -> Address {
    Address { ip: ip(text), prefix }
}

/// The rest of the world, and a host in it.
struct Scene {
    world: Namespace,
    host: Namespace,
}

impl Scene {
    /// `None`, and a line that says so, where the tests cannot run.
    fn set() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/usr/sbin/nft").exists() {
            println!("SKIPPED: needs root and nft");
            return None;
        }
        let world = Namespace::new().unwrap();
        let host = world
            .enter(|| {
                let bridge = Bridge { name: "world", owner: "the world" };
                assert_eq!(bridge.ensure(&[address("203.0.113.1", 24)]).unwrap(), Presence::Made);
                let endpoint = Endpoint {
                    addresses: &[address("203.0.113.2", 24)],
                    gateways: &[ip("203.0.113.1")],
                    neighbours: Neighbours::Seen,
                };
                bridge.new_namespace(&endpoint).unwrap()
            })
            .unwrap();
        let scene = Self { world, host };
        scene.forward(true);
        Some(scene)
    }

    fn forward(&self, on: bool) {
        let value = if on { "1" } else { "0" };
        self.host.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", value).unwrap()).unwrap();
    }

    fn bridge(&self) -> Presence {
        self.host.enter(|| BRIDGE.ensure(&[address(GATEWAY, 22)]).unwrap()).unwrap()
    }

    fn rules(&self, published: &[Published]) {
        let subnets = ["172.24.0.0/22".parse().unwrap()];
        let rules = Rules {
            table: "rbuild-test",
            bridge: BRIDGE.name,
            subnets: &subnets,
            reach: Reach::Outside,
            source: Source::Host,
            published,
        };
        self.host.enter(|| firewall::apply(&rules).unwrap()).unwrap();
    }

    fn namespace(&self, own: &str, neighbours: Neighbours) -> Namespace {
        let addresses = [address(own, 22)];
        let gateways = [ip(GATEWAY)];
        let endpoint = Endpoint { addresses: &addresses, gateways: &gateways, neighbours };
        self.host.enter(|| BRIDGE.new_namespace(&endpoint).unwrap()).unwrap()
    }

    fn tables(&self) -> String {
        let list = || Command::new("/usr/sbin/nft").args(["list", "tables"]).output().unwrap().stdout;
        String::from_utf8(self.host.enter(list).unwrap()).unwrap()
    }
}

/// Serves one connection after the other: tells each who it is.
fn serve(namespace: &Namespace, on: &str) -> SocketAddr {
    let listener = namespace.enter(|| TcpListener::bind(on)).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_string();
            drop(stream.write_all(peer.as_bytes()));
        }
    });
    address
}

/// Connects from inside; gives who the server saw.
fn call(namespace: &Namespace, to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = namespace.enter(|| TcpStream::connect_timeout(&to, WAIT)).unwrap()?;
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_namespace_reaches_the_world_as_the_host_and_not_the_hosts_loopback() {
    let Some(scene) = Scene::set() else { return };
    assert_eq!(scene.bridge(), Presence::Made);
    assert_eq!(scene.bridge(), Presence::Found);
    scene.rules(&[]);
    assert_eq!(scene.host.enter(|| forwarding::obstacle(BRIDGE.name).unwrap()).unwrap(), None);
    let namespace = scene.namespace("172.24.0.2", Neighbours::Unseen);
    assert_eq!(namespace.interfaces().unwrap(), ["eth0"]);
    serve(&scene.world, "203.0.113.1:80");
    assert_eq!(call(&namespace, "203.0.113.1:80").unwrap(), "203.0.113.2");
    let private = serve(&scene.host, "127.0.0.1:0");
    assert!(call(&scene.host, &private.to_string()).is_ok());
    assert!(call(&namespace, &private.to_string()).is_err(), "the namespace has a loopback of its own");
    assert!(call(&namespace, &format!("{GATEWAY}:{}", private.port())).is_err());
    let taken = scene.host.enter(|| subnet::in_use().unwrap()).unwrap();
    assert!(taken.contains(&"172.24.0.0/22".parse().unwrap()), "{taken:?}");
}

#[test]
fn nothing_is_left_when_everything_was_taken_down() {
    let Some(scene) = Scene::set() else { return };
    let before = (scene.host.interfaces().unwrap(), scene.tables());
    scene.bridge();
    scene.rules(&[]);
    let namespaces = [2, 3, 4].map(|last| scene.namespace(&format!("172.24.0.{last}"), Neighbours::Unseen));
    assert_eq!(scene.host.interfaces().unwrap().len(), before.0.len() + 4);
    assert_ne!(scene.tables(), before.1);
    drop(namespaces);
    scene.host.enter(|| BRIDGE.remove().unwrap()).unwrap();
    scene.host.enter(|| firewall::remove("rbuild-test").unwrap()).unwrap();
    // The kernel takes the namespaces down a little later.
    let began = Instant::now();
    while scene.host.interfaces().unwrap() != before.0 {
        assert!(began.elapsed() < WAIT, "{:?}", scene.host.interfaces());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(scene.tables(), before.1);
    // Again, of what is gone: fine.
    scene.host.enter(|| BRIDGE.remove().unwrap()).unwrap();
    scene.host.enter(|| firewall::remove("rbuild-test").unwrap()).unwrap();
}

#[test]
fn steps_do_not_see_each_other_and_containers_do() {
    let Some(scene) = Scene::set() else { return };
    scene.bridge();
    let [a, b] = ["172.24.0.2", "172.24.0.3"].map(|own| scene.namespace(own, Neighbours::Unseen));
    let [c, d] = ["172.24.0.4", "172.24.0.5"].map(|own| scene.namespace(own, Neighbours::Seen));
    serve(&a, "0.0.0.0:80");
    serve(&c, "0.0.0.0:80");
    assert!(call(&b, "172.24.0.2:80").is_err());
    assert_eq!(call(&d, "172.24.0.4:80").unwrap(), "172.24.0.5");
    assert_eq!(call(&scene.host, "172.24.0.2:80").unwrap(), GATEWAY, "the host reaches both kinds");
}

#[test]
fn only_published_ports_are_reachable_from_outside() {
    let Some(scene) = Scene::set() else { return };
    scene.bridge();
    let namespace = scene.namespace("172.24.0.9", Neighbours::Seen);
    serve(&namespace, "0.0.0.0:80");
    serve(&namespace, "0.0.0.0:81");
    let tcp = |host: &str, inside: &str| Published {
        protocol: Protocol::Tcp,
        host: host.parse().unwrap(),
        inside: inside.parse().unwrap(),
    };
    let udp = Published {
        protocol: Protocol::Udp,
        host: "0.0.0.0:5353".parse().unwrap(),
        inside: "172.24.0.9:53".parse().unwrap(),
    };
    scene.rules(&[tcp("0.0.0.0:8080", "172.24.0.9:80"), tcp("203.0.113.2:8443", "172.24.0.9:81"), udp]);
    assert_eq!(call(&scene.world, "203.0.113.2:8080").unwrap(), "203.0.113.1");
    assert_eq!(call(&scene.world, "203.0.113.2:8443").unwrap(), "203.0.113.1");
    assert_eq!(call(&scene.host, "203.0.113.2:8080").unwrap(), "203.0.113.2");
    let inside = namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap().unwrap();
    let outside = scene.world.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    outside.send_to(b"question", "203.0.113.2:5353").unwrap();
    inside.set_read_timeout(Some(WAIT)).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = inside.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"question"[..], ip("203.0.113.1")));
    // Not published: a router in the world that knows the way gets nowhere.
    scene.world.enter(|| run("ip", &["route", "add", "172.24.0.0/22", "via", "203.0.113.2"])).unwrap();
    assert!(call(&scene.world, "172.24.0.9:81").is_err());
    scene.rules(&[]);
    assert!(call(&scene.world, "203.0.113.2:8080").is_err());
}

#[test]
fn ipv6_goes_the_same_ways() {
    let Some(scene) = Scene::set() else { return };
    let gateways = [address(GATEWAY, 22), address("fd00:5::1", 64)];
    scene.host.enter(|| BRIDGE.ensure(&gateways).unwrap()).unwrap();
    let namespace = |last: u8| {
        let addresses = [address(&format!("172.24.0.{last}"), 22), address(&format!("fd00:5::{last}"), 64)];
        let gateways = [ip(GATEWAY), ip("fd00:5::1")];
        let endpoint = Endpoint { addresses: &addresses, gateways: &gateways, neighbours: Neighbours::Seen };
        scene.host.enter(|| BRIDGE.new_namespace(&endpoint).unwrap()).unwrap()
    };
    let (a, b) = (namespace(2), namespace(3));
    serve(&a, "[::]:80");
    assert_eq!(call(&b, "[fd00:5::2]:80").unwrap(), "fd00:5::3");
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    let Some(scene) = Scene::set() else { return };
    scene.host.enter(|| run("ip", &["link", "add", BRIDGE.name, "type", "bridge"])).unwrap();
    scene
        .host
        .enter(|| {
            assert!(matches!(BRIDGE.ensure(&[]), Err(BridgeError::Foreign { .. })));
            BRIDGE.remove().unwrap();
        })
        .unwrap();
    assert!(scene.host.interfaces().unwrap().contains(&BRIDGE.name.to_owned()));
}

#[test]
fn a_bridge_whose_maker_was_killed_is_made_again() {
    let Some(scene) = Scene::set() else { return };
    let unfinished = || run("ip", &["link", "set", "dev", BRIDGE.name, "alias", ""]);
    scene
        .host
        .enter(|| {
            BRIDGE.ensure(&[]).unwrap();
            unfinished();
            assert!(!BRIDGE.exists().unwrap());
            assert_eq!(BRIDGE.ensure(&[address(GATEWAY, 22)]).unwrap(), Presence::Made);
            assert_eq!(BRIDGE.ensure(&[address(GATEWAY, 22)]).unwrap(), Presence::Found);
            unfinished();
            BRIDGE.remove().unwrap();
        })
        .unwrap();
    assert!(!scene.host.interfaces().unwrap().contains(&BRIDGE.name.to_owned()));
}

#[test]
fn a_host_that_does_not_forward_says_so() {
    let Some(scene) = Scene::set() else { return };
    scene.bridge();
    scene.forward(false);
    let obstacle = || scene.host.enter(|| forwarding::obstacle(BRIDGE.name).unwrap()).unwrap();
    assert_eq!(obstacle(), Some(Obstacle::Sysctl { interface: "eth0".into() }));
    scene.forward(true);
    assert_eq!(obstacle(), None);
    let chain =
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    scene.host.enter(|| run("nft", &[chain])).unwrap();
    assert_eq!(obstacle(), Some(Obstacle::Policy { table: "ip filter".into(), chain: "FORWARD".into() }));
}

#[test]
fn programs_give_a_way_out_that_leads_nowhere_near_the_host() {
    let Some(scene) = Scene::set() else { return };
    serve(&scene.world, "203.0.113.1:80");
    let private = serve(&scene.host, "127.0.0.1:0");
    // No bridge, no rules, no forwarding.
    scene.forward(false);
    for program in user_mode::PROGRAMS {
        if program.find().is_none() || !Path::new("/dev/net/tun").exists() {
            println!("SKIPPED: {} needs to be installed, and /dev/net/tun", program.name());
            continue;
        }
        let namespace = Namespace::new().unwrap();
        let target = Target { network: &namespace, user: None };
        let running = match scene.host.enter(|| UserMode::start_with(program, target)).unwrap() {
            Err(error @ UserModeError::Ended { .. }) if program == Program::Pasta => {
                println!("SKIPPED: this pasta does not serve root: {error}");
                continue;
            }
            started => started.unwrap(),
        };
        assert_eq!(call(&namespace, "203.0.113.1:80").unwrap(), "203.0.113.2", "{program:?}");
        for host in ["10.0.2.2", "203.0.113.1", "203.0.113.2", "127.0.0.1"] {
            let found = call(&namespace, &format!("{host}:{}", private.port()));
            assert!(found.is_err(), "{program:?}: the host's loopback is reachable as {host}: {found:?}");
        }
        let (pid, started) = running.process();
        user_mode::end_leftover(pid, started + 1).unwrap();
        assert!(
            Path::new(&format!("/proc/{pid}")).exists(),
            "a process that started at another time is somebody else's"
        );
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

fn run(program: &str, arguments: &[&str]) {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}
