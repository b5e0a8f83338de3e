//! `--pid`, `--ipc` and `--uts`: whose namespaces a container has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A namespace that nobody has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: invalid {kind} mode: {text:?}: known are {known}")]
pub struct InvalidNamespace {
    flag: &'static str,
    kind: &'static str,
    known: &'static str,
    /// What was given.
    text: String,
}

/// Whose processes a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessChoice {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Those of a container, by its name or id.
    Container(String),
}

/// With whom a container shares memory and messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcChoice {
    /// With nobody.
    #[default]
    Private,
    /// With nobody, and without a `/dev/shm`.
    None,
    /// With containers that ask for it.
    Shareable,
    /// With the host.
    Host,
    /// With a shareable container, by its name or id.
    Container(String),
}

/// Whose host name a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UtsChoice {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

fn container(text: &str) -> Option<String> {
    text.strip_prefix("container:").filter(|name| !name.is_empty()).map(str::to_owned)
}

impl FromStr for ProcessChoice {
    type Err = InvalidNamespace;

    fn from_str(text: &str) -> Result<Self, InvalidNamespace> {
        let known = "host, container:NAME and private";
        let invalid = || InvalidNamespace { flag: "--pid", kind: "PID", known, text: text.to_owned() };
        match text {
            "" | "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => container(text).map(Self::Container).ok_or_else(invalid),
        }
    }
}

impl FromStr for IpcChoice {
    type Err = InvalidNamespace;

    fn from_str(text: &str) -> Result<Self, InvalidNamespace> {
        let known = "private, shareable, none, host and container:NAME";
        let invalid = || InvalidNamespace { flag: "--ipc", kind: "IPC", known, text: text.to_owned() };
        match text {
            "" | "private" => Ok(Self::Private),
            "none" => Ok(Self::None),
            "shareable" => Ok(Self::Shareable),
            "host" => Ok(Self::Host),
            _ => container(text).map(Self::Container).ok_or_else(invalid),
        }
    }
}

impl FromStr for UtsChoice {
    type Err = InvalidNamespace;

    fn from_str(text: &str) -> Result<Self, InvalidNamespace> {
        match text {
            "" | "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(InvalidNamespace { flag: "--uts", kind: "UTS", known: "host and private", text: text.to_owned() }),
        }
    }
}

/// As Docker's `inspect` has it.
impl fmt::Display for ProcessChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => Ok(()),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

/// As Docker's `inspect` has it.
impl fmt::Display for IpcChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::None => f.write_str("none"),
            Self::Shareable => f.write_str("shareable"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

/// As Docker's `inspect` has it.
impl fmt::Display for UtsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "",
            Self::Host => "host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_closed_lists() {
        for (text, want) in [("", ""), ("private", ""), ("host", "host"), ("container:web", "container:web")] {
            assert_eq!(text.parse::<ProcessChoice>().unwrap().to_string(), want);
        }
        for (text, want) in
            [("", "private"), ("none", "none"), ("shareable", "shareable"), ("container:a", "container:a")]
        {
            assert_eq!(text.parse::<IpcChoice>().unwrap().to_string(), want);
        }
        assert_eq!("host".parse(), Ok(UtsChoice::Host));
        for text in ["container:", "web", "HOST", "shareable"] {
            assert!(text.parse::<ProcessChoice>().is_err(), "{text}");
        }
        let error = "container:".parse::<IpcChoice>().unwrap_err().to_string();
        assert!(error.starts_with("--ipc: invalid IPC mode: \"container:\""), "{error}");
        assert!("container:web".parse::<UtsChoice>().is_err());
    }
}
