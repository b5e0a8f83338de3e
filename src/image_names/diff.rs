//! The files that distinguish two stored images.

use std::io;

use rbuild_cache::Lease;
use rbuild_cache::view::View;
use rbuild_image::Platform;

use super::explain;
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::file_changes::{Comparing, FileChange, compare};
use crate::transfer;

/// What differs from `before` to `after`, by content.
pub(crate) fn diff(
    engine: &Engine,
    before: &str,
    after: &str,
    platform: Option<&Platform>,
) -> Result<Vec<FileChange>, Failure> {
    let lease = engine.store()?.lease("image diff")?;
    let (a, b) = (view(engine, before, platform, &lease)?, view(engine, after, platform, &lease)?);
    let mut changes = Vec::new();
    compare::<io::Error>(&a, &b, Comparing::Bytes, &mut |change| {
        changes.push(change);
        match engine.cancel().is_cancelled() {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    })
    .map_err(|error| match engine.cancel().is_cancelled() {
        true => Failure::interrupted(),
        false => Failure::from_error(&format!("cannot compare {before} with {after}"), &error),
    })?;
    Ok(changes)
}

/// An image's files; unpacked first where only its blobs are there.
fn view(engine: &Engine, name: &str, platform: Option<&Platform>, lease: &Lease) -> Result<View, Failure> {
    let store = engine.store()?;
    let image = store.images().acquire(name, platform, lease).map_err(explain)?;
    let snapshot = transfer::ensure_unpacked(store, lease, &image, &|| engine.cancel().is_cancelled())?;
    Ok(store.snapshots().view(snapshot)?)
}
