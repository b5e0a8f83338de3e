//! An image made ready to leave: its manifest, and where the bytes of each blob come from. Layers are compressed here
//! and nowhere else; layers that came from outside leave as they came.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_cache::snapshot::{Committed, Snapshot, Times};
use rbuild_cache::{ImageRecord, Lease, Store, StoredImage};
use rbuild_image::layer::{Decoder, EncodeOptions, Encoder};
use rbuild_image::{
    BlobSource, Descriptor, DiffId, Digest, Flavour, Hashing, ImageConfig, MAX_MANIFEST_BYTES, Manifest, MediaType,
    assemble_with_config, parse_manifest,
};

use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::remote_cache::spec::ExistingBlobs;
use crate::request::Compression;

/// How layers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Compression of layers that have no blob yet.
    pub compression: Compression,
    /// Which media types.
    pub flavour: Flavour,
}

/// How an image is packed.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How layers leave.
    pub packing: Packing,
    /// What becomes of layers that came from outside.
    pub existing: ExistingBlobs,
    /// Times in the layers of this build.
    pub times: Times,
    /// So many layers, from the lowest, are the base image's: their times stay.
    pub base_layers: usize,
    /// Notes in the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// An image ready to leave.
pub struct Staged<'a> {
    /// What its manifest is called.
    pub manifest: Descriptor,
    /// The manifest.
    pub manifest_bytes: Vec<u8>,
    /// What the manifest says.
    pub document: Manifest,
    /// Digests of the uncompressed layers.
    pub diff_ids: Vec<DiffId>,
    store: &'a Store,
    files: BTreeMap<Digest, PathBuf>,
    memory: BTreeMap<Digest, Vec<u8>>,
}

impl BlobSource for Staged<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        if let Some(path) = self.files.get(digest) {
            return Ok(Box::new(File::open(path)?));
        }
        match self.memory.get(digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => BlobSource::open(&self.store.blobs(), digest),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        if let Some(path) = self.files.get(digest) {
            return Ok(path.metadata()?.len());
        }
        match self.memory.get(digest) {
            Some(bytes) => Ok(bytes.len() as u64),
            None => BlobSource::size(&self.store.blobs(), digest),
        }
    }
}

/// Blobs of several images, and of the index that names them.
pub struct Together<'a> {
    /// The images.
    pub staged: &'a [Staged<'a>],
    /// The index.
    pub index: Option<&'a (Descriptor, Vec<u8>)>,
}

impl Together<'_> {
    fn first<T>(&self, ask: impl Fn(&Staged<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for staged in self.staged {
            match ask(staged) {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn index(&self, digest: &Digest) -> Option<&[u8]> {
        self.index.filter(|(index, _)| index.digest == *digest).map(|(_, bytes)| bytes.as_slice())
    }
}

impl BlobSource for Together<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match self.index(digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.to_vec()))),
            None => self.first(|staged| staged.open(digest)),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        match self.index(digest) {
            Some(bytes) => Ok(bytes.len() as u64),
            None => self.first(|staged| staged.size(digest)),
        }
    }
}

/// An image with the manifest that it came with, when all its blobs are still there.
pub fn original<'a>(store: &'a Store, image: &StoredImage) -> Result<Option<Staged<'a>>, Failure> {
    let Some(descriptor) = &image.record.manifest else { return Ok(None) };
    let Ok(bytes) = store.blobs().read(&descriptor.digest, MAX_MANIFEST_BYTES) else { return Ok(None) };
    let document = parse_manifest(&bytes, Some(&descriptor.media_type))?;
    let there = document.layers.iter().all(|layer| store.blobs().len(&layer.digest).is_ok());
    Ok(there.then(|| Staged {
        manifest: descriptor.clone(),
        manifest_bytes: bytes,
        document,
        diff_ids: image.record.diff_ids.clone(),
        store,
        files: BTreeMap::new(),
        memory: BTreeMap::new(),
    }))
}

/// Compresses an image's layers and writes its manifest. The files live as long as the lease.
pub fn pack<'a>(
    engine: &'a Engine,
    lease: &Lease,
    record: &ImageRecord,
    packing: Packing,
) -> Result<Staged<'a>, Failure> {
    let store = engine.store()?;
    let config = image_names::config(store, &record.id)?;
    let recipe = Recipe {
        packing,
        existing: ExistingBlobs::Kept,
        times: Times::Kept,
        base_layers: 0,
        annotations: BTreeMap::new(),
    };
    pack_layers(engine, lease, record, &config, &recipe)
}

/// As [`pack`], by a recipe and with a config of the caller's, whose diff ids follow from the layers.
pub fn pack_layers<'a>(
    engine: &'a Engine,
    lease: &Lease,
    record: &ImageRecord,
    config: &ImageConfig,
    recipe: &Recipe,
) -> Result<Staged<'a>, Failure> {
    let packing = recipe.packing;
    let store = engine.store()?;
    let chain = chain(store, record)?;
    let known = known_blobs(store)?;
    let work: Vec<Mutex<Option<Result<Packed, Failure>>>> = chain.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(chain.len().max(1));
    let compress = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(snapshot) = chain.get(at) else { return };
            let times = if at < recipe.base_layers { Times::Kept } else { recipe.times };
            let packed = match recipe.existing {
                ExistingBlobs::Recompressed => repack_layer(store, lease, snapshot, &known, packing, times),
                // One that came uncompressed, in an archive, was never meant to travel like that.
                ExistingBlobs::Kept if is_bare(snapshot, &known) => {
                    repack_layer(store, lease, snapshot, &known, packing, times)
                }
                ExistingBlobs::Kept => pack_layer(lease, snapshot, &known, packing, times),
            };
            *work[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(packed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(compress);
        }
    });
    let (mut files, mut layers, mut diff_ids) = (BTreeMap::new(), Vec::new(), Vec::new());
    for packed in work {
        let packed = packed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let packed = packed.expect("every layer was taken by a thread")?;
        if let Some(path) = packed.file {
            files.insert(packed.descriptor.digest, path);
        }
        layers.push(packed.descriptor);
        diff_ids.push(packed.diff_id);
    }
    let mut config = config.clone();
    config.rootfs.diff_ids.clone_from(&diff_ids);
    let assembled =
        assemble_with_config(config.to_json(), &record.platform, &layers, packing.flavour, &recipe.annotations)?;
    let (manifest, manifest_bytes) = assembled.manifest;
    let document = parse_manifest(&manifest_bytes, Some(&manifest.media_type))?;
    let (config, config_bytes) = assembled.config;
    let memory = BTreeMap::from([(config.digest, config_bytes), (manifest.digest, manifest_bytes.clone())]);
    Ok(Staged { manifest, manifest_bytes, document, diff_ids, store, files, memory })
}

/// An image's snapshots, lowest first.
fn chain(store: &Store, record: &ImageRecord) -> Result<Vec<Snapshot<Committed>>, Failure> {
    let Some(top) = record.snapshot else {
        if record.diff_ids.is_empty() {
            return Ok(Vec::new());
        }
        return Err(Failure::new(format!(
            "image {} is not unpacked, and its original blobs are gone",
            record.id.short()
        )));
    };
    let ids = store.snapshots().get(top)?.chain();
    ids.into_iter().rev().map(|id| store.snapshots().get(id).map_err(Failure::from)).collect()
}

/// A layer's blob.
#[derive(Debug)]
pub(crate) struct Packed {
    /// What it is.
    pub(crate) descriptor: Descriptor,
    /// Digest of its uncompressed tar.
    pub(crate) diff_id: DiffId,
    /// Where it is, when not in the store.
    pub(crate) file: Option<PathBuf>,
}

/// A layer's blob: one of `known` where that serves, else compressed now.
pub(crate) fn pack_layer(
    lease: &Lease,
    snapshot: &Snapshot<Committed>,
    known: &BTreeMap<DiffId, Descriptor>,
    packing: Packing,
    times: Times,
) -> Result<Packed, Failure> {
    if times == Times::Kept {
        let layer = snapshot.layer()?;
        if let Some(descriptor) = known.get(&layer.diff_id)
            && (snapshot.is_imported() || fits(descriptor, packing))
            && let Some(media_type) =
                descriptor.media_type.compression().and_then(|c| MediaType::layer(packing.flavour, c))
        {
            let descriptor = Descriptor::new(media_type, descriptor.digest, descriptor.size);
            return Ok(Packed { descriptor, diff_id: layer.diff_id, file: None });
        }
    }
    compress(lease, packing, |out| {
        let layer = match times {
            Times::Kept => snapshot.write_tar(out)?,
            times @ Times::ClampedTo(_) => snapshot.write_tar_with(times, out)?,
        };
        Ok(layer.diff_id)
    })
}

/// Whether the blob that a layer came as is not compressed.
fn is_bare(snapshot: &Snapshot<Committed>, known: &BTreeMap<DiffId, Descriptor>) -> bool {
    let blob =
        snapshot.is_imported().then(|| snapshot.layer().ok()).flatten().and_then(|layer| known.get(&layer.diff_id));
    blob.is_some_and(|blob| blob.media_type.compression() == Some(rbuild_image::Compression::None))
}

/// A layer's blob in the wanted compression, also where it came in another one.
pub(crate) fn repack_layer(
    store: &Store,
    lease: &Lease,
    snapshot: &Snapshot<Committed>,
    known: &BTreeMap<DiffId, Descriptor>,
    packing: Packing,
    times: Times,
) -> Result<Packed, Failure> {
    if times == Times::Kept && snapshot.is_imported() {
        let diff_id = snapshot.layer()?.diff_id;
        if let Some(blob) = known.get(&diff_id).filter(|blob| !fits(blob, packing)) {
            let mut tar = Decoder::new(store.blobs().open(&blob.digest)?)?;
            return compress(lease, packing, |out| {
                io::copy(&mut tar, out)?;
                Ok(diff_id)
            });
        }
    }
    pack_layer(lease, snapshot, known, packing, times)
}

/// Compresses the tar that `write` gives, into a file of the lease's.
pub(crate) fn compress(
    lease: &Lease,
    packing: Packing,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<DiffId, Failure>,
) -> Result<Packed, Failure> {
    let path = lease.scratch_name("layer")?;
    let failed = |error: io::Error| Failure::from_error(&format!("cannot write {}", path.display()), &error);
    let file = Hashing::new(BufWriter::with_capacity(1 << 20, File::create_new(&path).map_err(failed)?));
    let (compression, level) = match packing.compression {
        Compression::Uncompressed => (rbuild_image::Compression::None, None),
        Compression::Gzip(level) => (rbuild_image::Compression::Gzip, level),
        Compression::Zstd(level) => (rbuild_image::Compression::Zstd, level),
    };
    let mut encoder = Encoder::new(file, EncodeOptions { level, ..EncodeOptions::new(compression) }).map_err(failed)?;
    let diff_id = write(&mut encoder)?;
    let (mut out, digest, size) = encoder.finish().map_err(failed)?.finish();
    out.flush().map_err(failed)?;
    let media_type = MediaType::layer(packing.flavour, compression)
        .or_else(|| MediaType::layer(Flavour::Oci, compression))
        .expect("OCI has a media type for every compression we write");
    Ok(Packed { descriptor: Descriptor::new(media_type, digest, size), diff_id, file: Some(path) })
}

/// Whether a blob that is at hand is compressed as asked.
pub(crate) fn fits(descriptor: &Descriptor, packing: Packing) -> bool {
    let have = descriptor.media_type.compression();
    match packing.compression {
        Compression::Uncompressed => have == Some(rbuild_image::Compression::None),
        Compression::Gzip(None) => have == Some(rbuild_image::Compression::Gzip),
        Compression::Zstd(None) => have == Some(rbuild_image::Compression::Zstd),
        Compression::Gzip(Some(_)) | Compression::Zstd(Some(_)) => false,
    }
}

/// The blobs that layers came as, by diff id: from the manifests of stored images, and from caches elsewhere.
pub fn known_blobs(store: &Store) -> Result<BTreeMap<DiffId, Descriptor>, Failure> {
    let mut known: BTreeMap<DiffId, Descriptor> = store.snapshots().forms()?.into_iter().collect();
    for image in store.images().list()? {
        if let Some(staged) = original(store, &image)? {
            known.extend(image.record.diff_ids.iter().copied().zip(staged.document.layers));
        }
    }
    Ok(known)
}
