//! What `rbuild cache verify` does, as plain data.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use rbuild_cache::{OpenOptions, PruneControl, Store, VerifyDepth, VerifyReport};
use rbuild_image::{BlobSource, Digest, ImageRef, pull};
use serde::Serialize;

use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::output::origins::LayerBlobs;
use crate::transfer::Watch;

/// What a check found, and what a repair did about it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verified {
    /// Promises that are not kept (any more, after a repair).
    pub problems: Vec<String>,
    /// Images that need what is damaged.
    pub affected: Vec<String>,
    /// Files that only take room.
    pub leftovers: usize,
    /// Damaged files that a repair took out of use.
    pub quarantined: usize,
    /// Blobs, layers and images that were looked at.
    pub checked: usize,
    /// Layers from outside that could not be compared, because the blobs they came as are not there.
    pub unchecked: usize,
    /// What a repair did.
    pub repairs: Vec<String>,
    /// Whether it was interrupted.
    pub interrupted: bool,
}

/// Checks everything stored; repairs when asked: fetches damaged blobs from the registries their images came from,
/// unpacks damaged layers again, forgets damaged cached steps, removes garbage.
pub fn verify(engine: &Engine, repair: bool, control: PruneControl<'_>) -> Result<Verified, Failure> {
    let store = engine.store()?;
    let report = store.verify(VerifyDepth::Content, control.interrupt)?;
    if !repair || report.interrupted {
        return verified(store, &report, Vec::new());
    }
    let mut repairs = fetch_again(engine, store, &report)?;
    repairs.extend(fetch_sources(engine, &store.missing_sources(&report)?)?);
    // What was fetched is what layers are restored from.
    let report = match repairs.is_empty() {
        true => report,
        false => store.verify(VerifyDepth::Content, control.interrupt)?,
    };
    let restored = store.restore_layers(&report)?;
    repairs.extend(restored.iter().map(|layer| format!("unpacked layer {layer} again")));
    let left = report.problems.iter().filter(|problem| !problem.layer().is_some_and(|id| restored.contains(&id)));
    let left = VerifyReport { problems: left.cloned().collect(), ..VerifyReport::default() };
    let repaired = store.repair(&left, control)?;
    repairs.extend(repaired.records.iter().map(|record| format!("forgot cached step {record}")));
    let freed = repaired.collected.freed;
    repairs.extend((repaired.collected.freed > 0).then(|| format!("removed leftovers of {freed} bytes")));
    let report = store.verify(VerifyDepth::Content, control.interrupt)?;
    verified(store, &report, repairs)
}

fn verified(store: &Store, report: &VerifyReport, repairs: Vec<String>) -> Result<Verified, Failure> {
    let damaged = report.damaged_blobs();
    let layers: BTreeSet<_> = report.problems.iter().filter_map(rbuild_cache::Problem::layer).collect();
    let mut affected = Vec::new();
    for image in store.images().list()? {
        let has_blob = image.record.blobs.keys().any(|digest| damaged.contains(digest));
        let has_layer = !layers.is_empty()
            && match image.record.snapshot {
                Some(top) => store.snapshots().get(top)?.layer_ids().iter().any(|layer| layers.contains(layer)),
                None => false,
            };
        if has_blob || has_layer {
            affected.push(image.references.first().map_or_else(|| image.record.id.short(), ToString::to_string));
        }
    }
    Ok(Verified {
        problems: report.problems.iter().map(ToString::to_string).collect(),
        affected,
        leftovers: report.garbage.len(),
        quarantined: report.quarantined.len(),
        checked: report.blobs + report.layers + report.images,
        unchecked: report.unchecked,
        repairs,
        interrupted: report.interrupted,
    })
}

/// Fetches damaged blobs from the registries that their images came from. What cannot be fetched stays a problem.
fn fetch_again(engine: &Engine, store: &Store, report: &VerifyReport) -> Result<Vec<String>, Failure> {
    let mut damaged = report.damaged_blobs();
    let mut done = Vec::new();
    let stop = |_: &rbuild_cache::Waiting<'_>| match engine.cancel().is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    for image in store.images().list()? {
        let needed: BTreeSet<Digest> =
            image.record.blobs.keys().copied().filter(|digest| damaged.contains(digest)).collect();
        // Only a digest names for sure what was pulled; a tag may have moved on.
        let pinned: Vec<&ImageRef> = image.references.iter().filter(|reference| reference.digest().is_some()).collect();
        if needed.is_empty() {
            continue;
        }
        let lease = store.lease("repair")?;
        for reference in pinned {
            let sink = store.replacements(&lease, &stop, &needed);
            let client = engine.client()?;
            let fetched = pull::resolve(&client, reference, &image.record.platform)
                .and_then(|resolved| pull::pull_resolved(&client, resolved, &sink, &Watch::new(|_, _, _| (), |_| ())));
            match fetched {
                Ok(_) => {
                    done.extend(needed.iter().map(|digest| format!("fetched {digest} again, from {reference}")));
                    damaged.retain(|digest| !needed.contains(digest));
                    break;
                }
                Err(error) => {
                    let failure = Failure::from_error(&format!("cannot fetch {reference} again"), &error);
                    crate::cli::report::story(&format!("{}\n", crate::cli::report::printable(failure.message())));
                }
            }
        }
    }
    Ok(done)
}

/// Fetches blobs that were let go of, for layers that are damaged. What cannot be fetched stays a problem.
fn fetch_sources(engine: &Engine, missing: &BTreeSet<Digest>) -> Result<Vec<String>, Failure> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let blobs = LayerBlobs::new(engine)?;
    let mut done = Vec::new();
    for digest in missing {
        match blobs.open(digest) {
            Ok(_) => done.push(format!("fetched {digest} again")),
            Err(error) => {
                let failure = Failure::from_error(&format!("cannot fetch {digest} again"), &error);
                crate::cli::report::story(&format!("{}\n", crate::cli::report::printable(failure.message())));
            }
        }
    }
    Ok(done)
}

/// What could be saved from a store whose database is damaged.
#[derive(Clone, Debug, Serialize)]
pub struct Rebuilt {
    /// Ids of images that are complete.
    pub images: Vec<Digest>,
    /// Their names, as far as the old database still knew them.
    pub names: Vec<String>,
    /// Blobs that are whole.
    pub blobs: usize,
    /// Blobs that are not.
    pub damaged: Vec<Digest>,
}

/// Makes a new database from what the store's directories hold. The old one is kept beside it.
pub fn rebuild(engine: &Engine) -> Result<Rebuilt, Failure> {
    let settings = engine.settings();
    let (_, report) = Store::rebuild(&settings.root, OpenOptions::new(settings.command.clone()))?;
    Ok(Rebuilt {
        images: report.images,
        names: report.names.iter().map(ToString::to_string).collect(),
        blobs: report.blobs,
        damaged: report.damaged,
    })
}
