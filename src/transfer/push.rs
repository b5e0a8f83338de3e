//! `push`: stored images to the registries that their names say.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use rbuild_cache::{BlobRole, Lease, Store, StoredImage, wait_silently};
use rbuild_image::{
    BlobSource, DescribedBytes, Descriptor, Digest, Document, Flavour, ImageRef, MAX_MANIFEST_BYTES, Platform,
    assemble_index, parse_index, parse_manifest,
};

use super::pull::Watch;
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::output::ahead::{Destination, Unknown, while_packing};
use crate::output::image::{Known, push_everywhere};
use crate::output::origins::{self, LayerBlobs};
use crate::output::pack::Packing;
use crate::output::stage::{self, Ready, Staged};
use crate::progress::Transfers;
use crate::request::{Compression, PushAs};

/// How layers that have no blob yet leave for a registry.
const PACKING: Packing = Packing { compression: Compression::Gzip(None), flavour: Flavour::Oci };

/// What a push left in the registry.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Sends the image that a name leads to, for all its platforms. One that came with a manifest leaves with the same; a
/// built one is packed first. An index that came whole, attestations included, leaves as it came.
/// With `platform` only that image leaves, alone.
pub fn push(
    engine: &Engine,
    reference: &ImageRef,
    platform: Option<&Platform>,
    transfers: &Transfers,
) -> Result<Pushed, Failure> {
    let store = engine.store()?;
    let lease = store.lease(&format!("push {reference}"))?;
    let images = images_for(store, &lease, reference, platform)?;
    transfers.say(&format!("Pushing {reference}"));
    let among = if platform.is_some() { Among::First } else { Among::All };
    let stored = send(engine, &lease, (images, among), reference, &Watch::of(transfers))?;
    if platform.is_none()
        && let Some(index) = partial_index(store, &stored)?
    {
        transfers.say(&format!(
            "Not all platforms of {index} are here: what was pushed is {}. `rbuild image copy SOURCE {reference}` copies all of them, \
             and keeps the digest",
            stored.root().0.digest
        ));
    }
    stored.remember(engine, &lease, reference)?;
    image_names::tell_of_transfer(store, "push", reference);
    drop(lease);
    origins::forget_fetched(engine)?;
    Ok(Pushed { digest: stored.root().0.digest, size: stored.root().0.size })
}

/// Which of several images leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// All, together.
    All,
    /// The first, alone.
    First,
}

/// Sends images of the store to a repository, layers while others are compressed; by digest where the name has one.
pub(super) fn send<'a>(
    engine: &'a Engine,
    lease: &Lease,
    (images, among): (Vec<StoredImage>, Among),
    to: &ImageRef,
    watch: &Watch<'_>,
) -> Result<Stored<'a>, Failure> {
    let elsewhere: Vec<ImageRef> = images.iter().flat_map(|image| image.references.iter().cloned()).collect();
    let client = engine.client()?;
    let blobs = LayerBlobs::new(engine)?;
    let destination = Destination {
        client: &client,
        name: to,
        elsewhere: &elsewhere,
        stored: &blobs,
        watch,
        unknown: Unknown::Streamed,
        keep: origins::keeps_compressed(engine)?.then_some((engine.store()?, lease)),
    };
    let (stored, there) = while_packing(&destination, |ready| match among {
        Among::First => Stored::only(engine, lease, images, PACKING, ready),
        Among::All => stage_all(engine, lease, images, PACKING, ready),
    })?;
    let how = match to.digest() {
        Some(wanted) if *wanted != stored.root().0.digest => {
            return Err(Failure::new(format!("the image is {}, not {to}", stored.root().0.digest))
                .with_help("name the destination by a tag"));
        }
        Some(_) => PushAs::Digest,
        None => PushAs::Tags,
    };
    let known = Known { elsewhere: &elsewhere, there: &there };
    push_everywhere(&client, stored.root(), &stored, std::slice::from_ref(to), how, known, watch)?;
    Ok(stored)
}

/// The tags of a repository that the store has, in order.
pub fn stored_tags(engine: &Engine, repository: &ImageRef) -> Result<Vec<ImageRef>, Failure> {
    let mut tags = Vec::new();
    for image in engine.store()?.images().list()? {
        for reference in &image.references {
            if reference.name() == repository.name() && reference.tag().is_some() && !tags.contains(reference) {
                tags.push(reference.clone());
            }
        }
    }
    tags.sort_by_key(ImageRef::canonical);
    match tags.is_empty() {
        true => Err(Failure::new(format!("no image of the store is named {}", repository.familiar_name()))
            .with_help("`rbuild images` lists what there is")),
        false => Ok(tags),
    }
}

/// An image of the store, ready to leave.
pub(crate) struct Stored<'a> {
    blobs: Arc<LayerBlobs<'a>>,
    images: Vec<StoredImage>,
    staged: Vec<Staged<'a>>,
    root: DescribedBytes,
    memory: BTreeMap<Digest, Vec<u8>>,
    elsewhere: Vec<ImageRef>,
}

impl Stored<'_> {
    /// The identifiers of what is ready.
    pub(super) fn ids(&self) -> impl Iterator<Item = Digest> + '_ {
        self.images.iter().map(|image| image.record.id)
    }
}

/// Makes the image that a name leads to ready to leave, for all its platforms.
pub(crate) fn stored<'a>(
    engine: &'a Engine,
    lease: &Lease,
    name: &ImageRef,
    ready: Ready<'_>,
) -> Result<Stored<'a>, Failure> {
    let images = images_named(engine.store()?, lease, name, &name.canonical())?;
    stage_all(engine, lease, images, PACKING, ready)
}

/// The images that a name leads to, or the one for a platform.
pub(super) fn images_for(
    store: &Store,
    lease: &Lease,
    name: &ImageRef,
    platform: Option<&Platform>,
) -> Result<Vec<StoredImage>, Failure> {
    match platform {
        Some(_) => {
            let image = store.images().acquire(&name.canonical(), platform, lease);
            Ok(vec![as_known_by(store, image.map_err(image_names::explain)?, name)])
        }
        None => images_named(store, lease, name, &name.canonical()),
    }
}

/// The images that a name leads to, one for each platform, in the order of these; else the one that `text` means.
pub(super) fn images_named(
    store: &Store,
    lease: &Lease,
    name: &ImageRef,
    text: &str,
) -> Result<Vec<StoredImage>, Failure> {
    let mut images = Vec::new();
    for image in store.images().list()? {
        if image.references.iter().any(|known| known.canonical() == name.canonical()) {
            let (id, platform) = (image.record.id.to_string(), image.record.platform.clone());
            let image = store.images().acquire(&id, Some(&platform), lease).map_err(image_names::explain)?;
            images.push(as_known_by(store, image, name));
        }
    }
    if images.is_empty() {
        // An id, or the beginning of one; or nothing, which this says.
        images.push(store.images().acquire(text, None, lease).map_err(image_names::explain)?);
    }
    images.sort_by_key(|image| image.record.platform.to_string());
    Ok(images)
}

/// The image with the manifest that the repository of `name` has it by: one image may have come from several
/// repositories in several forms.
fn as_known_by(store: &Store, mut image: StoredImage, name: &ImageRef) -> StoredImage {
    let here = image.references.iter().filter(|known| known.name() == name.name());
    let known: Vec<Digest> = here.filter_map(|known| known.digest()).copied().collect();
    let manifests: Vec<Descriptor> = known.iter().filter_map(|root| manifest_below(store, &image, root)).collect();
    let current = image.record.manifest.as_ref().map(|manifest| manifest.digest);
    if !manifests.iter().any(|manifest| Some(manifest.digest) == current)
        && let Some(manifest) = manifests.into_iter().next()
    {
        image.record.manifest = Some(manifest);
    }
    image
}

/// The manifest of an image that a digest stands for: itself, or one that it names as an index.
fn manifest_below(store: &Store, image: &StoredImage, root: &Digest) -> Option<Descriptor> {
    let read = |digest: &Digest| store.blobs().read(digest, MAX_MANIFEST_BYTES).ok();
    match image.record.blobs.get(root)? {
        BlobRole::Manifest => {
            let bytes = read(root)?;
            let manifest = parse_manifest(&bytes, None).ok()?;
            let media_type = manifest.media_type.clone().unwrap_or(rbuild_image::MediaType::OciManifest);
            (manifest.config.digest == image.record.id).then(|| Descriptor::new(media_type, *root, bytes.len() as u64))
        }
        BlobRole::Index => {
            let index = parse_index(&read(root)?, None).ok()?;
            let below = |child: &Descriptor| match image.record.blobs.get(&child.digest) {
                Some(BlobRole::Manifest) => manifest_below(store, image, &child.digest),
                _ => None,
            };
            index.manifests.iter().find_map(below)
        }
        _ => None,
    }
}

/// Makes images of one name ready to leave together: as the index that they came in where all of it is there.
pub(super) fn stage_all<'a>(
    engine: &'a Engine,
    lease: &Lease,
    images: Vec<StoredImage>,
    packing: Packing,
    ready: Ready<'_>,
) -> Result<Stored<'a>, Failure> {
    let elsewhere = images.iter().flat_map(|image| image.references.iter().cloned()).collect();
    let blobs = Arc::new(LayerBlobs::new(engine)?);
    if let Some(root) = whole_index(&blobs, &images)? {
        ready.comes_whole(&root.0, &*blobs)?;
        return Ok(Stored { blobs, images, staged: Vec::new(), root, memory: BTreeMap::new(), elsewhere });
    }
    let mut staged = Vec::new();
    for image in &images {
        staged.push(match stage::original(&blobs, image)? {
            Some(original) => {
                ready.comes_whole(&original.manifest, &original)?;
                original
            }
            None => stage::pack(engine, lease, &image.record, packing, ready)?,
        });
    }
    let mut memory = BTreeMap::new();
    let root = match staged.as_slice() {
        [one] => (one.manifest.clone(), one.manifest_bytes.clone()),
        several => {
            let manifest = |(staged, image): (&Staged<'_>, &StoredImage)| Descriptor {
                platform: Some(image.record.platform.clone()),
                ..staged.manifest.clone()
            };
            let index =
                assemble_index(several.iter().zip(&images).map(manifest).collect(), packing.flavour, &BTreeMap::new());
            memory.insert(index.0.digest, index.1.clone());
            memory.extend(several.iter().map(|staged| (staged.manifest.digest, staged.manifest_bytes.clone())));
            index
        }
    };
    Ok(Stored { blobs, images, staged, root, memory, elsewhere })
}

/// An index that all of these images came from, when everything that it names is still there.
fn whole_index(blobs: &LayerBlobs<'_>, images: &[StoredImage]) -> Result<Option<DescribedBytes>, Failure> {
    let Some(first) = images.first() else { return Ok(None) };
    let indexes = first.record.blobs.iter().filter(|(_, role)| **role == BlobRole::Index);
    for (digest, _) in indexes {
        let Ok(bytes) = blobs.store().blobs().read(digest, MAX_MANIFEST_BYTES) else { continue };
        let Ok(index) = parse_index(&bytes, None) else { continue };
        let names = |image: &StoredImage| {
            let manifest = image.record.manifest.as_ref();
            manifest.is_some_and(|manifest| index.manifests.iter().any(|child| child.digest == manifest.digest))
        };
        if images.iter().all(names) && index.manifests.iter().all(|child| is_whole(blobs, child)) {
            let media_type = index.media_type.clone().unwrap_or(rbuild_image::MediaType::OciIndex);
            return Ok(Some((Descriptor::new(media_type, *digest, bytes.len() as u64), bytes)));
        }
    }
    Ok(None)
}

/// The index that the images came in, where they leave without it since others that it names are not here.
fn partial_index(store: &Store, stored: &Stored<'_>) -> Result<Option<Digest>, Failure> {
    for image in &stored.images {
        let Some(manifest) = &image.record.manifest else { continue };
        for (digest, _) in image.record.blobs.iter().filter(|(_, role)| **role == BlobRole::Index) {
            let Ok(bytes) = store.blobs().read(digest, MAX_MANIFEST_BYTES) else { continue };
            let Ok(index) = parse_index(&bytes, None) else { continue };
            let names = index.manifests.iter().any(|child| child.digest == manifest.digest);
            if names && *digest != stored.root().0.digest && index.platforms().len() > stored.images.len() {
                return Ok(Some(*digest));
            }
        }
    }
    Ok(None)
}

/// Whether a manifest is in the store and everything below it is, too, or can be fetched again.
fn is_whole(blobs: &LayerBlobs<'_>, descriptor: &Descriptor) -> bool {
    let Ok(bytes) = blobs.store().blobs().read(&descriptor.digest, MAX_MANIFEST_BYTES) else { return false };
    let Ok(document) = Document::parse(&bytes, Some(&descriptor.media_type)) else { return false };
    match document {
        Document::Manifest(_) => document.children().iter().all(|child| blobs.has(&child.digest)),
        // An index in an index is nobody's habit; what cannot be shown to be whole is put together anew.
        Document::Index(_) => false,
    }
}

impl<'a> Stored<'a> {
    /// The first image alone, whatever it came with.
    pub(super) fn only(
        engine: &'a Engine,
        lease: &Lease,
        mut images: Vec<StoredImage>,
        packing: Packing,
        ready: Ready<'_>,
    ) -> Result<Self, Failure> {
        let blobs = Arc::new(LayerBlobs::new(engine)?);
        images.truncate(1);
        let image = images.first().ok_or_else(|| Failure::new("there is no image"))?;
        let staged = match stage::original(&blobs, image)? {
            Some(original) => {
                ready.comes_whole(&original.manifest, &original)?;
                original
            }
            None => stage::pack(engine, lease, &image.record, packing, ready)?,
        };
        let root = (staged.manifest.clone(), staged.manifest_bytes.clone());
        let (elsewhere, memory) = (image.references.clone(), BTreeMap::new());
        Ok(Self { blobs, images, staged: vec![staged], root, memory, elsewhere })
    }

    /// The platform that stands for all where there is room for one: the wanted one, this machine's, or the first.
    pub(super) fn platform_for(&self, wanted: Option<&Platform>) -> Platform {
        let host = Platform::host();
        let has = |platform: &Platform| self.images.iter().any(|image| image.record.platform == *platform);
        match (wanted, self.images.first()) {
            (Some(wanted), _) => wanted.clone(),
            (None, Some(first)) if !has(&host) => first.record.platform.clone(),
            (None, _) => host,
        }
    }

    /// The manifest or index.
    pub(crate) fn root(&self) -> &DescribedBytes {
        &self.root
    }

    /// Other names that it has: their repositories may have its blobs.
    pub(crate) fn elsewhere(&self) -> &[ImageRef] {
        &self.elsewhere
    }

    /// Names the images by the digest that they were pushed under, as Docker does.
    fn remember(&self, engine: &Engine, lease: &Lease, reference: &ImageRef) -> Result<(), Failure> {
        let by_digest = reference.with_digest(self.root.0.digest);
        for image in &self.images {
            if image.references.iter().any(|known| known.canonical() == by_digest.canonical()) {
                continue;
            }
            let store = engine.store()?;
            store.blobs_for(lease, &wait_silently).put(&self.root.1)?;
            store.images().tag(&by_digest, &image.record.id).map_err(image_names::explain)?;
        }
        Ok(())
    }

    fn first<T>(&self, ask: impl Fn(&Staged<'_>) -> io::Result<T>) -> Option<T> {
        self.staged.iter().find_map(|staged| ask(staged).ok())
    }
}

impl BlobSource for Stored<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        if let Some(bytes) = self.memory.get(digest) {
            return Ok(Box::new(Cursor::new(bytes.clone())));
        }
        self.first(|staged| staged.open(digest)).map_or_else(|| BlobSource::open(&*self.blobs, digest), Ok)
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        if let Some(bytes) = self.memory.get(digest) {
            return Ok(bytes.len() as u64);
        }
        self.first(|staged| staged.size(digest)).map_or_else(|| BlobSource::size(&*self.blobs, digest), Ok)
    }
}
