//! Whom to ask for a repository: its mirrors in order, then its registry. Docker Hub's API has another host than its
//! name.

use ureq::http::Uri;

use super::hosts::HostTable;
use super::location::{Origin, is_loopback};
use super::options::{MirrorServes, Scheme};

/// Whether an endpoint speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Yes.
    Tls,
    /// No.
    Plain,
    /// Found out by the first request: plain HTTP first, since it is our own machine.
    Undecided,
}

/// One host that serves a registry's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Under which name its credentials are kept.
    pub(super) registry: String,
    /// Host and port.
    pub(super) authority: String,
    /// What precedes repository names; empty or ending in a slash.
    pub(super) prefix: String,
    /// What settings say about TLS.
    pub(super) wire: Wire,
    /// Not the registry itself.
    pub(super) is_mirror: bool,
    /// What it may be asked for.
    pub(super) serves: MirrorServes,
}

/// What is wanted from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Something by its tag.
    Tag,
    /// Something by its digest.
    Digest,
}

/// The host that serves the API of a registry.
pub(super) fn api_host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// Settings by authority as TLS sees it, from settings by registry.
pub(super) fn by_authority(hosts: &HostTable) -> HostTable {
    let authority = |name: &str| {
        let uri: Uri = format!("https://{}/", api_host(name)).parse().ok()?;
        Some(Origin::of(&uri)?.authority())
    };
    hosts.renamed(authority)
}

/// The registry itself.
pub(super) fn origin_endpoint(hosts: &HostTable, registry: &str) -> Endpoint {
    let authority = api_host(registry).to_ascii_lowercase();
    Endpoint {
        registry: registry.to_owned(),
        wire: wire(hosts, registry, &authority),
        authority,
        prefix: String::new(),
        is_mirror: false,
        serves: MirrorServes::All,
    }
}

/// Whom to ask, in order; the registry itself comes last. Mirrors whose location cannot be read are left out.
pub(super) fn endpoints(hosts: &HostTable, registry: &str, wanted: Wanted) -> Vec<Endpoint> {
    let mirrors = hosts.get(registry).map(|host| host.mirrors.as_slice()).unwrap_or_default();
    let mut out: Vec<Endpoint> = mirrors
        .iter()
        .filter(|mirror| wanted == Wanted::Digest || mirror.serves == MirrorServes::All)
        .filter_map(|mirror| {
            let found = parse_mirror(hosts, &mirror.location, mirror.serves);
            if found.is_none() {
                tracing::warn!(mirror = %mirror.location, "not the address of a mirror");
            }
            found
        })
        .collect();
    out.push(origin_endpoint(hosts, registry));
    out
}

fn parse_mirror(hosts: &HostTable, location: &str, serves: MirrorServes) -> Option<Endpoint> {
    let (scheme, rest) = match location.split_once("://") {
        Some(("http", rest)) => (Some(Wire::Plain), rest),
        Some(("https", rest)) => (Some(Wire::Tls), rest),
        Some(_) => return None,
        None => (None, location),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = authority.to_ascii_lowercase();
    let uri: Uri = format!("https://{authority}/").parse().ok()?;
    if authority.contains('@') || Origin::of(&uri)?.host.is_empty() {
        return None;
    }
    let path = path.trim_matches('/');
    let prefix = path.strip_prefix("v2/").unwrap_or(if path == "v2" { "" } else { path });
    Some(Endpoint {
        wire: scheme.unwrap_or_else(|| wire(hosts, &authority, &authority)),
        registry: authority.clone(),
        authority,
        prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        is_mirror: true,
        serves,
    })
}

fn wire(hosts: &HostTable, name: &str, authority: &str) -> Wire {
    let settings = hosts.get(name);
    match settings.map(|host| host.scheme).unwrap_or_default() {
        Scheme::Https => Wire::Tls,
        Scheme::Http => Wire::Plain,
        Scheme::Either => Wire::Undecided,
        Scheme::Default => {
            let expects_tls =
                settings.is_some_and(|host| !host.ca_files.is_empty() || host.client_certificate.is_some());
            let uri: Option<Uri> = format!("http://{authority}/").parse().ok();
            let local = uri.as_ref().and_then(Origin::of).is_some_and(|origin| is_loopback(&origin.host));
            if local && !expects_tls { Wire::Undecided } else { Wire::Tls }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::options::{HostConfig, Mirror};

    #[test]
    fn plain_http_is_for_loopback_and_for_who_asks_for_it() {
        let config = |scheme| HostConfig { scheme, ..HostConfig::default() };
        let hosts = BTreeMap::from([
            ("plain.example:5000".to_owned(), config(Scheme::Http)),
            ("localhost:5001".to_owned(), config(Scheme::Https)),
            ("localhost:5002".to_owned(), HostConfig { ca_files: vec!["/ca".into()], ..HostConfig::default() }),
        ]);
        for (registry, want) in [
            ("docker.io", Wire::Tls),
            ("r.example", Wire::Tls),
            ("10.0.0.1:5000", Wire::Tls),
            ("plain.example:5000", Wire::Plain),
            ("localhost:5000", Wire::Undecided),
            ("127.0.0.1:5000", Wire::Undecided),
            ("[::1]:5000", Wire::Undecided),
            ("localhost:5001", Wire::Tls),
            ("localhost:5002", Wire::Tls),
            ("10.9.8.7:5000", Wire::Undecided),
        ] {
            let hosts = HostTable::new(hosts.clone(), vec!["10.9.0.0/16".parse().unwrap()]);
            assert_eq!(origin_endpoint(&hosts, registry).wire, want, "{registry}");
        }
        let hosts = HostTable::new(hosts, Vec::new());
        assert_eq!(origin_endpoint(&hosts, "docker.io").authority, "registry-1.docker.io");
    }

    #[test]
    fn mirrors_come_first() {
        let mirror = |location: &str, serves| Mirror { location: location.into(), serves };
        let mirrors = vec![
            mirror("https://mirror.example", MirrorServes::All),
            mirror("http://cache.example:81/v2/hub/", MirrorServes::Digests),
            mirror("localhost:5000/proxy", MirrorServes::All),
            mirror("ftp://x", MirrorServes::All),
            mirror("https://u:p@x", MirrorServes::All),
        ];
        let hosts = BTreeMap::from([("docker.io".to_owned(), HostConfig { mirrors, ..HostConfig::default() })]);
        let hosts = HostTable::new(hosts, Vec::new());
        let shown = |wanted| {
            endpoints(&hosts, "docker.io", wanted)
                .into_iter()
                .map(|e| format!("{:?} {} {}", e.wire, e.authority, e.prefix))
                .collect::<Vec<_>>()
        };
        insta::assert_debug_snapshot!(shown(Wanted::Digest), @r#"
        [
            "Tls mirror.example ",
            "Plain cache.example:81 hub/",
            "Undecided localhost:5000 proxy/",
            "Tls registry-1.docker.io ",
        ]
        "#);
        assert_eq!(shown(Wanted::Tag).len(), 3);
        assert_eq!(endpoints(&hosts, "ghcr.io", Wanted::Tag).len(), 1);
    }

    #[test]
    fn settings_are_found_by_authority() {
        let hosts = ["docker.io", "r.example:443", "[::1]:5000", "bad host"]
            .map(|name| (name.to_owned(), HostConfig::default()));
        let hosts = BTreeMap::from(hosts);
        let hosts = HostTable::new(hosts, Vec::new());
        let names: Vec<String> = by_authority(&hosts).named.into_keys().collect();
        assert_eq!(names, ["[::1]:5000", "r.example", "registry-1.docker.io"]);
    }
}
