//! Collection: what nothing keeps goes away, and of what is merely useful as much as a policy says.
//!
//! Mark and sweep in two transactions against leases that need none (see `lease.rs`); rows go first, files after. A
//! crash in between leaves files without rows, which the next collection finds by listing directories.
//! Interruptible between any two files. One collection runs at a time; nobody else waits for it.
//!
//! Evicting a record leaves a tombstone that says when and by which rule.

mod filter;
mod inventory;
mod keeper;
mod losses;
mod policy;
mod rescue;
mod scan;
mod select;
mod sweep;
mod usage;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

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

pub use filter::{InvalidFilter, PruneFilter, RecordKind, Subject};
use inventory::{Inventory, Reach};
pub(crate) use keeper::Growth;
pub use keeper::Keeper;
pub use losses::{Loser, Loss};
pub use policy::{DiskSpace, GcPolicy, ImageScope, InvalidSpace, Limits, PruneScope, Space};
use select::{Candidates, Mount, Selection};
pub use usage::{FormUsage, ImageUsage, MountUsage, RecordUsage, Usage};

/// How many collections are remembered.
const COLLECTIONS: i64 = 100;

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
    /// How long the step took: what a hit would save.
    pub duration: Duration,
    /// Which policy took it, as tombstones name it.
    pub rule: String,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Records, in the order of eviction.
    pub records: Vec<PrunedRecord>,
    /// Images.
    pub images: Vec<Digest>,
    /// Compressed layers that were kept for the next push.
    pub forms: Vec<Digest>,
    /// Cache mounts.
    pub mounts: Vec<CacheMountInfo>,
    /// Layers that nothing needs any more.
    pub layers: usize,
    /// Blobs that nothing needs any more.
    pub blobs: usize,
    /// Bytes given back to the file system; in a dry run, what is expected.
    pub freed: u64,
    /// Bytes of the cache that stay: layers that neither image nor container keeps, and cache mounts.
    pub used: u64,
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
        self.collect(std::slice::from_ref(policy), mode, control)
    }

    /// Collects what nothing keeps, and evicts what `policies` say, in their order.
    pub fn collect(
        &self,
        policies: &[GcPolicy],
        mode: PruneMode,
        control: PruneControl<'_>,
    ) -> Result<PruneReport, PruneError> {
        match mode {
            PruneMode::DryRun => dry_run(self, policies),
            PruneMode::Apply => self.make_room(policies, 0, control),
        }
    }

    /// Collects, with that many bytes about to be added.
    fn make_room(
        &self,
        policies: &[GcPolicy],
        incoming: u64,
        control: PruneControl<'_>,
    ) -> Result<PruneReport, PruneError> {
        // A full disk must not keep anybody from emptying it.
        let reserve = reserve::release_if_needed(self.layout())?;
        let _one = self.lock(&LockName::other("collection", ""), LockMode::Exclusive, control.on_wait)?;
        let lease = self.lease("prune")?;
        let report = collect(self, policies, incoming, &lease, control);
        drop(lease);
        if reserve.is_released() {
            reserve::restore(self.layout());
        }
        report
    }

    /// The file system's room.
    pub fn disk_space(&self) -> Result<DiskSpace, PathError> {
        DiskSpace::at(self.layout().root())
    }
}

impl Store {
    /// Removes what layers were before this process gave them another form, as far as nobody can use it any more; the rest
    /// goes with a collection. For the end of an invocation, without a lease of its own from before.
    pub fn remove_replaced_layers(&self) -> Result<(), PruneError> {
        if !self.snapshotting().take_replaced() {
            return Ok(());
        }
        let lease = self.lease("end of a build")?;
        let mut sweeper =
            sweep::Sweeper { store: self, lease: &lease, interrupt: &|| ControlFlow::Continue(()), freed: 0 };
        scan::replaced_layers(&mut sweeper)
    }
}

/// Everything that lies in the store without a name.
pub(crate) fn garbage_paths(store: &Store) -> Result<Vec<PathBuf>, PruneError> {
    let garbage = scan::find(store)?;
    let mut paths: Vec<PathBuf> = garbage.layers.into_iter().map(|found| found.path).collect();
    paths.extend(garbage.merged.into_iter().map(|found| found.path));
    paths.extend(garbage.blobs.iter().map(|digest| store.layout().blob(digest)));
    paths.extend(garbage.mounts.into_iter().map(|(_, _, path)| path));
    paths.extend(garbage.scratch);
    paths.extend(garbage.partials.into_iter().map(|(_, path)| path));
    Ok(paths)
}

/// Damaged files that a repair took out of use.
pub(crate) fn quarantined(store: &Store) -> Result<Vec<PathBuf>, PathError> {
    let directory = store.layout().quarantine();
    if !directory.exists() {
        return Ok(Vec::new());
    }
    Ok(scan::list(&directory)?.into_iter().map(|found| found.path).collect())
}

fn dry_run(store: &Store, policies: &[GcPolicy]) -> Result<PruneReport, PruneError> {
    let mounts = mounts_for(store, policies)?;
    let holds = lease::live(store.layout())?.holds;
    let mut inventory = store.db().read(Inventory::load)?;
    let disk = store.disk_space()?;
    let mut report = plan(&mut inventory, policies, &holds, mounts, disk, 0, store.now());
    let kept: BTreeSet<ResultId> = inventory.results.keys().copied().collect();
    let reach = Reach::of(&inventory, &kept, &BTreeSet::new(), &holds);
    let layers = reach.unreached_layers(&inventory);
    let blobs = reach.unreached_blobs(&inventory);
    report.freed += layers.iter().map(|(_, size)| size).sum::<u64>();
    report.freed += blobs.iter().map(|(_, size)| size).sum::<u64>();
    (report.layers, report.blobs) = (layers.len(), blobs.len());
    Ok(report)
}

/// The cache mounts that these policies may look at.
fn mounts_for(store: &Store, policies: &[GcPolicy]) -> Result<Vec<Mount>, PruneError> {
    if policies.iter().all(|policy| policy.scope == PruneScope::Garbage) {
        Ok(Vec::new())
    } else {
        select::mounts(store)
    }
}

/// Decides what several policies take, one after the other, and takes it out of the inventory.
fn plan(
    inventory: &mut Inventory,
    policies: &[GcPolicy],
    holds: &BTreeSet<lease::Hold>,
    mut mounts: Vec<Mount>,
    mut disk: DiskSpace,
    incoming: u64,
    now: Timestamp,
) -> PruneReport {
    let mut report = PruneReport::default();
    for policy in policies {
        let candidates = Candidates::new(inventory, holds, policy, mounts.clone(), now);
        let selection = candidates.select(policy, disk, incoming);
        // What went is room for the next policy, though its files are still there.
        disk.free = disk.free.saturating_add(selection.released);
        report.used = selection.used;
        take(inventory, &mut mounts, policy, selection, &mut report);
    }
    report
}

fn take(
    inventory: &mut Inventory,
    mounts: &mut Vec<Mount>,
    policy: &GcPolicy,
    selection: Selection,
    report: &mut PruneReport,
) {
    for (mount, size) in selection.mounts {
        mounts.retain(|other| other.info != mount);
        report.freed += size;
        report.mounts.push(mount);
    }
    for id in selection.order {
        let size = inventory.results[&id].snapshot.map_or(0, |snapshot| inventory.size_of(snapshot));
        let Some(row) = inventory.results.remove(&id) else { continue };
        report.records.push(PrunedRecord {
            result: id,
            subject: row.subject,
            size,
            used_at: row.used_at,
            duration: Duration::from_micros(row.duration),
            rule: policy.rule.clone(),
        });
    }
    for digest in selection.forms {
        inventory.forms.remove(&digest);
        report.forms.push(digest);
    }
    for id in selection.images {
        inventory.images.remove(&id);
        report.images.push(id);
    }
}

fn collect(
    store: &Store,
    policies: &[GcPolicy],
    incoming: u64,
    lease: &Lease,
    control: PruneControl<'_>,
) -> Result<PruneReport, PruneError> {
    let now = store.now();
    let mounts = mounts_for(store, policies)?;
    let disk = store.disk_space()?;
    failpoint::hit("gc-begin").at("collect in", store.layout().root())?;
    let mut report = store.db().write(Durability::Lazy, |tx| {
        let mut inventory = Inventory::load(tx)?;
        let holds = lease::live(store.layout())?.holds;
        for mount in &mounts {
            let sql = "UPDATE cache_mounts SET size = ?3 WHERE hash = ?1 AND instance = ?2";
            tx.execute(sql, (&mount.info.hash, mount.info.instance, mount.size))?;
        }
        let report = plan(&mut inventory, policies, &holds, mounts, disk, incoming, now);
        for record in &report.records {
            evict(tx, record.result, &record.rule, now)?;
        }
        for form in &report.forms {
            tx.execute("UPDATE layer_forms SET kept_at = NULL WHERE digest = ?1", [Text(form)])?;
        }
        for image in &report.images {
            tx.execute("DELETE FROM tags WHERE image = ?1", [Text(image)])?;
            tx.execute("DELETE FROM images WHERE id = ?1", [Text(image)])?;
        }
        forget(tx, policies, now)?;
        let kept = inventory.results.keys().copied().collect();
        let reach = Reach::of(&inventory, &kept, &BTreeSet::new(), &holds);
        doom(tx, &inventory, &reach)?;
        failpoint::hit("gc-mark").at("collect in", store.layout().root())?;
        Ok::<_, PruneError>(report)
    })?;
    failpoint::hit("gc-marked").at("collect in", store.layout().root())?;
    let mounts = std::mem::take(&mut report.mounts);
    report.freed = 0;
    let condemned = store.db().write(Durability::Synced, |tx| sweep::rows(store, tx))?;
    failpoint::hit("gc-swept").at("collect in", store.layout().root())?;
    (report.layers, report.blobs) = (condemned.layers.len(), condemned.blobs.len());
    let mut sweeper = sweep::Sweeper { store, lease, interrupt: control.interrupt, freed: 0 };
    let ended = sweeper.files(&condemned, &mounts, &mut report.mounts)?;
    let ended = match ended {
        ControlFlow::Continue(()) => scan::garbage(&mut sweeper)?,
        stop => stop,
    };
    if ended.is_continue() {
        sweeper.freed += store.snapshots().share_equal_tars(lease, control.interrupt)?;
    }
    report.interrupted = ended.is_break();
    report.freed = sweeper.freed;
    let (evicted, freed) = (report.records.len(), report.freed);
    store.db().write(Durability::Lazy, |tx| note(tx, now, evicted, freed))?;
    Ok(report)
}

/// Remembers that a collection ran, and forgets the oldest of many.
fn note(tx: &Tx<'_>, now: Timestamp, evicted: usize, freed: u64) -> Result<(), DbError> {
    let evicted = i64::try_from(evicted).unwrap_or(i64::MAX);
    tx.execute("INSERT INTO collections (ran_at, evicted, freed) VALUES (?1, ?2, ?3)", (Micros(now), evicted, freed))?;
    tx.execute("DELETE FROM collections WHERE id <= (SELECT max(id) FROM collections) - ?1", [COLLECTIONS])?;
    Ok(())
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
fn forget(tx: &Tx<'_>, policies: &[GcPolicy], now: Timestamp) -> Result<(), DbError> {
    let horizon = |memory| now.checked_sub(memory).unwrap_or(Timestamp::MIN);
    let memory = policies.iter().map(|policy| policy.memory).min().unwrap_or_default();
    tombstone::forget(tx, Micros(horizon(memory)))?;
    // A clearance takes the file digests too.
    let clears = |policy: &&GcPolicy| policy.scope == PruneScope::All && policy.is_unlimited();
    let files = policies.iter().find(clears).map_or_else(|| horizon(memory), |policy| policy.horizon(now));
    tx.execute("DELETE FROM file_roots WHERE used_at < ?1", [Micros(files)])?;
    Ok(())
}
