//! `load`: images from an archive or an OCI layout.

use std::collections::BTreeMap;
use std::fs::File;

use rbuild_cache::{BlobRole, ImageRecord, Lease, Store, wait_silently};
use rbuild_image::archive::{Archive, ArchiveImage, ArchiveInput, ArchiveLimits, ArchiveManifest};
use rbuild_image::{BlobSink, BlobSource, Digest, ImageRef, Platform, copy_blob};

use super::Input;
use super::pull::created;
use super::unpack::{LayerBlob, unpack};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names::Known;

/// An image that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its name, where it has one.
    pub reference: Option<ImageRef>,
    /// Its id.
    pub id: Digest,
}

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The archive or layout.
    pub input: Input,
    /// A name for its only image.
    pub name: Option<ImageRef>,
    /// Only this platform of each image.
    pub platform: Option<Platform>,
}

/// Loads every image of an archive.
pub fn load(engine: &Engine, request: &LoadRequest) -> Result<Vec<Loaded>, Failure> {
    let (input, name) = (&request.input, request.name.as_ref());
    let store = engine.store()?;
    let lease = store.lease("load")?;
    let source = input.name();
    let unreadable =
        |error: &(dyn std::error::Error + 'static)| Failure::from_error(&format!("cannot load {source}"), error);
    let archive_input = match input {
        Input::Directory(path) => ArchiveInput::Directory(path.clone()),
        Input::File(path) => match File::open(path) {
            Ok(file) if file.metadata()?.is_dir() => ArchiveInput::Directory(path.clone()),
            Ok(file) => ArchiveInput::File(file),
            Err(error) => {
                return Err(
                    unreadable(&error).with_help("-i names an archive, as `rbuild save -o FILE IMAGE` writes one")
                );
            }
        },
        Input::Stdin | Input::Url(_) => ArchiveInput::Stream(input.open()?),
    };
    let mut scratch = || {
        let path = lease.scratch_name("archive")?;
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    };
    let archive =
        Archive::open(archive_input, &ArchiveLimits::default(), &mut scratch).map_err(|error| unreadable(&error))?;
    if name.is_some() && archive.images().len() > 1 {
        return Err(Failure::usage(
            format!("{source} holds {} images: one name does not fit them all", archive.images().len()),
            "load without --tag, then `rbuild tag`",
        ));
    }
    let mut loaded = Vec::new();
    for image in archive.images() {
        let chosen = request.platform.as_ref().map(|platform| only(image, platform, &source)).transpose()?;
        let image = chosen.as_ref().unwrap_or(image);
        let names = name.map_or_else(|| image.names.clone(), |name| vec![name.clone()]);
        let id = take_in(engine, store, &lease, &archive, image, &names, &source)?;
        Known::of(store, &id).tell(store, "load");
        if names.is_empty() {
            loaded.push(Loaded { reference: None, id });
        }
        loaded.extend(names.into_iter().map(|name| Loaded { reference: Some(name), id }));
    }
    Ok(loaded)
}

/// The part of an image that is for one platform.
fn only(image: &ArchiveImage, platform: &Platform, source: &str) -> Result<ArchiveImage, Failure> {
    let Some(manifest) = image.select(platform) else {
        let known: Vec<String> = image.manifests.iter().map(|manifest| manifest.platform.to_string()).collect();
        let name = image.names.first().map_or_else(|| "an image".to_owned(), ToString::to_string);
        return Err(Failure::new(format!("{source} has no {name} for {platform}"))
            .with_help(format!("it has {}", known.join(", "))));
    };
    Ok(ArchiveImage { indexes: Vec::new(), manifests: vec![manifest.clone()], ..image.clone() })
}

/// Takes in one image of an open archive, under `names` or none.
pub(crate) fn load_image(
    engine: &Engine,
    lease: &Lease,
    input: &Input,
    archive: &Archive,
    image: &ArchiveImage,
    names: &[ImageRef],
) -> Result<Digest, Failure> {
    take_in(engine, engine.store()?, lease, archive, image, names, &input.name())
}

/// Takes in all platforms of an image: those of this machine unpacked, the others as blobs. Gives the id for this
/// machine, else of the first.
fn take_in(
    engine: &Engine,
    store: &Store,
    lease: &Lease,
    archive: &Archive,
    image: &ArchiveImage,
    names: &[ImageRef],
    source: &str,
) -> Result<Digest, Failure> {
    let wrong =
        |error: &(dyn std::error::Error + 'static)| Failure::from_error(&format!("cannot load {source}"), error);
    let sink = store.blobs_for(lease, &wait_silently);
    for (descriptor, bytes) in &image.indexes {
        copy_blob(&mut bytes.as_slice(), descriptor, &sink).map_err(|error| wrong(&error))?;
    }
    let mut records = Vec::new();
    for manifest in &image.manifests {
        records.push(
            one_platform(engine, store, lease, archive, image, manifest, &sink)
                .map_err(|failure| failure.within(&format!("cannot load {source}")))?,
        );
    }
    for record in &records {
        store.images().put(record, names)?;
    }
    let host = Platform::host();
    let best = records.iter().min_by_key(|record| record.platform.rank_for(&host).unwrap_or(u32::MAX));
    best.map(|record| record.id).ok_or_else(|| Failure::new(format!("{source} holds no image")))
}

fn one_platform(
    engine: &Engine,
    store: &Store,
    lease: &Lease,
    archive: &Archive,
    image: &ArchiveImage,
    manifest: &ArchiveManifest,
    sink: &dyn BlobSink,
) -> Result<ImageRecord, Failure> {
    for layer in &manifest.layers {
        let mut reader = archive.open(&layer.descriptor.digest)?;
        copy_blob(&mut reader, &layer.descriptor, sink)?;
    }
    for (descriptor, bytes) in [&manifest.config, &manifest.manifest] {
        copy_blob(&mut bytes.as_slice(), descriptor, sink)?;
    }
    let layers: Vec<LayerBlob> = manifest
        .layers
        .iter()
        .map(|layer| LayerBlob { diff_id: layer.diff_id, blob: layer.descriptor.digest })
        .collect();
    let (snapshot, size) = unpack(store, lease, &layers, &|| engine.cancel().is_cancelled())?;
    let mut blobs = BTreeMap::from([
        (manifest.config.0.digest, BlobRole::Config),
        (manifest.manifest.0.digest, BlobRole::Manifest),
    ]);
    blobs.extend(image.indexes.iter().map(|(index, _)| (index.digest, BlobRole::Index)));
    blobs.extend(manifest.layers.iter().map(|layer| (layer.descriptor.digest, BlobRole::Layer)));
    Ok(ImageRecord {
        id: manifest.config.0.digest,
        platform: manifest.platform.clone(),
        manifest: Some(manifest.manifest.0.clone()),
        diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
        snapshot,
        size,
        created_at: created(&manifest.image_config),
        blobs,
    })
}
