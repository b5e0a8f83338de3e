//! A build's result as an image: kept in the store, pushed, or both.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_cache::{BlobRole, ImageRecord, wait_silently};
use rbuild_image::push::{PushRequest, push as push_image};
use rbuild_image::registry::{ClearText, Client, Scheme, Silent, TransferSink, Verify};
use rbuild_image::{BlobSource, Descriptor, Digest, Flavour, ImageRef, copy_blob};

use super::ahead::{Destination, Unknown, while_packing};
use super::bundle::{Bundle, Parts, Shape, blobs, names};
use super::origins::{self, LayerBlobs};
use super::stage::{self, Ready};
use super::{Exported, put_image};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::progress::Progress;
use crate::request::{BuildRequest, ImageForm, ImageOutput, Output, PushAs};
use crate::transfer::{LayerBlob, created, unpack};

/// Writes the image that one output asks for.
pub(super) fn write(
    parts: &Parts<'_, '_>,
    output: &ImageOutput,
    elsewhere: &[ImageRef],
    progress: &Progress,
) -> Result<Exported, Failure> {
    let Parts { engine, store, request, built, attester, .. } = *parts;
    let names = names(request, &output.form);
    let by_digest = output.canonical || (names.is_empty() && output.dangling.is_some());
    let plain = output.form.is_plain() && request.annotations.is_empty() && attester.is_idle() && !by_digest;
    if plain && output.push.is_none() {
        return Ok(Exported { id: put_plain(parts, &names, progress)?, root: None, names });
    }
    let shape = if crate::dockerfile::is_multi_platform(request)? { Shape::Index } else { Shape::AsNeeded };
    let flavour = output.form.flavour.unwrap_or(Flavour::Oci);
    let pack = |ready: Ready<'_>| Bundle::new(parts, &output.form, flavour, shape, ready);
    let Some(how) = output.push else {
        let bundle = pack(stage::NOBODY)?;
        keep(parts, &bundle, &stored_names(output, &names, &bundle), progress)?;
        return Ok(Exported { id: bundle.id(), root: Some(bundle.root.0.clone()), names });
    };
    let Some(first) = names.first() else { return Err(unnamed()) };
    let client = if output.insecure { trusting(engine, &names)? } else { engine.client()? };
    let stored = LayerBlobs::new(engine)?;
    // With times that are given, other machines make the same layers.
    let unknown = if super::epoch(request)?.is_some() { Unknown::Asked } else { Unknown::Streamed };
    let keeper = origins::keeps_compressed(engine)?.then_some((store, parts.lease));
    let to =
        Destination { client: &client, name: first, elsewhere, stored: &stored, watch: &Silent, unknown, keep: keeper };
    let (bundle, there) = while_packing(&to, pack)?;
    // What the layers of a single image became is remembered: their blobs need not be kept beside them.
    let lean = plain && !bundle.is_index;
    match (output.store, lean) {
        (false, _) => {}
        (true, true) => drop(put_plain(parts, &names, progress)?),
        (true, false) => keep(parts, &bundle, &stored_names(output, &names, &bundle), progress)?,
    }
    progress.export(&format!("exporting manifest {}", bundle.root.0.digest));
    push_everywhere(&client, &bundle.root, &bundle, &names, how, Known { elsewhere, there: &there }, &Silent)?;
    for (repository, _) in by_repository(&names) {
        let (known, names) = (Known { elsewhere, there: &BTreeSet::new() }, std::slice::from_ref(&repository));
        for referrer in &bundle.referrers {
            push_everywhere(&client, referrer, &bundle, names, PushAs::Digest, known, &Silent)?;
            progress.export(&format!("pushing attestation {}@{}", repository.canonical(), referrer.0.digest));
        }
    }
    for name in &names {
        if output.store && lean {
            // Docker names what it pushed by digest, too.
            for built in built {
                let id = Digest::sha256(built.config.to_json());
                let named = name.with_digest(bundle.root.0.digest);
                store.images().tag(&named, &id).map_err(image_names::explain)?;
            }
        }
        progress.export(&format!("pushing manifest for {}@{}", name.canonical(), bundle.root.0.digest));
    }
    Ok(Exported { id: bundle.id(), root: Some(bundle.root.0.clone()), names })
}

/// The names that the store gives an image: its own, and those with its digest that are asked for.
fn stored_names(output: &ImageOutput, names: &[ImageRef], bundle: &Bundle<'_>) -> Vec<ImageRef> {
    let digest = bundle.root.0.digest;
    let mut out = names.to_vec();
    if output.canonical {
        out.extend(names.iter().map(|name| name.with_digest(digest)));
    }
    if names.is_empty() {
        out.extend(output.dangling.iter().map(|prefix| prefix.with_digest(digest)));
    }
    out
}

/// Keeps the images as they were built; gives the first one's id.
fn put_plain(parts: &Parts<'_, '_>, names: &[ImageRef], progress: &Progress) -> Result<Option<Digest>, Failure> {
    let mut first = None;
    for built in parts.built {
        let id = put_image(parts.store, parts.lease, built, names)?;
        progress.export(&format!("writing image {id}"));
        first.get_or_insert(id);
    }
    for name in names {
        progress.export(&format!("naming to {}", name.canonical()));
    }
    Ok(first)
}

/// What is known of blobs that are pushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// Repositories that registries may have them in.
    pub(crate) elsewhere: &'a [ImageRef],
    /// Those that the first repository has.
    pub(crate) there: &'a BTreeSet<Digest>,
}

/// Keeps a bundle in the store, as it would be had it been pulled: its manifests and its blobs, and its layers unpacked.
fn keep(parts: &Parts<'_, '_>, bundle: &Bundle<'_>, names: &[ImageRef], progress: &Progress) -> Result<(), Failure> {
    let Parts { engine, store, lease, built, .. } = *parts;
    let sink = store.blobs_for(lease, &wait_silently);
    let put = |descriptor: &Descriptor| -> Result<(), Failure> {
        let mut bytes = bundle.open(&descriptor.digest)?;
        Ok(copy_blob(&mut bytes, descriptor, &sink)?)
    };
    for blob in blobs(bundle).into_values() {
        put(blob)?;
    }
    let mut shared = BTreeMap::new();
    for (descriptor, _) in &bundle.attestations {
        put(descriptor)?;
        let role = if descriptor.media_type.is_manifest() { BlobRole::Manifest } else { BlobRole::Layer };
        shared.insert(descriptor.digest, role);
    }
    if bundle.is_index {
        put(&bundle.root.0)?;
        shared.insert(bundle.root.0.digest, BlobRole::Index);
    }
    for (one, staged) in built.iter().zip(&bundle.staged) {
        put(&staged.manifest)?;
        let document = &staged.document;
        let id = document.config.digest;
        let mut blobs = BTreeMap::from([(id, BlobRole::Config), (staged.manifest.digest, BlobRole::Manifest)]);
        blobs.extend(document.layers.iter().map(|layer| (layer.digest, BlobRole::Layer)));
        blobs.extend(shared.iter().map(|(digest, role)| (*digest, *role)));
        let diff_ids = staged.diff_ids.clone();
        let (snapshot, size) = if diff_ids == one.config.rootfs.diff_ids {
            (one.snapshot, one.size)
        } else {
            // Other times make other layers: those that the image has, not those that were built.
            let layers: Vec<LayerBlob> = diff_ids
                .iter()
                .zip(&document.layers)
                .map(|(diff_id, layer)| LayerBlob { diff_id: *diff_id, blob: layer.digest })
                .collect();
            unpack(store, lease, &layers, &|| engine.cancel().is_cancelled())?
        };
        let Descriptor { media_type, digest, size: length, .. } = staged.manifest.clone();
        let record = ImageRecord {
            id,
            platform: one.config.platform(),
            manifest: Some(Descriptor::new(media_type, digest, length)),
            diff_ids,
            snapshot,
            size,
            created_at: created(&one.config),
            blobs,
        };
        store.images().put(&record, names)?;
        progress.export(&format!("writing image {id}"));
    }
    for name in names {
        progress.export(&format!("naming to {}", name.canonical()));
    }
    Ok(())
}

/// Pushes a manifest or index under all names, each repository once. Other repositories of the same registry that got
/// it before, and those that are known, give their blobs.
pub(crate) fn push_everywhere(
    client: &Client,
    root: &(Descriptor, Vec<u8>),
    source: &dyn BlobSource,
    names: &[ImageRef],
    how: PushAs,
    known: Known<'_>,
    watch: &dyn TransferSink,
) -> Result<(), Failure> {
    let nothing = BTreeSet::new();
    let mut there = known.there;
    let mut known: Vec<ImageRef> = known.elsewhere.to_vec();
    for (first, tags) in by_repository(names) {
        let name = match how {
            PushAs::Tags => first.clone(),
            PushAs::Digest => first.with_digest(root.0.digest),
        };
        let tags = if how == PushAs::Tags { tags } else { Vec::new() };
        let request = PushRequest {
            name: &name,
            tags: &tags,
            media_type: &root.0.media_type,
            bytes: &root.1,
            mount_from: &known,
            there: std::mem::replace(&mut there, &nothing),
        };
        push_image(client, &request, source, watch)?;
        known.insert(0, first.clone());
    }
    Ok(())
}

/// The first name of each repository, with the tags of the others.
fn by_repository(names: &[ImageRef]) -> Vec<(ImageRef, Vec<String>)> {
    let mut out: Vec<(ImageRef, Vec<String>)> = Vec::new();
    for name in names {
        match out.iter_mut().find(|(first, _)| first.name() == name.name()) {
            Some((_, tags)) => tags.extend(name.tag().map(str::to_owned)),
            None => out.push((name.clone(), Vec::new())),
        }
    }
    out
}

/// Asks all registries that outputs push to whether they would take it: before anything is built.
pub(crate) fn check_rights(engine: &Engine, request: &BuildRequest) -> Result<(), Failure> {
    for output in &request.outputs {
        let Output::Image(image) = output else { continue };
        if image.push.is_none() {
            continue;
        }
        let names = names(request, &image.form);
        if names.is_empty() {
            return Err(unnamed());
        }
        let client = if image.insecure { trusting(engine, &names)? } else { engine.client()? };
        for (name, _) in by_repository(&names) {
            client.check_push(&name).map_err(|error| {
                let refused = error.is_unauthorized();
                let failure = Failure::from(error);
                match refused {
                    true => failure
                        .with_help(format!("`rbuild login {}` with an account that may push there", name.registry())),
                    false => failure,
                }
            })?;
        }
    }
    Ok(())
}

fn unnamed() -> Failure {
    Failure::usage("a tag is needed when pushing to a registry", "build with -t NAME, or -o type=registry,name=NAME")
}

/// A client that believes the registries of these names, whoever they are (`registry.insecure`).
fn trusting(engine: &Engine, names: &[ImageRef]) -> Result<Client, Failure> {
    let mut options = engine.client_options()?;
    for name in names {
        let host = options.hosts.entry(name.registry().to_owned()).or_default();
        (host.scheme, host.verify, host.clear_text) = (Scheme::Either, Verify::Nothing, ClearText::Anything);
    }
    Ok(Client::new(options))
}

/// Whether an output's form and names can be had; told before anything is built.
pub(crate) fn check_form(form: &ImageForm, how: Option<PushAs>) -> Result<(), Failure> {
    if how == Some(PushAs::Digest)
        && let Some(tagged) = form.names.iter().find(|name| name.tag().is_some())
    {
        return Err(Failure::usage(
            format!("can't push tagged ref {tagged} by digest"),
            "leave the tag out: name=REPOSITORY,push-by-digest=true",
        ));
    }
    Ok(())
}
