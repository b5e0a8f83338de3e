//! Media types of manifests, indexes, configs and layers: OCI's names and Docker's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a blob's bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Plain bytes.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// bzip2; read only, no media type names it.
    Bzip2,
    /// xz; read only, no media type names it.
    Xz,
}

/// Which family of names a document uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavour {
    /// `application/vnd.oci.…`
    Oci,
    /// `application/vnd.docker.…`
    Docker,
}

macro_rules! media_types {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// A media type that this crate knows, or another one, kept as it is.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum MediaType {
            $($(#[$doc])* $variant,)+
            /// Any other type (artefacts, attestations).
            Other(Box<str>),
        }

        impl MediaType {
            /// The registered name.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for MediaType {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Other(other.into()),
                }
            }
        }

        #[cfg(test)]
        const ALL: &[MediaType] = &[$(MediaType::$variant),+];
    };
}

media_types! {
    /// OCI image manifest.
    OciManifest = "application/vnd.oci.image.manifest.v1+json",
    /// OCI image index.
    OciIndex = "application/vnd.oci.image.index.v1+json",
    /// OCI image configuration.
    OciConfig = "application/vnd.oci.image.config.v1+json",
    /// OCI layer, uncompressed.
    OciLayer = "application/vnd.oci.image.layer.v1.tar",
    /// OCI layer, gzip.
    OciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip",
    /// OCI layer, zstd.
    OciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd",
    /// OCI layer that may only be had elsewhere, uncompressed (deprecated).
    OciForeignLayer = "application/vnd.oci.image.layer.nondistributable.v1.tar",
    /// OCI layer that may only be had elsewhere, gzip (deprecated).
    OciForeignLayerGzip = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    /// OCI layer that may only be had elsewhere, zstd (deprecated).
    OciForeignLayerZstd = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    /// OCI's two-byte document `{}`.
    OciEmpty = "application/vnd.oci.empty.v1+json",
    /// Docker image manifest, schema 2.
    DockerManifest = "application/vnd.docker.distribution.manifest.v2+json",
    /// Docker manifest list.
    DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json",
    /// Docker image configuration.
    DockerConfig = "application/vnd.docker.container.image.v1+json",
    /// Docker layer, uncompressed.
    DockerLayer = "application/vnd.docker.image.rootfs.diff.tar",
    /// Docker layer, gzip.
    DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip",
    /// Docker layer, zstd.
    DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd",
    /// Docker layer that may only be had elsewhere, uncompressed.
    DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar",
    /// Docker layer that may only be had elsewhere, gzip.
    DockerForeignLayerGzip = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    /// Docker image manifest, schema 1: recognised to be refused by name.
    DockerSchema1 = "application/vnd.docker.distribution.manifest.v1+json",
    /// Docker image manifest, schema 1, signed: recognised to be refused by name.
    DockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws",
}

impl MediaType {
    /// Whether this names the manifest of one image.
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// Whether this names a list of manifests.
    pub fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerManifestList)
    }

    /// Whether this names an image configuration.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::OciConfig | Self::DockerConfig)
    }

    /// Whether this names a root file system layer.
    pub fn is_layer(&self) -> bool {
        self.compression().is_some()
    }

    /// Whether this names a layer that registries may refuse to hold.
    pub fn is_foreign_layer(&self) -> bool {
        matches!(
            self,
            Self::OciForeignLayer
                | Self::OciForeignLayerGzip
                | Self::OciForeignLayerZstd
                | Self::DockerForeignLayer
                | Self::DockerForeignLayerGzip
        )
    }

    /// Whether this is the long-retired first manifest format.
    pub fn is_schema1(&self) -> bool {
        matches!(self, Self::DockerSchema1 | Self::DockerSchema1Signed)
    }

    /// How a layer of this type is compressed; `None` when this names no layer.
    pub fn compression(&self) -> Option<Compression> {
        Some(match self {
            Self::OciLayer | Self::OciForeignLayer | Self::DockerLayer | Self::DockerForeignLayer => Compression::None,
            Self::OciLayerGzip | Self::OciForeignLayerGzip | Self::DockerLayerGzip | Self::DockerForeignLayerGzip => {
                Compression::Gzip
            }
            Self::OciLayerZstd | Self::OciForeignLayerZstd | Self::DockerLayerZstd => Compression::Zstd,
            _ => return None,
        })
    }

    /// The manifest type of a family.
    pub fn manifest(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Oci => Self::OciManifest,
            Flavour::Docker => Self::DockerManifest,
        }
    }

    /// The index type of a family.
    pub fn index(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Oci => Self::OciIndex,
            Flavour::Docker => Self::DockerManifestList,
        }
    }

    /// The configuration type of a family.
    pub fn config(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Oci => Self::OciConfig,
            Flavour::Docker => Self::DockerConfig,
        }
    }

    /// The layer type of a family; `None` for compressions that layers may not have.
    pub fn layer(flavour: Flavour, compression: Compression) -> Option<Self> {
        Some(match (flavour, compression) {
            (Flavour::Oci, Compression::None) => Self::OciLayer,
            (Flavour::Oci, Compression::Gzip) => Self::OciLayerGzip,
            (Flavour::Oci, Compression::Zstd) => Self::OciLayerZstd,
            (Flavour::Docker, Compression::None) => Self::DockerLayer,
            (Flavour::Docker, Compression::Gzip) => Self::DockerLayerGzip,
            (Flavour::Docker, Compression::Zstd) => Self::DockerLayerZstd,
            (_, Compression::Bzip2 | Compression::Xz) => return None,
        })
    }
}

impl FromStr for MediaType {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.into())
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MediaType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for media_type in ALL {
            assert_eq!(&MediaType::from(media_type.as_str()), media_type);
        }
        assert_eq!(MediaType::from("a/b"), MediaType::Other("a/b".into()));
    }

    #[test]
    fn each_type_has_at_most_one_role() {
        for media_type in ALL {
            let roles =
                [media_type.is_manifest(), media_type.is_index(), media_type.is_config(), media_type.is_layer()];
            assert!(roles.iter().filter(|role| **role).count() <= 1, "{media_type}");
        }
        for flavour in [Flavour::Oci, Flavour::Docker] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let layer = MediaType::layer(flavour, compression).unwrap();
                assert_eq!(layer.compression(), Some(compression));
            }
            assert_eq!(MediaType::layer(flavour, Compression::Xz), None);
        }
    }
}
