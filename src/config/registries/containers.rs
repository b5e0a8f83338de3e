//! `registries.conf` (containers-registries.conf(5)), both versions: mirrors and insecure registries, of hosts and of
//! repositories. Short-name aliases and search lists have no meaning here: names are Docker's.

use rbuild_image::registry::{Access, Mirror, MirrorServes, RepositoryRule};
use serde::Deserialize;

use super::{Registries, host_of};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
    #[serde(default)]
    registries: Option<Old>,
}

#[derive(Deserialize)]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default, rename = "mirror-by-digest-only")]
    by_digest: bool,
    #[serde(default)]
    mirror: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default, rename = "pull-from-mirror")]
    pulls: Option<String>,
}

/// Version 1.
#[derive(Deserialize)]
struct Old {
    #[serde(default)]
    insecure: Option<List>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    registries: Vec<String>,
}

/// What a `registries.conf` says of hosts; nothing when it is not one.
pub(super) fn registries(text: &str) -> Option<Registries> {
    let file: File = toml::from_str(text).ok()?;
    let mut found = Registries::default();
    for registry in &file.registry {
        let Some(name) = registry.prefix.as_ref().or(registry.location.as_ref()) else { continue };
        let wildcard = name.starts_with('*');
        // What has no location stays where it is; that cannot be said of many hosts at once.
        let location = match (&registry.location, wildcard) {
            (None, true) if !registry.blocked => continue,
            (location, _) => location.as_ref().unwrap_or(name),
        };
        let mut mirrors = Vec::new();
        for mirror in &registry.mirror {
            let serves = match mirror.pulls.as_deref() {
                // A mirror that is asked for tags alone is of little use without their content.
                Some("tag-only") => continue,
                Some("digest-only") => MirrorServes::Digests,
                _ if registry.by_digest => MirrorServes::Digests,
                _ => MirrorServes::All,
            };
            mirrors.push(Mirror::at(mirror.location.clone(), serves));
            if mirror.insecure {
                found.distrust(host_of(&mirror.location));
            }
        }
        if name.contains('/') || wildcard || location != name || registry.blocked {
            let access = if registry.blocked { Access::Blocked } else { Access::Allowed };
            let rule = RepositoryRule { prefix: name.clone(), location: location.clone(), mirrors, access };
            found.repositories.push(rule);
        } else if !mirrors.is_empty() {
            found.host(name).mirrors.extend(mirrors);
        }
        if registry.insecure {
            found.distrust(host_of(location));
        }
    }
    for name in file.registries.and_then(|old| old.insecure).into_iter().flat_map(|list| list.registries) {
        match name.parse() {
            Ok(network) => found.insecure_networks.push(network),
            Err(_) => found.distrust(host_of(&name)),
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use rbuild_image::registry::Verify;

    use super::*;

    #[test]
    fn both_versions_are_read() {
        let found = registries(
            r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "m.example:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "d.example"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "quay.io/team"
            location = "other.example"
            [[registry.mirror]]
            location = "m2.example/x"
            [[registry]]
            prefix = "short.example"
            location = "long.example/path"
            insecure = true
            [[registry]]
            prefix = "*.w.example"
            location = "x.example"
            [[registry]]
            prefix = "*.nowhere.example"
            [[registry]]
            prefix = "*.shut.example"
            blocked = true
            [[registry]]
            location = "shut.example"
            blocked = true
            [aliases]
            x = "docker.io/library/x"
            "#,
        )
        .unwrap();
        let mirrors = &found.hosts["docker.io"].mirrors;
        assert_eq!(mirrors[0].location, "m.example:5000/hub");
        assert_eq!(mirrors[1].serves, MirrorServes::Digests);
        assert_eq!(found.hosts["m.example:5000"].verify, Verify::Nothing);
        let rules: Vec<_> =
            found.repositories.iter().map(|rule| (rule.prefix.as_str(), rule.location.as_str())).collect();
        assert_eq!(
            rules,
            [
                ("quay.io/team", "other.example"),
                ("short.example", "long.example/path"),
                ("*.w.example", "x.example"),
                ("*.shut.example", "*.shut.example"),
                ("shut.example", "shut.example")
            ]
        );
        let access: Vec<_> = found.repositories.iter().map(|rule| rule.access).collect();
        assert_eq!(access[..3], [Access::Allowed; 3]);
        assert_eq!(access[3..], [Access::Blocked; 2]);
        assert_eq!(found.repositories[0].mirrors[0].location, "m2.example/x");
        assert_eq!(found.hosts["long.example"].verify, Verify::Nothing);
        assert!(!found.hosts.contains_key("quay.io/team"));
        let old = registries(
            "[registries.search]\nregistries = ['docker.io']\n[registries.insecure]\nregistries = ['r.example', '10.0.0.0/8']\n",
        );
        let old = old.unwrap();
        assert_eq!(old.hosts["r.example"].verify, Verify::Nothing);
        assert_eq!(old.insecure_networks.len(), 1);
        assert_eq!(registries("registry = 3"), None);
    }
}
