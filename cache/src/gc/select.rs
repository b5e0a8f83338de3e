//! Which records, mounts and images go: the least worth first, leaves before what they stand on. Compressed layers that are
//! only kept for the next push are worth nothing: they go before anything else.
//!
//! Worth is what a hit saves, in time, per byte and per hour since the last use. A record whose snapshot others stand
//! on frees nothing, so it waits until they are gone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rbuild_image::Digest;

use super::filter::{RecordKind, Subject};
use super::inventory::{Inventory, Reach};
use super::policy::{DiskSpace, GcPolicy, ImageScope, PruneScope};
use crate::id::{LayerId, ResultId, SnapshotId};
use crate::lease::Hold;
use crate::lock::LockMode;
use crate::mount_cache::{CacheMountInfo, lock_name};
use crate::store::Store;

/// What a byte of a cache mount is taken to have cost: as if downloaded at 20 MB/s.
const MOUNT_BYTES_PER_MICROSECOND: u64 = 20;

/// What goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) results: BTreeSet<ResultId>,
    /// The same, in order.
    pub(super) order: Vec<ResultId>,
    pub(super) mounts: Vec<(CacheMountInfo, u64)>,
    pub(super) forms: Vec<Digest>,
    pub(super) images: BTreeSet<Digest>,
    /// Bytes that this gives back.
    pub(super) released: u64,
    /// Bytes of the cache that stay.
    pub(super) used: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// Of equals the first.
    Form(Digest),
    Result(ResultId),
    Mount(usize),
}

/// What may go, with the bookkeeping of what is freed on the way.
pub(super) struct Candidates<'a> {
    inventory: &'a Inventory,
    images: BTreeSet<Digest>,
    mounts: Vec<(CacheMountInfo, u64)>,
    /// Compressed layers and their sizes.
    forms: BTreeMap<Digest, u64>,
    /// Candidates and their worth.
    worth: BTreeMap<ResultId, u128>,
    mount_worth: Vec<u128>,
    by_snapshot: BTreeMap<SnapshotId, Vec<ResultId>>,
    /// Kept whatever happens to records.
    pinned: BTreeSet<SnapshotId>,
    children: BTreeMap<SnapshotId, usize>,
    keepers: BTreeMap<SnapshotId, usize>,
    layer_users: BTreeMap<LayerId, usize>,
    /// How many layers have a tar.
    tar_users: BTreeMap<&'a str, usize>,
    pinned_layers: BTreeSet<LayerId>,
    used: u64,
}

/// A cache mount that a collection looks at.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    pub(super) info: CacheMountInfo,
    pub(super) size: u64,
    /// Whether a step has it now.
    pub(super) in_use: bool,
}

/// All cache mounts, with their sizes. Walks them, so it is done outside of transactions.
pub(super) fn mounts(store: &Store) -> Result<Vec<Mount>, super::PruneError> {
    let mut mounts = Vec::new();
    for info in store.cache_mounts().list()? {
        let in_use = store.try_lock(&lock_name(&info.hash, info.instance), LockMode::Exclusive)?.is_none();
        let size = store.cache_mounts().size(&info)?;
        mounts.push(Mount { info, size, in_use });
    }
    Ok(mounts)
}

impl<'a> Candidates<'a> {
    pub(super) fn new(
        inventory: &'a Inventory,
        holds: &BTreeSet<Hold>,
        policy: &GcPolicy,
        mounts: Vec<Mount>,
        now: Timestamp,
    ) -> Self {
        let images = images_to_go(inventory, holds, policy, now);
        let (leased, durable) = (Reach::leased(inventory, holds), Reach::durable(inventory));
        let forms = inventory.own_forms(&durable);
        let forms_used: u64 = forms.values().sum();
        let forms = forms.into_iter().filter(|(digest, _)| {
            let in_use = leased.blobs.contains(digest);
            let subject = form_subject(in_use);
            !in_use && policy.takes(&subject, inventory.forms[digest].used_at, now)
        });
        let forms = forms.collect();
        let (leased, shared) = (leased.snapshots, durable.snapshots);
        let mut worth = BTreeMap::new();
        let mut by_snapshot: BTreeMap<SnapshotId, Vec<ResultId>> = BTreeMap::new();
        let mut keepers: BTreeMap<SnapshotId, usize> = BTreeMap::new();
        for (id, row) in &inventory.results {
            if let Some(snapshot) = row.snapshot {
                by_snapshot.entry(snapshot).or_default().push(*id);
                *keepers.entry(snapshot).or_default() += 1;
            }
            let in_use = row.snapshot.is_some_and(|snapshot| leased.contains(&snapshot));
            let is_shared = row.snapshot.is_some_and(|snapshot| shared.contains(&snapshot));
            if in_use || (is_shared && policy.scope != PruneScope::All) {
                continue;
            }
            let (id_text, parent) = (id.to_string(), row.snapshot.and_then(|id| inventory.snapshots.get(&id)?.parent));
            let subject = Subject {
                id: &id_text,
                parent: &parent.map(|id| id.to_string()).unwrap_or_default(),
                description: &row.subject,
                kind: if row.is_checkout { RecordKind::GitCheckout } else { RecordKind::Regular },
                shared: is_shared,
                in_use,
            };
            if policy.takes(&subject, row.used_at, now) {
                let size = row.snapshot.map_or(0, |snapshot| inventory.size_of(snapshot));
                worth.insert(*id, worth_of(row.duration, size, row.used_at, now));
            }
        }
        let pinned = Reach::of(inventory, &BTreeSet::new(), &images, holds).snapshots;
        let pinned_layers: BTreeSet<LayerId> = pinned.iter().map(|id| inventory.snapshots[id].layer).collect();
        let alive = Reach::of(inventory, &inventory.results.keys().copied().collect(), &images, holds);
        let mut children: BTreeMap<SnapshotId, usize> = BTreeMap::new();
        let mut layer_users: BTreeMap<LayerId, usize> = BTreeMap::new();
        for row in alive.snapshots.iter().map(|id| &inventory.snapshots[id]) {
            *layer_users.entry(row.layer).or_default() += 1;
            if let Some(parent) = row.parent {
                *children.entry(parent).or_default() += 1;
            }
        }
        // What images and containers have is not the cache's; what a running build has is, though it stays.
        let shared_layers: BTreeSet<LayerId> = shared.iter().map(|id| inventory.snapshots[id].layer).collect();
        let shared_tars: BTreeSet<&str> =
            shared_layers.iter().filter_map(|layer| inventory.shared_tar(*layer)).map(|(file, _)| file).collect();
        let tars = layer_users.keys().filter_map(|layer| inventory.shared_tar(*layer));
        let own_tars: BTreeMap<&str, u64> = tars.clone().filter(|(file, _)| !shared_tars.contains(file)).collect();
        let mut tar_users: BTreeMap<&str, usize> = BTreeMap::new();
        tars.for_each(|(file, _)| *tar_users.entry(file).or_default() += 1);
        let used = layer_users
            .keys()
            .filter(|layer| !shared_layers.contains(layer))
            .map(|layer| inventory.layer_bytes(*layer))
            .sum::<u64>()
            + own_tars.values().sum::<u64>()
            + mounts.iter().map(|mount| mount.size).sum::<u64>()
            + forms_used;
        let takes = |mount: &Mount| {
            let subject = Subject {
                id: &mount.info.hash,
                parent: "",
                description: &mount.info.id,
                kind: RecordKind::CacheMount,
                shared: false,
                in_use: mount.in_use,
            };
            !mount.in_use && policy.takes(&subject, mount.info.used_at, now)
        };
        let mounts: Vec<_> = mounts.into_iter().filter(takes).map(|mount| (mount.info, mount.size)).collect();
        let mount_worth = mounts
            .iter()
            .map(|(info, size)| worth_of(size / MOUNT_BYTES_PER_MICROSECOND, *size, info.used_at, now))
            .collect();
        Self {
            inventory,
            images,
            mounts,
            forms,
            worth,
            mount_worth,
            by_snapshot,
            pinned,
            children,
            keepers,
            layer_users,
            tar_users,
            pinned_layers,
            used,
        }
    }

    /// Takes the least worth until the policy is content, with `incoming` bytes about to be added.
    pub(super) fn select(mut self, policy: &GcPolicy, disk: DiskSpace, incoming: u64) -> Selection {
        let (keep, before) = (policy.keep(disk, self.used, incoming), self.used);
        let mut selection = Selection { images: std::mem::take(&mut self.images), ..Selection::default() };
        let mut ready: BTreeSet<(u128, Item)> = self.mount_worth.iter().copied().zip((0..).map(Item::Mount)).collect();
        ready.extend(self.forms.keys().map(|digest| (0, Item::Form(*digest))));
        let leaves = self.worth.iter().filter(|(id, _)| self.is_leaf(**id) || policy.scope == PruneScope::All);
        ready.extend(leaves.map(|(id, worth)| (*worth, Item::Result(*id))));
        while keep.is_none_or(|keep| self.used > keep)
            && let Some((_, item)) = ready.pop_first()
        {
            match item {
                Item::Form(digest) => {
                    self.count(self.forms[&digest]);
                    selection.forms.push(digest);
                }
                Item::Mount(position) => {
                    let mount = self.mounts[position].clone();
                    self.count(mount.1);
                    selection.mounts.push(mount);
                }
                Item::Result(id) => {
                    if selection.results.insert(id) {
                        selection.order.push(id);
                        self.evict(id, &mut ready);
                    }
                }
            }
        }
        Selection { released: before - self.used, used: self.used, ..selection }
    }

    fn is_leaf(&self, id: ResultId) -> bool {
        let snapshot = self.inventory.results[&id].snapshot;
        snapshot.is_none_or(|snapshot| self.children.get(&snapshot).copied().unwrap_or(0) == 0)
    }

    fn evict(&mut self, id: ResultId, ready: &mut BTreeSet<(u128, Item)>) {
        let Some(mut snapshot) = self.inventory.results[&id].snapshot else { return };
        if let Some(count) = self.keepers.get_mut(&snapshot) {
            *count = count.saturating_sub(1);
        }
        // What nothing keeps any more goes, and then perhaps what it stood on.
        while !self.pinned.contains(&snapshot)
            && self.keepers.get(&snapshot).copied().unwrap_or(0) == 0
            && self.children.get(&snapshot).copied().unwrap_or(0) == 0
        {
            let Some(row) = self.inventory.snapshots.get(&snapshot) else { return };
            self.release(row.layer);
            let Some(parent) = row.parent else { return };
            if let Some(count) = self.children.get_mut(&parent) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    for id in self.by_snapshot.get(&parent).into_iter().flatten() {
                        ready.extend(self.worth.get(id).map(|worth| (*worth, Item::Result(*id))));
                    }
                }
            }
            snapshot = parent;
        }
    }

    fn release(&mut self, layer: LayerId) {
        let Some(count) = self.layer_users.get_mut(&layer) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 && !self.pinned_layers.contains(&layer) {
            self.count(self.inventory.layer_bytes(layer));
            if let Some((file, bytes)) = self.inventory.shared_tar(layer)
                && let Some(users) = self.tar_users.get_mut(file)
            {
                *users = users.saturating_sub(1);
                if *users == 0 {
                    self.count(bytes);
                }
            }
        }
    }

    fn count(&mut self, size: u64) {
        self.used = self.used.saturating_sub(size);
    }
}

/// What filters see of a compressed layer that is kept.
fn form_subject(in_use: bool) -> Subject<'static> {
    Subject { id: "", parent: "", description: "", kind: RecordKind::Internal, shared: false, in_use }
}

/// Microseconds saved per 2⁻³² byte and hour of age: an integer, so that the order is the same everywhere.
fn worth_of(duration: u64, size: u64, used_at: Timestamp, now: Timestamp) -> u128 {
    // A clock that was set back makes things young, never infinitely old.
    let age = now.as_second().saturating_sub(used_at.as_second()).max(0).unsigned_abs();
    let saved = u128::from(duration.max(100_000)) << 32;
    saved * 3600 / (u128::from(size) + 4096) / (u128::from(age) + 3600)
}

fn images_to_go(inventory: &Inventory, holds: &BTreeSet<Hold>, policy: &GcPolicy, now: Timestamp) -> BTreeSet<Digest> {
    let horizon = policy.horizon(now);
    let leased = Reach::leased(inventory, holds);
    let mut rooted = BTreeSet::new();
    for kept in &inventory.roots {
        if let crate::roots::Kept::Snapshot(id) = kept {
            inventory.chain(*id, &mut rooted);
        }
    }
    let goes = |id: &Digest, image: &super::inventory::ImageRow| {
        let wanted = match policy.images {
            ImageScope::None => false,
            ImageScope::Dangling => !image.tagged,
            ImageScope::Unused => true,
        };
        let in_use = leased.blobs.contains(id)
            || image.snapshot.is_some_and(|top| leased.snapshots.contains(&top) || rooted.contains(&top));
        wanted && !in_use && image.used_at < horizon
    };
    inventory.images.iter().filter(|(id, image)| goes(id, image)).map(|(id, _)| *id).collect()
}
