//! Base images: from the store, or from their registry into the store.

use rbuild_image::ImageRef;
use rbuild_image::pull as registry;
use rbuild_solver::{Control, Event, ImageSource, Job, JobError, Product};

use super::EngineWorker;
use super::failure::{FailJob, failed};
use crate::cli::report::Failure;
use crate::transfer::{self, Watch};

/// Makes an image's layers available; fetches what the store does not have.
pub(super) fn exec(
    worker: &EngineWorker<'_>,
    job: &Job,
    source: &ImageSource,
    control: Control<'_>,
) -> Result<Product, JobError> {
    let fail = |failure: Failure| match control.cancel.is_cancelled() {
        true => JobError::Cancelled,
        false => JobError::Failed(rbuild_solver::VertexFailure {
            message: format!("{}: {}", source.reference, failure.message()),
            help: None,
            exit_code: None,
        }),
    };
    let cancelled = || control.cancel.is_cancelled();
    if let Some(image) = find(worker, source).or_fail("cannot look an image up")? {
        let id = image.record.id.to_string();
        let image =
            worker.store.images().acquire(&id, Some(&source.platform), worker.lease).or_fail("cannot use an image")?;
        let snapshot = transfer::ensure_unpacked(worker.store, worker.lease, &image, &cancelled).map_err(fail)?;
        return Ok(Product::Snapshot(snapshot));
    }
    let by_digest = source.reference.with_digest(source.digest);
    let client = worker.engine.client().map_err(fail)?;
    let resolved =
        registry::resolve(&client, &by_digest, &source.platform).map_err(|error| fail(Failure::from(error)))?;
    // The image is kept under the name that the Dockerfile uses.
    let resolved = registry::ResolvedImage { reference: named(&source.reference), ..resolved };
    let at = || worker.now();
    let watch = Watch::new(
        |item, current, total| {
            let item = item.to_owned();
            control.events.emit(Event::Bytes { vertex: Some(job.id), item, current, total, at: at() });
        },
        |whom| control.events.emit(Event::Waiting { vertex: job.id, reason: whom.to_owned(), at: at() }),
    );
    let pulled = transfer::fetch(worker.engine, worker.lease, &resolved, &watch).map_err(fail)?;
    let image = worker
        .store
        .images()
        .acquire(&pulled.id.to_string(), Some(&source.platform), worker.lease)
        .or_fail("cannot use an image")?;
    if source.digest != pulled.digest
        && image.record.manifest.as_ref().is_none_or(|known| known.digest != source.digest)
    {
        return Err(
            failed(format!("{}: the registry gave another image than it had resolved", source.reference)).into()
        );
    }
    let snapshot = transfer::ensure_unpacked(worker.store, worker.lease, &image, &cancelled).map_err(fail)?;
    Ok(Product::Snapshot(snapshot))
}

/// Whether an image is here, so that using it fetches nothing.
pub(super) fn is_here(worker: &EngineWorker<'_>, source: &ImageSource) -> bool {
    matches!(find(worker, source), Ok(Some(_)))
}

/// The stored image that a pinned source means: by its manifest's digest, or by its id.
fn find(
    worker: &EngineWorker<'_>,
    source: &ImageSource,
) -> Result<Option<rbuild_cache::StoredImage>, rbuild_cache::DbError> {
    let images = worker.store.images();
    if let Some(image) = images.by_id(&source.digest)? {
        return Ok(Some(image));
    }
    let named = images.get(&source.reference, Some(&source.platform))?;
    let is_it = |image: &rbuild_cache::StoredImage| {
        image.record.manifest.as_ref().is_some_and(|manifest| manifest.digest == source.digest)
    };
    if let Some(image) = named.filter(|image| is_it(image)) {
        return Ok(Some(image));
    }
    Ok(images.list()?.into_iter().find(is_it))
}

fn named(reference: &ImageRef) -> ImageRef {
    reference.tag_or_latest()
}
