//! `save`: stored images as one archive.

use std::collections::BTreeSet;
use std::io::{self, Read};

use rbuild_cache::{Lease, Store};
use rbuild_image::{BlobSource, Digest, Flavour, ImageRef, Platform};

use super::push::{Stored, images_named, stage_all};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names::{self, Known};
use crate::output::pack::Packing;
use crate::output::stage::Ready;
use crate::output::{Leaving, Readers, export};
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
    let pack = |ready: Ready<'_>| staged(engine, &lease, request, packing, ready);
    let saved = export(engine, (request.format, &request.dest, Readers::Owner), pack, |all| Leaving {
        images: all.images.iter().map(|(stored, names)| (stored.root().0.clone(), names.clone())).collect(),
        // What `docker load` takes from an image for several platforms.
        platform: all
            .images
            .first()
            .map_or_else(Platform::host, |(first, _)| first.platform_for(request.platform.as_ref())),
        blobs: all,
    })?;
    let ids = saved.images.iter().flat_map(|(stored, _)| stored.ids());
    ids.for_each(|id| Known::of(store, &id).tell(store, "save"));
    Ok(())
}

fn staged<'a>(
    engine: &'a Engine,
    lease: &Lease,
    request: &SaveRequest,
    packing: Packing,
    ready: Ready<'_>,
) -> Result<Together<'a>, Failure> {
    let store = engine.store()?;
    let mut images: Vec<(Stored<'_>, Vec<ImageRef>)> = Vec::new();
    let asked = request.images.iter().map(|text| with_all_tags(store, text)).collect::<Result<Vec<_>, _>>()?;
    for text in &asked.concat() {
        let reference = text.parse::<ImageRef>().ok().map(|name| name.tag_or_latest());
        let one = match (&request.platform, &reference) {
            (Some(platform), _) => {
                let image = store.images().acquire(text, Some(platform), lease).map_err(image_names::explain)?;
                Stored::only(engine, lease, vec![image], packing, ready)?
            }
            (None, Some(name)) => stage_all(engine, lease, images_named(store, lease, name, text)?, packing, ready)?,
            (None, None) => {
                let image = store.images().acquire(text, None, lease).map_err(image_names::explain)?;
                stage_all(engine, lease, vec![image], packing, ready)?
            }
        };
        let name: Vec<ImageRef> = reference.filter(|name| one.elsewhere().contains(name)).into_iter().collect();
        match images.iter_mut().find(|(known, _)| known.root().0.digest == one.root().0.digest) {
            Some((_, names)) => names.extend(name),
            None => images.push((one, name)),
        }
    }
    Ok(Together { images })
}

/// What a name stands for: without a tag, all that its repository has here.
fn with_all_tags(store: &Store, text: &str) -> Result<Vec<String>, Failure> {
    let name = text.parse::<ImageRef>().ok().filter(|name| name.tag().is_none() && name.digest().is_none());
    let Some(name) = name else { return Ok(vec![text.to_owned()]) };
    let images = store.images().list()?;
    let references = images.iter().flat_map(|image| &image.references);
    let tags: BTreeSet<String> = references
        .filter(|known| known.name() == name.name() && known.tag().is_some())
        .map(ToString::to_string)
        .collect();
    Ok(if tags.is_empty() { vec![text.to_owned()] } else { tags.into_iter().collect() })
}

/// Blobs of several images.
struct Together<'a> {
    images: Vec<(Stored<'a>, Vec<ImageRef>)>,
}

impl Together<'_> {
    fn first<T>(&self, ask: impl Fn(&Stored<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (stored, _) in &self.images {
            match ask(stored) {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl BlobSource for Together<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.first(|stored| stored.open(digest))
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        self.first(|stored| stored.size(digest))
    }
}
