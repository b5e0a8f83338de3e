//! Whiteouts: entries whose names say that something below is gone (OCI image-spec, `layer.md#whiteouts`).

/// Before the name of what is gone.
const PREFIX: &[u8] = b".wh.";
/// The name of the opaque marker.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// Before names that AUFS kept for itself.
const METADATA: &[u8] = b".wh..wh.";

/// What the name of an entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteout<'a> {
    /// An ordinary entry.
    None,
    /// Nothing that lower layers have in this directory shows through.
    Opaque,
    /// The sibling of this name is gone.
    Delete(&'a [u8]),
    /// Something AUFS left: neither an entry nor a whiteout.
    Metadata,
}

/// A whiteout of a name that no directory entry can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid whiteout {:?}", String::from_utf8_lossy(name))]
pub struct InvalidWhiteout {
    /// The whiteout's own name.
    pub name: Vec<u8>,
}

/// Says what an entry's file name (one component) means.
pub fn classify(name: &[u8]) -> Result<Whiteout<'_>, InvalidWhiteout> {
    if name == OPAQUE {
        return Ok(Whiteout::Opaque);
    }
    if name.starts_with(METADATA) {
        return Ok(Whiteout::Metadata);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Whiteout::None),
        Some(b"" | b"." | b"..") => Err(InvalidWhiteout { name: name.to_vec() }),
        Some(gone) if gone.contains(&b'/') || gone.contains(&0) => Err(InvalidWhiteout { name: name.to_vec() }),
        Some(gone) => Ok(Whiteout::Delete(gone)),
    }
}

/// The name of the whiteout that hides `name`.
pub fn whiteout_of(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}

/// Whether an extended attribute steers overlayfs: such ones in a layer are dropped, or a layer could hide or redirect
/// what lies below it.
pub fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified() {
        for (name, want) in [
            ("file", Whiteout::None),
            (".wh", Whiteout::None),
            ("x.wh.y", Whiteout::None),
            (".wh.file", Whiteout::Delete(b"file")),
            (".wh....", Whiteout::Delete(b"...")),
            (".wh..hidden", Whiteout::Delete(b".hidden")),
            (".wh..wh..opq", Whiteout::Opaque),
            (".wh..wh.plnk", Whiteout::Metadata),
            (".wh..wh..opqx", Whiteout::Metadata),
        ] {
            assert_eq!(classify(name.as_bytes()), Ok(want), "{name}");
        }
        for bad in [".wh.", ".wh..", ".wh...", ".wh.a/b", ".wh.a\0"] {
            assert!(classify(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(classify(&whiteout_of(b"x")), Ok(Whiteout::Delete(b"x")));
    }

    #[test]
    fn overlay_attributes_are_known_by_their_prefix() {
        assert!(is_overlay_xattr(b"trusted.overlay.opaque") && is_overlay_xattr(b"user.overlay.redirect"));
        assert!(!is_overlay_xattr(b"trusted.overlay") && !is_overlay_xattr(b"security.capability"));
    }
}
