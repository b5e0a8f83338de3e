//! Writes images into files: OCI layouts as BuildKit's `type=oci`, and as `type=docker` the same with what
//! `docker load` looks for beside it.
//!
//! First come layers, in the order of the images and from the lowest of each, then everything else in byte order of its
//! name; nothing has a time. So equal images make equal archives, and a layer can be in its place before those behind it
//! are made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::file::Members;
use super::oci_layout::{IMAGE_NAME, LAYOUT_VERSION, REF_NAME, blob_name};
use super::{ArchiveError, doing};
use crate::blob::BlobSource;
use crate::descriptor::{Descriptor, DescriptorMismatch};
use crate::digest::{Digest, Hashing};
use crate::document::{Document, MAX_INDEX_NESTING, MAX_MANIFEST_BYTES};
use crate::index::Index;
use crate::manifest::Manifest;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::reference::ImageRef;

/// One image to write.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its manifest or index. Annotations of this descriptor go into `index.json`.
    pub root: Descriptor,
    /// Its names, each with a tag.
    pub names: Vec<ImageRef>,
}

/// A member to write.
enum Record {
    Bytes { bytes: Vec<u8>, mode: u32 },
    Blob(Box<Descriptor>),
}

/// What an archive holds.
struct Contents {
    /// Layers, in the order of the images.
    layers: Vec<Descriptor>,
    records: BTreeMap<String, Record>,
}

/// Writes an archive that holds an OCI layout.
pub fn write_oci_archive<W: Write>(out: W, images: &[Export], blobs: &dyn BlobSource) -> Result<W, ArchiveError> {
    ArchiveWriter::new(out).oci(images, blobs)
}

/// Writes an OCI layout into a directory that is empty, but for blobs that are there already.
pub fn write_oci_directory(
    root: &Path,
    images: &[Export],
    blobs: &dyn BlobSource,
    there: &BTreeSet<Digest>,
) -> Result<(), ArchiveError> {
    for (name, record) in contents(images, blobs)?.records {
        let path = root.join(&name);
        let write = || doing(format!("write {}", path.display()));
        if matches!(&record, Record::Blob(blob) if there.contains(&blob.digest)) {
            continue;
        }
        fs::create_dir_all(path.parent().unwrap_or(root)).map_err(write())?;
        let mut file = File::create_new(&path).map_err(write())?;
        match record {
            Record::Bytes { bytes, .. } => file.write_all(&bytes).map_err(write())?,
            Record::Blob(blob) => {
                let mut reader = Checked::open(blobs, &blob)?;
                io::copy(&mut reader, &mut file).map_err(write())?;
                reader.finish()?;
            }
        }
        file.sync_all().map_err(write())?;
    }
    Ok(())
}

/// Writes one archive, blob by blob.
#[derive(Debug)]
pub struct ArchiveWriter<W: Write> {
    members: Members<W>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { members: Members::new(out) }
    }

    /// Writes a blob, unless it is there.
    pub fn blob(&mut self, blob: &Descriptor, blobs: &dyn BlobSource) -> Result<(), ArchiveError> {
        if self.members.has(&blob.digest) {
            return Ok(());
        }
        let mut reader = Checked::open(blobs, blob)?;
        self.members.blob(blob, &mut reader)?;
        reader.finish()
    }

    /// Writes the layers that are below a manifest or index, as far as they are not there.
    pub fn layers(&mut self, root: &Descriptor, blobs: &dyn BlobSource) -> Result<(), ArchiveError> {
        let mut contents = Contents { layers: Vec::new(), records: BTreeMap::new() };
        add_blobs(root, blobs, 1, &mut contents)?;
        contents.layers.iter().try_for_each(|layer| self.blob(layer, blobs))
    }

    /// Ends it as an OCI layout of these images.
    pub fn oci(self, images: &[Export], blobs: &dyn BlobSource) -> Result<W, ArchiveError> {
        self.complete(&contents(images, blobs)?, blobs)
    }

    /// Ends it so that `docker load` reads it, and every reader of OCI layouts too.
    pub fn docker(self, images: &[Export], platform: &Platform, blobs: &dyn BlobSource) -> Result<W, ArchiveError> {
        self.complete(&docker_contents(images, platform, blobs)?, blobs)
    }

    fn complete(mut self, contents: &Contents, blobs: &dyn BlobSource) -> Result<W, ArchiveError> {
        for layer in &contents.layers {
            self.blob(layer, blobs)?;
        }
        for (name, record) in &contents.records {
            match record {
                Record::Bytes { bytes, mode } => self.members.document(name, bytes, *mode)?,
                Record::Blob(blob) => self.blob(blob, blobs)?,
            }
        }
        self.members.finish().map_err(doing("write the archive"))
    }
}

/// A layer that goes into an archive while its digest is not known yet: what is written is its bytes.
impl ArchiveWriter<BufWriter<File>> {
    /// Begins a blob; its bytes follow by [`Self::more`].
    pub fn begin(&mut self) -> io::Result<()> {
        self.members.begin()
    }

    /// Writes more of the blob that was begun.
    pub fn more(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.members.more(bytes)
    }

    /// Says what was begun; one that the archive has already leaves no trace.
    pub fn end(&mut self, digest: &Digest, size: u64) -> io::Result<()> {
        self.members.end(digest, size)
    }

    /// Takes back what was begun and not ended.
    pub fn abandon(&mut self) -> io::Result<()> {
        self.members.abandon()
    }
}

/// Writes an archive that `docker load` reads, and every reader of OCI layouts too. Of an image for several platforms
/// it shows `docker load` the one for `platform`. Docker before version 23 cannot read layers compressed with zstd.
pub fn write_docker_tar<W: Write>(
    out: W,
    images: &[Export],
    platform: &Platform,
    blobs: &dyn BlobSource,
) -> Result<W, ArchiveError> {
    ArchiveWriter::new(out).docker(images, platform, blobs)
}

/// As [`write_docker_tar`], but the bytes of some blobs are left out: for a reader that has them already.
pub fn write_docker_tar_without<W: Write>(
    out: W,
    images: &[Export],
    platform: &Platform,
    blobs: &dyn BlobSource,
    without: &BTreeSet<Digest>,
) -> Result<W, ArchiveError> {
    let mut contents = docker_contents(images, platform, blobs)?;
    contents.layers.retain(|layer| !without.contains(&layer.digest));
    contents.records.retain(|_, record| !matches!(record, Record::Blob(blob) if without.contains(&blob.digest)));
    ArchiveWriter::new(out).complete(&contents, blobs)
}

fn docker_contents(images: &[Export], platform: &Platform, blobs: &dyn BlobSource) -> Result<Contents, ArchiveError> {
    let mut contents = contents(images, blobs)?;
    let records = &mut contents.records;
    let (mut items, mut repositories): (Vec<Value>, BTreeMap<String, Map<String, Value>>) = Default::default();
    for image in images {
        let manifest = manifest_for(&image.root, platform, blobs)?;
        let layers: Vec<String> = manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
        let names: Vec<String> = image.names.iter().map(|name| name.tag_or_latest().to_string()).collect();
        items.push(json!({"Config": blob_name(&manifest.config.digest), "RepoTags": names, "Layers": layers}));
        let top = manifest.layers.last().map_or(manifest.config.digest, |layer| layer.digest);
        for name in &image.names {
            let tags = repositories.entry(name.familiar_name()).or_default();
            tags.insert(name.tag().unwrap_or("latest").to_owned(), top.hex().into());
        }
    }
    records.insert("manifest.json".to_owned(), json_record(&Value::Array(items)));
    if !repositories.is_empty() {
        records.insert("repositories".to_owned(), json_record(&json!(repositories)));
    }
    Ok(contents)
}

/// What is in a layout.
fn contents(images: &[Export], blobs: &dyn BlobSource) -> Result<Contents, ArchiveError> {
    let mut contents = Contents { layers: Vec::new(), records: BTreeMap::new() };
    let mut manifests = Vec::new();
    for image in images {
        add_blobs(&image.root, blobs, 1, &mut contents)?;
        if image.names.is_empty() {
            manifests.push(image.root.clone());
        }
        for name in image.names.iter().map(ImageRef::tag_or_latest) {
            let mut line = image.root.clone();
            line.annotations.insert(IMAGE_NAME.to_owned(), name.canonical());
            line.annotations.insert(REF_NAME.to_owned(), name.tag().unwrap_or("latest").to_owned());
            manifests.push(line);
        }
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(MediaType::OciIndex),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
        extra: Map::new(),
    };
    let index = serde_json::to_value(&index).expect("an index has only string keys and finite numbers");
    contents.records.insert("index.json".to_owned(), json_record(&index));
    let version = json!({"imageLayoutVersion": LAYOUT_VERSION}).to_string().into_bytes();
    contents.records.insert("oci-layout".to_owned(), Record::Bytes { bytes: version, mode: 0o444 });
    Ok(contents)
}

fn json_record(value: &Value) -> Record {
    Record::Bytes { bytes: value.to_string().into_bytes(), mode: 0o644 }
}

/// Adds a document's blob and those that it names.
fn add_blobs(
    root: &Descriptor,
    blobs: &dyn BlobSource,
    depth: usize,
    contents: &mut Contents,
) -> Result<(), ArchiveError> {
    if depth > MAX_INDEX_NESTING {
        return Err(ArchiveError::Nesting { digest: root.digest, limit: MAX_INDEX_NESTING });
    }
    let document = document(root, blobs)?;
    contents.records.insert(blob_name(&root.digest), Record::Blob(Box::new(root.clone())));
    for child in document.children() {
        if child.media_type.is_manifest() || child.media_type.is_index() {
            add_blobs(child, blobs, depth + 1, contents)?;
            continue;
        }
        // Layers that may only be had elsewhere need not be here.
        let optional = child.media_type.is_foreign_layer();
        if !(optional && is_missing(blobs.size(&child.digest))) {
            contents.records.insert(blob_name(&child.digest), Record::Blob(Box::new(child.clone())));
            contents.layers.extend(child.media_type.is_layer().then(|| child.clone()));
        }
    }
    Ok(())
}

fn is_missing(size: io::Result<u64>) -> bool {
    size.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Reads a manifest or index, and checks it.
fn document(descriptor: &Descriptor, blobs: &dyn BlobSource) -> Result<Document, ArchiveError> {
    let Descriptor { digest, size, .. } = *descriptor;
    if size > MAX_MANIFEST_BYTES {
        return Err(ArchiveError::TooLarge { name: digest.to_string(), size, limit: MAX_MANIFEST_BYTES });
    }
    let mut bytes = Vec::new();
    let mut reader = Checked::open(blobs, descriptor)?;
    reader.read_to_end(&mut bytes).map_err(doing(format!("read blob {digest}")))?;
    reader.finish()?;
    Document::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| ArchiveError::Document { digest, source })
}

/// The manifest that serves `platform`.
fn manifest_for(root: &Descriptor, platform: &Platform, blobs: &dyn BlobSource) -> Result<Manifest, ArchiveError> {
    let mut descriptor = root.clone();
    for _ in 0..MAX_INDEX_NESTING {
        match document(&descriptor, blobs)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(index) => {
                let missing = || ArchiveError::NoPlatform { digest: root.digest, platform: platform.clone() };
                descriptor = index.select(platform).ok_or_else(missing)?.clone();
            }
        }
    }
    Err(ArchiveError::Nesting { digest: descriptor.digest, limit: MAX_INDEX_NESTING })
}

/// Reads a blob that must be what its descriptor says.
struct Checked {
    reader: Hashing<Box<dyn Read + Send>>,
    expected: Descriptor,
}

impl Checked {
    fn open(blobs: &dyn BlobSource, expected: &Descriptor) -> Result<Self, ArchiveError> {
        let Descriptor { digest, size: want, .. } = *expected;
        let got = blobs.size(&digest).map_err(doing(format!("read blob {digest}")))?;
        if got != want {
            return Err(DescriptorMismatch::Size { digest, want, got }.into());
        }
        let reader = blobs.open(&digest).map_err(doing(format!("read blob {digest}")))?;
        let reader = Hashing::with_algorithm(reader, digest.algorithm());
        Ok(Self { reader, expected: expected.clone() })
    }

    fn finish(self) -> Result<(), ArchiveError> {
        let (_, got, size) = self.reader.finish();
        let Descriptor { digest, size: want, .. } = self.expected;
        if size != want {
            return Err(DescriptorMismatch::Size { digest, want, got: size }.into());
        }
        if got != digest {
            return Err(DescriptorMismatch::Digest { want: digest, got }.into());
        }
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}
