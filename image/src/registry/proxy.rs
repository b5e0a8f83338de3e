//! Which proxy a request goes through: the meaning of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, given as data.
//!
//! The rules are those of Go's `httpproxy`, which Docker follows: loopback never goes through a proxy.

use std::net::IpAddr;

use super::location::Origin;

/// Proxies, as the environment names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// For plain HTTP: `http://user:password@host:port`.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Hosts that are reached directly, joined by commas: `example.com` (with all below it), `.example.com` (only what
    /// is below), `host:port`, addresses, `10.0.0.0/8`, `*`.
    pub no_proxy: String,
}

impl ProxySettings {
    /// The proxy for this origin, if any.
    pub(super) fn choose(&self, origin: &Origin) -> Option<&str> {
        let proxy = if origin.tls { &self.https } else { &self.http };
        let proxy = proxy.as_deref().map(str::trim).filter(|text| !text.is_empty())?;
        let direct = origin.is_loopback() || self.no_proxy.split(',').any(|rule| bypasses(rule, origin));
        (!direct).then_some(proxy)
    }
}

fn bypasses(rule: &str, origin: &Origin) -> bool {
    let rule = rule.trim().to_ascii_lowercase();
    if rule.is_empty() {
        return false;
    }
    if rule == "*" {
        return true;
    }
    let address: Option<IpAddr> = origin.host.parse().ok();
    if let Some((network, length)) = rule.split_once('/') {
        return match (address, network.parse(), length.parse()) {
            (Some(address), Ok(network), Ok(length)) => within(address, network, length),
            _ => false,
        };
    }
    let (host, port) = split_port(&rule);
    if port.is_some_and(|port| port != origin.port) {
        return false;
    }
    if let Some(address) = address {
        return host.parse() == Ok(address);
    }
    let name = origin.host.trim_end_matches('.');
    let below = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
        Some(suffix) => below(suffix),
        None => name == host || below(host),
    }
}

fn split_port(rule: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = rule.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match rule.split_once(':') {
        Some((host, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (rule, None),
        },
        _ => (rule, None),
    }
}

fn within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let shares = |a: u128, b: u128, bits: u32| length <= bits && (a ^ b).checked_shr(bits - length).unwrap_or(0) == 0;
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => shares(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => shares(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_scheme_chooses_the_proxy_and_loopback_needs_none() {
        let settings =
            ProxySettings { http: Some("http://p:1".into()), https: Some("http://p:2".into()), ..Default::default() };
        assert_eq!(settings.choose(&origin("http://r.example/")), Some("http://p:1"));
        assert_eq!(settings.choose(&origin("https://r.example/")), Some("http://p:2"));
        for local in ["http://127.0.0.1:5000/", "https://localhost/", "http://[::1]:5000/"] {
            assert_eq!(settings.choose(&origin(local)), None, "{local}");
        }
        assert_eq!(ProxySettings::default().choose(&origin("https://r.example/")), None);
    }

    #[test]
    fn no_proxy_rules() {
        for (rule, url, direct) in [
            ("*", "https://r.example/", true),
            ("r.example", "https://r.example/", true),
            ("example", "https://r.example/", true),
            (".example", "https://r.example/", true),
            (".r.example", "https://r.example/", false),
            ("*.example", "https://r.example/", true),
            ("xample", "https://r.example/", false),
            ("R.EXAMPLE", "https://r.example/", true),
            ("r.example:443", "https://r.example/", true),
            ("r.example:444", "https://r.example/", false),
            ("a, r.example ,b", "https://r.example/", true),
            ("", "https://r.example/", false),
            ("10.1.2.3", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("11.0.0.0/8", "https://10.1.2.3/", false),
            ("0.0.0.0/0", "https://10.1.2.3/", true),
            ("10.0.0.0/33", "https://10.1.2.3/", false),
            ("10.0.0.0/8", "https://r.example/", false),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("[fd12::1]:443", "https://[fd12::1]/", true),
            ("fd12::1", "https://[fd12::1]/", true),
        ] {
            let settings = ProxySettings { https: Some("http://p".into()), no_proxy: rule.into(), http: None };
            assert_eq!(settings.choose(&origin(url)).is_none(), direct, "{rule} {url}");
        }
    }
}
