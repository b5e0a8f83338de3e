//! A layer's blob: as the layer came, or compressed here and nowhere else.
//!
//! Compression always gives the same bytes, and the store remembers which: a layer that was packed before has its
//! digest and size at once, and its bytes are made when somebody reads them. Often nobody does: the registry has them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::snapshot::{Committed, LayerDiff, Snapshot, Times};
use rbuild_cache::{Lease, SnapshotId, Store};
use rbuild_image::layer::{Decoder, EncodeOptions, Encoder};
use rbuild_image::{Descriptor, DiffId, Digest, Flavour, Hashing, MediaType};

use super::growing::{Growing, GrowingLayer, Making};
use super::stage::Outlet;
use crate::cli::report::Failure;
use crate::request::Compression;

/// How layers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Compression of layers that have no blob yet.
    pub compression: Compression,
    /// Which media types.
    pub flavour: Flavour,
}

impl Packing {
    fn options(self) -> EncodeOptions {
        let (compression, level) = match self.compression {
            Compression::Uncompressed => (rbuild_image::Compression::None, None),
            Compression::Gzip(level) => (rbuild_image::Compression::Gzip, level),
            Compression::Zstd(level) => (rbuild_image::Compression::Zstd, level),
        };
        EncodeOptions { level, ..EncodeOptions::new(compression) }
    }

    fn describe(self, digest: Digest, size: u64) -> Descriptor {
        let compression = self.options().compression;
        let media_type = MediaType::layer(self.flavour, compression)
            .or_else(|| MediaType::layer(Flavour::Oci, compression))
            .expect("OCI has a media type for every compression we write");
        Descriptor::new(media_type, digest, size)
    }
}

/// A layer's blob.
#[derive(Debug)]
pub(crate) struct Packed {
    /// What it is.
    pub(crate) descriptor: Descriptor,
    /// Digest of its uncompressed tar.
    pub(crate) diff_id: DiffId,
    /// Where its bytes are.
    pub(crate) bytes: PackedBytes,
}

/// Where the bytes of a layer's blob are.
#[derive(Clone, Debug)]
pub(crate) enum PackedBytes {
    /// In the store.
    Stored,
    /// In a file of the lease's.
    File(PathBuf),
    /// Known, and made when they are read.
    Promised(Arc<Promise>),
}

impl PackedBytes {
    /// A file with them; `None` when the store has them.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        match self {
            Self::Stored => Ok(None),
            Self::File(path) => File::open(path).map(Some),
            Self::Promised(promise) => promise.open().map(Some),
        }
    }

    /// How many there are; `None` when the store knows.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::Stored => None,
            Self::File(path) => fs::metadata(path).ok().map(|metadata| metadata.len()),
            Self::Promised(promise) => Some(promise.size),
        }
    }
}

/// A blob that can be made at any time.
pub(crate) struct Promise {
    store: Store,
    layer: Source,
    packing: Packing,
    digest: Digest,
    size: u64,
    path: PathBuf,
    is_made: Mutex<bool>,
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Promise {
    fn open(&self) -> io::Result<File> {
        let snapshot = self.store.snapshots().get(self.layer.snapshot).map_err(io::Error::other)?;
        if self.packing.compression == Compression::Uncompressed
            && self.layer.blob.is_none()
            && let Some(tar) = snapshot.open_tar().map_err(io::Error::other)?
        {
            return Ok(tar);
        }
        let mut is_made = self.is_made.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_made {
            let failed = |failure: Failure| io::Error::other(failure.message().to_owned());
            let (digest, size, _) =
                write_compressed(&self.path, self.packing, None, |out| self.layer.write(&self.store, &snapshot, out))
                    .map_err(failed)?;
            if (digest, size) != (self.digest, self.size) {
                // Next time it is found out anew.
                snapshot.set_form(&self.packing.options().algorithm(), None).map_err(io::Error::other)?;
                return Err(io::Error::other(format!("a layer became {digest}, and before {}", self.digest)));
            }
            *is_made = true;
        }
        File::open(&self.path)
    }
}

/// Where a layer's tar comes from.
#[derive(Clone, Copy, Debug)]
struct Source {
    snapshot: SnapshotId,
    /// The blob that it came as, with its diff id.
    blob: Option<(Digest, DiffId)>,
}

impl Source {
    fn write(
        self,
        store: &Store,
        snapshot: &Snapshot<Committed>,
        out: &mut (dyn Write + Send),
    ) -> Result<DiffId, Failure> {
        let Some((blob, diff_id)) = self.blob else { return Ok(snapshot.write_tar(out)?.diff_id) };
        let mut tar = Decoder::new(store.blobs().open_file(&blob)?)?;
        io::copy(&mut tar, out)?;
        Ok(diff_id)
    }
}

/// A layer's blob: one of `known` where that serves, else compressed.
pub(crate) fn pack_layer(
    store: &Store,
    lease: &Lease,
    snapshot: &Snapshot<Committed>,
    known: &BTreeMap<DiffId, Descriptor>,
    packing: Packing,
    times: Times,
    outlet: &dyn Outlet,
) -> Result<Packed, Failure> {
    let Times::Kept = times else {
        let path = lease.scratch_name("layer")?;
        let (digest, size, diff_id) =
            write_compressed(&path, packing, None, |out| Ok(snapshot.write_tar_with(times, out)?.diff_id))?;
        return Ok(Packed { descriptor: packing.describe(digest, size), diff_id, bytes: PackedBytes::File(path) });
    };
    let layer = snapshot.layer()?;
    if let Some(descriptor) = known.get(&layer.diff_id)
        && (snapshot.is_imported() || fits(descriptor, packing))
        && let Some(media_type) = descriptor.media_type.compression().and_then(|c| MediaType::layer(packing.flavour, c))
    {
        let descriptor = Descriptor::new(media_type, descriptor.digest, descriptor.size);
        return Ok(Packed { descriptor, diff_id: layer.diff_id, bytes: PackedBytes::Stored });
    }
    compress(store, lease, snapshot, &layer, Source { snapshot: snapshot.id(), blob: None }, packing, outlet)
}

/// A layer's blob in the wanted compression, also where it came in another one.
pub(crate) fn repack_layer(
    store: &Store,
    lease: &Lease,
    snapshot: &Snapshot<Committed>,
    known: &BTreeMap<DiffId, Descriptor>,
    packing: Packing,
    times: Times,
    outlet: &dyn Outlet,
) -> Result<Packed, Failure> {
    if times == Times::Kept && snapshot.is_imported() {
        let layer = snapshot.layer()?;
        if let Some(blob) = known.get(&layer.diff_id).filter(|blob| !fits(blob, packing)) {
            // Where the tar itself is at hand there is nothing to decompress.
            let blob = snapshot.open_tar()?.is_none().then_some((blob.digest, layer.diff_id));
            let source = Source { snapshot: snapshot.id(), blob };
            return compress(store, lease, snapshot, &layer, source, packing, outlet);
        }
    }
    pack_layer(store, lease, snapshot, known, packing, times, outlet)
}

/// Whether the blob that a layer came as is not compressed.
pub(super) fn is_bare(snapshot: &Snapshot<Committed>, known: &BTreeMap<DiffId, Descriptor>) -> bool {
    let blob =
        snapshot.is_imported().then(|| snapshot.layer().ok()).flatten().and_then(|layer| known.get(&layer.diff_id));
    blob.is_some_and(|blob| blob.media_type.compression() == Some(rbuild_image::Compression::None))
}

/// Compresses a layer, or says what it became the last time.
fn compress(
    store: &Store,
    lease: &Lease,
    snapshot: &Snapshot<Committed>,
    layer: &LayerDiff,
    source: Source,
    packing: Packing,
    outlet: &dyn Outlet,
) -> Result<Packed, Failure> {
    let path = lease.scratch_name("layer")?;
    let algorithm = packing.options().algorithm();
    let form = match packing.compression {
        // It is the tar.
        Compression::Uncompressed => Some((*layer.diff_id.digest(), layer.size)),
        Compression::Gzip(_) | Compression::Zstd(_) => snapshot.form(&algorithm)?,
    };
    let diff_id = layer.diff_id;
    if let Some((digest, size)) = form {
        let (store, is_made) = (store.clone(), Mutex::new(false));
        let promise = Promise { store, layer: source, packing, digest, size, path, is_made };
        let descriptor = packing.describe(digest, size);
        return Ok(Packed { descriptor, diff_id, bytes: PackedBytes::Promised(Arc::new(promise)) });
    }
    let (digest, size, found) =
        write_compressed(&path, packing, Some((&diff_id, outlet)), |out| source.write(store, snapshot, out))?;
    if found == diff_id {
        snapshot.set_form(&algorithm, Some((digest, size)))?;
    }
    Ok(Packed { descriptor: packing.describe(digest, size), diff_id: found, bytes: PackedBytes::File(path) })
}

/// Compresses the tar that `write` gives into a new file: its digest, its size, and the tar's digest. An outlet that is
/// given the digest which the tar should have may send the file meanwhile.
fn write_compressed(
    path: &Path,
    packing: Packing,
    outlet: Option<(&DiffId, &dyn Outlet)>,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<DiffId, Failure>,
) -> Result<(Digest, u64, DiffId), Failure> {
    let failed = |error: io::Error| Failure::from_error(&format!("cannot write {}", path.display()), &error);
    let file = File::create(path).map_err(failed)?;
    let making = outlet.map(|(diff_id, outlet)| {
        let layer = GrowingLayer::new(path, diff_id);
        outlet.begun(&layer);
        Making(layer)
    });
    let layer = making.as_ref().map(|Making(layer)| layer);
    let file = Hashing::new(BufWriter::with_capacity(1 << 20, Growing { file, layer: layer.cloned() }));
    let mut encoder = Encoder::new(file, packing.options()).map_err(failed)?;
    let diff_id = write(&mut encoder)?;
    let (mut out, digest, size) = encoder.finish().map_err(failed)?.finish();
    out.flush().map_err(failed)?;
    if let Some(layer) = layer {
        layer.is_whole(packing.describe(digest, size));
    }
    Ok((digest, size, diff_id))
}

/// Whether a blob that is at hand is compressed as asked.
fn fits(descriptor: &Descriptor, packing: Packing) -> bool {
    let have = descriptor.media_type.compression();
    match packing.compression {
        Compression::Uncompressed => have == Some(rbuild_image::Compression::None),
        Compression::Gzip(None) => have == Some(rbuild_image::Compression::Gzip),
        Compression::Zstd(None) => have == Some(rbuild_image::Compression::Zstd),
        Compression::Gzip(Some(_)) | Compression::Zstd(Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rbuild_cache::OpenOptions;
    use rbuild_cache::snapshot::{Content, Metadata};
    use rbuild_image::ContainerPath;

    use super::super::stage::NOBODY;
    use super::*;

    #[test]
    fn what_was_packed_once_is_known_and_made_when_it_is_read() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        let active = store.snapshots().prepare(None, &lease).unwrap();
        let mut writer = active.writer().unwrap();
        writer.file(&ContainerPath::new("/f"), &Metadata::default(), Content::Bytes(&[7; 300_000])).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let snapshot = active.commit(&lease).unwrap();
        let pack = |compression| {
            let packing = Packing { compression, flavour: Flavour::Oci };
            pack_layer(&store, &lease, &snapshot, &BTreeMap::new(), packing, Times::Kept, NOBODY).unwrap()
        };
        let read = |packed: &Packed| {
            let mut bytes = Vec::new();
            packed.bytes.open().unwrap().unwrap().read_to_end(&mut bytes).unwrap();
            packed.descriptor.verify(&bytes).unwrap();
        };
        for compression in [Compression::Gzip(None), Compression::Gzip(Some(1)), Compression::Zstd(None)] {
            let (first, again) = (pack(compression), pack(compression));
            assert!(matches!(first.bytes, PackedBytes::File(_)), "{compression:?}");
            let PackedBytes::Promised(promise) = &again.bytes else { panic!("{compression:?}") };
            assert!(!promise.path.exists(), "nobody has read it");
            assert_eq!((&first.descriptor, first.diff_id), (&again.descriptor, again.diff_id));
            read(&first);
            read(&again);
        }
        let plain = pack(Compression::Uncompressed);
        assert_eq!(plain.descriptor.digest, *plain.diff_id.digest());
        read(&plain);
        // Clamped times make other bytes, which nothing knows beforehand.
        let packing = Packing { compression: Compression::Gzip(None), flavour: Flavour::Oci };
        let times = Times::ClampedTo(0);
        let clamped = pack_layer(&store, &lease, &snapshot, &BTreeMap::new(), packing, times, NOBODY).unwrap();
        assert!(matches!(clamped.bytes, PackedBytes::File(_)));
        // A memory that is wrong is not believed, and forgotten.
        let wrong = (Digest::sha256("other"), 5);
        snapshot.set_form(&packing.options().algorithm(), Some(wrong)).unwrap();
        assert!(pack(Compression::Gzip(None)).bytes.open().is_err());
        assert!(matches!(pack(Compression::Gzip(None)).bytes, PackedBytes::File(_)));
    }
}
