//! A layer's blob: as the layer came, or compressed here and nowhere else.
//!
//! Compression always gives the same bytes, and the store remembers which: a layer that was packed before has its
//! digest and size at once, and its bytes are made when somebody reads them. Often nobody does: the registry has them.
//! What was compressed for a registry stays in the store besides, until room is needed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::snapshot::{Committed, LayerDiff, Snapshot, Times};
use rbuild_cache::{Lease, SnapshotId, Store, wait_silently};
use rbuild_image::layer::EncodeOptions;
use rbuild_image::{BlobSource, Descriptor, DiffId, Digest, Flavour, MediaType};

use super::compress::{Promise, Source, compress_into, write_compressed};
use super::stage::Outlet;
use crate::cli::report::Failure;
use crate::remote_cache::spec::ExistingBlobs;
use crate::request::Compression;

/// Compressed layers that are smaller are sooner made again than found.
const WORTH_KEEPING: u64 = 64 << 10;

/// How layers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Compression of layers that have no blob yet.
    pub compression: Compression,
    /// Which media types.
    pub flavour: Flavour,
}

impl Packing {
    pub(super) fn options(self) -> EncodeOptions {
        let (compression, level) = match self.compression {
            Compression::Uncompressed => (rbuild_image::Compression::None, None),
            Compression::Gzip(level) => (rbuild_image::Compression::Gzip, level),
            Compression::Zstd(level) => (rbuild_image::Compression::Zstd, level),
        };
        EncodeOptions { level, ..EncodeOptions::new(compression) }
    }

    pub(super) fn describe(self, digest: Digest, size: u64) -> Descriptor {
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
    File(Arc<MadeBlob>),
    /// Known, and made when they are read.
    Promised(Arc<Promise>),
    /// So many, and where they go already.
    Placed(u64),
}

/// A blob that was made here.
#[derive(Debug)]
pub(crate) struct MadeBlob {
    /// The file, which is the lease's.
    pub(super) path: PathBuf,
    /// Whose form it is, and by which algorithm, where that is remembered.
    pub(super) form: Option<(SnapshotId, String)>,
}

impl MadeBlob {
    /// Lets the store keep it for the next one who wants it. Nobody fails because that fails.
    fn keep(&self, store: &Store, lease: &Lease) {
        let Some((snapshot, algorithm)) = &self.form else { return };
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() < WORTH_KEEPING) {
            return;
        }
        let snapshot = match store.snapshots().get(*snapshot) {
            Ok(snapshot) => snapshot,
            Err(error) => return tracing::debug!(%error, "not kept"),
        };
        if let Err(error) = snapshot.keep_form(algorithm, &self.path, lease, &wait_silently) {
            tracing::debug!(%error, "not kept");
        }
    }
}

impl PackedBytes {
    /// A file with them; `None` when the store has them.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        match self {
            Self::Stored => Ok(None),
            Self::File(made) => File::open(&made.path).map(Some),
            Self::Promised(promise) => promise.open().map(Some),
            Self::Placed(_) => Err(io::Error::other("a layer that is in its archive is not read again")),
        }
    }

    /// How many there are; `None` when the store knows.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::Stored => None,
            Self::File(made) => fs::metadata(&made.path).ok().map(|metadata| metadata.len()),
            Self::Promised(promise) => Some(promise.size()),
            Self::Placed(size) => Some(*size),
        }
    }

    /// Whether they are where they go.
    pub(super) fn is_placed(&self) -> bool {
        matches!(self, Self::Placed(_))
    }

    /// The file that they were written to while others may have read it.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(made) => Some(&made.path),
            Self::Stored | Self::Promised(_) | Self::Placed(_) => None,
        }
    }

    /// Lets the store keep what was made here.
    pub(super) fn keep(&self, store: &Store, lease: &Lease) {
        match self {
            Self::Stored | Self::Placed(_) => {}
            Self::File(made) => made.keep(store, lease),
            Self::Promised(promise) => drop(promise.made().map(|made| made.keep(store, lease))),
        }
    }
}

/// The bytes of one layer: made here, or the store's.
pub(super) struct LayerBytes<'a> {
    pub(super) bytes: &'a PackedBytes,
    pub(super) stored: &'a dyn BlobSource,
}

impl BlobSource for LayerBytes<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn io::Read + Send>> {
        match self.bytes.open()? {
            Some(file) => Ok(Box::new(file)),
            None => self.stored.open(digest),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        self.bytes.size().map_or_else(|| self.stored.size(digest), Ok)
    }
}

/// Gives layers' blobs.
#[derive(Clone, Copy)]
pub(crate) struct Packer<'a> {
    /// Where the layers are.
    pub(crate) store: &'a Store,
    /// Holds what is made.
    pub(crate) lease: &'a Lease,
    /// The blobs that layers came as.
    pub(crate) known: &'a BTreeMap<DiffId, Descriptor>,
    /// How layers leave.
    pub(crate) packing: Packing,
    /// What becomes of layers that have a blob in another compression.
    pub(crate) existing: ExistingBlobs,
    /// Who may send a layer while it is made.
    pub(crate) outlet: &'a dyn Outlet,
}

impl Packer<'_> {
    /// A layer's blob: the one that it came as where that serves, else compressed.
    pub(crate) fn pack(&self, snapshot: &Snapshot<Committed>, times: Times) -> Result<Packed, Failure> {
        if times != Times::Kept {
            return self.rewritten(snapshot, times);
        }
        let layer = snapshot.layer()?;
        let known = self.known.get(&layer.diff_id);
        if let Some(blob) = known
            && self.serves(snapshot, blob)
            && let Some(compression) = blob.media_type.compression()
            && let Some(media_type) = MediaType::layer(self.packing.flavour, compression)
        {
            let descriptor = Descriptor::new(media_type, blob.digest, blob.size);
            return Ok(Packed { descriptor, diff_id: layer.diff_id, bytes: PackedBytes::Stored });
        }
        // What came from outside and was unpacked gives no tar as it came; where the tar is at hand there is nothing to
        // decompress.
        let blob = match known {
            Some(blob) if snapshot.is_imported() && snapshot.open_tar()?.is_none() => {
                Some((blob.digest, layer.diff_id))
            }
            _ => None,
        };
        self.compressed(snapshot, &layer, Source { snapshot: snapshot.id(), blob })
    }

    /// Whether a layer may leave as this blob.
    fn serves(&self, snapshot: &Snapshot<Committed>, blob: &Descriptor) -> bool {
        // One that came uncompressed, in an archive, was never meant to travel like that.
        let is_bare = blob.media_type.compression() == Some(rbuild_image::Compression::None);
        let as_it_came = self.existing == ExistingBlobs::Kept && snapshot.is_imported() && !is_bare;
        as_it_came || fits(blob, self.packing)
    }

    /// The layer with other times, which nothing is remembered of.
    fn rewritten(&self, snapshot: &Snapshot<Committed>, times: Times) -> Result<Packed, Failure> {
        let write = |out: &mut (dyn io::Write + Send)| Ok(snapshot.write_tar_with(times, out)?.diff_id);
        if let Some(mut place) = self.outlet.place()? {
            let (digest, size, diff_id) = compress_into(&mut *place, self.packing, write)?;
            place.whole(&digest, size)?;
            let descriptor = self.packing.describe(digest, size);
            return Ok(Packed { descriptor, diff_id, bytes: PackedBytes::Placed(size) });
        }
        let path = self.lease.scratch_name("layer")?;
        let (digest, size, diff_id) = write_compressed(&path, self.packing, None, write)?;
        let bytes = PackedBytes::File(Arc::new(MadeBlob { path, form: None }));
        Ok(Packed { descriptor: self.packing.describe(digest, size), diff_id, bytes })
    }

    /// Compresses a layer, or says what it became the last time.
    fn compressed(&self, snapshot: &Snapshot<Committed>, layer: &LayerDiff, source: Source) -> Result<Packed, Failure> {
        let Self { store, lease, packing, .. } = *self;
        let diff_id = layer.diff_id;
        let algorithm = packing.options().algorithm();
        let form = match packing.compression {
            // It is the tar.
            Compression::Uncompressed => Some((*diff_id.digest(), layer.size)),
            Compression::Gzip(_) | Compression::Zstd(_) => {
                if let Some((digest, size)) = snapshot.kept_form(&algorithm, lease)? {
                    let descriptor = packing.describe(digest, size);
                    return Ok(Packed { descriptor, diff_id, bytes: PackedBytes::Stored });
                }
                snapshot.form(&algorithm)?
            }
        };
        // The tar at hand only has to be copied.
        let is_tar = packing.compression == Compression::Uncompressed && snapshot.open_tar()?.is_some();
        let tar = |out: &mut (dyn io::Write + Send)| source.write(store, snapshot, out);
        if !is_tar && let Some(mut place) = self.outlet.place()? {
            let (digest, size, found) = compress_into(&mut *place, packing, tar)?;
            place.whole(&digest, size)?;
            drop(place);
            if found == diff_id && packing.compression != Compression::Uncompressed {
                snapshot.set_form(&algorithm, Some((digest, size)))?;
            }
            let descriptor = packing.describe(digest, size);
            return Ok(Packed { descriptor, diff_id: found, bytes: PackedBytes::Placed(size) });
        }
        let path = lease.scratch_name("layer")?;
        if let Some((digest, size)) = form {
            let descriptor = packing.describe(digest, size);
            let promise = Promise::new(store, source, packing, &descriptor, path);
            return Ok(Packed { descriptor, diff_id, bytes: PackedBytes::Promised(Arc::new(promise)) });
        }
        let (digest, size, found) = write_compressed(&path, packing, Some((&diff_id, self.outlet)), tar)?;
        let mut made = MadeBlob { path, form: None };
        if found == diff_id {
            snapshot.set_form(&algorithm, Some((digest, size)))?;
            made.form = Some((snapshot.id(), algorithm));
        }
        let bytes = PackedBytes::File(Arc::new(made));
        Ok(Packed { descriptor: packing.describe(digest, size), diff_id: found, bytes })
    }
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
        let known = BTreeMap::new();
        let packer = |compression| Packer {
            store: &store,
            lease: &lease,
            known: &known,
            packing: Packing { compression, flavour: Flavour::Oci },
            existing: ExistingBlobs::Kept,
            outlet: NOBODY,
        };
        let pack = |compression| packer(compression).pack(&snapshot, Times::Kept).unwrap();
        let read = |packed: &Packed| {
            let mut bytes = Vec::new();
            packed.bytes.open().unwrap().unwrap().read_to_end(&mut bytes).unwrap();
            packed.descriptor.verify(&bytes).unwrap();
        };
        for compression in [Compression::Gzip(None), Compression::Gzip(Some(1)), Compression::Zstd(None)] {
            let (first, again) = (pack(compression), pack(compression));
            assert!(matches!(first.bytes, PackedBytes::File(_)), "{compression:?}");
            let PackedBytes::Promised(promise) = &again.bytes else { panic!("{compression:?}") };
            assert!(promise.made().is_none(), "nobody has read it");
            assert_eq!((&first.descriptor, first.diff_id), (&again.descriptor, again.diff_id));
            read(&first);
            read(&again);
        }
        let plain = pack(Compression::Uncompressed);
        assert_eq!(plain.descriptor.digest, *plain.diff_id.digest());
        read(&plain);
        // Clamped times make other bytes, which nothing knows beforehand.
        let gzip = packer(Compression::Gzip(None));
        let clamped = gzip.pack(&snapshot, Times::ClampedTo(0)).unwrap();
        assert!(matches!(clamped.bytes, PackedBytes::File(_)));
        // A memory that is wrong is not believed, and forgotten.
        let wrong = (Digest::sha256("other"), 5);
        snapshot.set_form(&gzip.packing.options().algorithm(), Some(wrong)).unwrap();
        assert!(pack(Compression::Gzip(None)).bytes.open().is_err());
        assert!(matches!(pack(Compression::Gzip(None)).bytes, PackedBytes::File(_)));
    }
}
