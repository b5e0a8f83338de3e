//! Image references: registry, repository, tag, digest. Docker's defaults are applied once, here
//! (grammar: `distribution/reference`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The registry that a name without one means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The namespace of official images on the default registry.
const OFFICIAL: &str = "library/";

/// A parsed image reference: `debian`, `localhost:5000/app:1.2`, `x@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {text:?}: {reason}")]
pub struct InvalidReference {
    /// What was given, cut to 300 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ImageRef {
    /// The registry's host and port: `docker.io` for names without one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository below the registry, `library/` included: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as people write it: `debian`, `me/app`, `localhost:5000/app`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        self.repository.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/')).unwrap_or(&self.repository).to_owned()
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same name with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        check_tag(tag).map_err(|reason| invalid(tag, reason))?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same name with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same reference, with the tag `latest` when it has neither tag nor digest.
    pub fn tag_or_latest(&self) -> Self {
        let mut out = self.clone();
        if out.tag.is_none() && out.digest.is_none() {
            out.tag = Some("latest".to_owned());
        }
        out
    }

    /// The whole reference without abbreviation: `docker.io/library/debian:bookworm`. The store's key.
    pub fn canonical(&self) -> String {
        self.suffixed(self.name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.familiar_name()))
    }
}

impl FromStr for ImageRef {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| invalid(text, "the digest is not sha256:<64 hex digits>"))?))
            }
        };
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') => (&rest[..colon], Some(rest[colon + 1..].to_owned())),
            _ => (rest, None),
        };
        if let Some(tag) = &tag {
            check_tag(tag).map_err(|reason| invalid(text, reason))?;
        }
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(invalid(text, "64 hex digits are an image id, not a name"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        check_host(registry).map_err(|reason| invalid(text, reason))?;
        check_path(&path).map_err(|reason| invalid(text, reason))?;
        let official = registry == DEFAULT_REGISTRY && !path.contains('/');
        let repository = if official { format!("{OFFICIAL}{path}") } else { path };
        if registry.len() + 1 + repository.len() > 255 {
            return Err(invalid(text, "the name is longer than 255 characters"));
        }
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.canonical())
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn invalid(text: &str, reason: &'static str) -> InvalidReference {
    InvalidReference { text: text.chars().take(300).collect(), reason }
}

/// Whether the part before the first slash names a registry (Docker's rule).
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_host(host: &str) -> Result<(), &'static str> {
    const BAD: &str = "the registry is not a host name with an optional port";
    let (name, port) = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(BAD);
    }
    if let Some(v6) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let fine = !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return if fine { Ok(()) } else { Err(BAD) };
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if name.split('.').all(label) { Ok(()) } else { Err(BAD) }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the name is empty");
    }
    for component in path.split('/') {
        if component.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("repository name must be lowercase");
        }
        check_component(component)?;
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn check_component(component: &str) -> Result<(), &'static str> {
    const BAD: &str = "names are lower-case letters and digits, joined by one '.', one or two '_', or '-'";
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return Err(BAD);
    }
    let separators = component.split(alphanumeric).filter(|run| !run.is_empty());
    for run in separators {
        if !(run == "." || run == "_" || run == "__" || run.bytes().all(|b| b == b'-')) {
            return Err(BAD);
        }
    }
    Ok(())
}

/// `[\w][\w.-]{0,127}`
fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fine = (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if fine {
        Ok(())
    } else {
        Err("a tag is at most 128 letters, digits, '_', '.', '-', and begins with none of '.', '-'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_defaults_are_applied_once() {
        for (text, canonical, familiar) in [
            ("debian", "docker.io/library/debian", "debian"),
            ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
            ("library/debian", "docker.io/library/debian", "debian"),
            ("cf/base", "docker.io/cf/base", "cf/base"),
            ("docker.io/cf/base:1", "docker.io/cf/base:1", "cf/base:1"),
            ("index.docker.io/x", "docker.io/library/x", "x"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("ghcr.io/a__b/c.d-e:V1", "ghcr.io/a__b/c.d-e:V1", "ghcr.io/a__b/c.d-e:V1"),
        ] {
            let parsed: ImageRef = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((parsed.canonical().as_str(), parsed.to_string().as_str()), (canonical, familiar));
            assert_eq!(parsed.canonical().parse::<ImageRef>().unwrap(), parsed);
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        let hex = "a".repeat(64);
        let long = format!("{}/x", "a".repeat(260));
        for bad in [
            "",
            ":",
            "a:",
            "A",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a//b",
            "/a",
            "a b",
            "a@sha256:12",
            "a:-t",
            "a:t t",
            &hex,
            &long,
            "host:port/x",
            "../etc",
            "a:..",
            "a\n",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?} must not parse");
        }
    }
}
