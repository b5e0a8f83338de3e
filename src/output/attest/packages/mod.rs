//! The packages that an image holds, as its package managers and lock files name them. Only what is written down is
//! known: programs that were copied in by hand are not found, unless they say themselves what they are made of.

mod apk;
mod berkeley;
mod dpkg;
mod go_binary;
mod lock;
mod maven;
mod rpm;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use rbuild_cache::view::{FileKind, View};
use rbuild_image::ContainerPath;

use crate::cli::report::Failure;

/// The most bytes of one database or lock file.
const MAX_BYTES: u64 = 256 << 20;

/// A package.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its version, as its manager writes it.
    pub(super) version: String,
    /// Whose packages these are: `deb`, `apk`, `rpm`, `npm`, `cargo`, …
    pub(super) kind: &'static str,
    /// The package URL's namespace: the distribution, or an npm scope.
    pub(super) namespace: String,
    /// Further parts of the package URL, in order.
    pub(super) qualifiers: Vec<(&'static str, String)>,
    /// Its licence, where that is said as an SPDX expression.
    pub(super) licence: String,
    /// Who made it.
    pub(super) supplier: String,
    /// The file that says so.
    pub(super) found_in: String,
}

impl Package {
    /// A package of a kind.
    fn new(kind: &'static str, name: impl Into<String>, version: impl Into<String>, found_in: &str) -> Self {
        Self { name: name.into(), version: version.into(), kind, found_in: found_in.to_owned(), ..Self::default() }
    }

    /// Its package URL (purl-spec): qualifiers by name, everything escaped.
    pub(super) fn url(&self) -> String {
        let escape = |text: &str| super::escape(text, b"");
        let namespace = match self.namespace.as_str() {
            "" => String::new(),
            text => format!("{}/", super::escape(text, b"/")),
        };
        let version = if self.version.is_empty() { String::new() } else { format!("@{}", escape(&self.version)) };
        let mut qualifiers: Vec<String> = self
            .qualifiers
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", escape(value)))
            .collect();
        qualifiers.sort();
        let qualifiers = if qualifiers.is_empty() { String::new() } else { format!("?{}", qualifiers.join("&")) };
        format!("pkg:{}/{namespace}{}{version}{qualifiers}", self.kind, super::escape(&self.name, b"/"))
    }
}

/// The distribution of an image, by its `os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    /// `ID`.
    pub(super) id: String,
    /// `VERSION_ID`.
    pub(super) version: String,
}

impl Distribution {
    fn of(view: &View) -> io::Result<Self> {
        let mut found = Self::default();
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let Some(bytes) = view.read_regular(path, MAX_BYTES)? {
                let text = String::from_utf8_lossy(&bytes);
                let value = |name: &str| {
                    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
                    line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
                };
                found = Self { id: value("ID"), version: value("VERSION_ID") };
                break;
            }
        }
        Ok(found)
    }

    /// `debian-12`, as package URLs say it.
    fn label(&self) -> String {
        match (self.id.as_str(), self.version.as_str()) {
            ("", _) => String::new(),
            (id, "") => id.to_owned(),
            (id, version) => format!("{id}-{version}"),
        }
    }
}

/// Every package that an image says it holds, each once, in order. `scratch` names files that may be made for a while.
pub(super) fn list(view: &View, scratch: &dyn Fn() -> io::Result<PathBuf>) -> Result<Vec<Package>, Failure> {
    let distribution = Distribution::of(view)?;
    let mut found = BTreeSet::new();
    found.extend(dpkg::packages(view, &distribution)?);
    found.extend(apk::packages(view, &distribution)?);
    found.extend(rpm::packages(view, &distribution, scratch)?);
    let (mut files, mut programs) = (Vec::new(), Vec::new());
    let mut visit = |path: &ContainerPath, stat: &rbuild_cache::view::Stat| {
        let bytes = path.as_bytes();
        // What the kernel mounts there is not the image's.
        let skipped = [&b"/proc/"[..], b"/sys/", b"/dev/"].iter().any(|prefix| bytes.starts_with(prefix));
        if skipped || stat.kind != FileKind::File {
            return Ok(());
        }
        if lock::is_known(bytes) {
            files.push(path.clone());
        } else if stat.mode & 0o111 != 0 {
            programs.push(path.clone());
        }
        Ok(())
    };
    view.walk(&ContainerPath::root(), &mut visit)?;
    for path in files {
        if let Some(bytes) = view.read_regular(path.as_bytes(), MAX_BYTES)? {
            found.extend(lock::packages(&path.to_string(), &bytes));
        }
    }
    for path in programs {
        let program = view.open(&path)?;
        found.extend(go_binary::packages(&path.to_string(), &|buffer, offset| program.read_at(buffer, offset))?);
    }
    Ok(found.into_iter().collect())
}

/// The paragraphs of a file whose fields are `Name: value`, separated by empty lines; continued lines are left out.
fn paragraphs(text: &str) -> impl Iterator<Item = Vec<(&str, &str)>> {
    text.split("\n\n").map(|paragraph| {
        let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
    })
}

fn field<'a>(paragraph: &[(&str, &'a str)], name: &str) -> &'a str {
    paragraph.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_urls() {
        let mut package = Package::new("deb", "libc6", "2.36-9+deb12u4", "/var/lib/dpkg/status");
        package.namespace = "debian".to_owned();
        package.qualifiers =
            vec![("distro", "debian-12".to_owned()), ("arch", "amd64".to_owned()), ("upstream", String::new())];
        assert_eq!(package.url(), "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12");
        let mut scoped = Package::new("npm", "core", "1.0.0", "/app/package-lock.json");
        scoped.namespace = "@angular".to_owned();
        assert_eq!(scoped.url(), "pkg:npm/%40angular/core@1.0.0");
    }
}
