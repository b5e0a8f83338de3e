//! Images in files: OCI layouts and `docker save` archives, read and written.
//!
//! Reading has two steps. [`Archive::open`] takes a directory, a file or a stream, finds out what it is and enumerates
//! its images with everything that is small; the caller then streams the blobs it wants, since an [`Archive`] is a
//! [`BlobSource`]. Nothing is believed: digests and sizes of documents are checked here, those of layers by the sink.
//! Names inside an archive lead only to regular members of the archive.

mod docker_tar;
mod file;
mod members;
mod oci_layout;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

pub use write::{
    ArchiveWriter, Export, write_docker_tar, write_docker_tar_without, write_oci_archive, write_oci_directory,
};

use crate::assemble::{DescribedBytes, LayerBlob};
use crate::blob::{BlobSource, MemoryBlobs, not_found};
use crate::config::ImageConfig;
use crate::descriptor::{Descriptor, DescriptorMismatch};
use crate::digest::Digest;
use crate::document::DocumentError;
use crate::layer::{DecodeLimits, TarError, TarLimits};
use crate::platform::Platform;
use crate::reference::{ImageRef, InvalidReference};
use crate::strict_json::JsonError;
use members::{Members, Section};

/// Where an archive comes from.
pub enum ArchiveInput {
    /// An OCI layout that was unpacked.
    Directory(PathBuf),
    /// A file, compressed or not, read from its start. One that cannot seek is read as a stream.
    File(File),
    /// Bytes that come once.
    Stream(Box<dyn Read + Send>),
}

/// How much an archive may ask for.
#[derive(Clone, Debug)]
pub struct ArchiveLimits {
    /// What the outer compression may become.
    pub decode: DecodeLimits,
    /// What the outer tar may hold.
    pub tar: TarLimits,
}

impl Default for ArchiveLimits {
    /// Fewer members than a layer may have: an index of them is kept in memory.
    fn default() -> Self {
        Self { decode: DecodeLimits::default(), tar: TarLimits { entries: 200_000, ..TarLimits::default() } }
    }
}

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout.
    OciLayout,
    /// What `docker save` wrote before it wrote OCI layouts.
    DockerTar,
}

/// An archive whose images are known.
#[derive(Debug)]
pub struct Archive {
    format: ArchiveFormat,
    members: Members,
    /// Where the blobs are that do not lie under their digests.
    located: std::collections::BTreeMap<Digest, Section>,
    /// Documents that the archive implies but does not hold.
    made: MemoryBlobs<'static>,
    images: Vec<ArchiveImage>,
}

/// One image of an archive, for one platform or several.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveImage {
    /// What the archive calls it, each with a tag.
    pub names: Vec<ImageRef>,
    /// `org.opencontainers.image.ref.name`, when it is a bare tag or label and so no name.
    pub label: Option<String>,
    /// The indexes above the manifests, outermost first; none for an image of a single manifest.
    pub indexes: Vec<DescribedBytes>,
    /// The manifests whose blobs the archive holds; at least one.
    pub manifests: Vec<ArchiveManifest>,
}

/// One image for one platform.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveManifest {
    /// For which platform.
    pub platform: Platform,
    /// The manifest. For a docker-archive it is made from the configuration and the layers.
    pub manifest: DescribedBytes,
    /// The configuration.
    pub config: DescribedBytes,
    /// The configuration, parsed.
    pub image_config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<LayerBlob>,
}

/// An archive that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading or writing failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not a tar archive, or one that may not be read.
    #[error("not a readable image archive")]
    Tar(#[from] TarError),
    /// A tar archive of something else.
    #[error("neither an OCI layout nor a docker archive: it holds neither oci-layout nor manifest.json")]
    UnknownFormat,
    /// A layout of another version.
    #[error("the OCI layout has version {found:?}, only 1.0.0 is supported")]
    LayoutVersion {
        /// Its version.
        found: String,
    },
    /// A member that something names is not there.
    #[error("the archive names {name:?}, but holds no such file")]
    MissingMember {
        /// The name.
        name: String,
    },
    /// A member that something names is a directory, a device, a link to nowhere or out of the archive.
    #[error("{name:?} in the archive is not a regular file")]
    NotRegular {
        /// The name.
        name: String,
    },
    /// Two members of one name, which readers would take differently.
    #[error("the archive holds {name:?} twice")]
    DuplicateMember {
        /// The name.
        name: String,
    },
    /// A member has more bytes than its kind may have.
    #[error("{name:?} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The member.
        name: String,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// Not JSON, or ambiguous.
    #[error("invalid {name:?}")]
    Json {
        /// The member.
        name: String,
        /// Why.
        #[source]
        source: JsonError,
    },
    /// Not a manifest, index or configuration.
    #[error("invalid document {digest}")]
    Document {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A blob that is not what its name says.
    #[error("the archive is damaged")]
    Mismatch(#[from] DescriptorMismatch),
    /// Indexes in indexes in indexes…
    #[error("index {digest} is nested more than {limit} deep")]
    Nesting {
        /// The innermost one that was reached.
        digest: Digest,
        /// The limit.
        limit: usize,
    },
    /// A name that is no reference.
    #[error("the archive names an image {name:?}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: InvalidReference,
    },
    /// A tag may not be a digest.
    #[error("the archive tags an image {name:?}: a tag has no digest")]
    DigestAsTag {
        /// The name.
        name: String,
    },
    /// A layer in a format that manifests have no type for.
    #[error("layer {name:?} is compressed with {compression:?}; only gzip and zstd are supported in images")]
    LayerCompression {
        /// The member.
        name: String,
        /// Its format.
        compression: crate::media_type::Compression,
    },
    /// More layers than an image may have, or something that is no layer.
    #[error("the image cannot be put together")]
    Assemble(#[from] crate::assemble::AssembleError),
    /// An archive without an image.
    #[error("the archive holds no image")]
    NoImages,
    /// The format holds one platform for each name.
    #[error("{digest} has no image for {platform}")]
    NoPlatform {
        /// The index.
        digest: Digest,
        /// What is wanted.
        platform: Platform,
    },
}

impl Archive {
    /// Opens an archive and enumerates its images. What cannot seek or is compressed goes through the file that
    /// `scratch` makes: it should be one that vanishes when closed.
    pub fn open(
        input: ArchiveInput,
        limits: &ArchiveLimits,
        scratch: &mut dyn FnMut() -> io::Result<File>,
    ) -> Result<Self, ArchiveError> {
        let members = Members::open(input, limits, scratch)?;
        let mut archive = Self {
            format: ArchiveFormat::OciLayout,
            members,
            located: std::collections::BTreeMap::new(),
            made: MemoryBlobs::default(),
            images: Vec::new(),
        };
        // What docker writes today is both; the layout has the real manifests.
        if archive.members.holds("oci-layout") {
            archive.images = oci_layout::read(&archive.members)?;
        } else if archive.members.holds("manifest.json") {
            archive.format = ArchiveFormat::DockerTar;
            archive.images = docker_tar::read(&archive.members, &mut archive.located, &mut archive.made)?;
        } else {
            return Err(ArchiveError::UnknownFormat);
        }
        if archive.images.is_empty() {
            return Err(ArchiveError::NoImages);
        }
        Ok(archive)
    }

    /// What the archive is.
    pub fn format(&self) -> ArchiveFormat {
        self.format
    }

    /// The images, in the archive's order; never empty.
    pub fn images(&self) -> &[ArchiveImage] {
        &self.images
    }

    fn section(&self, digest: &Digest) -> io::Result<Section> {
        match self.located.get(digest) {
            Some(section) => Ok(section.clone()),
            None => {
                let name = oci_layout::blob_name(digest);
                self.members.find(&name).map_err(|error| match error {
                    ArchiveError::MissingMember { .. } => not_found(digest),
                    other => io::Error::new(io::ErrorKind::InvalidData, other),
                })
            }
        }
    }
}

impl BlobSource for Archive {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match self.made.get(digest) {
            Some(_) => self.made.open(digest),
            None => Ok(Box::new(self.section(digest)?.reader()?)),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        match self.made.get(digest) {
            Some(bytes) => Ok(bytes.len() as u64),
            None => Ok(self.section(digest)?.size()),
        }
    }
}

impl ArchiveImage {
    /// What names the whole image: the outermost index, or the only manifest.
    pub fn root(&self) -> &DescribedBytes {
        self.indexes.first().unwrap_or(&self.manifests[0].manifest)
    }

    /// The manifest that serves `wanted` best.
    pub fn select(&self, wanted: &Platform) -> Option<&ArchiveManifest> {
        let ranked = self.manifests.iter().filter_map(|m| Some((m.platform.rank_for(wanted)?, m)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, manifest)| manifest)
    }

    /// Every blob of the image once, each after the ones it names: layers, configurations, manifests, indexes.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut out: Vec<Descriptor> = Vec::new();
        let manifests = self.manifests.iter().flat_map(ArchiveManifest::blobs);
        for blob in manifests.chain(self.indexes.iter().rev().map(|index| index.0.clone())) {
            if !out.iter().any(|have| have.digest == blob.digest) {
                out.push(blob);
            }
        }
        out
    }
}

impl ArchiveManifest {
    /// Every blob of the image, each after the ones it names: layers, configuration, manifest.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let layers = self.layers.iter().map(|layer| layer.descriptor.clone());
        layers.chain([self.config.0.clone(), self.manifest.0.clone()]).collect()
    }
}

impl std::fmt::Debug for ArchiveInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Attaches what was tried to an I/O error.
fn doing(action: impl Into<String>) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { action: action.into(), source }
}

/// Parses a name that an archive gives an image: it must be a name with a tag, `latest` when it says none.
fn tagged_name(name: &str) -> Result<ImageRef, ArchiveError> {
    let fault = |source| ArchiveError::Name { name: name.chars().take(300).collect(), source };
    let reference: ImageRef = name.parse().map_err(fault)?;
    if reference.digest().is_some() {
        return Err(ArchiveError::DigestAsTag { name: name.to_owned() });
    }
    Ok(reference.tag_or_latest())
}
