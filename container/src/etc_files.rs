//! The three files every container gets of its own: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//!
//! Pure: what the host's files hold is passed in as bytes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::network::{HostResolver, NetworkChoice, Reachable};

/// The host's own files, where there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFiles {
    /// `/etc/hosts`.
    pub hosts: Option<Vec<u8>>,
    /// How it finds names.
    pub resolver: HostResolver,
}

/// `--dns`, `--dns-search` and `--dns-option`: each replaces the host's lines of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSettings {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; a single `.` means none at all.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A `--dns-search` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid domain")]
pub struct InvalidSearchDomain {
    text: String,
}

/// A search domain as it is typed; `.` says that there is none.
pub fn search_domain(text: &str) -> Result<String, InvalidSearchDomain> {
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        end(bytes.first())
            && end(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let domain = text.trim_end();
    if domain == "." {
        return Ok(domain.to_owned());
    }
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let named = domain.len() < 255 && domain.bytes().any(|byte| byte.is_ascii_alphabetic());
    if named && domain.split('.').all(label) {
        Ok(domain.to_owned())
    } else {
        Err(InvalidSearchDomain { text: text.to_owned() })
    }
}

impl DnsSettings {
    /// Whether nothing was chosen.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One `--add-host NAME:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address.
    pub address: HostAddress,
}

/// What a name of `--add-host` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostAddress {
    /// An address.
    Ip(IpAddr),
    /// This machine, seen from the container (`host-gateway`).
    Gateway,
}

impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Gateway => f.write_str("host-gateway"),
        }
    }
}

impl TryFrom<String> for HostAddress {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "host-gateway" { Ok(Self::Gateway) } else { Ok(Self::Ip(text.parse()?)) }
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

/// An `--add-host` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExtraHost {
    /// Not `NAME:ADDRESS` or `NAME=ADDRESS`.
    #[error("bad format for add-host: {text:?}")]
    Format {
        /// What was given.
        text: String,
    },
    /// The address is none.
    #[error("invalid IP address in add-host: {address:?}")]
    Address {
        /// What was given.
        address: String,
    },
}

impl std::str::FromStr for ExtraHost {
    type Err = InvalidExtraHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = split
            .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace))
            .ok_or_else(|| InvalidExtraHost::Format { text: text.to_owned() })?;
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        let parsed =
            bare.to_owned().try_into().map_err(|_| InvalidExtraHost::Address { address: address.to_owned() })?;
        Ok(Self { name: name.to_owned(), address: parsed })
    }
}

const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// `/etc/hosts`: the host's own with the host's network, Docker's standard names otherwise; then what was added. Names of
/// this machine need its address, as seen from inside.
pub(crate) fn hosts(
    network: &NetworkChoice,
    host: &HostFiles,
    extra: &[ExtraHost],
    gateway: Option<IpAddr>,
) -> Vec<u8> {
    let mut text = match (network, &host.hosts) {
        (NetworkChoice::Host, Some(own)) => own.clone(),
        _ => LOCAL_NAMES.as_bytes().to_vec(),
    };
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    for host in extra {
        let address = match host.address {
            HostAddress::Ip(address) => Some(address),
            HostAddress::Gateway => gateway,
        };
        if let Some(address) = address {
            text.extend_from_slice(format!("{address}\t{}\n", host.name).as_bytes());
        }
    }
    text
}

/// The names of a container in its own files: the one with its domain first, if it has one.
pub(crate) fn own_names(hostname: &str, domain: Option<&str>) -> String {
    domain.map_or_else(|| hostname.to_owned(), |domain| format!("{hostname}.{domain} {hostname}"))
}

/// `/etc/hosts` of a container with addresses of its own: they come last and lead to its name, as Docker writes it.
pub(crate) fn hosts_with_own(
    extra: &[ExtraHost],
    addresses: &[IpAddr],
    hostname: &str,
    gateway: Option<IpAddr>,
) -> Vec<u8> {
    let mut text = hosts(&NetworkChoice::Default, &HostFiles::default(), extra, gateway);
    for address in addresses {
        text.extend_from_slice(format!("{address}\t{hostname}\n").as_bytes());
    }
    text
}

/// The same without the lines that lead from these addresses to its name; whatever else it wrote there stays.
pub(crate) fn hosts_without(text: &[u8], addresses: &[IpAddr], hostname: &str) -> Vec<u8> {
    let own: Vec<String> = addresses.iter().map(|address| format!("{address}\t{hostname}\n")).collect();
    let is_own = |line: &&[u8]| own.iter().any(|own| own.as_bytes() == *line);
    text.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_own(line)).flatten().copied().collect()
}

/// `/etc/resolv.conf` of a container with a name server of its own: that one, and single words are names, too.
pub(crate) fn resolv_conf_with_own(resolver: &HostResolver, server: IpAddr, dns: &DnsSettings) -> Vec<u8> {
    let mut dns = DnsSettings { servers: vec![server], ..dns.clone() };
    if !dns.options.iter().any(|option| option.starts_with("ndots:")) {
        let host = resolver.conf.lines().filter_map(|line| line.trim().strip_prefix("options "));
        if dns.options.is_empty() {
            let kept = host.flat_map(str::split_whitespace).filter(|option| !option.starts_with("ndots:"));
            dns.options = kept.map(str::to_owned).collect();
        }
        dns.options.push("ndots:0".to_owned());
    }
    resolv_conf(resolver, Reachable::NotLoopback, &dns)
}

/// `/etc/hostname`.
pub(crate) fn hostname(name: &str) -> Vec<u8> {
    format!("{name}\n").into_bytes()
}

/// `/etc/resolv.conf`: the host's with the servers in reach, and the kinds of lines replaced that the user gave.
pub(crate) fn resolv_conf(resolver: &HostResolver, reachable: Reachable, dns: &DnsSettings) -> Vec<u8> {
    let own = resolver.resolv_conf(reachable);
    if dns == &DnsSettings::default() {
        return own.into_bytes();
    }
    let mut text = String::new();
    for line in own.lines() {
        let replaced = match line.split_whitespace().next() {
            Some("nameserver") => !dns.servers.is_empty(),
            Some("search" | "domain") => !dns.search.is_empty(),
            Some("options") => !dns.options.is_empty(),
            _ => false,
        };
        if !replaced {
            text.push_str(line);
            text.push('\n');
        }
    }
    if !dns.search.is_empty() && dns.search != ["."] {
        text.push_str(&format!("search {}\n", dns.search.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_domains_are_names() {
        for (text, domain) in [(".", "."), ("a.b", "a.b"), ("corp", "corp"), ("a-1.example.", "a-1.example")] {
            assert_eq!(search_domain(text).as_deref(), Ok(domain), "{text:?}");
        }
        for text in ["", "..", "1.2", "a..b", "-a.b", "a b", "a\nnameserver 192.0.2.1", &"a.".repeat(128)] {
            let error = search_domain(text).unwrap_err();
            assert_eq!(error.to_string(), format!("{text:?} is not a valid domain"));
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn hosts_follow_the_network() {
        let host = HostFiles { hosts: Some(b"10.0.0.1 box".to_vec()), ..HostFiles::default() };
        let extra = ["db:10.0.0.9", "six:[fe80::1]", "s=::2", "here:host-gateway"].map(|text| text.parse().unwrap());
        insta::assert_snapshot!(text(hosts(&NetworkChoice::Host, &host, &extra, Some("192.0.2.1".parse().unwrap()))), @r"
        10.0.0.1 box
        10.0.0.9	db
        fe80::1	six
        ::2	s
        192.0.2.1	here
        ");
        let none = text(hosts(&NetworkChoice::None, &host, &[], None));
        assert!(none.starts_with("127.0.0.1\tlocalhost\n::1\t") && !none.contains("box"));
        let default = text(hosts(&NetworkChoice::Default, &host, &[], None));
        assert_eq!(default, none, "a network of its own has nothing of the host's");
        let own = text(hosts_with_own(&[], &["172.24.0.2".parse().unwrap()], "web", None));
        assert_eq!(own, format!("{default}172.24.0.2\tweb\n"));
        assert!(
            text(hosts(&NetworkChoice::Host, &HostFiles::default(), &[], None)).starts_with("127.0.0.1\tlocalhost")
        );
    }

    #[test]
    fn lines_of_addresses_that_are_gone_go_and_no_others() {
        let text_of = |addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let extra = ["db:172.24.0.2".parse().unwrap()];
            let mut all = hosts_with_own(&extra, &addresses, "web", None);
            all.extend(b"172.24.0.3\tmine");
            all
        };
        let left = hosts_without(&text_of(&["172.24.0.2", "172.24.4.2"]), &["172.24.0.2".parse().unwrap()], "web");
        assert_eq!(text(left), text(text_of(&["172.24.4.2"])));
    }

    #[test]
    fn extra_hosts_need_a_name_and_an_address() {
        for (bad, want) in [
            ("db", "bad format for add-host: \"db\""),
            (":1.2.3.4", "bad format for add-host: \":1.2.3.4\""),
            ("a b:1.2.3.4", "bad format for add-host: \"a b:1.2.3.4\""),
            ("db:1.2.3", "invalid IP address in add-host: \"1.2.3\""),
        ] {
            assert_eq!(bad.parse::<ExtraHost>().unwrap_err().to_string(), want);
        }
        let six: ExtraHost = "db:::1".parse().unwrap();
        assert_eq!(six.address.to_string(), "::1");
    }

    #[test]
    fn an_own_name_server_is_the_only_one() {
        let host = HostResolver {
            conf: "search corp\nnameserver 192.0.2.1\noptions edns0 ndots:5\n".to_owned(),
            upstream: None,
        };
        let own = "127.0.0.11".parse().unwrap();
        let dns = DnsSettings::default();
        assert_eq!(
            text(resolv_conf_with_own(&host, own, &dns)),
            "search corp\nnameserver 127.0.0.11\noptions edns0 ndots:0\n"
        );
        let dns = DnsSettings {
            servers: vec!["192.0.2.9".parse().unwrap()],
            search: vec!["a.b".into()],
            options: vec!["ndots:3".into()],
        };
        assert_eq!(
            text(resolv_conf_with_own(&host, own, &dns)),
            "search a.b\nnameserver 127.0.0.11\noptions ndots:3\n"
        );
    }

    #[test]
    fn resolver_settings_replace_lines_of_their_kind() {
        let own = "# made by hand\nsearch example.org\nnameserver 192.0.2.1\noptions ndots:2\n".to_owned();
        let host = HostResolver { conf: own.clone(), upstream: None };
        let all = Reachable::All;
        assert_eq!(text(resolv_conf(&host, all, &DnsSettings::default())), own);
        let dns = DnsSettings { servers: vec!["192.0.2.7".parse().unwrap()], ..DnsSettings::default() };
        insta::assert_snapshot!(text(resolv_conf(&host, all, &dns)), @r"
        # made by hand
        search example.org
        options ndots:2
        nameserver 192.0.2.7
        ");
        let dns = DnsSettings { search: vec![".".into()], options: vec!["rotate".into()], ..DnsSettings::default() };
        insta::assert_snapshot!(text(resolv_conf(&host, all, &dns)), @r"
        # made by hand
        nameserver 192.0.2.1
        options rotate
        ");
    }
}
