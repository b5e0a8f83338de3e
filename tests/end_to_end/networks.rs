//! Networks of steps and containers, on a host that is a namespace of the test's own: nothing here touches the machine's.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rbuild_executor::network::Namespace;
use rbuild_executor::network::bridge::{Address, Bridge, Endpoint, Neighbours};

use crate::bench::{Bench, Call, Ran};

pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// A host with an uplink to a world in which 203.0.113.1 answers.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    world: Namespace,
}

impl Host {
    pub(crate) fn new() -> Self {
        let world = Namespace::new().expect("a namespace");
        let address = |ip: &str| Address { ip: ip.parse().expect("an address"), prefix: 24 };
        let inside = || {
            let bridge = Bridge { name: "world", owner: "the world" };
            bridge.ensure(&[address("203.0.113.1")]).expect("a bridge");
            let listener = TcpListener::bind("203.0.113.1:80").expect("a port");
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let text = format!("you are {}\n", stream.peer_addr().expect("a peer").ip());
                    // Whoever only looks whether the port is open is gone.
                    drop(stream.write_all(text.as_bytes()));
                }
            });
            let endpoint = Endpoint {
                addresses: &[address("203.0.113.2")],
                gateways: &["203.0.113.1".parse().expect("an address")],
                neighbours: Neighbours::Seen,
            };
            bridge.new_namespace(&endpoint).expect("a namespace")
        };
        let namespace = world.enter(inside).expect("a thread");
        let host = Self { namespace, world };
        host.forward("1");
        host
    }

    /// Something done in the world behind the uplink.
    pub(crate) fn world<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.world.enter(work).expect("a thread")
    }

    fn forward(&self, value: &str) {
        let write = || std::fs::write("/proc/sys/net/ipv4/ip_forward", value).expect("our own sysctl");
        self.namespace.enter(write).expect("a thread");
    }

    /// Interfaces and tables.
    pub(crate) fn census(&self) -> BTreeSet<String> {
        let mut found: BTreeSet<String> = self.namespace.interfaces().expect("readable").into_iter().collect();
        let list = || Command::new("/usr/sbin/nft").args(["list", "tables"]).output().expect("nft runs").stdout;
        let tables = String::from_utf8(self.namespace.enter(list).expect("a thread")).expect("text");
        found.extend(tables.lines().map(str::to_owned));
        found
    }

    #[track_caller]
    pub(crate) fn becomes(&self, before: &BTreeSet<String>) {
        let began = Instant::now();
        while self.census() != *before {
            assert!(began.elapsed() < WAIT, "left on the host: {:?}", self.census());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn scene() -> Option<(Bench, Host)> {
    if !Path::new("/usr/sbin/nft").exists() {
        eprintln!("SKIPPED: needs nft");
        return None;
    }
    let bench = Bench::with_busybox()?;
    Some((bench, Host::new()))
}

/// Runs the program on that host.
pub(crate) fn on(host: &Host, call: Call) -> Ran {
    host.namespace.enter(|| call.run()).expect("a thread")
}

/// Starts the program on that host.
pub(crate) fn start(host: &Host, call: Call) -> Child {
    host.namespace.enter(|| call.start()).expect("a thread")
}

#[test]
fn steps_reach_the_world_and_leave_nothing() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let private = host.namespace.enter(|| TcpListener::bind("127.0.0.1:0")).expect("a thread").expect("a port");
    let port = private.local_addr().expect("an address").port();
    let file = format!(
        "FROM busybox\nRUN nc 203.0.113.1 80 </dev/null\n\
         RUN for a in 127.0.0.1 172.24.0.1; do nc -w 1 $a {port} </dev/null && echo reached; done | tr a-z A-Z\n\
         RUN --network=none ls /sys/class/net; ! nc -w 1 203.0.113.1 80 </dev/null\n"
    );
    let context = bench.context("context", [("Dockerfile", &file)]);
    let build = || bench.rbuild(["build", "--progress=plain"]).arg(&context);
    let ran = on(&host, build()).ok().says("you are 203.0.113.2");
    assert!(!ran.stderr.contains("REACHED") && !ran.stderr.contains("eth0"), "{}", ran.stderr);
    host.becomes(&before);
    // All cached: nothing is made.
    let networks = bench.store().join("networks");
    std::fs::remove_dir_all(&networks).expect("there are networks");
    let _cached = on(&host, build()).ok().says("CACHED");
    assert!(!networks.read_dir().is_ok_and(|mut entries| entries.next().is_some()));
}

#[test]
fn the_next_build_takes_up_the_bridge() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let build = |step: &str| {
        let context = bench.context("context", [("Dockerfile", &*format!("FROM busybox\nRUN echo {step}\n"))]);
        let _ran = on(&host, bench.rbuild(["build"]).arg(&context)).ok();
        let bridge = |name: &String| name.starts_with("rb-");
        host.census().into_iter().find(bridge).map(|name| host.namespace.enter(|| index_of(&name)).expect("a thread"))
    };
    // Each takes some of the second that the bridge stays.
    let bridges: BTreeSet<Option<String>> = (0..4).map(|step| build(&step.to_string())).collect();
    assert!(bridges.len() < 4, "each build made a bridge of its own: {bridges:?}");
    host.becomes(&before);
}

#[test]
fn a_bridge_stays_as_long_as_it_is_told() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let context = bench.context("context", [("Dockerfile", "FROM busybox\nRUN echo step\n")]);
    let call = |words: &[&str], linger: &str| {
        on(
            &host,
            bench
                .rbuild(words)
                .arg(if words[0] == "build" { context.as_os_str() } else { "true".as_ref() })
                .env("RBUILD_NETWORK_LINGER", linger),
        )
    };
    for words in [&["build", "--no-cache"][..], &["run", "--rm", "busybox"]] {
        let _ran = call(words, "60s").ok();
        let lingering = host.census();
        assert!(lingering.iter().any(|name| name.starts_with("rb-")), "{words:?}: {lingering:?}");
        keepers(&bench).iter().chain(&monitors(&bench)).for_each(|keeper| end(keeper));
        let _swept = on(&host, bench.rbuild(["images"])).ok();
        host.becomes(&before);
        let _ran = call(words, "0s").ok();
        host.becomes(&before);
        let wrong = call(words, "soon");
        assert!(wrong.code != 0 && wrong.stderr.contains("\"soon\" is not a duration"), "{words:?}: {}", wrong.stderr);
        host.becomes(&before);
    }
}

/// The kernel's number of an interface: another one that has its name has another number.
fn index_of(interface: &str) -> String {
    let output = Command::new("ip").args(["-oneline", "link", "show", interface]).output().expect("ip runs");
    String::from_utf8_lossy(&output.stdout).split(':').next().unwrap_or_default().to_owned()
}

#[test]
fn a_killed_build_is_tidied_up_by_its_keeper() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let mut running = running_step(&bench, &host);
    running.kill().expect("it runs");
    running.wait().expect("it ended");
    host.becomes(&before);
}

/// A build whose step runs and has its network.
fn running_step(bench: &Bench, host: &Host) -> Child {
    let context = bench.context("context", [("Dockerfile", "FROM busybox\nRUN sleep 600\n")]);
    let running = start(host, bench.rbuild(["build"]).arg(&context));
    let began = Instant::now();
    while !(host.census().iter().any(|name| name.starts_with("rv-")) && keepers(bench).len() == 1) {
        assert!(began.elapsed() < WAIT, "the step did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

/// Kills a process, and waits until it holds nothing any more.
fn end(pid: &str) {
    assert!(Command::new("kill").args(["-9", pid]).status().expect("kill runs").success());
    let began = Instant::now();
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(began.elapsed() < WAIT, "{pid} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes that keep the network of a build of this store.
fn keepers(bench: &Bench) -> Vec<String> {
    processes(bench, "network-keeper")
}

/// The processes that run containers of this store, or have.
fn monitors(bench: &Bench) -> Vec<String> {
    processes(bench, "container-monitor")
}

fn processes(bench: &Bench, word: &str) -> Vec<String> {
    let store = bench.store();
    let words = |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let entries = Path::new("/proc").read_dir().expect("readable").flatten();
    let pids = entries.filter_map(|one| one.file_name().into_string().ok());
    let is_ours = |text: &str| text.contains(word) && text.contains(&*store.to_string_lossy());
    pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(|pid| is_ours(&words(pid))).collect()
}

#[test]
fn a_build_killed_with_its_keeper_is_tidied_up_by_the_next_command() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let mut running = running_step(&bench, &host);
    keepers(&bench).iter().for_each(|keeper| end(keeper));
    running.kill().expect("it runs");
    running.wait().expect("it ended");
    assert_ne!(host.census(), before, "the bridge cannot go by itself");
    let _images = on(&host, bench.rbuild(["images"])).ok();
    host.becomes(&before);
}

#[test]
fn stores_side_by_side_get_networks_of_their_own() {
    let Some((one, host)) = scene() else { return };
    let Some(two) = Bench::with_busybox() else { return };
    let before = host.census();
    let benches = [&one, &two];
    let running: Vec<_> = benches
        .iter()
        .map(|bench| {
            let file = "FROM busybox\nRUN sleep 1; ip -4 addr show eth0; nc 203.0.113.1 80 </dev/null\n";
            let context = bench.context("context", [("Dockerfile", file)]);
            start(&host, bench.rbuild(["build", "--progress=plain"]).arg(&context))
        })
        .collect();
    let mut addresses = BTreeSet::new();
    for build in running {
        let out = build.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && text.contains("you are 203.0.113.2"), "{text}");
        let line = text.lines().find(|line| line.contains("inet ")).expect("an address");
        addresses.insert(line.split_whitespace().skip_while(|word| *word != "inet").nth(1).expect("it").to_owned());
    }
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    host.becomes(&before);
}

#[test]
fn a_host_that_does_not_forward_gets_another_way_or_a_reason() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    host.forward("0");
    let context = bench.context("context", [("Dockerfile", "FROM busybox\nRUN nc 203.0.113.1 80 </dev/null\n")]);
    let ran = on(&host, bench.rbuild(["build", "--progress=plain"]).arg(&context));
    if ran.code == 0 {
        let _served = ran.says("you are 203.0.113.2");
    } else {
        let _reasons =
            ran.fails(1).says("forwarding is off for the interface eth0").says("slirp4netns").says("--network=host");
    }
    host.becomes(&before);
}

#[test]
fn host_gateway_is_this_machine_seen_from_the_step() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let text = "FROM busybox\nRUN grep gate /etc/hosts && ip route\n";
    let context = bench.context("context", [("Dockerfile", text)]);
    let args = ["build", "--progress=plain", "--add-host", "gate:host-gateway"];
    let ran = on(&host, bench.rbuild(args).arg(&context)).ok();
    let address = ran.stderr.lines().find_map(|line| Some(line.strip_suffix("\tgate")?.rsplit(' ').next()?.to_owned()));
    let address = address.expect("the entry is there");
    assert!(ran.stderr.contains(&format!("default via {address} ")), "{}", ran.stderr);
    let _refused = on(&host, bench.rbuild(args).arg("--network=none").arg(&context)).fails(1).says("out of reach");
    let own = bench.context("own", [("Dockerfile", "FROM busybox\nRUN --network=host grep gate /etc/hosts\n")]);
    let _ran = on(&host, bench.rbuild(args).arg("--allow=network.host").arg(&own)).ok().says("127.0.0.1\tgate");
    host.becomes(&before);
}

#[test]
fn containers_have_addresses_and_leave_nothing() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let script = "hostname; tail -n 1 /etc/hosts; nc 203.0.113.1 80 </dev/null";
    let run = |args: &[&str]| on(&host, bench.rbuild(["run", "--rm"]).args(args));
    let ran = run(&["-h", "web", "busybox", "sh", "-c", script]).ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"web"), "{lines:?}");
    assert!(lines.get(1).is_some_and(|line| line.starts_with("172.24.") && line.ends_with("\tweb")), "{lines:?}");
    assert_eq!(lines.get(2), Some(&"you are 203.0.113.2"), "{lines:?}");
    host.becomes(&before);
    let _refused = run(&["--network", "nowhere", "busybox", "true"]).fails(125).says("network nowhere not found");
    host.becomes(&before);
}
