//! Identifiers of containers: 64 hexadecimal digits, shown by their first twelve.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Identifies a container on this machine; random, never reused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Text that is no container identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no container id: 64 lower-case hexadecimal digits are wanted")]
pub struct InvalidContainerId {
    /// What was given.
    pub text: String,
}

impl ContainerId {
    /// Draws a new one from the kernel's random source.
    pub fn random() -> Self {
        Self(random_hex())
    }

    /// The first twelve digits, as lists show it and as the default host name.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 64 random hexadecimal digits: the form of container ids and of the names of anonymous volumes.
pub(crate) fn random_hex() -> String {
    loop {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).expect("the kernel's random source never fails once the system is up");
        let text = hex::encode(bytes);
        // As Docker: an id whose short form is a number would be taken for one as a host name.
        if text[..12].bytes().any(|b| b.is_ascii_alphabetic()) {
            return text;
        }
    }
}

impl FromStr for ContainerId {
    type Err = InvalidContainerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidContainerId { text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidContainerId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_differ_and_parse_back() {
        let (a, b) = (ContainerId::random(), ContainerId::random());
        assert_ne!(a, b);
        assert_eq!(a.to_string().parse::<ContainerId>().unwrap(), a);
        assert_eq!(a.short().len(), 12);
        assert!(a.as_str().starts_with(a.short()));
    }

    #[test]
    fn nothing_else_is_an_id() {
        let good = "a".repeat(64);
        assert!(good.parse::<ContainerId>().is_ok());
        for bad in [String::new(), "a".repeat(63), "a".repeat(65), "A".repeat(64), format!("{}/", "a".repeat(63))] {
            let words = format!("{bad:?} is no container id: 64 lower-case hexadecimal digits are wanted");
            assert_eq!(bad.parse::<ContainerId>().unwrap_err().to_string(), words);
        }
        assert!(serde_json::from_str::<ContainerId>("\"../../etc\"").is_err());
    }
}
