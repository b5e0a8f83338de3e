//! `/etc/resolv.conf` and `/etc/hosts` as a `RUN` step sees them. They are mounted for the step and never in its layer.

use std::net::IpAddr;

/// Name servers that stand in when the host's are out of reach from a sandbox (Docker's choice).
const PUBLIC_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Whether the sandbox can reach the host's loopback addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It shares the host's network.
    HostLoopback,
    /// It does not.
    OwnLoopback,
}

/// Makes `/etc/resolv.conf` from the host's: name servers on loopback are dropped when they cannot be reached.
pub(super) fn resolv_conf(host: &str, reach: Reach) -> String {
    let (mut kept, mut servers) = (String::new(), 0);
    for line in host.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") {
            let address =
                words.next().and_then(|word| word.split('%').next()).and_then(|word| word.parse::<IpAddr>().ok());
            match address {
                Some(address) if reach == Reach::OwnLoopback && address.is_loopback() => continue,
                Some(_) => servers += 1,
                None => continue,
            }
        }
        kept.push_str(line);
        kept.push('\n');
    }
    if servers == 0 {
        for server in PUBLIC_SERVERS {
            kept.push_str(&format!("nameserver {server}\n"));
        }
    }
    kept
}

/// Makes `/etc/hosts` as BuildKit does, with the step's host name and `--add-host` entries.
pub(super) fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    );
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_name_servers_are_replaced() {
        let host = "search corp\nnameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(resolv_conf(host, Reach::HostLoopback), host);
        assert_eq!(
            resolv_conf(host, Reach::OwnLoopback),
            "search corp\noptions edns0\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        assert_eq!(resolv_conf("nameserver 10.0.0.1\n", Reach::OwnLoopback), "nameserver 10.0.0.1\n");
        assert_eq!(resolv_conf("nameserver fe80::1%eth0\n", Reach::OwnLoopback), "nameserver fe80::1%eth0\n");
    }

    #[test]
    fn added_hosts_come_last() {
        let text = hosts("buildkitsandbox", &[("db".to_owned(), "10.1.2.3".to_owned())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost buildkitsandbox\n"));
        assert!(text.ends_with("\n10.1.2.3\tdb\n"));
    }
}
