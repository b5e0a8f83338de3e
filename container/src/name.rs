//! Names of containers: Docker's character set, and friendly ones for containers that were given none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes, without a leading slash.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

/// Text that cannot name a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
pub struct InvalidContainerName {
    /// What was given.
    pub text: String,
}

impl ContainerName {
    /// Draws a friendly name, `adjective_noun`; from the `attempt`th on with a digit behind it, as collisions get likely.
    pub fn random(attempt: usize) -> Self {
        let mut bytes = [0_u8; 5];
        getrandom::fill(&mut bytes).expect("the kernel's random source never fails once the system is up");
        let pick = |words: &[&'static str], high: u8, low: u8| {
            words[usize::from(u16::from_be_bytes([high, low])) % words.len()]
        };
        let mut name = format!("{}_{}", pick(&ADJECTIVES, bytes[0], bytes[1]), pick(&NOUNS, bytes[2], bytes[3]));
        if attempt > 0 {
            name.push(char::from(b'0' + bytes[4] % 10));
        }
        Self(name)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` fits the pattern that containers, volumes and networks share.
pub(crate) fn is_restricted_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (2..=255).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl FromStr for ContainerName {
    type Err = InvalidContainerName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_prefix('/').unwrap_or(text);
        if is_restricted_name(name) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidContainerName { text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for ContainerName {
    type Error = InvalidContainerName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> Self {
        name.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const ADJECTIVES: [&str; 64] = [
    "agile", "amber", "ample", "apt", "balmy", "blithe", "bold", "brave", "bright", "brisk", "calm", "candid",
    "cheery", "clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "earnest", "fair", "fluent", "fond",
    "frank", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "hearty", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "modest", "neat", "nimble", "noble", "patient",
    "plucky", "proud", "quick", "quiet", "ready", "serene", "sharp", "shiny", "sober", "steady", "sunny", "swift",
    "tidy", "vivid", "warm", "witty",
];

const NOUNS: [&str; 96] = [
    "abel",
    "agnesi",
    "ampere",
    "archimedes",
    "babbage",
    "banach",
    "bernoulli",
    "bohr",
    "boltzmann",
    "boole",
    "brahe",
    "cantor",
    "carson",
    "cauchy",
    "chandra",
    "church",
    "clarke",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "easley",
    "edison",
    "einstein",
    "elion",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "goldberg",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hilbert",
    "hodgkin",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jacobi",
    "jackson",
    "kepler",
    "khorana",
    "klein",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "mendel",
    "mirzakhani",
    "morse",
    "nash",
    "newton",
    "nobel",
    "noether",
    "noyce",
    "pascal",
    "pasteur",
    "pauli",
    "payne",
    "perlman",
    "planck",
    "poincare",
    "raman",
    "ramanujan",
    "riemann",
    "ritchie",
    "rosalind",
    "shannon",
    "sutherland",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wiles",
    "yalow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_pattern() {
        for good in ["web", "a1", "A.b_c-d", "0x", "/web"] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good:?}");
        }
        for bad in ["", "a", "-web", ".web", "_web", "we b", "wéb", "a/b", "//web", "..", &"x".repeat(256)] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad:?}");
        }
        assert_eq!("/web".parse::<ContainerName>().unwrap().as_str(), "web");
    }

    #[test]
    fn every_random_name_is_a_name() {
        for word in ADJECTIVES.iter().chain(&NOUNS) {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
        for attempt in 0..20 {
            let name = ContainerName::random(attempt);
            assert_eq!(name.as_str().parse::<ContainerName>().unwrap(), name);
            assert_eq!(name.as_str().ends_with(|c: char| c.is_ascii_digit()), attempt > 0, "{name}");
        }
    }
}
