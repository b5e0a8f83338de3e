//! Platforms: parse, normalise, match (rules of containerd's `platforms` package).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and processor, normalised (`x86_64` is `amd64`, `arm64/v8` is `arm64`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, Go's name: `linux`.
    pub os: String,
    /// Processor, Go's name: `amd64`.
    pub architecture: String,
    /// Processor variant: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system version (Windows).
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Operating system features (Windows).
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a platform: want os/arch[/variant], e.g. linux/amd64 or linux/arm64/v8")]
pub struct InvalidPlatform {
    /// What was given, cut to 100 characters.
    pub text: String,
}

impl Platform {
    /// Makes a normalised platform.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), variant.unwrap_or_default());
        Self { os, architecture, variant, os_version: None, os_features: Vec::new() }
    }

    /// The platform that this program runs on.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// The same platform, normalised.
    pub fn normalised(&self) -> Self {
        let plain = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        Self { os_version: self.os_version.clone(), os_features: self.os_features.clone(), ..plain }
    }

    /// How well something made for `self` serves who wants `wanted`: 0 is exact, higher is worse, `None` not at all.
    /// On arm a lower variant serves a higher one; 32-bit arm serves arm64 last.
    pub fn rank_for(&self, wanted: &Self) -> Option<u32> {
        let (have, want) = (self.normalised(), wanted.normalised());
        if have.os != want.os {
            return None;
        }
        if have.architecture == want.architecture && have.variant == want.variant {
            return Some(0);
        }
        let level = |platform: &Self| match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("arm64", None) => Some(8),
            ("arm", None) => Some(7),
            ("arm" | "arm64", Some(variant)) => variant.trim_start_matches('v').split('.').next()?.parse::<u32>().ok(),
            ("amd64", None) => Some(1),
            ("amd64", Some(variant)) => variant.trim_start_matches('v').parse().ok(),
            _ => None,
        };
        let (have_level, want_level) = (level(&have)?, level(&want)?);
        let same = have.architecture == want.architecture;
        let compatible = same || (want.architecture == "arm64" && have.architecture == "arm");
        if !compatible || have_level > want_level {
            return None;
        }
        Some(want_level - have_level + if same { 0 } else { 100 })
    }
}

fn normalise(architecture: &str, variant: &str) -> (String, Option<String>) {
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture, variant.as_str()) {
        ("i386", _) => ("386", String::new()),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", String::new()),
        ("x86_64" | "x86-64" | "amd64", _) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", String::new()),
        ("aarch64" | "arm64", _) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7".to_owned()),
        ("armel", _) => ("arm", "v6".to_owned()),
        ("arm", "" | "7") => ("arm", "v7".to_owned()),
        ("arm", "5" | "6" | "8") => ("arm", format!("v{variant}")),
        (other, _) => (other, variant),
    };
    (architecture.to_owned(), Some(variant).filter(|v| !v.is_empty()))
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = || InvalidPlatform { text: text.chars().take(100).collect() };
        let parts: Vec<&str> = text.split('/').collect();
        let fine =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if parts.len() > 3 || !parts.iter().all(fine) {
            return Err(invalid());
        }
        let host = Self::host();
        match parts.as_slice() {
            [one] if is_os(one) => Ok(Self::new(one, &host.architecture, host.variant.as_deref())),
            [one] if is_architecture(one) => Ok(Self::new(&host.os, one, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(invalid()),
        }
    }
}

fn is_os(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "linux"
            | "windows"
            | "darwin"
            | "macos"
            | "freebsd"
            | "netbsd"
            | "openbsd"
            | "solaris"
            | "android"
            | "js"
            | "plan9"
    )
}

fn is_architecture(text: &str) -> bool {
    let (architecture, _) = normalise(&text.to_ascii_lowercase(), "");
    matches!(
        architecture.as_str(),
        "386"
            | "amd64"
            | "arm"
            | "arm64"
            | "loong64"
            | "mips"
            | "mipsle"
            | "mips64"
            | "mips64le"
            | "ppc64"
            | "ppc64le"
            | "riscv64"
            | "s390x"
            | "wasm"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        for (text, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/AArch64", "linux/arm64"),
            ("arm64", "linux/arm64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want, "{text}");
        }
        for bad in ["", "linux/", "a/b/c/d", "nonsense", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lower_variants_serve_higher_ones() {
        let p = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(p("linux/amd64").rank_for(&p("linux/amd64")), Some(0));
        assert!(p("linux/arm/v6").rank_for(&p("linux/arm/v7")) > p("linux/arm/v7").rank_for(&p("linux/arm/v7")));
        assert!(p("linux/arm/v7").rank_for(&p("linux/arm64")).is_some());
        assert_eq!(p("linux/arm64").rank_for(&p("linux/amd64")), None);
        assert_eq!(p("linux/arm/v7").rank_for(&p("linux/arm/v6")), None);
    }
}
