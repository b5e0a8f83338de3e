//! Image archives: OCI layouts and docker-archives, as files, streams or directories.
//!
//! Into a file or a directory layers are compressed where they are to lie, one after the other, each on all processors, and
//! the next one [has begun](super::turns) when one ends; a stream needs sizes first, so they are compressed into
//! files of the lease's before.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rbuild_image::archive::{ArchiveWriter, Export, write_oci_directory};
use rbuild_image::{BlobSource, Descriptor, Digest, ImageRef, Platform};

use super::origins::LayerBlobs;
use super::pack::{LayerBytes, Packed};
use super::stage::{LayerPlace, NOBODY, Outlet, Ready};
use super::{Readers, is_replaceable, replaced_file, whole_file};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::request::{ArchiveFormat, Destination};

/// Images that leave as one archive.
pub(crate) struct Leaving<'a> {
    /// Manifests or indexes, with their names.
    pub(crate) images: Vec<(Descriptor, Vec<ImageRef>)>,
    /// What `docker load` takes from an image for several platforms.
    pub(crate) platform: Platform,
    /// Their blobs.
    pub(crate) blobs: &'a dyn BlobSource,
}

impl Leaving<'_> {
    fn end<W: Write>(self, format: ArchiveFormat, archive: ArchiveWriter<W>) -> Result<W, Failure> {
        let images = exports(self.images);
        Ok(match format {
            ArchiveFormat::Oci => archive.oci(&images, self.blobs)?,
            ArchiveFormat::Docker => archive.docker(&images, &self.platform, self.blobs)?,
        })
    }
}

/// Writes what `pack` makes ready to leave as one archive.
pub(crate) fn export<T>(
    engine: &Engine,
    (format, dest, readers): (ArchiveFormat, &Destination, Readers),
    pack: impl FnOnce(Ready<'_>) -> Result<T, Failure>,
    leaving: impl Fn(&T) -> Leaving<'_>,
) -> Result<T, Failure> {
    match dest {
        Destination::File(path) if is_replaceable(path) => replaced_file(path, readers, |file| {
            let stored = LayerBlobs::new(engine)?;
            let archive = Place::new(ArchiveWriter::new(file), &stored);
            let packed = pack(&archive)?;
            let file = leaving(&packed).end(format, archive.into_target())?;
            Ok((file, packed))
        }),
        Destination::File(path) => {
            let packed = pack(NOBODY)?;
            whole_file(path, readers, |out| leaving(&packed).end(format, ArchiveWriter::new(out)).map(drop))?;
            Ok(packed)
        }
        Destination::Stdout => {
            let packed = pack(NOBODY)?;
            let out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            leaving(&packed).end(format, ArchiveWriter::new(out))?.flush()?;
            Ok(packed)
        }
        Destination::Directory(path) => {
            fs::create_dir_all(path)
                .map_err(|error| Failure::new(format!("cannot make {}: {error}", path.display())))?;
            if path.read_dir()?.next().is_some() {
                return Err(Failure::new(format!("{} is not empty", path.display()))
                    .with_help("name a new or empty directory for an OCI layout"));
            }
            let stored = LayerBlobs::new(engine)?;
            let layout = Place::new(LayoutDirectory::new(path), &stored);
            let packed = pack(&layout)?;
            let Leaving { images, blobs, .. } = leaving(&packed);
            write_oci_directory(path, &exports(images), blobs, &layout.into_target().there)?;
            Ok(packed)
        }
    }
}

fn exports(images: Vec<(Descriptor, Vec<ImageRef>)>) -> Vec<Export> {
    images.into_iter().map(|(root, names)| Export { root, names }).collect()
}

/// What takes blobs before all of them are known.
trait Target: Send {
    fn begin(&mut self) -> io::Result<()>;
    fn more(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn end(&mut self, digest: &Digest, size: u64) -> io::Result<()>;
    fn abandon(&mut self) -> io::Result<()>;
    /// Takes in a blob that is whole.
    fn blob(&mut self, blob: &Descriptor, blobs: &dyn BlobSource) -> Result<(), Failure>;
    /// Takes in the layers below a manifest or index.
    fn layers(&mut self, root: &Descriptor, blobs: &dyn BlobSource) -> Result<(), Failure>;
}

impl Target for ArchiveWriter<BufWriter<File>> {
    fn begin(&mut self) -> io::Result<()> {
        Self::begin(self)
    }

    fn more(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::more(self, bytes)
    }

    fn end(&mut self, digest: &Digest, size: u64) -> io::Result<()> {
        Self::end(self, digest, size)
    }

    fn abandon(&mut self) -> io::Result<()> {
        Self::abandon(self)
    }

    fn blob(&mut self, blob: &Descriptor, blobs: &dyn BlobSource) -> Result<(), Failure> {
        Ok(Self::blob(self, blob, blobs)?)
    }

    fn layers(&mut self, root: &Descriptor, blobs: &dyn BlobSource) -> Result<(), Failure> {
        Ok(Self::layers(self, root, blobs)?)
    }
}

/// An OCI layout in a directory: only what is compressed for it goes there before the rest.
struct LayoutDirectory {
    root: PathBuf,
    begun: Option<BufWriter<File>>,
    there: BTreeSet<Digest>,
}

impl LayoutDirectory {
    fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), begun: None, there: BTreeSet::new() }
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join("blobs/.unfinished")
    }
}

impl Target for LayoutDirectory {
    fn begin(&mut self) -> io::Result<()> {
        fs::create_dir_all(self.root.join("blobs/sha256"))?;
        self.begun = Some(BufWriter::with_capacity(1 << 20, File::create(self.unfinished())?));
        Ok(())
    }

    fn more(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.as_mut().map_or_else(|| Err(io::ErrorKind::InvalidInput.into()), |file| file.write(bytes))
    }

    fn end(&mut self, digest: &Digest, _: u64) -> io::Result<()> {
        let Some(file) = self.begun.take() else { return Err(io::ErrorKind::InvalidInput.into()) };
        file.into_inner()?.sync_all()?;
        fs::rename(self.unfinished(), self.root.join("blobs/sha256").join(digest.hex()))?;
        self.there.insert(*digest);
        Ok(())
    }

    fn abandon(&mut self) -> io::Result<()> {
        match self.begun.take() {
            Some(_) => fs::remove_file(self.unfinished()),
            None => Ok(()),
        }
    }

    fn blob(&mut self, _: &Descriptor, _: &dyn BlobSource) -> Result<(), Failure> {
        Ok(())
    }

    fn layers(&mut self, _: &Descriptor, _: &dyn BlobSource) -> Result<(), Failure> {
        Ok(())
    }
}

/// Where layers lie when they are ready.
struct Place<'a, T> {
    /// Lent to the layer that is being written.
    target: Mutex<Option<T>>,
    stored: &'a LayerBlobs<'a>,
}

impl<'a, T: Target> Place<'a, T> {
    fn new(target: T, stored: &'a LayerBlobs<'a>) -> Self {
        Self { target: Mutex::new(Some(target)), stored }
    }

    fn into_target(self) -> T {
        self.take().expect("no layer is being written any more")
    }

    fn take(&self) -> io::Result<T> {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner).take();
        target.ok_or_else(|| io::Error::other("layers are written one after the other"))
    }

    fn put_back(&self, target: T) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    fn with<R>(&self, act: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        let mut target = self.take()?;
        let result = act(&mut target);
        self.put_back(target);
        result
    }
}

impl<T: Target> Outlet for Place<'_, T> {
    fn ready(&self, packed: &Packed) -> Result<(), Failure> {
        let blobs = LayerBytes { bytes: &packed.bytes, stored: self.stored };
        let foreign = packed.descriptor.media_type.is_foreign_layer();
        if packed.bytes.is_placed() || (foreign && blobs.size(&packed.descriptor.digest).is_err()) {
            return Ok(());
        }
        self.with(|target| target.blob(&packed.descriptor, &blobs))
    }

    fn wants_order(&self) -> bool {
        true
    }

    fn place(&self) -> io::Result<Option<Box<dyn LayerPlace + '_>>> {
        let mut target = self.take()?;
        let begun = target.begin();
        let place = Lent { target: Some(target), back: self };
        begun.map(|()| Some(Box::new(place) as Box<dyn LayerPlace + '_>))
    }

    fn comes_whole(&self, root: &Descriptor, blobs: &dyn BlobSource) -> Result<(), Failure> {
        self.with(|target| target.layers(root, blobs))
    }
}

/// A target while a layer is written into it.
struct Lent<'a, T: Target> {
    target: Option<T>,
    back: &'a Place<'a, T>,
}

impl<T: Target> Lent<'_, T> {
    fn target(&mut self) -> io::Result<&mut T> {
        self.target.as_mut().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

impl<T: Target> Write for Lent<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.target()?.more(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Target> LayerPlace for Lent<'_, T> {
    fn whole(&mut self, digest: &Digest, size: u64) -> io::Result<()> {
        self.target()?.end(digest, size)
    }
}

impl<T: Target> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        if let Some(mut target) = self.target.take() {
            // Where that fails so does what is written next.
            if let Err(error) = target.abandon() {
                tracing::debug!(%error, "an unfinished layer stays in its place");
            }
            self.back.put_back(target);
        }
    }
}
