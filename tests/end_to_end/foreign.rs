//! Beside what others have on the host: nothing of theirs is changed, and a second store disturbs nobody.
//!
//! The host is a network namespace of the test's own, with rules, chains, interfaces, routes and settings that somebody else made
//! there, some of them in places and under names where rbuild works, too.

use std::process::Command;

use rbuild_executor::network::Namespace;

use crate::bench::Bench;
use crate::networks::{WAIT, on, scene, start};

/// What somebody else has set up. The table's name begins as those of rbuild do, and so does the bridge's.
const SETUP: &str = "
set -e
nft -f - <<RULES
table inet rbuild-of-somebody-else {
    map ports { type inet_service : verdict; elements = { 4711 : accept } }
    chain prerouting { type nat hook prerouting priority dstnat; policy accept; tcp dport 4711 redirect to :4712; }
    chain forward { type filter hook forward priority filter - 1; policy accept; tcp dport vmap @ports; ct state invalid drop; }
    chain unused { ip saddr 198.51.100.0/24 counter drop; }
}
table ip nat {
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip saddr 198.51.100.0/24 masquerade; }
    chain DOCKER { return; }
}
table ip filter {
    chain FORWARD { type filter hook forward priority filter; policy accept; jump DOCKER-USER; }
    chain DOCKER-USER { return; }
}
RULES
ip link add docker0 type bridge
ip addr add 198.51.100.1/24 dev docker0
ip link set docker0 up
ip link add rb-somebody type bridge
ip link add left type veth peer name right
ip link set left master rb-somebody
ip route add blackhole 192.0.2.0/24
echo 1 > /proc/sys/net/ipv4/conf/docker0/route_localnet
echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
if command -v iptables-legacy > /dev/null && iptables-legacy -t nat -N OTHERS 2> /dev/null; then
    iptables-legacy -t nat -A OTHERS -s 198.51.100.7 -j RETURN
fi
";

/// All of that, and everything else that can be set for the host; no counters, no times.
const TAKE: &str = "
nft -s list ruleset | sed 's/counter packets [0-9]* bytes [0-9]*/counter/'
iptables-legacy-save 2> /dev/null | sed 's/\\[[0-9:]*\\]//; /^#/d'
ip -details -oneline link | sed 's/ [a-z_]*_timer *[0-9.]*//g; s/qlen.*//'
ip -oneline address | sed 's/valid_lft.*//'
ip route show table all
ip -6 route show table all
ip rule
find /proc/sys/net -type f -perm -400 | grep -vE 'nf_conntrack_count|route/flush|/rb-[0-9a-f]{12}/|/rv-[0-9a-z]*/' | sort | while read -r file; do
    echo \"$file $(tr '\\n\\t' '  ' < \"$file\" 2> /dev/null)\"
done
";

fn shell(host: &Namespace, script: &str) -> String {
    let run = || Command::new("sh").args(["-c", script]).output().expect("a shell");
    let output = host.enter(run).expect("a thread");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What is there without what is rbuild's own.
fn of_others(taken: &str) -> Vec<String> {
    let mut own = false;
    let mut lines = Vec::new();
    for line in taken.lines() {
        // A table of rbuild's ends with the next line that is not indented.
        if line.starts_with("table inet rbuild-") && !line.contains("somebody") {
            own = true;
        }
        let named = line.contains("rb-") && !line.contains("rb-somebody") || line.contains("rv-");
        if !own && !named {
            lines.push(line.to_owned());
        }
        if own && line == "}" {
            own = false;
        }
    }
    lines
}

#[track_caller]
fn same(before: &str, after: &str) {
    let (before, after) = (of_others(before), of_others(after));
    let changed: Vec<&String> = before
        .iter()
        .filter(|line| !after.contains(line))
        .chain(after.iter().filter(|line| !before.contains(line)))
        .collect();
    assert!(before == after, "changed: {changed:#?}");
}

#[test]
fn rules_interfaces_routes_and_settings_of_others_stay_as_they_are() {
    let Some((one, host)) = scene() else { return };
    let Some(two) = Bench::with_busybox() else { return };
    let namespace = &host.namespace;
    let _made = shell(namespace, SETUP);
    let before = shell(namespace, TAKE);
    assert!(before.contains("rbuild-of-somebody-else") && before.contains("net/ipv4/ip_forward"), "{before}");

    let rbuild = |bench: &Bench, args: &[&str]| on(&host, bench.rbuild(args)).ok();
    let _made = rbuild(&one, &["network", "create", "--ipv6", "front"]);
    let serve = ["busybox", "sh", "-c", "busybox nc -ll -p 80 -e echo from inside"];
    let web = ["run", "-d", "--name=web", "--network=front", "-p", "8080:80"];
    let _web = rbuild(&one, &[&web[..], &serve].concat());
    let _web = rbuild(&two, &[&["run", "-d", "--name=web", "-p", "8081:80"][..], &serve].concat());
    same(&before, &shell(namespace, TAKE));
    let answer = |port: u16| {
        // It listens a moment after it was started.
        let script = format!(
            "for i in $(seq 100); do said=$(nc -w 5 127.0.0.1 {port} < /dev/null); [ -z \"$said\" ] || break; sleep 0.1; done; echo $said"
        );
        let call = two.rbuild(["run", "--rm", "--network=host", "busybox", "sh", "-c", &script]);
        on(&host, call).ok().stdout
    };
    assert_eq!((answer(8080).as_str(), answer(8081).as_str()), ("from inside\n", "from inside\n"));

    // One of the two goes, and builds, and sweeps: the other's container is reached as before.
    let _gone = rbuild(&one, &["rm", "-f", "web"]);
    let _gone = rbuild(&one, &["network", "rm", "front"]);
    let context = one.context("context", [("Dockerfile", "FROM busybox\nRUN nc 203.0.113.1 80 </dev/null\n")]);
    let mut killed = start(&host, one.rbuild(["run", "--rm", "-p", "8082:80", "busybox", "sleep", "1000"]));
    std::thread::sleep(std::time::Duration::from_millis(700));
    killed.kill().expect("it runs");
    killed.wait().expect("it ended");
    let _built = on(&host, one.rbuild(["build", "--progress=plain"]).arg(&context)).ok().says("you are 203.0.113.2");
    let _pruned = rbuild(&one, &["system", "prune", "-af", "--volumes"]);
    assert_eq!(answer(8081), "from inside\n");
    same(&before, &shell(namespace, TAKE));

    let _gone = rbuild(&two, &["rm", "-f", "web"]);
    let begin = std::time::Instant::now();
    while shell(namespace, TAKE) != before {
        // The bridge of the last container stays for a second; then it is byte by byte what it was.
        if begin.elapsed() > WAIT {
            assert_eq!(shell(namespace, TAKE), before);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
