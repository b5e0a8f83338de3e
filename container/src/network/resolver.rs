//! `/etc/resolv.conf` of sandboxes: the host's, with the name servers that can be reached from inside.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// Name servers that stand in when none of the host's is in reach (Docker's choice).
const PUBLIC_SERVERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// Which of the host's name servers a sandbox can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachable {
    /// All: it shares the host's network.
    All,
    /// Those that are not on loopback.
    NotLoopback,
    /// None, but it has this one.
    Only(IpAddr),
}

/// How the host finds names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostResolver {
    /// Its `/etc/resolv.conf`; empty where it has none.
    pub conf: String,
    /// What a local resolver asks in turn: systemd-resolved's own file.
    pub upstream: Option<String>,
}

impl HostResolver {
    /// Reads the host's files. Bytes that are no text are replaced: they mean nothing there.
    pub fn read() -> Self {
        let text = |path| fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self { conf: text("/etc/resolv.conf").unwrap_or_default(), upstream: text("/run/systemd/resolve/resolv.conf") }
    }

    /// The file for a sandbox: the host's lines with the name servers that it can reach. Where those are all on loopback, what
    /// they ask in turn is taken, as Docker does with systemd-resolved.
    pub fn resolv_conf(&self, reachable: Reachable) -> String {
        if reachable == Reachable::All && !servers(&self.conf).is_empty() {
            return self.conf.clone();
        }
        let mut kept = String::new();
        for line in self.conf.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("nameserver") {
                let usable = match (reachable, words.next().and_then(server)) {
                    (Reachable::NotLoopback, Some(address)) => !address.is_loopback(),
                    _ => false,
                };
                if !usable {
                    continue;
                }
            }
            kept.push_str(line);
            kept.push('\n');
        }
        if servers(&kept).is_empty() {
            for server in self.stand_ins(reachable) {
                kept.push_str(&format!("nameserver {server}\n"));
            }
        }
        kept
    }

    /// Those whom this machine asks, for whoever asks them from its own network; zones are left out.
    pub(crate) fn name_servers(&self) -> Vec<IpAddr> {
        let local = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let found: Vec<IpAddr> = servers(&self.conf).into_iter().filter(|address| !local(address)).collect();
        if found.is_empty() { PUBLIC_SERVERS.to_vec() } else { found }
    }

    fn stand_ins(&self, reachable: Reachable) -> Vec<IpAddr> {
        if let Reachable::Only(server) = reachable {
            return vec![server];
        }
        let mut upstream = match reachable {
            Reachable::NotLoopback => servers(self.upstream.as_deref().unwrap_or_default()),
            _ => Vec::new(),
        };
        upstream.retain(|address| !address.is_loopback());
        if upstream.is_empty() { PUBLIC_SERVERS.to_vec() } else { upstream }
    }
}

/// The address of a name server, a zone behind it left out.
fn server(word: &str) -> Option<IpAddr> {
    word.split('%').next()?.parse().ok()
}

fn servers(conf: &str) -> Vec<IpAddr> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") { server(words.next()?) } else { None }
    };
    conf.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_name_servers_are_replaced() {
        let conf = |host: &str, upstream: Option<&str>, reachable| {
            HostResolver { conf: host.to_owned(), upstream: upstream.map(str::to_owned) }.resolv_conf(reachable)
        };
        let host = "search corp\nnameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(conf(host, None, Reachable::All), host);
        assert_eq!(
            conf(host, None, Reachable::NotLoopback),
            "search corp\noptions edns0\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        let upstream = "nameserver 127.0.0.1\nnameserver 192.0.2.53\nsearch other\n";
        assert_eq!(
            conf(host, Some(upstream), Reachable::NotLoopback),
            "search corp\noptions edns0\nnameserver 192.0.2.53\n"
        );
        let slirp = Reachable::Only("10.0.2.3".parse().unwrap());
        assert_eq!(conf(host, Some(upstream), slirp), "search corp\noptions edns0\nnameserver 10.0.2.3\n");
        let own = "nameserver 10.0.0.1\n";
        assert_eq!(conf(own, Some(upstream), Reachable::NotLoopback), own);
        let zone = "nameserver fe80::1%eth0\n";
        assert_eq!(conf(zone, None, Reachable::NotLoopback), zone);
        let asked = HostResolver { conf: format!("{host}{zone}"), upstream: None }.name_servers();
        assert_eq!(asked, ["127.0.0.53".parse::<IpAddr>().unwrap()], "from the host's network loopback is in reach");
        assert_eq!(conf("", None, Reachable::All), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }
}
