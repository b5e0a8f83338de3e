//! The rules as `nft` reads them back from the kernel, in a namespace of the test's own.

use super::*;
use crate::network::Namespace;

fn subnets() -> Vec<Subnet> {
    vec!["172.24.0.0/22".parse().unwrap(), "fd00:1::/64".parse().unwrap()]
}

/// What the kernel has after this was done in an empty namespace; `None` where that cannot be seen.
fn listed(work: impl FnOnce() + Send) -> Option<String> {
    let program = PLACES.iter().find(|place| Path::new(place).exists());
    let (Some(program), true) = (program, rustix::process::geteuid().is_root()) else {
        eprintln!("SKIPPED: needs root and nft");
        return None;
    };
    let namespace = Namespace::new().unwrap();
    let text = namespace.enter(|| {
        work();
        // Numbers in place of names that depend on the version.
        Command::new(program).args(["-nn", "list", "ruleset"]).output().unwrap().stdout
    });
    Some(String::from_utf8(text.unwrap()).unwrap())
}

#[test]
fn a_plain_network_masquerades_and_lets_answers_in() {
    let rules = Rules {
        table: "rbuild-0123",
        bridge: "rb-0123",
        subnets: &subnets()[..1],
        reach: Reach::Outside,
        source: Source::Host,
        published: &[],
    };
    // Twice: the second ones replace the first.
    let Some(text) = listed(|| (0..2).for_each(|_| apply(&rules).unwrap())) else { return };
    insta::assert_snapshot!(text, @r#"
    table inet rbuild-0123 {
    	chain forward {
    		type filter hook forward priority 0; policy accept;
    		oifname "rb-0123" iifname != "rb-0123" ct state 0x2,0x4 accept
    		oifname "rb-0123" iifname != "rb-0123" drop
    	}

    	chain postrouting {
    		type nat hook postrouting priority 100; policy accept;
    		ip saddr 172.24.0.0/22 oifname != "rb-0123" masquerade
    	}
    }
    "#);
    let own = Rules { source: Source::Own, ..rules };
    let text = listed(|| apply(&own).unwrap()).unwrap_or_default();
    assert!(text.contains("chain postrouting") && !text.contains("masquerade"), "{text}");
    assert_eq!(listed(|| apply(&own).and_then(|()| remove("rbuild-0123")).unwrap()).unwrap_or_default(), "");
}

#[test]
fn published_ports_are_maps() {
    let publish = |protocol, host: &str, inside: &str| Published {
        protocol,
        host: host.parse().unwrap(),
        inside: inside.parse().unwrap(),
    };
    let published = [
        publish(Protocol::Tcp, "0.0.0.0:8080", "172.24.0.3:80"),
        publish(Protocol::Udp, "192.0.2.1:443", "172.24.0.3:443"),
        publish(Protocol::Tcp, "[::]:8080", "[fd00:1::3]:80"),
        publish(Protocol::Tcp, "[fd00::9]:8081", "[fd00:1::3]:81"),
    ];
    let rules = Rules {
        table: "t",
        bridge: "b",
        subnets: &subnets(),
        reach: Reach::Internal,
        source: Source::Host,
        published: &published,
    };
    let Some(text) = listed(|| apply(&rules).unwrap()) else { return };
    insta::assert_snapshot!(text, @r#"
    table inet t {
    	map bound4 {
    		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    		elements = { 192.0.2.1 . 17 . 443 : 172.24.0.3 . 443 }
    	}

    	map bound6 {
    		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
    		elements = { fd00::9 . 6 . 8081 : fd00:1::3 . 81 }
    	}

    	map everywhere4 {
    		type inet_proto . inet_service : ipv4_addr . inet_service
    		elements = { 6 . 8080 : 172.24.0.3 . 80 }
    	}

    	map everywhere6 {
    		type inet_proto . inet_service : ipv6_addr . inet_service
    		elements = { 6 . 8080 : fd00:1::3 . 80 }
    	}

    	chain prerouting {
    		type nat hook prerouting priority -100; policy accept;
    		iifname "b" return
    		dnat ip to ip daddr . meta l4proto . th dport map @bound4
    		dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
    		meta nfproto 2 fib daddr type 2 dnat ip to meta l4proto . th dport map @everywhere4
    		meta nfproto 10 fib daddr type 2 dnat ip6 to meta l4proto . th dport map @everywhere6
    	}

    	chain output {
    		type nat hook output priority -100; policy accept;
    		ip daddr != 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @bound4
    		ip6 daddr != ::1 dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
    		ip daddr != 127.0.0.0/8 fib daddr type 2 dnat ip to meta l4proto . th dport map @everywhere4
    		ip6 daddr != ::1 fib daddr type 2 dnat ip6 to meta l4proto . th dport map @everywhere6
    	}

    	chain forward {
    		type filter hook forward priority 0; policy accept;
    		oifname "b" iifname != "b" ct state 0x2,0x4 accept
    		oifname "b" iifname != "b" ct status 0x20 accept
    		oifname "b" iifname != "b" drop
    		iifname "b" oifname != "b" drop
    	}

    	chain postrouting {
    		type nat hook postrouting priority 100; policy accept;
    	}
    }
    "#);
}

#[test]
fn thousands_of_ports_are_one_transaction() {
    let port = |number: u16| Published {
        protocol: Protocol::Tcp,
        host: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), number),
        inside: SocketAddr::new(Ipv4Addr::new(172, 24, 0, 2).into(), number),
    };
    let published: Vec<Published> = (10_000..20_000).map(port).collect();
    let rules = Rules {
        table: "t",
        bridge: "b",
        subnets: &subnets(),
        reach: Reach::Outside,
        source: Source::Host,
        published: &published,
    };
    let Some(text) = listed(|| apply(&rules).unwrap()) else { return };
    assert_eq!(text.matches("6 . ").count(), published.len());
}

#[test]
fn questions_for_names_are_led_to_their_server() {
    let Some(text) = listed(|| redirect_names(Ipv4Addr::new(127, 0, 0, 11), 5300, 5301).unwrap()) else { return };
    insta::assert_snapshot!(text, @r"
    table ip rbuild-names {
    	chain output {
    		type nat hook output priority -100; policy accept;
    		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:5300
    		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:5301
    	}
    }
    ");
}

#[test]
fn errors_say_what_cannot_be_done_without_whom() {
    for (error, words) in [
        (
            FirewallError::Missing,
            "the program nft is not installed, and without it nobody can tell what the firewall does with a network",
        ),
        (FirewallError::Run(io::ErrorKind::PermissionDenied.into()), "cannot run nft"),
        (
            FirewallError::Kernel(io::ErrorKind::Unsupported.into()),
            "cannot speak to the kernel's packet filter, nftables",
        ),
        (FirewallError::Refused { message: "syntax error".to_owned() }, "nft refused the rules: syntax error"),
    ] {
        assert_eq!(error.to_string(), words);
    }
}
