//! `push`: a stored image to the registry that its name says.

use rbuild_cache::wait_silently;
use rbuild_image::push::{PushRequest, push as push_image};
use rbuild_image::{Digest, ImageRef};

use super::pull::Watch;
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::output::stage::{self, Packing};
use crate::progress::Transfers;
use crate::request::Compression;

/// What a push left in the registry.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Sends an image. One that came with a manifest leaves with the same; a built one is packed first.
pub fn push(engine: &Engine, reference: &ImageRef, transfers: &Transfers) -> Result<Pushed, Failure> {
    let store = engine.store()?;
    let lease = store.lease(&format!("push {reference}"))?;
    let image = store.images().acquire(&reference.canonical(), None, &lease).map_err(image_names::explain)?;
    transfers.say(&format!("Pushing {reference}"));
    let packing = Packing { compression: Compression::Gzip(None), flavour: rbuild_image::Flavour::Oci };
    let staged = match stage::original(store, &image)? {
        Some(staged) => staged,
        None => stage::pack(engine, &lease, &image.record, packing)?,
    };
    let watch = Watch { advance: &|item, current, total| transfers.advance(item, current, total) };
    let request = PushRequest {
        name: reference,
        tags: &[],
        media_type: &staged.manifest.media_type,
        bytes: &staged.manifest_bytes,
        mount_from: &[],
    };
    let pushed = push_image(&engine.client()?, &request, &staged, &watch)?;
    if !image.references.iter().any(|known| known.digest() == Some(&pushed.digest)) {
        remember(engine, &lease, reference, &image.record, &staged)?;
    }
    Ok(Pushed { digest: pushed.digest, size: pushed.size })
}

/// Names the image by the digest that it was pushed under, as Docker does.
fn remember(
    engine: &Engine,
    lease: &rbuild_cache::Lease,
    reference: &ImageRef,
    record: &rbuild_cache::ImageRecord,
    staged: &stage::Staged<'_>,
) -> Result<(), Failure> {
    let store = engine.store()?;
    store.blobs_for(lease, &wait_silently).put(&staged.manifest_bytes)?;
    store.images().tag(&reference.with_digest(staged.manifest.digest), &record.id).map_err(image_names::explain)
}
