//! Collection: what nothing keeps goes away, and of what is merely useful as much as a policy says.
//!
//! Mark and sweep in two transactions against leases that need none (see `lease.rs`); rows go first, files after. A
//! crash in between leaves files without rows, which the next collection finds by listing directories.
//! Interruptible between any two files. One collection runs at a time; nobody else waits for it.
//!
//! Evicting a record leaves a tombstone that says when and by which rule.

mod inventory;
mod policy;
mod rescue;
mod scan;
mod select;
mod sweep;
mod usage;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use jiff::Timestamp;
use rbuild_image::Digest;

use crate::db::{DbError, Durability, Micros, Text, Tx};
use crate::failpoint;
use crate::id::ResultId;
use crate::lease::{self, Lease};
use crate::lock::{LockError, LockMode, LockName, OnWait};
use crate::mount_cache::{CacheMountError, CacheMountInfo};
use crate::path_error::{AtPath, PathError};
use crate::reserve;
use crate::store::Store;
use crate::tombstone::{self, evict};

use inventory::{Inventory, Reach};
pub use policy::{GcPolicy, ImageScope, PruneFilter, PruneKind, PruneScope};
use select::{Candidates, Selection};
pub use usage::{ImageUsage, MountUsage, RecordUsage, Usage};

/// Whether a collection acts or only tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneMode {
    /// It acts.
    Apply,
    /// It changes nothing.
    DryRun,
}

/// A record that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedRecord {
    /// Which one.
    pub result: ResultId,
    /// The step as people know it.
    pub subject: String,
    /// Bytes of its layer, if nothing else keeps that; they may be freed with another record.
    pub size: u64,
    /// When it was last used.
    pub used_at: Timestamp,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Records, in the order of eviction.
    pub records: Vec<PrunedRecord>,
    /// Images.
    pub images: Vec<Digest>,
    /// Cache mounts.
    pub mounts: Vec<CacheMountInfo>,
    /// Layers that nothing needs any more.
    pub layers: usize,
    /// Blobs that nothing needs any more.
    pub blobs: usize,
    /// Bytes given back to the file system; in a dry run, what is expected.
    pub freed: u64,
    /// Whether it was interrupted; the rest goes next time.
    pub interrupted: bool,
}

/// Why a collection failed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Another collection runs, and waiting was not wanted.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A cache mount cannot be removed.
    #[error(transparent)]
    Mount(#[from] CacheMountError),
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The file system said no.
    #[error(transparent)]
    File(#[from] PathError),
}

/// How a collection talks with whoever asked for it.
#[derive(Clone, Copy)]
pub struct PruneControl<'a> {
    /// Called while another collection runs.
    pub on_wait: OnWait<'a>,
    /// Asked between any two files; `Break` ends the collection early.
    pub interrupt: &'a (dyn Fn() -> ControlFlow<()> + Sync),
}

impl Store {
    /// Collects what nothing keeps, and evicts what `policy` says.
    pub fn prune(
        &self,
        policy: &GcPolicy,
        mode: PruneMode,
        control: PruneControl<'_>,
    ) -> Result<PruneReport, PruneError> {
        if mode == PruneMode::DryRun {
            return dry_run(self, policy);
        }
        // A full disk must not keep anybody from emptying it.
        let reserve = reserve::release_if_needed(self.layout())?;
        let _one = self.lock(&LockName::other("collection", ""), LockMode::Exclusive, control.on_wait)?;
        let lease = self.lease("prune")?;
        let report = collect(self, policy, &lease, control);
        drop(lease);
        if reserve.is_released() {
            reserve::restore(self.layout());
        }
        report
    }
}

/// Everything that lies in the store without a name.
pub(crate) fn garbage_paths(store: &Store) -> Result<Vec<PathBuf>, PruneError> {
    let garbage = scan::find(store)?;
    let mut paths: Vec<PathBuf> = garbage.layers.into_iter().map(|found| found.path).collect();
    paths.extend(garbage.blobs.iter().map(|digest| store.layout().blob(digest)));
    paths.extend(garbage.mounts.into_iter().map(|(_, _, path)| path));
    paths.extend(garbage.scratch);
    paths.extend(garbage.partials.into_iter().map(|(_, path)| path));
    Ok(paths)
}

fn dry_run(store: &Store, policy: &GcPolicy) -> Result<PruneReport, PruneError> {
    let mounts = select::mounts(store, policy)?;
    let holds = lease::live(store.layout())?.holds;
    let inventory = store.db().read(Inventory::load)?;
    let selection = choose(store, policy, &inventory, &holds, mounts)?;
    let kept: BTreeSet<ResultId> =
        inventory.results.keys().copied().filter(|id| !selection.results.contains(id)).collect();
    let reach = Reach::of(&inventory, &kept, &selection.images, &holds);
    let mut report = report_of(&inventory, selection);
    let layers = reach.unreached_layers(&inventory);
    let blobs = reach.unreached_blobs(&inventory);
    report.freed += layers.iter().map(|(_, size)| size).sum::<u64>();
    report.freed += blobs.iter().map(|(_, size)| size).sum::<u64>();
    (report.layers, report.blobs) = (layers.len(), blobs.len());
    Ok(report)
}

fn collect(
    store: &Store,
    policy: &GcPolicy,
    lease: &Lease,
    control: PruneControl<'_>,
) -> Result<PruneReport, PruneError> {
    let now = store.now();
    let mounts = select::mounts(store, policy)?;
    let (mut report, inventory) = store.db().write(Durability::Lazy, |tx| {
        let inventory = Inventory::load(tx)?;
        let holds = lease::live(store.layout())?.holds;
        let selection = choose(store, policy, &inventory, &holds, mounts)?;
        for result in &selection.results {
            evict(tx, *result, &policy.rule, now)?;
        }
        for image in &selection.images {
            tx.execute("DELETE FROM tags WHERE image = ?1", [Text(image)])?;
            tx.execute("DELETE FROM images WHERE id = ?1", [Text(image)])?;
        }
        forget(tx, policy, now)?;
        let kept = inventory.results.keys().copied().filter(|id| !selection.results.contains(id)).collect();
        let reach = Reach::of(&inventory, &kept, &selection.images, &holds);
        doom(tx, &inventory, &reach)?;
        Ok::<_, PruneError>((report_of(&inventory, selection), inventory))
    })?;
    drop(inventory);
    failpoint::hit("gc-marked").at("collect in", store.layout().root())?;
    let mounts = std::mem::take(&mut report.mounts);
    report.freed = 0;
    let condemned = store.db().write(Durability::Synced, |tx| sweep::rows(store, tx))?;
    (report.layers, report.blobs) = (condemned.layers.len(), condemned.blobs.len());
    let mut sweeper = sweep::Sweeper { store, lease, interrupt: control.interrupt, freed: 0 };
    let ended = sweeper.files(&condemned, &mounts, &mut report.mounts)?;
    let ended = match ended {
        ControlFlow::Continue(()) => scan::garbage(&mut sweeper)?,
        stop => stop,
    };
    report.interrupted = ended.is_break();
    report.freed = sweeper.freed;
    Ok(report)
}

fn choose(
    store: &Store,
    policy: &GcPolicy,
    inventory: &Inventory,
    holds: &BTreeSet<lease::Hold>,
    mounts: Vec<(CacheMountInfo, u64)>,
) -> Result<Selection, PathError> {
    let ceiling = policy.ceiling(store.layout().root())?;
    Ok(Candidates::new(inventory, holds, policy, mounts, store.now()).select(policy, ceiling))
}

fn report_of(inventory: &Inventory, selection: Selection) -> PruneReport {
    let mut report = PruneReport { images: selection.images.into_iter().collect(), ..PruneReport::default() };
    for (mount, size) in selection.mounts {
        report.freed += size;
        report.mounts.push(mount);
    }
    for id in selection.order {
        let row = &inventory.results[&id];
        report.records.push(PrunedRecord {
            result: id,
            subject: row.subject.clone(),
            size: row.snapshot.map_or(0, |snapshot| inventory.size_of(snapshot)),
            used_at: row.used_at,
        });
    }
    report
}

fn doom(tx: &Tx<'_>, inventory: &Inventory, reach: &Reach) -> Result<(), DbError> {
    for snapshot in inventory.snapshots.keys().filter(|id| !reach.snapshots.contains(id)) {
        tx.execute("UPDATE snapshots SET doomed = 1 WHERE id = ?1", [snapshot])?;
    }
    for (blob, _) in reach.unreached_blobs(inventory) {
        tx.execute("UPDATE blobs SET doomed = 1 WHERE digest = ?1", [Text(blob)])?;
    }
    Ok(())
}

/// Drops what is remembered for too long: tombstones and file digests.
fn forget(tx: &Tx<'_>, policy: &GcPolicy, now: Timestamp) -> Result<(), DbError> {
    let horizon = Micros(now.checked_sub(policy.memory).unwrap_or(Timestamp::MIN));
    tombstone::forget(tx, horizon)?;
    let horizon = match policy.scope {
        PruneScope::All if policy.filters.is_empty() => Micros(policy.unused_since.unwrap_or(Timestamp::MAX)),
        _ => horizon,
    };
    tx.execute("DELETE FROM file_roots WHERE used_at < ?1", [horizon])?;
    Ok(())
}
