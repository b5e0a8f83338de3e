//! Files behind URLs. Without a checksum the file itself has to be there before it is known whether it changed; with
//! one, nothing is asked unless the file is needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_image::{Algorithm, Digest};
use rbuild_solver::{Control, Event, HttpSource, Job, JobError, Pinned, Product, Source};

use super::EngineWorker;
use super::failure::of_failure;
use crate::fetch::{Downloaded, download};

/// What this build fetched, by URL, file name and algorithm: each once, however many steps add it.
#[derive(Debug, Default)]
pub(super) struct Downloads(Mutex<BTreeMap<(String, String, &'static str), Slot>>);

/// Whoever holds the lock fetches; the others wait for it.
type Slot = Arc<Mutex<Option<Downloaded>>>;

/// Finds out what is behind a URL.
pub(super) fn pin(worker: &EngineWorker<'_>, source: &HttpSource, control: Control<'_>) -> Result<Pinned, JobError> {
    let identity = match source.checksum {
        Some(checksum) => checksum,
        None => fetched(worker, source, control, &|_, _| {})?.identity(),
    };
    Ok(Pinned { source: Source::Http(source.clone()), identity: Some(identity) })
}

/// Gives a snapshot that holds the file.
pub(super) fn exec(
    worker: &EngineWorker<'_>,
    job: &Job,
    source: &HttpSource,
    control: Control<'_>,
) -> Result<Product, JobError> {
    let progress = |current, total| {
        let item = source.filename.clone();
        control.events.emit(Event::Bytes { vertex: Some(job.id), item, current, total, at: control.at() });
    };
    let file = fetched(worker, source, control, &progress)?;
    if let Some(checksum) = &source.checksum {
        file.verify(checksum).map_err(|failure| of_failure(&failure, control))?;
    }
    Ok(Product::Snapshot(Some(file.snapshot)))
}

fn fetched(
    worker: &EngineWorker<'_>,
    source: &HttpSource,
    control: Control<'_>,
    progress: &dyn Fn(u64, Option<u64>),
) -> Result<Downloaded, JobError> {
    let algorithm = source.checksum.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let key = (source.url.clone(), source.filename.clone(), algorithm.name());
    let slot: Slot = {
        let mut slots = worker.downloads.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    };
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = &*slot {
        return Ok(file.clone());
    }
    let file = download(worker.fetching(), &source.url, &source.filename, algorithm, progress)
        .map_err(|failure| of_failure(&failure, control))?;
    *slot = Some(file.clone());
    Ok(file)
}
