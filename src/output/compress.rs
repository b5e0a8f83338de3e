//! A layer's tar on its way into a compressed file.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::snapshot::{Committed, Snapshot};
use rbuild_cache::{SnapshotId, Store};
use rbuild_image::layer::{Decoder, Encoder};
use rbuild_image::write_behind::WriteBehind;
use rbuild_image::{Descriptor, DiffId, Digest, Hashing};

use super::growing::{Growing, GrowingLayer, Making};
use super::pack::{MadeBlob, Packing};
use super::stage::Outlet;
use crate::cli::report::Failure;
use crate::request::Compression;

/// Where a layer's tar comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) snapshot: SnapshotId,
    /// The blob that it came as, with its diff id.
    pub(super) blob: Option<(Digest, DiffId)>,
}

impl Source {
    pub(super) fn write(
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

/// A blob that can be made at any time.
pub(crate) struct Promise {
    store: Store,
    layer: Source,
    packing: Packing,
    digest: Digest,
    size: u64,
    path: PathBuf,
    made: Mutex<Option<Arc<MadeBlob>>>,
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Promise {
    /// Promises that the layer becomes what `descriptor` says; it will be made at `path`.
    pub(super) fn new(store: &Store, layer: Source, packing: Packing, descriptor: &Descriptor, path: PathBuf) -> Self {
        let Descriptor { digest, size, .. } = *descriptor;
        Self { store: store.clone(), layer, packing, digest, size, path, made: Mutex::default() }
    }

    /// How many bytes it will have.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What was made, if that was needed.
    pub(super) fn made(&self) -> Option<Arc<MadeBlob>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes it unless it was made before.
    pub(super) fn open(&self) -> io::Result<File> {
        let snapshot = self.store.snapshots().get(self.layer.snapshot).map_err(io::Error::other)?;
        if self.packing.compression == Compression::Uncompressed
            && self.layer.blob.is_none()
            && let Some(tar) = snapshot.open_tar().map_err(io::Error::other)?
        {
            return Ok(tar);
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            let failed = |failure: Failure| io::Error::other(failure.message().to_owned());
            let algorithm = self.packing.options().algorithm();
            let (digest, size, _) =
                write_compressed(&self.path, self.packing, None, |out| self.layer.write(&self.store, &snapshot, out))
                    .map_err(failed)?;
            if (digest, size) != (self.digest, self.size) {
                // Next time it is found out anew.
                snapshot.set_form(&algorithm, None).map_err(io::Error::other)?;
                return Err(io::Error::other(format!("a layer became {digest}, and before {}", self.digest)));
            }
            let form = (self.packing.compression != Compression::Uncompressed).then(|| (snapshot.id(), algorithm));
            *made = Some(Arc::new(MadeBlob { path: self.path.clone(), form }));
        }
        File::open(&self.path)
    }
}

/// Compresses the tar that `write` gives into a new file: its digest, its size, and the tar's digest. An outlet that is
/// given the digest which the tar should have may send the file meanwhile.
pub(super) fn write_compressed(
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
    let mut file = BufWriter::with_capacity(1 << 20, Growing { file: WriteBehind::new(file), layer: layer.cloned() });
    let (digest, size, diff_id) = compress_into(&mut file, packing, write)?;
    file.flush().map_err(failed)?;
    if let Some(layer) = layer {
        layer.is_whole(packing.describe(digest, size));
    }
    Ok((digest, size, diff_id))
}

/// Compresses the tar that `write` gives: the digest of what it became, its size, and the tar's digest.
pub(super) fn compress_into(
    out: &mut (impl Write + Send + ?Sized),
    packing: Packing,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<DiffId, Failure>,
) -> Result<(Digest, u64, DiffId), Failure> {
    let failed = |error: io::Error| Failure::from_error("cannot write a layer", &error);
    let mut encoder = Encoder::new(Hashing::new(out), packing.options()).map_err(failed)?;
    let diff_id = write(&mut encoder)?;
    let (_, digest, size) = encoder.finish().map_err(failed)?.finish();
    Ok((digest, size, diff_id))
}
