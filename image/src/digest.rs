//! Content digests: algorithm and bytes, strict parsing, hashing while bytes pass by.
//!
//! Invariant: a [`Digest`] is always well formed, so its text may be used as a file name below `blobs/`.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// The hash function of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: 32 bytes, 64 hex digits.
    Sha256,
    /// SHA-512: 64 bytes, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// The registered name (OCI image-spec, `descriptor.md#digests`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the raw digest in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no digest is empty")]
    pub fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A content digest such as `sha256:9f86d0…` (OCI image-spec, `descriptor.md#digests`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {text:?}: want sha256:<64 lower-case hex digits> or sha512:<128>")]
pub struct InvalidDigest {
    /// What was given, cut to 200 characters.
    pub text: String,
}

impl Digest {
    /// Makes a SHA-256 digest from its 32 raw bytes.
    pub fn from_sha256(raw: [u8; 32]) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&raw);
        Self { algorithm: Algorithm::Sha256, bytes }
    }

    /// Hashes `data` with SHA-256.
    pub fn sha256(data: impl AsRef<[u8]>) -> Self {
        Self::from_sha256(sha2::Sha256::digest(data.as_ref()).into())
    }

    /// Hashes `data` with the given function.
    pub fn compute(algorithm: Algorithm, data: impl AsRef<[u8]>) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::sha256(data),
            Algorithm::Sha512 => Self { algorithm, bytes: sha2::Sha512::digest(data.as_ref()).into() },
        }
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw digest: 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }

    /// The digest in lower-case hex, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// The first 12 hex digits, as people see ids.
    pub fn short(&self) -> String {
        hex::encode(&self.bytes[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest { text: text.chars().take(200).collect() };
        let (name, digits) = text.split_once(':').ok_or_else(invalid)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(invalid()),
        };
        let lower = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits.len() != algorithm.len() * 2 || !lower {
            return Err(invalid());
        }
        let mut bytes = [0; 64];
        hex::decode_to_slice(digits, &mut bytes[..algorithm.len()]).map_err(|_| invalid())?;
        Ok(Self { algorithm, bytes })
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// Wraps a digest that is known to be of this kind.
            pub fn new(digest: Digest) -> Self {
                Self(digest)
            }

            /// The digest itself.
            pub fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidDigest;

            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                text.parse().map(Self)
            }
        }
    };
}

digest_newtype! {
    /// The digest of a layer's uncompressed tar (OCI image-spec, `config.md#layer-diffid`).
    DiffId
}
digest_newtype! {
    /// The digest of a stack of layers (OCI image-spec, `config.md#layer-chainid`).
    ChainId
}
digest_newtype! {
    /// What a layer holds, without times: entries in byte order, paths, types, modes, owners, content, links, xattrs.
    ContentDigest
}

/// Passes bytes on and hashes them on the way, with SHA-256 unless told otherwise; works as a reader and as a writer.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

#[derive(Debug)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest { algorithm: Algorithm::Sha512, bytes: hasher.finalize().into() },
        }
    }
}

impl<T> Hashing<T> {
    /// Wraps a reader or a writer.
    pub fn new(inner: T) -> Self {
        Self::with_algorithm(inner, Algorithm::Sha256)
    }

    /// Wraps a reader or a writer whose bytes have a digest of this kind.
    pub fn with_algorithm(inner: T, algorithm: Algorithm) -> Self {
        let hasher = match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        };
        Self { inner, hasher, bytes: 0 }
    }

    /// How many bytes have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends: the inner value, the digest of all bytes, and their count.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_digests_parse() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            &format!("sha256:{}", "0A".repeat(32)),
            &format!("sha256:{}", "0a".repeat(31)),
            &format!("md5:{}", "0a".repeat(16)),
            &format!("sha512:{}", "0a".repeat(32)),
            &format!(" {good}"),
        ] {
            let want = format!("invalid digest {bad:?}: want sha256:<64 lower-case hex digits> or sha512:<128>");
            assert_eq!(bad.parse::<Digest>().unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn hashing_passes_bytes_on() {
        let mut reader = Hashing::new(&b"abc"[..]);
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        let (_, digest, bytes) = reader.finish();
        assert_eq!((out.as_slice(), bytes), (&b"abc"[..], 3));
        assert_eq!(digest, Digest::sha256("abc"));
    }

    #[test]
    fn both_functions_are_the_published_ones() {
        let mut writer = Hashing::with_algorithm(io::sink(), Algorithm::Sha512);
        writer.write_all(b"abc").unwrap();
        let digest = writer.finish().1;
        assert_eq!(digest, Digest::compute(Algorithm::Sha512, "abc"));
        assert!(digest.to_string().starts_with("sha512:ddaf35a193617abacc417349ae204131"), "{digest}");
        assert!(Digest::sha256("abc").to_string().starts_with("sha256:ba7816bf8f01cfea414140de5dae2223"));
    }
}
