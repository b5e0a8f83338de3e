//! `save`: stored images as one archive.

use std::io::{self, Read};

use rbuild_image::{BlobSource, Digest, Flavour, ImageRef, Platform};

use super::push::{Stored, images_named, stage_all};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names::{self, Known};
use crate::output::pack::Packing;
use crate::output::{stage, write_archive};
use crate::request::{ArchiveFormat, Compression, Destination};

/// What to save.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// Names or ids.
    pub images: Vec<String>,
    /// Where to.
    pub dest: Destination,
    /// As what.
    pub format: ArchiveFormat,
    /// Only this platform of each image; all that the store has where it is not given.
    pub platform: Option<Platform>,
}

/// Writes images as an archive, each for all its platforms. Those that came with a manifest leave with the same layers.
pub fn save(engine: &Engine, request: &SaveRequest) -> Result<(), Failure> {
    let store = engine.store()?;
    let lease = store.lease("save")?;
    let flavour = match request.format {
        ArchiveFormat::Docker => Flavour::Docker,
        ArchiveFormat::Oci => Flavour::Oci,
    };
    let packing = Packing { compression: Compression::Uncompressed, flavour };
    let (mut stored, mut names): (Vec<Stored<'_>>, Vec<Vec<ImageRef>>) = (Vec::new(), Vec::new());
    for text in &request.images {
        let reference = text.parse::<ImageRef>().ok().map(|name| name.tag_or_latest());
        let one = match (&request.platform, &reference) {
            (Some(platform), _) => {
                let image = store.images().acquire(text, Some(platform), &lease).map_err(image_names::explain)?;
                Stored::only(engine, &lease, vec![image], packing, stage::NOBODY)?
            }
            (None, Some(name)) => {
                stage_all(engine, &lease, images_named(store, &lease, name, text)?, packing, stage::NOBODY)?
            }
            (None, None) => {
                let image = store.images().acquire(text, None, &lease).map_err(image_names::explain)?;
                stage_all(engine, &lease, vec![image], packing, stage::NOBODY)?
            }
        };
        let name: Vec<ImageRef> = reference.filter(|name| one.elsewhere().contains(name)).into_iter().collect();
        match stored.iter().position(|known| known.root().0.digest == one.root().0.digest) {
            Some(at) => names[at].extend(name),
            None => {
                stored.push(one);
                names.push(name);
            }
        }
    }
    let exports = stored.iter().map(|stored| stored.root().0.clone()).zip(names).collect();
    // What `docker load` takes from an image for several platforms.
    let shown = stored.first().map_or_else(Platform::host, |first| first.platform_for(request.platform.as_ref()));
    write_archive(request.format, &request.dest, exports, &shown, &Together(&stored))?;
    stored.iter().flat_map(Stored::ids).for_each(|id| Known::of(store, &id).tell(store, "save"));
    Ok(())
}

/// Blobs of several images.
struct Together<'a, 'b>(&'b [Stored<'a>]);

impl Together<'_, '_> {
    fn first<T>(&self, ask: impl Fn(&Stored<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for stored in self.0 {
            match ask(stored) {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl BlobSource for Together<'_, '_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.first(|stored| stored.open(digest))
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        self.first(|stored| stored.size(digest))
    }
}
