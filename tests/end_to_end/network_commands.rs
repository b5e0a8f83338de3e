//! `rbuild network …`: what is made, listed, shown, refused and gone.

use serde_json::Value;

use crate::networks::{on, scene};

#[test]
fn networks_are_made_listed_shown_and_removed() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let run = |args: &[&str]| on(&host, bench.rbuild(["network"]).args(args));
    let id = run(&[
        "create",
        "--subnet",
        "10.77.0.0/24",
        "--gateway",
        "10.77.0.254",
        "--ip-range",
        "10.77.0.128/25",
        "--aux-address",
        "router=10.77.0.129",
        "--label",
        "tier=web",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "--attachable",
        "front",
    ])
    .ok()
    .stdout;
    assert_eq!(id.trim().len(), 64, "{id}");
    let _back = run(&["create", "--internal", "--ipv6", "back"]).ok();
    let listed =
        run(&["ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}} {{.IPv6}} {{.Internal}} {{.Labels}}"]).ok().stdout;
    assert_eq!(
        listed,
        "back bridge local true true \nbridge bridge local false false \nfront bridge local false false tier=web\n\
         host host local false false \nnone null local false false \n"
    );
    let table = run(&["ls", "-f", "label=tier"]).ok().stdout;
    assert_eq!(table, format!("NETWORK ID     NAME      DRIVER    SCOPE\n{}   front     bridge    local\n", &id[..12]));
    for (filter, names) in [
        ("type=custom", "back front"),
        ("type=builtin", "bridge host none"),
        ("driver=null", "none"),
        ("name=ron", "front"),
        ("label=tier=db", ""),
        ("name=^front$", "front"),
        ("name=^ron", ""),
        ("dangling=true", "back front"),
        ("dangling=false", "bridge host none"),
    ] {
        let names_of = run(&["ls", "--filter", filter, "--format", "{{.Name}}"]).ok().stdout;
        assert_eq!(names_of.split_whitespace().collect::<Vec<_>>().join(" "), names, "{filter}");
    }
    let shown: Value = serde_json::from_str(&run(&["inspect", &id[..10]]).ok().stdout).unwrap();
    let ipam = serde_json::json!([{"Subnet": "10.77.0.0/24", "IPRange": "10.77.0.128/25", "Gateway": "10.77.0.254",
        "AuxiliaryAddresses": {"router": "10.77.0.129"}}]);
    assert_eq!((&shown[0]["IPAM"]["Config"], &shown[0]["Attachable"]), (&ipam, &Value::Bool(true)));
    assert_eq!(shown[0]["Options"]["com.docker.network.driver.mtu"], "1400");
    let bridge =
        run(&["inspect", "-f", r#"{{index .Options "com.docker.network.bridge.name"}}"#, "bridge"]).ok().stdout;
    assert!(bridge.starts_with("rb-"), "{bridge}");
    // The pool, what belongs to others, and the largest packet are kept to.
    let script = "ip -4 -o addr show eth0; ip route; cat /sys/class/net/eth0/mtu";
    let ran = on(&host, bench.rbuild(["run", "--rm", "--network", "front", "busybox", "sh", "-c", script])).ok().stdout;
    assert!(
        ran.contains("10.77.0.128/24") && ran.contains("default via 10.77.0.254") && ran.ends_with("1400\n"),
        "{ran}"
    );
    assert_eq!(run(&["rm", "front", &id[..12]]).fails(1).says("not found").stdout, "front\n");
    assert_eq!(run(&["prune", "-f"]).ok().stdout, "Deleted Networks:\nback\n\n");
    let asked = run(&["prune"]).ok().says("Nothing was removed");
    assert!(asked.stdout.starts_with("WARNING! This will remove all custom networks"), "{}", asked.stdout);
    assert_eq!(run(&["prune", "-f"]).ok().stdout, "");
    assert_eq!(run(&["ls", "-q"]).ok().stdout.lines().count(), 3, "those that are always there");
    host.becomes(&before);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let Some((bench, host)) = scene() else { return };
    let run = |args: &[&str]| on(&host, bench.rbuild(["network"]).args(args));
    let _front =
        run(&["create", "--subnet", "10.77.0.0/24", "-o", "com.docker.network.bridge.name=br-e2e", "front"]).ok();
    for (args, said) in [
        (&["create", "front"][..], "network with name front already exists"),
        (&["create", "--subnet", "10.77.0.0/25", "x1"], "pool overlaps with other one on this address space"),
        (&["create", "--subnet", "203.0.113.128/25", "x1"], "overlaps 203.0.113.0/24, which is in use"),
        (
            &["create", "--subnet", "10.9.0.0/24", "--gateway", "10.8.0.1", "x1"],
            "no matching subnet for gateway 10.8.0.1",
        ),
        (&["create", "-o", "com.docker.network.bridge.name=br-e2e", "x1"], "networks have same bridge name"),
        (
            &["create", "-o", "com.docker.network.bridge.trusted=1", "x1"],
            "com.docker.network.bridge.trusted is not supported",
        ),
        (&["create", "-d", "overlay", "x1"], "--driver overlay is not supported"),
        (&["create", "-d", "host", "x1"], "only one instance of \"host\" network is allowed"),
        (&["create", "--gateway", "10.8.0.1", "x1"], "every ip-range or gateway must have a corresponding subnet"),
        (&["ls", "--filter", "dangling=maybe"], "invalid value for filter 'dangling'"),
        (&["create", "--config-only", "x1"], "--config-only is not supported"),
        (&["create", "host"], "operation is not permitted on predefined host network"),
        (&["create", "a b"], "invalid network name"),
        (&["rm", "bridge"], "bridge is a pre-defined network and cannot be removed"),
        (&["rm", "nowhere"], "network nowhere not found"),
        (&["inspect", "nowhere"], "network nowhere not found"),
        (&["ls", "--filter", "colour=red"], "invalid filter 'colour'"),
        (&["create", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.255", "x1"], "address already in use: 10.9.0.255"),
        (
            &["create", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.1", "--gateway", "10.9.0.2", "x1"],
            "cannot configure multiple gateways",
        ),
        (
            &["create", "--subnet", "10.9.0.0/24", "--aux-address", "router=10.9.0.1", "x1"],
            "address already in use: 10.9.0.1",
        ),
        (&["ls", "--filter", "dangling"], "bad format of filter (expected name=value): dangling"),
        (&["connect", "front", "nobody"], "no such container: nobody"),
        (&["disconnect", "-f", "front", "nobody"], "no such container: nobody"),
    ] {
        let ran = run(args);
        assert!(ran.code != 0 && ran.stderr.contains(said), "{args:?}: {} {}", ran.code, ran.stderr);
    }
    assert_eq!(run(&["rm", "-f", "nowhere", "front"]).ok().stdout, "front\n");
    assert_eq!(run(&["ls", "-q"]).ok().stdout.lines().count(), 3, "nothing came of what was refused");
}

#[test]
fn options_of_the_driver_are_kept_to() {
    let Some((bench, host)) = scene() else { return };
    let before = host.census();
    let rbuild = |args: &[&str]| on(&host, bench.rbuild(args)).ok().stdout;
    let made =
        ["enable_ip_masquerade=false", "enable_icc=false"].map(|text| format!("com.docker.network.bridge.{text}"));
    let [plain, apart] = made.each_ref().map(String::as_str);
    let _id = rbuild(&["network", "create", "--subnet", "10.77.0.0/24", "-o", plain, "plain"]);
    let prefix = "com.docker.network.container_iface_prefix=web";
    let _id = rbuild(&["network", "create", "--subnet", "10.78.0.0/24", "-o", apart, "-o", prefix, "apart"]);
    // The world knows no way back to an address that is not translated.
    let call = "nc -w 1 203.0.113.1 80 </dev/null || echo nobody";
    assert_eq!(rbuild(&["run", "--rm", "--network", "plain", "busybox", "sh", "-c", call]), "nobody\n");
    host.world(|| {
        let way = ["route", "add", "10.77.0.0/24", "via", "203.0.113.2"];
        let added = std::process::Command::new("ip").args(way).output().expect("ip runs");
        assert!(added.status.success(), "{added:?}");
    });
    let seen = rbuild(&["run", "--rm", "--network", "plain", "busybox", "sh", "-c", call]);
    assert_eq!(seen, "you are 10.77.0.2\n");
    let names = ["run", "--rm", "--network", "apart", "--network", "plain", "busybox", "ls", "/sys/class/net"];
    assert_eq!(rbuild(&names), "eth0\nlo\nweb0\n");
    let one = rbuild(&[
        "run",
        "-d",
        "--network",
        "apart",
        "--ip",
        "10.78.0.9",
        "busybox",
        "nc",
        "-ll",
        "-p",
        "80",
        "-e",
        "echo",
        "reached",
    ]);
    let ask = "nc -w 1 10.78.0.9 80 </dev/null || echo nobody";
    assert_eq!(rbuild(&["run", "--rm", "--network", "apart", "busybox", "sh", "-c", ask]), "nobody\n");
    let _gone = rbuild(&["rm", "-f", one.trim()]);
    host.becomes(&before);
}
