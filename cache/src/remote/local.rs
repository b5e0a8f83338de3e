//! A cache in a directory: an OCI image layout, one line of `index.json` per tag.
//!
//! Every file is written under another name first and renamed when it is whole and synced; `index.json` changes under a
//! lock, last. What older caches of the directory leave behind is not removed: it may be another tag's.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rbuild_image::registry::TransferSink;
use rbuild_image::{
    BlobSink, BlobSource, Descriptor, DescriptorMismatch, Digest, Document, DocumentError, Hashing, Index,
    MAX_MANIFEST_BYTES, MediaType, copy_blob, parse_index,
};
use rustix::fs::{FlockOperation, OFlags};

use super::{CacheSource, CacheTarget, PlaceError};

/// The annotation with a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A directory and a tag or digest in it.
#[derive(Clone, Debug)]
pub struct LocalCache {
    directory: PathBuf,
    tag: String,
    digest: Option<Digest>,
}

/// Why a cache in a directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LocalCacheError {
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no cache of that tag.
    #[error("{} has no cache {tag:?}", directory.display())]
    NoTag {
        /// Where.
        directory: PathBuf,
        /// Which tag.
        tag: String,
    },
    /// A manifest is not what it should be.
    #[error("{} has an unreadable manifest", directory.display())]
    Document {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A blob is not what its name says.
    #[error("{} has a damaged blob", directory.display())]
    Damaged {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: DescriptorMismatch,
    },
    /// A blob is larger than its kind may be.
    #[error("blob {digest} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

impl LocalCacheError {
    /// Whether there is no such cache (yet).
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::NoTag { .. } => true,
            Self::File { path, source, .. } => source.kind() == io::ErrorKind::NotFound && path.ends_with("index.json"),
            _ => false,
        }
    }
}

/// Attaches what was being done, and to what.
trait Doing<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, LocalCacheError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, LocalCacheError> {
        self.map_err(|source| LocalCacheError::File { action, path: path.to_owned(), source })
    }
}

impl LocalCache {
    /// The cache of that tag.
    pub fn tagged(directory: &Path, tag: &str) -> Self {
        Self { directory: directory.to_owned(), tag: tag.to_owned(), digest: None }
    }

    /// The cache whose manifest has that digest.
    pub fn with_digest(directory: &Path, digest: Digest) -> Self {
        Self { digest: Some(digest), ..Self::tagged(directory, "") }
    }

    fn index_path(&self) -> PathBuf {
        self.directory.join("index.json")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn index(&self) -> Result<Index, LocalCacheError> {
        let bytes = read_bounded(&self.index_path(), MAX_MANIFEST_BYTES)?;
        parse_index(&bytes, None).map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: DocumentError) -> LocalCacheError {
        LocalCacheError::Document { directory: self.directory.clone(), source }
    }

    fn document(
        &self,
        blob: &Digest,
        expected: Option<&Descriptor>,
    ) -> Result<(Descriptor, Document), LocalCacheError> {
        let bytes = read_bounded(&self.blob_path(blob), MAX_MANIFEST_BYTES)?;
        let found = Digest::compute(blob.algorithm(), &bytes);
        if found != *blob {
            let source = DescriptorMismatch::Digest { want: *blob, got: found };
            return Err(LocalCacheError::Damaged { directory: self.directory.clone(), source });
        }
        let declared = expected.map(|expected| &expected.media_type).filter(|kind| !kind.as_str().is_empty());
        let document = Document::parse(&bytes, declared).map_err(|source| self.unreadable(source))?;
        Ok((Descriptor::new(document.media_type(), *blob, bytes.len() as u64), document))
    }

    /// Writes a file that appears whole or not at all.
    fn write(&self, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), LocalCacheError> {
        let parent = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent).doing("create", parent)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number: u64 = getrandom::u64().map_err(io::Error::from).doing("name a file beside", path)?;
        let draft = parent.join(format!(".{name}.{number:016x}.partial"));
        let written = File::create_new(&draft)
            .and_then(|mut file| {
                fill(&mut file)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&draft, path))
            .and_then(|()| File::open(parent)?.sync_all())
            .doing("write", path);
        if written.is_err() {
            // It may never have been made, or been renamed already.
            let _gone = fs::remove_file(&draft);
        }
        written
    }
}

/// Opens a file that is one: what else a directory may hold could block for ever.
fn open(path: &Path) -> Result<File, LocalCacheError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File =
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(io::Error::from).doing("open", path)?.into();
    if !file.metadata().doing("inspect", path)?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).doing("read", path);
    }
    Ok(file)
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, LocalCacheError> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes).doing("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge)).doing("read", path);
    }
    Ok(bytes)
}

impl CacheSource for LocalCache {
    fn root(&self) -> Result<(Descriptor, Document), PlaceError> {
        if let Some(digest) = &self.digest {
            return Ok(self.document(digest, None)?);
        }
        let tagged = |descriptor: &&Descriptor| descriptor.annotations.get(REF_NAME) == Some(&self.tag);
        let index = self.index()?;
        let found = index.manifests.iter().find(tagged);
        let found =
            found.ok_or_else(|| LocalCacheError::NoTag { directory: self.directory.clone(), tag: self.tag.clone() })?;
        Ok(self.document(&found.digest, Some(found))?)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, PlaceError> {
        Ok(self.document(&descriptor.digest, Some(descriptor))?.1)
    }

    fn bytes(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, PlaceError> {
        if blob.size > limit {
            return Err(LocalCacheError::TooLarge { digest: blob.digest, size: blob.size, limit }.into());
        }
        let bytes = read_bounded(&self.blob_path(&blob.digest), blob.size)?;
        blob.verify(&bytes).map_err(|source| LocalCacheError::Damaged { directory: self.directory.clone(), source })?;
        Ok(bytes)
    }

    fn blob(&self, blob: &Descriptor, sink: &dyn BlobSink, _: &dyn TransferSink) -> Result<(), PlaceError> {
        let mut file = open(&self.blob_path(&blob.digest))?;
        copy_blob(&mut file, blob, sink).map_err(PlaceError::Blob)
    }
}

impl CacheTarget for LocalCache {
    fn put_blob(&self, blob: &Descriptor, from: &dyn BlobSource, _: &dyn TransferSink) -> Result<(), PlaceError> {
        let path = self.blob_path(&blob.digest);
        if path.metadata().is_ok_and(|found| found.is_file() && found.len() == blob.size) {
            return Ok(());
        }
        let mut reader = from.open(&blob.digest).map_err(PlaceError::Blob)?;
        self.write(&path, |file| {
            let mut out = Hashing::with_algorithm(file, blob.digest.algorithm());
            io::copy(&mut reader, &mut out)?;
            let (_, digest, size) = out.finish();
            if digest == blob.digest && size == blob.size {
                return Ok(());
            }
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("blob {} came out as {digest}", blob.digest)))
        })?;
        Ok(())
    }

    fn put_root(&self, media_type: &MediaType, bytes: &[u8]) -> Result<Digest, PlaceError> {
        let mut root = Descriptor::of(media_type.clone(), bytes);
        self.write(&self.blob_path(&root.digest), |file| file.write_all(bytes))?;
        let layout = self.directory.join("oci-layout");
        if !layout.exists() {
            self.write(&layout, |file| file.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
        }
        let lock_path = self.directory.join("index.json.lock");
        let lock = File::create(&lock_path).doing("create", &lock_path)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from).doing("lock", &lock_path)?;
        let mut index = match self.index() {
            Ok(index) => index,
            Err(error) if error.is_absent() => Index {
                schema_version: 2,
                media_type: Some(MediaType::OciIndex),
                artifact_type: None,
                manifests: Vec::new(),
                subject: None,
                annotations: std::collections::BTreeMap::new(),
                extra: serde_json::Map::new(),
            },
            Err(error) => return Err(error.into()),
        };
        index.manifests.retain(|known| known.annotations.get(REF_NAME) != Some(&self.tag));
        root.annotations.insert(REF_NAME.to_owned(), self.tag.clone());
        let digest = root.digest;
        index.manifests.push(root);
        self.write(&self.index_path(), |file| file.write_all(&index.to_json()))?;
        Ok(digest)
    }
}
