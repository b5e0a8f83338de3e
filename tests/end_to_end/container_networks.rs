//! Containers on networks: names, ports, connecting while they run, and nobody gets what another has.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{TcpStream, UdpSocket};
use std::process::Child;
use std::time::{Duration, Instant};

use rbuild_executor::network::Namespace;

use crate::bench::{Bench, Ran};
use crate::networks::{Host, WAIT, on, scene, start};

/// A bench and the host on which its containers run.
struct Scene {
    bench: Bench,
    host: Host,
    before: BTreeSet<String>,
}

impl Scene {
    fn new() -> Option<Self> {
        let (bench, host) = scene()?;
        let before = host.census();
        Some(Self { bench, host, before })
    }

    fn rbuild(&self, args: &[&str]) -> Ran {
        on(&self.host, self.bench.rbuild(args))
    }

    /// Runs a shell in a new container of a network; gives its output.
    #[track_caller]
    fn shell(&self, network: &str, script: &str) -> String {
        self.rbuild(&["run", "--rm", "--network", network, "busybox", "sh", "-c", script]).ok().stdout
    }

    /// Starts a container that serves a word on port 80, and waits until it runs.
    fn serve(&self, name: &str, flags: &[&str]) -> Served<'_> {
        let call = self.bench.rbuild(["run", "--rm", "--name", name]).args(flags);
        let call = call.args(["busybox", "sh", "-c", &format!("busybox nc -ll -p 80 -e echo from {name}")]);
        let mut process = start(&self.host, call);
        let began = Instant::now();
        while !self.listed("Names").iter().any(|one| one == name) {
            if let Ok(Some(_)) = process.try_wait() {
                panic!("{name} ended: {}", Ran::new(process.wait_with_output().expect("it ended")).stderr);
            }
            assert!(began.elapsed() < WAIT, "{name} did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.until_served(name, &mut process);
        Served { scene: self, name: name.to_owned(), process: Some(process) }
    }

    /// Waits until somebody listens at port 80 in a container that is being started.
    fn until_served(&self, name: &str, process: &mut Child) {
        let began = Instant::now();
        while !self.process(name).is_some_and(|pid| listens(pid, 80)) {
            if let Ok(Some(status)) = process.try_wait() {
                let mut said = String::new();
                process.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
                panic!("{name} ended with {status}: {said}");
            }
            assert!(began.elapsed() < WAIT, "{name} does not serve");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The first process of a container that runs.
    fn process(&self, name: &str) -> Option<u32> {
        let record = self.bench.store().join("containers/names").join(name).join("container.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
        record["state"]["process"]["pid"].as_u64()?.try_into().ok()
    }

    /// A field of all containers that run.
    fn listed(&self, field: &str) -> Vec<String> {
        let text = self.rbuild(&["ps", "--format", "json"]).ok().stdout;
        let objects = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object"));
        objects.map(|object| object[field].as_str().expect("text").to_owned()).collect()
    }

    /// The network namespace of a running container.
    fn inside(&self, name: &str) -> Namespace {
        Namespace::of_process(self.process(name).expect("it runs")).expect("it runs")
    }

    /// What a server says who is called from the host; empty when nobody answers.
    fn call(&self, to: &str) -> String {
        self.host.namespace.enter(|| answer(to)).expect("a thread")
    }
}

/// Whether somebody listens at a TCP port where a process is.
fn listens(pid: u32, port: u16) -> bool {
    // The local address ends in the port, and the state follows the remote one; 0A is listening.
    let port = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|kind| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
        table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
            .any(|fields| matches!(fields[..], [_, local, _, "0A", ..] if local.ends_with(&port)))
    })
}

fn answer(to: &str) -> String {
    let mut text = String::new();
    let began = Instant::now();
    while text.is_empty() && began.elapsed() < Duration::from_secs(3) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&to.parse().expect("an address"), Duration::from_secs(1)) {
            stream.set_read_timeout(Some(WAIT)).expect("it is set");
            // One that is reset said nothing.
            drop(stream.read_to_string(&mut text));
        }
    }
    text
}

/// A container in the background.
struct Served<'a> {
    scene: &'a Scene,
    name: String,
    process: Option<Child>,
}

impl Served<'_> {
    fn end(mut self) {
        let _killed = self.scene.rbuild(&["kill", &self.name]).ok();
        if let Some(mut process) = self.process.take() {
            process.wait().expect("it ends");
        }
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop((process.kill(), process.wait()));
        }
    }
}

/// Ports of such a network are on loopback when they name no address.
const BOUND: &str = "com.docker.network.bridge.host_binding_ipv4=127.0.0.1";

/// Asks the container's name server, in the container, and then the server behind the name.
const CALL: &str = "for name in $NAMES; do busybox nslookup -type=a $name | grep -A1 ^Name: | grep ^Address; done; nc -w 3 web 80 </dev/null";

#[test]
fn containers_find_each_other_by_name_alias_and_id_also_when_started_again() {
    let Some(scene) = Scene::new() else { return };
    let _front = scene.rbuild(&["network", "create", "--subnet", "10.77.0.0/24", "front"]).ok();
    for _ in 0..2 {
        let web =
            scene.serve("web", &["-h", "machine", "--network", "front", "--network-alias", "www", "--ip", "10.77.0.9"]);
        let id = scene.rbuild(&["ps", "-q"]).ok().stdout;
        let script = format!("NAMES='web WWW machine web.front {}'; {CALL}", id.trim());
        assert_eq!(scene.shell("front", &script), format!("{}from web\n", "Address: 10.77.0.9\n".repeat(5)));
        let conf = scene.shell("front", "cat /etc/resolv.conf");
        assert!(conf.contains("nameserver 127.0.0.11\n") && conf.contains("ndots:0"), "{conf}");
        // On the default bridge there are no names.
        let conf = scene.shell("bridge", "cat /etc/resolv.conf; nc -w 1 web 80 </dev/null || echo nobody");
        assert!(!conf.contains("127.0.0.11") && conf.ends_with("nobody\n"), "{conf}");
        web.end();
        let gone = scene.shell("front", "busybox nslookup web 2>&1 | grep -c 10.77; true");
        assert_eq!(gone, "0\n");
    }
    scene.host.becomes(&scene.before);
}

#[test]
fn ports_lead_inside_from_everywhere_and_belong_to_one() {
    let Some(scene) = Scene::new() else { return };
    let _front = scene.rbuild(&["network", "create", "--subnet", "10.77.0.0/24", "front"]).ok();
    let flags = [
        "--network",
        "front",
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:80",
        "-p",
        "7000-7001:70-71/udp",
        "--expose",
        "443",
    ];
    let web = scene.serve("web", &flags);
    for from in ["127.0.0.1:8080", "127.0.0.1:8081", "203.0.113.2:8080", "[::1]:8080"] {
        assert_eq!(scene.call(from), "from web\n", "{from}");
    }
    assert_eq!(scene.host.world(|| answer("203.0.113.2:8080")), "from web\n");
    assert_eq!(scene.host.world(|| answer("203.0.113.2:8081")), "", "only loopback was named");
    for network in ["front", "bridge"] {
        assert_eq!(scene.shell(network, "nc -w 3 203.0.113.2 8080 </dev/null"), "from web\n", "{network}");
    }
    let ports = "443/tcp, 0.0.0.0:7000->70/udp, [::]:7000->70/udp, 0.0.0.0:7001->71/udp, [::]:7001->71/udp, \
                 0.0.0.0:8080->80/tcp, 127.0.0.1:8081->80/tcp, [::]:8080->80/tcp";
    assert_eq!(scene.listed("Ports"), [ports]);
    assert_eq!(scene.rbuild(&["port", "web", "80/tcp"]).ok().stdout, "0.0.0.0:8080\n127.0.0.1:8081\n[::]:8080\n");
    assert_eq!(scene.rbuild(&["port", "web", "71/udp"]).ok().stdout, "0.0.0.0:7001\n[::]:7001\n");
    let _none = scene.rbuild(&["port", "web", "9"]).fails(1).says("no public port '9' published for web");
    for network in ["front", "bridge", "none"] {
        let ran = scene.rbuild(&["run", "--rm", "--network", network, "-p", "8080:80", "busybox", "true"]);
        if network == "none" {
            let _fine = ran.ok();
        } else {
            let _taken = ran.fails(125).says("Bind for 0.0.0.0:8080 failed: port is already allocated");
        }
    }
    let range = scene.rbuild(&["run", "--rm", "-p", "8080-8081:80", "busybox", "true"]);
    let _taken = range.fails(125).says("all ports are allocated");
    web.end();
    assert_eq!(scene.call("127.0.0.1:8080"), "", "the port is free");
    scene.host.becomes(&scene.before);
}

#[test]
fn ports_and_names_follow_the_networks_of_a_running_container() {
    let Some(scene) = Scene::new() else { return };
    for args in [&["front"][..], &["--internal", "hidden"], &["-o", BOUND, "local"]] {
        let _made = scene.rbuild(&[&["network", "create"], args].concat()).ok();
    }
    let network = |action: &str, name: &str| scene.rbuild(&["network", action, name, "web"]).ok().stderr;
    let answered = || ["127.0.0.1:8080", "203.0.113.2:8080", "[::1]:8080"].map(|from| !scene.call(from).is_empty());
    let web = scene.serve("web", &["-p", "8080:80", "-p", "127.0.0.1::81"]);
    let ports = scene.rbuild(&["port", "web"]).ok().stdout;
    // No names on the default bridge; they come with the first network that has some.
    assert!(!scene.rbuild(&["exec", "web", "cat", "/etc/resolv.conf"]).ok().stdout.contains("127.0.0.11"));
    assert_eq!(network("connect", "front"), "");
    let found = scene.rbuild(&["exec", "web", "sh", "-c", "cat /etc/resolv.conf; busybox nslookup web"]).ok().stdout;
    assert!(found.contains("nameserver 127.0.0.11\n") && found.contains("Name:\tweb"), "{found}");
    // Through another network, the same ports: random ones, too.
    assert_eq!(network("disconnect", "bridge"), "");
    assert_eq!(scene.rbuild(&["port", "web"]).ok().stdout, ports);
    assert_eq!(answered(), [true; 3]);
    assert_eq!(scene.host.world(|| answer("203.0.113.2:8080")), "from web\n");
    // Without a way out they are free.
    assert_eq!(network("connect", "hidden") + &network("disconnect", "front"), "");
    assert_eq!(scene.rbuild(&["port", "web"]).ok().stdout, "");
    assert_eq!(answered(), [false; 3]);
    let _free = scene.rbuild(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).ok();
    // A network may have them on other addresses.
    assert_eq!(network("connect", "local"), "");
    let bound = scene.rbuild(&["port", "web", "80"]).ok().stdout;
    assert_eq!((bound.as_str(), answered()), ("127.0.0.1:8080\n", [true, false, false]));
    // Where a port is not free, it stays as it was.
    assert_eq!(network("disconnect", "local"), "");
    let taken = scene.host.namespace.enter(|| std::net::TcpListener::bind("0.0.0.0:8080").expect("it is free"));
    let _taken =
        scene.rbuild(&["network", "connect", "front", "web"]).fails(1).says("port is already allocated (by process ");
    let shown = scene.rbuild(&["inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}", "web"]);
    assert_eq!(shown.ok().stdout, "hidden \n");
    drop(taken);
    assert_eq!(network("connect", "front"), "");
    assert_eq!(answered(), [true; 3]);
    let _restarted = scene.rbuild(&["restart", "-t", "0", "web"]).ok();
    assert_eq!(answered(), [true; 3]);
    web.end();
    scene.host.becomes(&scene.before);
}

#[test]
fn a_container_that_is_renamed_is_found_by_its_new_name() {
    let Some(scene) = Scene::new() else { return };
    let _front = scene.rbuild(&["network", "create", "--subnet", "10.77.0.0/24", "front"]).ok();
    let web = scene.serve("web", &["--network", "front", "--network-alias", "www", "--ip", "10.77.0.9"]);
    let _renamed = scene.rbuild(&["rename", "web", "site"]).ok();
    let asked =
        |name: &str| scene.shell("front", &format!("busybox nslookup -type=a {name} 2>&1 | grep -c 10.77.0.9; true"));
    assert_eq!(["site", "www", "web"].map(asked), ["1\n", "1\n", "0\n"]);
    assert!(scene.shell("front", "busybox nslookup 10.77.0.9").contains("name = site.front\n"));
    let names = scene.rbuild(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", "front"]).ok();
    assert_eq!(names.stdout, "site\n");
    let _back = scene.rbuild(&["rename", "site", "web"]).ok();
    web.end();
    scene.host.becomes(&scene.before);
}

#[test]
fn a_port_that_is_taken_is_said_with_who_has_it() {
    let Some(scene) = Scene::new() else { return };
    let web = scene.serve("web", &["-p", "8080:80"]);
    let run = |port: &str| scene.rbuild(&["run", "--rm", "-p", port, "busybox", "true"]).fails(125).stderr;
    for port in ["8080:80", "127.0.0.1:8080:80"] {
        assert!(run(port).contains(":8080 failed: port is already allocated (by container web)"), "{}", run(port));
    }
    let other = scene.host.namespace.enter(|| std::net::TcpListener::bind("127.0.0.1:8099").expect("it is free"));
    let said = run("8099:80");
    assert!(said.contains(&format!("({})", std::process::id())) && said.contains("(by process "), "{said}");
    drop(other);
    web.end();
    scene.host.becomes(&scene.before);
}

#[test]
fn declared_ports_are_published_on_free_ones() {
    let Some(scene) = Scene::new() else { return };
    let web = scene.serve("web", &["-P", "--expose", "80", "--expose", "53/udp"]);
    let shown = scene.rbuild(&["port", "web"]).ok().stdout;
    assert_eq!(shown.lines().filter(|line| line.starts_with("53/udp -> ")).count(), 2, "{shown}");
    let port = shown.lines().find_map(|line| line.strip_prefix("80/tcp -> 0.0.0.0:")).expect("a port");
    assert_eq!(scene.call(&format!("127.0.0.1:{port}")), "from web\n");
    web.end();
    scene.host.becomes(&scene.before);
}

#[test]
fn datagrams_are_answered_through_a_published_port() {
    let Some(scene) = Scene::new() else { return };
    let web = scene.serve("web", &["-p", "5300:53/udp"]);
    let server = scene.inside("web").enter(|| UdpSocket::bind("0.0.0.0:53").expect("a port")).expect("a thread");
    // Its socket would keep the namespace.
    let serving = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        for _ in 0..3 {
            let (length, from) = server.recv_from(&mut buffer).expect("a question");
            server.send_to(&[b"re: ", &buffer[..length]].concat(), from).expect("it is sent");
        }
    });
    let ask = |to: &str| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        socket.connect(to).expect("an address");
        socket.set_read_timeout(Some(WAIT)).expect("it is set");
        socket.send(b"question").expect("it is sent");
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    for to in ["127.0.0.1:5300", "203.0.113.2:5300"] {
        assert_eq!(scene.host.namespace.enter(|| ask(to)).expect("a thread"), "re: question", "{to}");
    }
    assert_eq!(scene.host.world(|| ask("203.0.113.2:5300")), "re: question");
    serving.join().expect("it answered");
    web.end();
    scene.host.becomes(&scene.before);
}

#[test]
fn connections_through_a_port_end_with_it() {
    let Some(scene) = Scene::new() else { return };
    let run = |name: &str, flags: &[&str]| {
        let words = [&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "1000"]].concat();
        let _started = scene.rbuild(&words).ok();
        let address = scene.rbuild(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", name]).ok().stdout;
        let server = scene.inside(name).enter(|| UdpSocket::bind("0.0.0.0:53").expect("a port")).expect("a thread");
        (address, server)
    };
    // From outside, so that the rules lead what it sends, and the kernel remembers where to.
    let caller = scene.host.world(|| UdpSocket::bind("203.0.113.1:5353").expect("a port"));
    caller.connect("203.0.113.2:5300").expect("an address");
    let reaches = |server: &UdpSocket, patience: Duration| {
        caller.send(b"question").expect("it is sent");
        server.set_read_timeout(Some(patience)).expect("it is set");
        server.recv_from(&mut [0; 64]).is_ok()
    };
    let (first, server) = run("web", &["-p", "5300:53/udp"]);
    assert!(reaches(&server, WAIT), "the port leads inside");
    drop(server);
    let _gone = scene.rbuild(&["rm", "-f", "web"]).ok();
    let (second, server) = run("other", &[]);
    assert_eq!(first, second, "it has the address that the first one had");
    assert!(!reaches(&server, Duration::from_secs(2)), "who called the first one gets the second");
    drop((server, caller));
    let _gone = scene.rbuild(&["rm", "-f", "other"]).ok();
    scene.host.becomes(&scene.before);
}

#[test]
fn hosts_and_names_follow_a_disconnection() {
    let Some(scene) = Scene::new() else { return };
    for network in ["front", "back"] {
        let _made = scene.rbuild(&["network", "create", network]).ok();
    }
    let _web =
        scene.rbuild(&["run", "-d", "--name=web", "--network=front", "-h", "own", "busybox", "sleep", "1000"]).ok();
    let _web = scene.rbuild(&["run", "-d", "--name=db", "--network=back", "busybox", "sleep", "1000"]).ok();
    let inside = |script: &str| scene.rbuild(&["exec", "web", "sh", "-c", script]).stdout;
    let own = || inside("grep -c own /etc/hosts");
    let found = || inside("nslookup -type=a db | grep -c '^Name:'");
    assert_eq!((own().as_str(), found().as_str()), ("1\n", "0\n"));
    let _joined = scene.rbuild(&["network", "connect", "back", "web"]).ok();
    let _kept = inside("echo 192.0.2.9 mine >> /etc/hosts");
    assert_eq!((own().as_str(), found().as_str()), ("2\n", "1\n"));
    let _left = scene.rbuild(&["network", "disconnect", "back", "web"]).ok();
    assert_eq!((own().as_str(), found().as_str()), ("1\n", "0\n"));
    let _left = scene.rbuild(&["network", "disconnect", "front", "web"]).ok();
    assert_eq!(own(), "0\n");
    assert_eq!(inside("tail -n 1 /etc/hosts"), "192.0.2.9 mine\n", "what it wrote itself stays");
    let _gone = scene.rbuild(&["rm", "-f", "web", "db"]).ok();
    for network in ["front", "back"] {
        let _gone = scene.rbuild(&["network", "rm", network]).ok();
    }
    scene.host.becomes(&scene.before);
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    let Some(scene) = Scene::new() else { return };
    for network in ["front", "back"] {
        let _made = scene.rbuild(&["network", "create", network]).ok();
    }
    let web = scene.serve("web", &["--network", "front"]);
    let _connected = scene.rbuild(&["network", "connect", "--alias", "extra", "back", "web"]).ok();
    assert_eq!(scene.shell("back", "nc -w 3 extra 80 </dev/null"), "from web\n");
    let _again = scene.rbuild(&["network", "connect", "back", "web"]).fails(1).says("already exists in network back");
    let names = scene.rbuild(&["network", "inspect", "-f", "{{json .Containers}}", "back"]).ok().stdout;
    assert!(names.contains("\"Name\":\"web\""), "{names}");
    let _used = scene.rbuild(&["network", "rm", "back"]).fails(1).says("network back has active endpoints: web");
    // Another container in its namespace sees what it has.
    let seen = scene.shell("container:web", "ls /sys/class/net; nc -w 3 127.0.0.1 80 </dev/null");
    assert_eq!(seen, "eth0\neth1\nlo\nfrom web\n");
    let _gone = scene.rbuild(&["network", "disconnect", "back", "web"]).ok();
    assert_eq!(scene.shell("container:web", "ls /sys/class/net"), "eth0\nlo\n");
    let _not =
        scene.rbuild(&["network", "disconnect", "back", "web"]).fails(1).says("is not connected to network back");
    let _removed = scene.rbuild(&["network", "rm", "back"]).ok();
    // Connected by another process, it takes the network along in the end.
    let _again = scene.rbuild(&["network", "create", "back"]).ok();
    let _connected = scene.rbuild(&["network", "connect", "back", "web"]).ok();
    web.end();
    let _removed = scene.rbuild(&["network", "rm", "back", "front"]).ok();
    scene.host.becomes(&scene.before);
}

#[test]
fn a_killed_process_leaves_its_networks_to_the_next_command() {
    let Some(scene) = Scene::new() else { return };
    for network in ["front", "back"] {
        let _made = scene.rbuild(&["network", "create", network]).ok();
    }
    let mut web = scene.serve("web", &["--network", "front", "-p", "8080:80"]);
    let _connected = scene.rbuild(&["network", "connect", "back", "web"]).ok();
    let mut process = web.process.take().expect("it runs");
    process.kill().expect("it runs");
    process.wait().expect("it ended");
    assert_ne!(scene.host.census(), scene.before, "bridges cannot go by themselves");
    let _listed = scene.rbuild(&["ps"]).ok();
    scene.host.becomes(&scene.before);
    let _removed = scene.rbuild(&["network", "rm", "back", "front"]).ok();
    // Everything is free again.
    let again = scene.serve("web", &["-p", "8080:80"]);
    assert_eq!(scene.call("127.0.0.1:8080"), "from web\n");
    again.end();
    scene.host.becomes(&scene.before);
}

#[test]
fn what_a_network_has_on_the_host_goes_although_the_store_has_gone() {
    let Some(scene) = Scene::new() else { return };
    let _front = scene.rbuild(&["network", "create", "-o", "com.docker.network.bridge.name=br-lost", "front"]).ok();
    let reads = scene.bench.rbuild(["run", "-i", "--network", "front", "--name", "reads", "busybox", "cat"]);
    let mut container = scene.host.namespace.enter(|| reads.start_typing()).expect("a thread");
    let context = scene.bench.context("context", [("Dockerfile", "FROM busybox\nRUN sleep 3\n")]);
    let build = start(&scene.host, scene.bench.rbuild(["build", "--progress=plain"]).arg(&context));
    let began = Instant::now();
    // Both have brought up a bridge each.
    while scene.host.census().iter().filter(|one| one.contains("br-lost") || one.contains("rb-")).count() < 2 {
        assert!(began.elapsed() < WAIT, "{:?}", scene.host.census());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_dir_all(scene.bench.store()).expect("nobody mounts anything there that this process sees");
    drop(container.stdin.take());
    // How they end without a store is not what this is about.
    drop((container.wait().expect("it ends"), build.wait_with_output().expect("it ends")));
    scene.host.becomes(&scene.before);
}

#[test]
fn a_store_that_goes_in_the_moment_a_container_ends_leaves_nothing_on_the_host() {
    for network in ["bridge", "front"] {
        let Some(scene) = Scene::new() else { return };
        let _front = scene.rbuild(&["network", "create", "front"]).ok();
        let _ran = scene.rbuild(&["run", "--rm", "--network", network, "busybox", "true"]).ok();
        // All of it at once, in the moment that the end is known.
        let gone = scene.bench.path("gone");
        std::fs::rename(scene.bench.store(), &gone).expect("they are side by side");
        std::fs::remove_dir_all(&gone).expect("nobody writes there any more");
        scene.host.becomes(&scene.before);
    }
}

#[test]
fn a_container_that_does_not_run_is_connected_anew_and_a_port_is_published_once() {
    let Some(scene) = Scene::new() else { return };
    let _front = scene.rbuild(&["network", "create", "--subnet", "10.77.0.0/24", "front"]).ok();
    let _made = scene.rbuild(&["create", "--name", "web", "--network", "front", "busybox", "true"]).ok();
    let connect = ["network", "connect", "--ip", "10.77.0.9", "--alias", "www", "front", "web"];
    let _connected = scene.rbuild(&connect).ok();
    let format =
        "{{range .NetworkSettings.Networks}}{{.IPAMConfig.IPv4Address}} {{json .Aliases}} {{len .Links}}{{end}}";
    assert_eq!(scene.rbuild(&["inspect", "-f", format, "web"]).ok().stdout, "10.77.0.9 [\"www\"] 0\n");
    let twice = ["run", "--rm", "-p", "7300:80", "-p", "7300:81", "busybox", "true"];
    let said = "port is already allocated (by this container, which publishes it twice)";
    let _refused = scene.rbuild(&twice).fails(125).says(said);
    let _refused =
        scene.rbuild(&["run", "--rm", "--dns-search", "", "busybox", "true"]).fails(125).says("not a valid domain");
    scene.host.becomes(&scene.before);
}

#[test]
fn processes_that_race_get_addresses_and_ports_of_their_own() {
    let Some(scene) = Scene::new() else { return };
    let _front = scene.rbuild(&["network", "create", "--subnet", "10.77.0.0/24", "front"]).ok();
    let script = "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4; sleep 4";
    let runs: Vec<Child> = (0..12)
        .map(|_| {
            let flags = ["run", "--rm", "--network", "front", "-p", "9000-9011:80", "busybox", "sh", "-c", script];
            start(&scene.host, scene.bench.rbuild(flags))
        })
        .collect();
    let began = Instant::now();
    let mut ports = BTreeSet::new();
    while ports.len() < 12 && began.elapsed() < WAIT {
        for shown in scene.listed("Ports") {
            ports.extend(shown.strip_prefix("0.0.0.0:").and_then(|rest| rest.split("->").next()).map(str::to_owned));
        }
    }
    let mut addresses = BTreeSet::new();
    for run in runs {
        let ran = Ran::new(run.wait_with_output().expect("it ends")).ok();
        assert!(addresses.insert(ran.stdout.trim().to_owned()), "given twice: {}", ran.stdout);
    }
    assert_eq!((addresses.len(), ports.len()), (12, 12), "{addresses:?} {ports:?}");
    scene.host.becomes(&scene.before);
}

#[test]
fn contradictions_are_refused_before_anything_is_made() {
    let Some(scene) = Scene::new() else { return };
    let _front = scene.rbuild(&["network", "create", "front"]).ok();
    for (flags, said) in [
        (&["--network", "front", "--network", "host"][..], "cannot attach both user-defined and non-user-defined"),
        (&["--network-alias", "x"], "network-scoped aliases are only supported for user-defined networks"),
        (&["--ip", "10.1.1.1"], "user specified IP address is supported on user defined networks only"),
        (
            &["--network", "front", "--ip", "172.24.0.9"],
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        (&["--network", "container:nobody"], "no such container: nobody"),
        (&["--network", "container:nobody", "-p", "80"], "port publishing and the container type network mode"),
        (&["-p", "80/sctp"], "invalid protocol"),
        (&["--network", "nowhere"], "network nowhere not found"),
    ] {
        let ran = scene.rbuild(&[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        assert!(ran.code != 0 && ran.stderr.contains(said), "{flags:?}: {} {}", ran.code, ran.stderr);
    }
    let gateway = scene.rbuild(&[
        "run",
        "--rm",
        "--network",
        "front",
        "--add-host",
        "here:host-gateway",
        "busybox",
        "cat",
        "/etc/hosts",
    ]);
    let hosts = gateway.ok().stdout;
    assert!(hosts.lines().any(|line| line.starts_with("172.24.") && line.ends_with(".1\there")), "{hosts}");
    scene.host.becomes(&scene.before);
}

#[test]
fn without_a_bridge_ports_are_relayed_and_own_networks_are_refused() {
    let Some(scene) = Scene::new() else { return };
    let programs = ["/usr/bin/pasta", "/usr/bin/slirp4netns"];
    if !programs.iter().any(|path| std::path::Path::new(path).exists())
        || !std::path::Path::new("/dev/net/tun").exists()
    {
        eprintln!("SKIPPED: needs pasta or slirp4netns, and /dev/net/tun");
        return;
    }
    let rootless = |args: &[&str]| on(&scene.host, scene.bench.rbuild(["--isolation", "rootless"]).args(args));
    let script = "busybox nc -ll -p 80 -e echo from inside";
    let call = scene.bench.rbuild(["--isolation", "rootless", "run", "--rm", "--name", "web", "-p", "8080:80"]);
    let mut process = start(&scene.host, call.args(["busybox", "sh", "-c", script]));
    scene.until_served("web", &mut process);
    assert_eq!(scene.call("127.0.0.1:8080"), "from inside\n");
    let _taken = rootless(&["run", "--rm", "-p", "8080:80", "busybox", "true"])
        .fails(125)
        .says("Bind for 0.0.0.0:8080 failed: port is already allocated");
    let _made = rootless(&["network", "create", "front"]).ok();
    let _refused = rootless(&["run", "--rm", "--network", "front", "busybox", "true"])
        .fails(125)
        .says("network front cannot be used here");
    let _killed = rootless(&["kill", "web"]).ok();
    process.wait().expect("it ended");
    scene.host.becomes(&scene.before);
}
