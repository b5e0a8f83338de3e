//! Blobs of pulled layers that the store let go of, and where they come from again.
//!
//! A layer that is kept as its tar does not need the blob that it came as; whoever sends the image on does. With
//! `layerBlobs = "drop"` such blobs go as soon as nothing that runs needs them, with `"auto"` those that nobody is likely to send to
//! another registry, when room is short. A registry that has them is not sent them:
//! only for another one, or for an archive, they are fetched again, when their first byte is wanted, and checked against
//! their digest like everything that is fetched. Nothing is let go of unless the image has a name by digest, which says
//! what registry had it, and unless the layer is kept as its tar.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::str::FromStr;

use rbuild_cache::{GcPolicy, PruneControl, PruneError, PruneMode, Store, StoredImage, wait_silently};
use rbuild_image::registry::Silent;
use rbuild_image::{BlobSource, Descriptor, DiffId, Digest, ImageRef, MAX_MANIFEST_BYTES, Manifest, parse_manifest};

use crate::cli::report::Failure;
use crate::engine::Engine;

/// What becomes of the blobs that pulled layers came as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerBlobPolicy {
    /// They stay as long as an image has them, so that it can leave without a registry being asked.
    #[default]
    Keep,
    /// They go, where the layer is kept as its tar and a registry had them.
    Drop,
    /// The same when room is short, before anything else does, but for those of which an image has a tag in a registry that does
    /// not have them: that may be pushed.
    Auto,
}

/// Something that names no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} says not what becomes of layers' blobs: keep, drop or auto is wanted")]
pub struct InvalidLayerBlobPolicy {
    /// What was given.
    pub text: String,
}

impl FromStr for LayerBlobPolicy {
    type Err = InvalidLayerBlobPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "keep" => Ok(Self::Keep),
            "drop" => Ok(Self::Drop),
            "auto" => Ok(Self::Auto),
            _ => Err(InvalidLayerBlobPolicy { text: text.to_owned() }),
        }
    }
}

/// Where the layers of stored images can be had again.
#[derive(Debug, Default)]
pub struct Origins(BTreeMap<Digest, Origin>);

#[derive(Debug)]
struct Origin {
    descriptor: Descriptor,
    repositories: Vec<ImageRef>,
}

impl Origins {
    /// Of all images that have a name by digest.
    pub fn of(store: &Store) -> Result<Self, Failure> {
        let mut origins = Self::default();
        for image in store.images().list()? {
            let repositories: Vec<&ImageRef> = repositories(&image).collect();
            let Some((_, manifest)) = manifest(store, &image)?.filter(|_| !repositories.is_empty()) else { continue };
            for descriptor in manifest.layers.into_iter().filter(|layer| !layer.media_type.is_foreign_layer()) {
                let digest = descriptor.digest;
                let origin = origins.0.entry(digest).or_insert(Origin { descriptor, repositories: Vec::new() });
                for repository in &repositories {
                    if !origin.repositories.contains(repository) {
                        origin.repositories.push((*repository).clone());
                    }
                }
            }
        }
        Ok(origins)
    }

    /// How large a blob is that can be fetched.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.0.get(digest).map(|origin| origin.descriptor.size)
    }
}

/// The store's blobs, and those that it let go of.
pub struct LayerBlobs<'a> {
    engine: &'a Engine,
    store: &'a Store,
    origins: Origins,
}

impl fmt::Debug for LayerBlobs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerBlobs").field("origins", &self.origins).finish_non_exhaustive()
    }
}

impl<'a> LayerBlobs<'a> {
    /// Looks at the images that are stored now.
    pub fn new(engine: &'a Engine) -> Result<Self, Failure> {
        let store = engine.store()?;
        Ok(Self { engine, store, origins: Origins::of(store)? })
    }

    /// Whether a blob can be read, from here or by fetching it.
    pub fn has(&self, digest: &Digest) -> bool {
        self.store.blobs().len(digest).is_ok() || self.origins.size(digest).is_some()
    }

    /// The repositories that have, or had, a blob.
    pub fn repositories(&self, digest: &Digest) -> &[ImageRef] {
        self.origins.0.get(digest).map_or(&[], |origin| &origin.repositories)
    }

    /// The store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Fetches a blob into the store, where it stays for this reader and until the next collection.
    fn fetch(&self, origin: &Origin) -> io::Result<Box<dyn Read + Send>> {
        let digest = origin.descriptor.digest;
        let failed = |failure: Failure| io::Error::other(failure.message().to_owned());
        let client = self.engine.client().map_err(failed)?;
        let lease = self.store.lease(&format!("fetch layer {}", digest.short())).map_err(io::Error::other)?;
        let sink = self.store.blobs_for(&lease, &wait_silently);
        let mut first = None;
        for repository in &origin.repositories {
            match client.fetch_blob(repository, &origin.descriptor, &sink, &Silent) {
                Ok(()) => return BlobSource::open(&self.store.blobs(), &digest),
                Err(error) if error.is_cancelled() => return Err(io::Error::other(error)),
                Err(error) => drop(first.get_or_insert((repository, error))),
            }
        }
        let (repository, error) = first.ok_or(io::ErrorKind::NotFound)?;
        let place = repository.name();
        Err(io::Error::other(format!(
            "layer {} is not kept here as it came (see layerBlobs), and {place} does not give it: {}",
            digest.short(),
            error.cause
        )))
    }
}

impl BlobSource for LayerBlobs<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match (BlobSource::open(&self.store.blobs(), digest), self.origins.0.get(digest)) {
            (Err(error), Some(origin)) if error.kind() == io::ErrorKind::NotFound => self.fetch(origin),
            (found, _) => found,
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        BlobSource::size(&self.store.blobs(), digest).or_else(|error| self.origins.size(digest).ok_or(error))
    }
}

/// The repositories that had an image by its digest.
fn repositories(image: &StoredImage) -> impl Iterator<Item = &ImageRef> {
    image.references.iter().filter(|reference| reference.digest().is_some())
}

/// The manifest that an image came with, if the store has it.
pub(super) fn manifest(store: &Store, image: &StoredImage) -> Result<Option<(Vec<u8>, Manifest)>, Failure> {
    let Some(descriptor) = &image.record.manifest else { return Ok(None) };
    let Ok(bytes) = store.blobs().read(&descriptor.digest, MAX_MANIFEST_BYTES) else { return Ok(None) };
    let manifest = parse_manifest(&bytes, Some(&descriptor.media_type))?;
    Ok(Some((bytes, manifest)))
}

/// Whether what was compressed for a registry is kept for the next one.
pub(crate) fn keeps_compressed(engine: &Engine) -> Result<bool, Failure> {
    Ok(engine.layer_blobs()? != LayerBlobPolicy::Drop)
}

/// Lets go of the blobs that need not be kept, if that is wanted, for the next collection to remove; how many these are.
pub(crate) fn let_go(engine: &Engine) -> Result<usize, Failure> {
    let policy = engine.layer_blobs()?;
    if policy == LayerBlobPolicy::Keep {
        return Ok(0);
    }
    let store = engine.store()?;
    let images = store.images().list()?;
    let wanted = if policy == LayerBlobPolicy::Auto { wanted_elsewhere(&images) } else { BTreeSet::new() };
    let mut blobs: Vec<(DiffId, Digest)> = Vec::new();
    for image in images {
        let Some((_, manifest)) = manifest(store, &image)? else { continue };
        if image.record.snapshot.is_some() && repositories(&image).next().is_some() {
            let pairs = image.record.diff_ids.iter().zip(&manifest.layers);
            let pairs =
                pairs.filter(|(diff_id, layer)| !layer.media_type.is_foreign_layer() && !wanted.contains(diff_id));
            blobs.extend(pairs.map(|(diff_id, layer)| (*diff_id, layer.digest)));
        }
    }
    Ok(store.images().let_go_of_layer_blobs(&blobs)? + store.let_go_of_kept_forms()?)
}

/// Layers that came from a registry, and of which an image has a tag in another one: they would be sent there.
fn wanted_elsewhere(images: &[StoredImage]) -> BTreeSet<DiffId> {
    let mut had: BTreeMap<DiffId, BTreeSet<&str>> = BTreeMap::new();
    for image in images {
        for repository in repositories(image) {
            for diff_id in &image.record.diff_ids {
                had.entry(*diff_id).or_default().insert(repository.registry());
            }
        }
    }
    let mut wanted = BTreeSet::new();
    for image in images {
        for tag in image.references.iter().filter(|reference| reference.digest().is_none()) {
            let elsewhere = |diff_id: &&DiffId| had.get(*diff_id).is_some_and(|had| !had.contains(tag.registry()));
            wanted.extend(image.record.diff_ids.iter().filter(elsewhere).copied());
        }
    }
    wanted
}

/// Makes room before anything else has to go, where blobs go when room is short.
pub(crate) fn make_room(engine: &Engine) -> Result<(), Failure> {
    if engine.layer_blobs()? == LayerBlobPolicy::Auto { let_go_now(engine) } else { Ok(()) }
}

/// The same, and removes them at once. For the end of a command, without a lease of its own from before; what somebody
/// uses now, or what stays because a collection is running, goes with a later one.
pub(crate) fn let_go_now(engine: &Engine) -> Result<(), Failure> {
    let stay = engine.layer_blobs()? == LayerBlobPolicy::Auto && !engine.is_short_of_room()?;
    if stay || let_go(engine)? == 0 { Ok(()) } else { collect(engine) }
}

/// Removes what was fetched again for a command that ended, if blobs are not to be kept.
pub(crate) fn forget_fetched(engine: &Engine) -> Result<(), Failure> {
    match engine.layer_blobs()? {
        // What was fetched has no name, and goes with the next collection.
        LayerBlobPolicy::Keep | LayerBlobPolicy::Auto => Ok(()),
        LayerBlobPolicy::Drop => let_go(engine).and_then(|_| collect(engine)),
    }
}

fn collect(engine: &Engine) -> Result<(), Failure> {
    let on_wait = |_: &rbuild_cache::Waiting<'_>| ControlFlow::Break(());
    let control = PruneControl { on_wait: &on_wait, interrupt: &|| ControlFlow::Continue(()) };
    match engine.store()?.prune(&GcPolicy::garbage(), PruneMode::Apply, control) {
        Ok(_) | Err(PruneError::Lock(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_names() {
        assert_eq!("keep".parse(), Ok(LayerBlobPolicy::Keep));
        assert_eq!("drop".parse(), Ok(LayerBlobPolicy::Drop));
        assert_eq!("auto".parse(), Ok(LayerBlobPolicy::Auto));
        let error = "some".parse::<LayerBlobPolicy>().unwrap_err();
        assert_eq!(error.to_string(), "\"some\" says not what becomes of layers' blobs: keep, drop or auto is wanted");
    }
}
