//! The keys that leave a container running: Ctrl-P Ctrl-Q, or others.

use std::str::FromStr;

/// A sequence of keys; an empty one is never typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// Text that names no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid detach keys ({text}): a comma-separated list of letters and ctrl-X, where X is a letter or one of @ [ \\ ] ^ _"
)]
pub struct InvalidDetachKeys {
    /// What was given.
    pub text: String,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    /// Whether no keys detach.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// No keys detach.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }
}

impl FromStr for DetachKeys {
    type Err = InvalidDetachKeys;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        keys.map(Self).ok_or_else(|| InvalidDetachKeys { text: text.to_owned() })
    }
}

fn key(text: &str) -> Option<u8> {
    let single = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    };
    match text.strip_prefix("ctrl-") {
        None => single(text),
        Some(letter) => match single(letter)? {
            letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
            letter @ b'A'..=b'Z' => Some(letter - b'A' + 1),
            letter @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_') => Some(letter - b'@'),
            _ => None,
        },
    }
}

/// Looks for the keys in what is typed; holds back what may be their beginning.
#[derive(Debug)]
pub(super) struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

/// What was typed, seen through a [`Watch`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// For the container.
    Bytes(Vec<u8>),
    /// The keys; before them this for the container.
    Detach(Vec<u8>),
}

impl Watch {
    pub(super) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.0.clone(), matched: 0 }
    }

    pub(super) fn see(&mut self, bytes: &[u8]) -> Typed {
        if self.keys.is_empty() {
            return Typed::Bytes(bytes.to_vec());
        }
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            while self.matched > 0 && *byte != self.keys[self.matched] {
                // The longest end of what was held back that may still become the keys.
                let held = &self.keys[..self.matched];
                let next = (0..self.matched).rev().find(|len| held.ends_with(&self.keys[..*len])).unwrap_or(0);
                out.extend_from_slice(&held[..self.matched - next]);
                self.matched = next;
            }
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed::Detach(out);
                }
            } else {
                out.push(*byte);
            }
        }
        Typed::Bytes(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_dockers() {
        for (text, want) in [
            ("ctrl-p,ctrl-q", Ok(vec![0x10, 0x11])),
            ("ctrl-@,a,Z,ctrl-\\", Ok(vec![0, b'a', b'Z', 0x1c])),
            ("", Ok(vec![])),
            ("ctrl-", Err(())),
            ("ctrl-1", Err(())),
            ("ab", Err(())),
            ("a,,b", Err(())),
        ] {
            assert_eq!(text.parse::<DetachKeys>().map(|keys| keys.0).map_err(drop), want, "{text}");
        }
    }

    #[test]
    fn keys_are_found_and_everything_else_arrives() {
        let typed = |keys: &str, chunks: &[&str]| {
            let mut watch = Watch::new(&keys.parse().unwrap());
            let mut all = String::new();
            for chunk in chunks {
                match watch.see(chunk.as_bytes()) {
                    Typed::Bytes(bytes) => all.push_str(std::str::from_utf8(&bytes).unwrap()),
                    Typed::Detach(bytes) => return all + std::str::from_utf8(&bytes).unwrap() + "!",
                }
            }
            all
        };
        assert_eq!(typed("ctrl-p,ctrl-q", &["ls\n\x10\x11never"]), "ls\n!");
        assert_eq!(typed("ctrl-p,ctrl-q", &["a\x10", "\x11"]), "a!");
        assert_eq!(typed("ctrl-p,ctrl-q", &["a\x10", "b"]), "a\x10b");
        assert_eq!(typed("ctrl-p,ctrl-q", &["\x10\x10\x10\x11"]), "\x10\x10!");
        assert_eq!(typed("a,a,b", &["aaab"]), "a!");
        assert_eq!(typed("", &["\x10\x11"]), "\x10\x11");
    }
}
