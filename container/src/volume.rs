//! Names of volumes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::random_hex;
use crate::name::is_restricted_name;

/// A volume's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes; a single directory name by construction.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// Text that cannot name a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolumeName {
    /// A single character.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    TooShort,
    /// Characters outside the pattern.
    #[error(
        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed; \
         to mount a host directory give its absolute path or start it with ./"
    )]
    Characters {
        /// What was given.
        name: String,
    },
}

impl VolumeName {
    /// Draws the name of an anonymous volume.
    pub fn random() -> Self {
        Self(random_hex())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = InvalidVolumeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_restricted_name(text) {
            Ok(Self(text.to_owned()))
        } else if text.len() == 1 {
            Err(InvalidVolumeName::TooShort)
        } else {
            Err(InvalidVolumeName::Characters { name: text.to_owned() })
        }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = InvalidVolumeName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_name_is_one_directory_name() {
        for good in ["data", "a1", "my.vol_1-x", &"x".repeat(255)] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good:?}");
        }
        for bad in ["", "a", "..", ".x", "a/b", "a b", "-a", &"x".repeat(256)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
        assert!(VolumeName::random().as_str().parse::<VolumeName>().is_ok());
    }
}
