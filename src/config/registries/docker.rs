//! Docker's `daemon.json`: `registry-mirrors`, which are Docker Hub's, and `insecure-registries`.

use rbuild_image::registry::MirrorServes;
use serde::Deserialize;

use super::Registries;

#[derive(Deserialize)]
struct Daemon {
    #[serde(default, rename = "registry-mirrors")]
    mirrors: Vec<String>,
    #[serde(default, rename = "insecure-registries")]
    insecure: Vec<String>,
}

/// What a `daemon.json` says of registries; nothing when it is not one.
pub(super) fn daemon(text: &str) -> Option<Registries> {
    // An array would do for the struct, too.
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let daemon: Daemon = serde_json::from_value(object.into()).ok()?;
    let mut found = Registries::default();
    for mirror in &daemon.mirrors {
        found.mirror("docker.io", mirror, MirrorServes::All);
    }
    for name in &daemon.insecure {
        match name.parse() {
            Ok(network) => found.insecure_networks.push(network),
            Err(_) => found.distrust(super::host_of(name)),
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use rbuild_image::registry::Scheme;

    use super::*;

    #[test]
    fn mirrors_are_docker_hubs() {
        let found = daemon(
            r#"{"registry-mirrors": ["https://m.example/"], "insecure-registries": ["http://r.example:5000", "fd00::/8"], "debug": true}"#,
        )
        .unwrap();
        assert_eq!(found.hosts["docker.io"].mirrors[0].location, "https://m.example/");
        assert_eq!(found.hosts["r.example:5000"].scheme, Scheme::Either);
        assert_eq!(found.insecure_networks.len(), 1);
        assert_eq!(daemon("[]"), None);
        assert_eq!(daemon(r#"{"registry-mirrors": 3}"#), None);
    }
}
