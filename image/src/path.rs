//! Paths inside an image or container: absolute, normal, never `..`.
//!
//! A [`ContainerPath`] has no `AsRef<Path>` on purpose: it opens only through a `RootDir`, whose lookups the kernel
//! confines. Bytes, not text: names in images need not be UTF-8.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

/// An absolute, lexically normal path: starts with `/`, no `.`, `..`, empty component or NUL; `/` is the root.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPath(Vec<u8>);

impl ContainerPath {
    /// The root, `/`.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// Normalises `path` as an absolute one: a relative path counts from `/`, `..` at the root stays there.
    /// Bytes after a NUL are dropped, since no kernel path can hold one.
    pub fn new(path: impl AsRef<[u8]>) -> Self {
        Self::root().join(path)
    }

    /// Appends `path` lexically; an absolute `path` replaces `self`.
    pub fn join(&self, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref().split(|b| *b == 0).next().unwrap_or_default();
        let mut parts: Vec<&[u8]> = if path.starts_with(b"/") { Vec::new() } else { self.components().collect() };
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                name => parts.push(name),
            }
        }
        let mut bytes = Vec::with_capacity(path.len() + self.0.len());
        for part in &parts {
            bytes.push(b'/');
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() {
            bytes.push(b'/');
        }
        Self(bytes)
    }

    /// The components, outermost first; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(if cut == 0 { Self::root() } else { Self(self.0[..cut].to_vec()) })
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    /// Whether `self` is `base` or lies below it.
    pub fn starts_with(&self, base: &Self) -> bool {
        base.is_root() || (self.0.starts_with(&base.0) && matches!(self.0.get(base.0.len()), None | Some(b'/')))
    }

    /// The bytes, with the leading `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path relative to the root: without the leading `/`, `.` for the root. For `*at` calls on a root descriptor.
    pub fn relative(&self) -> &OsStr {
        OsStr::from_bytes(if self.is_root() { b"." } else { &self.0[1..] })
    }
}

impl fmt::Display for ContainerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for ContainerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for ContainerPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for ContainerPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ContainerPath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an absolute path as text or bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<ContainerPath, E> {
                Ok(ContainerPath::new(text))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<ContainerPath, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element::<u8>()? {
                    bytes.push(byte);
                }
                Ok(ContainerPath::new(bytes))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normal_and_never_leave_the_root() {
        for (given, want) in [
            ("", "/"),
            ("/", "/"),
            ("..", "/"),
            ("../../etc", "/etc"),
            ("/a//b/./c/", "/a/b/c"),
            ("/a/../../b", "/b"),
            ("a/..", "/"),
            ("/a\0/../b", "/a"),
        ] {
            assert_eq!(ContainerPath::new(given).to_string(), want, "{given:?}");
        }
        assert_eq!(ContainerPath::new("/a/b").join("../c").to_string(), "/a/c");
        assert_eq!(ContainerPath::new("/a/b").join("/c").to_string(), "/c");
    }

    #[test]
    fn below_means_whole_components() {
        let base = ContainerPath::new("/a");
        assert!(ContainerPath::new("/a/b").starts_with(&base));
        assert!(ContainerPath::new("/a").starts_with(&base));
        assert!(!ContainerPath::new("/ab").starts_with(&base));
        assert!(base.starts_with(&ContainerPath::root()));
    }
}
