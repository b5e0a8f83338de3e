//! Host names to addresses, without the C library: a static program must not enter NSS.
//!
//! Order: literal addresses, `/etc/hosts`, `localhost` (RFC 6761), then the name servers of `resolv.conf` with its
//! search list, `ndots`, `timeout` and `attempts`; servers in the file's order. UDP first, TCP when the answer does not
//! fit. No mDNS, no `nsswitch.conf`. Addresses are kept as long as their records say, at most a minute.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::dns::{self, Answer};
use super::location::{Origin, is_loopback};

/// Where names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Names that need no server: `/etc/hosts`.
    pub hosts: PathBuf,
    /// Which servers to ask: `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The port that the servers listen on.
    pub port: u16,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into(), port: 53 }
    }
}

/// A name without addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The servers say that there is no such name, or that it has no address.
    #[error("no such host: {host}")]
    NotFound {
        /// The name.
        host: String,
    },
    /// No server gave an answer.
    #[error("cannot look up {host}: {reason}")]
    NoAnswer {
        /// The name.
        host: String,
        /// What the last server did.
        reason: String,
    },
    /// Not a name that can be asked for.
    #[error("{host:?} is not a host name")]
    NotAName {
        /// What was given.
        host: String,
    },
}

/// What `resolv.conf` says (resolv.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    pub(super) ndots: usize,
    pub(super) timeout: Duration,
    pub(super) attempts: usize,
}

impl ResolvConf {
    pub(super) fn parse(text: &str) -> Self {
        let mut conf =
            Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) cannot be kept in an address; such a server is left out.
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.servers.truncate(3);
        if conf.servers.is_empty() {
            conf.servers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u64>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30)),
            "attempts" => self.attempts = value.clamp(1, 5) as usize,
            _ => {}
        }
    }

    /// The full names to ask for, in order.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(rooted) = host.strip_suffix('.') {
            return vec![format!("{rooted}.")];
        }
        let plain = format!("{host}.");
        let searched = self.search.iter().map(|domain| format!("{host}.{}.", domain.trim_matches('.')));
        if host.matches('.').count() >= self.ndots {
            std::iter::once(plain).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(plain.clone())).collect()
        }
    }
}

/// The addresses that `/etc/hosts` gives a name.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Looks names up as its [`DnsSettings`] say.
#[derive(Debug)]
pub(super) struct StubResolver {
    settings: DnsSettings,
    known: Mutex<BTreeMap<String, (Instant, Vec<IpAddr>)>>,
}

impl StubResolver {
    pub(super) fn new(settings: DnsSettings) -> Self {
        Self { settings, known: Mutex::default() }
    }

    /// All addresses of a host, alternating between families, IPv6 first.
    pub(super) fn lookup(&self, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, ureq::Error> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let hosts = std::fs::read_to_string(&self.settings.hosts).unwrap_or_default();
        let listed = in_hosts(&hosts, &name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        if is_loopback(&name) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Some((until, addresses)) = self.known.lock().expect("no panic while held").get(&name)
            && *until > Instant::now()
        {
            return Ok(addresses.clone());
        }
        let (addresses, ttl) = self.ask(host, deadline)?;
        let until = Instant::now() + ttl.min(Duration::from_secs(60));
        self.known.lock().expect("no panic while held").insert(name, (until, addresses.clone()));
        Ok(addresses)
    }

    fn ask(&self, host: &str, deadline: Instant) -> Result<(Vec<IpAddr>, Duration), ureq::Error> {
        let conf = ResolvConf::parse(&std::fs::read_to_string(&self.settings.resolv_conf).unwrap_or_default());
        let mut trouble = None;
        for candidate in conf.candidates(host) {
            let name =
                Name::from_utf8(&candidate).map_err(|_| other(ResolveError::NotAName { host: host.to_owned() }))?;
            match dns::query(&name, &conf, self.settings.port, deadline)? {
                Answer::Addresses { addresses, ttl } => return Ok((interleave(addresses), ttl)),
                Answer::Nothing => {}
                Answer::Failed(reason) => trouble = Some(reason),
            }
        }
        let host = host.to_owned();
        Err(other(match trouble {
            Some(reason) => ResolveError::NoAnswer { host, reason },
            None => ResolveError::NotFound { host },
        }))
    }
}

fn other(error: ResolveError) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// IPv6, IPv4, IPv6, … (RFC 8305 §4).
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let mut out = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let before = out.len();
        out.extend(six.next());
        out.extend(four.next());
        if out.len() == before {
            return out;
        }
    }
}

impl Resolver for StubResolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let origin = Origin::of(uri).ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let limit = if timeout.after.is_not_happening() { Duration::from_secs(30) } else { *timeout.after };
        let found = self.lookup(&origin.host, Instant::now() + limit)?;
        let mut out = self.empty();
        for address in found.into_iter().take(16) {
            out.push(SocketAddr::new(address, origin.port));
        }
        if out.is_empty() {
            return Err(other(ResolveError::NotFound { host: origin.host }));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_manual_says() {
        let conf = ResolvConf::parse(
            "# made by x\nnameserver 10.0.0.1 # first\nnameserver bad\nnameserver fd00::1\nnameserver fe80::1%eth0\n\
             domain old.example\nsearch a.example b.example.\noptions ndots:2 timeout:3 attempts:99 rotate edns0\n",
        );
        assert_eq!(conf.servers, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (2, Duration::from_secs(3), 5));
        assert_eq!(conf.candidates("r"), ["r.a.example.", "r.b.example.", "r."]);
        assert_eq!(conf.candidates("r.x.y"), ["r.x.y.", "r.x.y.a.example.", "r.x.y.b.example."]);
        assert_eq!(conf.candidates("r.x.y."), ["r.x.y."]);
        assert_eq!(ResolvConf::parse("").servers, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    #[test]
    fn hosts_come_before_servers() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost\n10.1.1.1  reg.example Reg # c\n::5 reg.example\n#10.1.1.2 reg\n")
            .unwrap();
        let resolver = StubResolver::new(DnsSettings { hosts, resolv_conf: dir.path().join("none"), port: 1 });
        let lookup = |host: &str| resolver.lookup(host, Instant::now() + Duration::from_secs(2)).unwrap();
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(lookup("REG.example"), addresses(&["10.1.1.1", "::5"]));
        assert_eq!(lookup("reg"), addresses(&["10.1.1.1"]));
        assert_eq!(lookup("localhost"), addresses(&["127.0.0.1"]));
        assert_eq!(lookup("x.localhost"), addresses(&["127.0.0.1", "::1"]));
        assert_eq!(lookup("192.0.2.1"), addresses(&["192.0.2.1"]));
        assert_eq!(lookup("2001:db8::1"), addresses(&["2001:db8::1"]));
    }

    #[test]
    fn families_alternate() {
        let list = ["10.0.0.1", "10.0.0.2", "::1", "10.0.0.3"].map(|text| text.parse().unwrap());
        let texts: Vec<String> = interleave(list.to_vec()).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }
}
