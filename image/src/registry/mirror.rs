//! Whom to ask for a repository: its mirrors in order, then its registry, or what settings put in its place. Docker
//! Hub's API has another host than its name.

use ureq::http::Uri;

use super::hosts::HostTable;
use super::location::{Origin, is_loopback};
use super::options::{Mirror, MirrorServes, Scheme, Told};
use crate::reference::ImageRef;

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
    /// What the repository is called there.
    pub(super) repository: RepositoryName,
    /// What settings say about TLS.
    pub(super) wire: Wire,
    /// Neither the registry itself nor what stands in its place.
    pub(super) is_mirror: bool,
    /// The registry whose content is wanted, where it has to be told.
    pub(super) namespace: Option<String>,
    /// The path of its API, between slashes.
    pub(super) api: String,
}

/// Where the API of a registry is.
const API: &str = "/v2/";

/// What a repository is called at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RepositoryName {
    /// As anywhere, behind this, which is empty or ends in a slash.
    Below(String),
    /// Like this.
    Exactly(String),
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
        repository: RepositoryName::Below(String::new()),
        is_mirror: false,
        namespace: None,
        api: API.to_owned(),
    }
}

/// Whom to ask, in order; the registry itself, or what stands in its place, comes last. Mirrors whose location cannot be
/// read are left out.
pub(super) fn endpoints(hosts: &HostTable, name: &ImageRef, wanted: Wanted) -> Vec<Endpoint> {
    let registry = name.registry();
    let full = format!("{registry}/{}", name.repository());
    let rule = hosts.rule(&full);
    let mirrors = rule.map_or_else(|| hosts.mirrors(registry), |(rule, _)| &rule.mirrors);
    let located = |location: &str| {
        let mut found = parse_location(hosts, location);
        match (&mut found, rule) {
            (Some(endpoint), Some((_, rest))) => {
                let RepositoryName::Below(prefix) = &endpoint.repository else { return found };
                let whole = format!("{}{rest}", prefix.trim_end_matches('/'));
                endpoint.repository = RepositoryName::Exactly(whole.trim_matches('/').to_owned());
            }
            (None, _) => tracing::warn!(%location, "not the address of a registry"),
            (Some(_), None) => {}
        }
        found
    };
    let serves = |mirror: &&Mirror| wanted == Wanted::Digest || mirror.serves == MirrorServes::All;
    let mirror = |mirror: &Mirror| {
        let namespace = (mirror.told == Told::Registry).then(|| registry.to_owned());
        let api = mirror.api.as_deref().map_or(API.to_owned(), |api| match api.trim_matches('/') {
            "" => "/".to_owned(),
            path => format!("/{path}/"),
        });
        Some(Endpoint { namespace, is_mirror: true, api, ..located(&mirror.location)? })
    };
    let mut out: Vec<Endpoint> = mirrors.iter().filter(serves).filter_map(mirror).collect();
    let own = rule.map_or_else(|| Some(origin_endpoint(hosts, registry)), |(rule, _)| located(&rule.location));
    out.push(own.unwrap_or_else(|| origin_endpoint(hosts, registry)));
    out
}

fn parse_location(hosts: &HostTable, location: &str) -> Option<Endpoint> {
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
        authority: api_host(&authority).to_owned(),
        repository: RepositoryName::Below(if prefix.is_empty() { String::new() } else { format!("{prefix}/") }),
        is_mirror: false,
        namespace: None,
        api: API.to_owned(),
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
    use crate::registry::options::{Access, ClientOptions, HostConfig, RepositoryRule};

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
        let mirror = |location: &str, serves| Mirror::at(location, serves);
        let mirrors = vec![
            mirror("https://mirror.example", MirrorServes::All),
            mirror("http://cache.example:81/v2/hub/", MirrorServes::Digests),
            mirror("localhost:5000/proxy", MirrorServes::All),
            Mirror { api: Some("/sub/v2".into()), ..mirror("https://sub.example", MirrorServes::Digests) },
            Mirror { api: Some(String::new()), ..mirror("https://root.example", MirrorServes::Digests) },
            mirror("ftp://x", MirrorServes::All),
            mirror("https://u:p@x", MirrorServes::All),
        ];
        let hosts = BTreeMap::from([("docker.io".to_owned(), HostConfig { mirrors, ..HostConfig::default() })]);
        let hosts = HostTable::new(hosts, Vec::new());
        let shown = |wanted| {
            endpoints(&hosts, &"docker.io/library/app".parse().unwrap(), wanted).iter().map(show).collect::<Vec<_>>()
        };
        insta::assert_debug_snapshot!(shown(Wanted::Digest), @r#"
        [
            "Tls mirror.example library/app",
            "Plain cache.example:81 hub/library/app",
            "Undecided localhost:5000 proxy/library/app",
            "Tls sub.example/sub/v2/ library/app",
            "Tls root.example/ library/app",
            "Tls registry-1.docker.io library/app",
        ]
        "#);
        assert_eq!(shown(Wanted::Tag).len(), 3);
        assert_eq!(endpoints(&hosts, &"ghcr.io/a/b".parse().unwrap(), Wanted::Tag).len(), 1);
    }

    fn show(endpoint: &Endpoint) -> String {
        let name: ImageRef = "docker.io/library/app".parse().unwrap();
        let repository = match &endpoint.repository {
            RepositoryName::Below(prefix) => format!("{prefix}{}", name.repository()),
            RepositoryName::Exactly(repository) => repository.clone(),
        };
        let api = endpoint.api.strip_prefix(API).unwrap_or(&endpoint.api);
        format!("{:?} {}{api} {repository}", endpoint.wire, endpoint.authority)
    }

    #[test]
    fn repositories_may_be_elsewhere() {
        let mirror = |location: &str| Mirror::at(location, MirrorServes::All);
        let rule = |prefix: &str, location: &str, mirrors: &[&str]| RepositoryRule {
            prefix: prefix.into(),
            location: location.into(),
            mirrors: mirrors.iter().map(|location| mirror(location)).collect(),
            access: Access::Allowed,
        };
        let options = ClientOptions {
            repositories: vec![
                rule("quay.io", "quay.io", &["all.example"]),
                rule("quay.io/team", "other.example/ours", &["m.example", "n.example/x"]),
                rule("quay.io/team/one", "one.example/it", &[]),
                rule("*.wild.example", "tame.example", &[]),
                rule("hub.example", "docker.io/library", &[]),
            ],
            default_mirrors: vec![Mirror { told: Told::Registry, ..mirror("http://every.example") }],
            hosts: BTreeMap::from([("own.example".to_owned(), HostConfig::default())]),
            ..ClientOptions::default()
        };
        let hosts = HostTable::of(&options);
        for (name, want) in [
            ("quay.io/a/b", vec!["all.example a/b", "quay.io a/b"]),
            ("quay.io/team/app", vec!["m.example app", "n.example x/app", "other.example ours/app"]),
            ("quay.io/teams/app", vec!["all.example teams/app", "quay.io teams/app"]),
            ("quay.io/team/one", vec!["one.example it"]),
            ("a.b.wild.example/x/y", vec!["tame.example x/y"]),
            ("hub.example/debian", vec!["registry-1.docker.io library/debian"]),
            ("own.example/x", vec!["own.example *"]),
            ("any.example/x", vec!["every.example *", "any.example *"]),
        ] {
            let found = endpoints(&hosts, &name.parse().unwrap(), Wanted::Tag);
            let found: Vec<String> = found
                .iter()
                .map(|endpoint| match &endpoint.repository {
                    RepositoryName::Exactly(repository) => format!("{} {repository}", endpoint.authority),
                    RepositoryName::Below(_) => format!("{} *", endpoint.authority),
                })
                .collect();
            assert_eq!(found, want, "{name}");
        }
        let blocked = RepositoryRule { access: Access::Blocked, ..rule("quay.io", "quay.io", &[]) };
        let repositories = vec![blocked, rule("quay.io/team", "quay.io/team", &[])];
        let some = HostTable::of(&ClientOptions { repositories, ..ClientOptions::default() });
        assert_eq!(some.blocked("quay.io", "a/b"), Some("quay.io"));
        assert_eq!(some.blocked("quay.io", "team/app"), None, "the longer prefix says otherwise");
        assert_eq!(some.blocked("quay.io", ""), None, "logging in moves nothing");
        let told = endpoints(&hosts, &"any.example/x".parse().unwrap(), Wanted::Tag);
        assert_eq!(told[0].namespace.as_deref(), Some("any.example"));
        assert_eq!((told[1].namespace.as_deref(), told[1].is_mirror), (None, false));
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
