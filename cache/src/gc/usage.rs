//! Who uses how much, and how much of it could go.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rbuild_image::{Digest, ImageRef};

use super::PruneError;
use super::inventory::{Inventory, Reach};
use super::scan;
use crate::id::{LayerId, SnapshotId};
use crate::index::ListedRecord;
use crate::lease::{self, Hold};
use crate::lock::LockMode;
use crate::mount_cache::{CacheMountInfo, lock_name};
use crate::store::Store;

/// A record and what keeps its layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordUsage {
    /// The record.
    pub listed: ListedRecord,
    /// Whether an image or a container has its layer too, so that pruning frees nothing.
    pub shared: bool,
    /// Whether a live process uses it.
    pub in_use: bool,
}

/// An image's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// Its id.
    pub id: Digest,
    /// The references that lead to it.
    pub references: Vec<ImageRef>,
    /// Bytes of its layers and blobs.
    pub size: u64,
    /// Bytes that other images have too.
    pub shared: u64,
    /// The snapshots it is made of.
    pub snapshots: BTreeSet<SnapshotId>,
}

/// A cache mount's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountUsage {
    /// The mount.
    pub info: CacheMountInfo,
    /// Its bytes.
    pub size: u64,
    /// Whether a step uses it.
    pub in_use: bool,
}

/// The bytes of a compressed layer that is kept for the next push, and that nothing else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormUsage {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The snapshots on whose layers it is.
    pub snapshots: BTreeSet<SnapshotId>,
    /// When it was made or last used.
    pub used_at: Timestamp,
    /// Whether a live process uses it.
    pub in_use: bool,
}

/// The whole store's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Records, the latest used first.
    pub records: Vec<RecordUsage>,
    /// Images, by id.
    pub images: Vec<ImageUsage>,
    /// Cache mounts, by id.
    pub mounts: Vec<MountUsage>,
    /// Compressed layers that are kept for the next push, by digest.
    pub forms: Vec<FormUsage>,
    /// Bytes of all layers and of the merged indexes of their chains.
    pub layers: u64,
    /// Bytes of all blobs.
    pub blobs: u64,
    /// Bytes of partial downloads.
    pub partials: u64,
    /// Bytes of layers that only cache records keep, of blobs that nothing keeps or that can be made again, of idle
    /// mounts.
    pub reclaimable: u64,
}

impl Usage {
    /// All bytes.
    pub fn total(&self) -> u64 {
        self.layers + self.blobs + self.partials + self.mounts.iter().map(|mount| mount.size).sum::<u64>()
    }
}

impl Store {
    /// Tells who uses how much. Walks the cache mounts, nothing else.
    pub fn du(&self) -> Result<Usage, PruneError> {
        let holds = lease::live(self.layout())?.holds;
        let mut inventory = self.db().read(Inventory::load)?;
        let forms = form_usage(&inventory, &holds);
        let mounts = self.mount_usage()?;
        let layers = inventory.bytes_of(inventory.layers.keys().copied());
        let blobs = inventory.blobs.values().map(|row| row.size).sum();
        inventory.forms.clear();
        let kept = Reach::of(&inventory, &BTreeSet::new(), &BTreeSet::new(), &holds);
        let idle = mounts.iter().filter(|mount| !mount.in_use).map(|mount| mount.size).sum::<u64>();
        let reclaimable = kept.unreached_layers(&inventory).iter().map(|(_, size)| size).sum::<u64>()
            + kept.unreached_blobs(&inventory).iter().map(|(_, size)| size).sum::<u64>()
            + idle;
        Ok(Usage {
            records: self.record_usage(&inventory, &holds)?,
            images: self.image_usage(&inventory)?,
            mounts,
            forms,
            layers,
            blobs,
            partials: scan::partial_bytes(self)?,
            reclaimable,
        })
    }

    fn record_usage(&self, inventory: &Inventory, holds: &BTreeSet<Hold>) -> Result<Vec<RecordUsage>, PruneError> {
        let shared = Reach::durable(inventory).snapshots;
        let leased = Reach::leased(inventory, holds).snapshots;
        let has = |set: &BTreeSet<SnapshotId>, id: Option<SnapshotId>| id.is_some_and(|id| set.contains(&id));
        let listed = self.records().list()?;
        Ok(listed
            .into_iter()
            .map(|listed| {
                let snapshot = listed.record.snapshot;
                RecordUsage { shared: has(&shared, snapshot), in_use: has(&leased, snapshot), listed }
            })
            .collect())
    }

    fn image_usage(&self, inventory: &Inventory) -> Result<Vec<ImageUsage>, PruneError> {
        let layers_of = |snapshot: Option<SnapshotId>| -> BTreeSet<LayerId> {
            let mut chain = BTreeSet::new();
            if let Some(snapshot) = snapshot {
                inventory.chain(snapshot, &mut chain);
            }
            chain.iter().map(|id| inventory.snapshots[id].layer).collect()
        };
        let mut layer_users: BTreeMap<LayerId, usize> = BTreeMap::new();
        let mut tar_users: BTreeMap<&str, usize> = BTreeMap::new();
        let tars_of = |layers: &BTreeSet<LayerId>| -> BTreeMap<&str, u64> {
            layers.iter().filter_map(|layer| inventory.shared_tar(*layer)).collect()
        };
        let mut blob_users: BTreeMap<Digest, usize> = BTreeMap::new();
        for image in inventory.images.values() {
            let layers = layers_of(image.snapshot);
            tars_of(&layers).into_keys().for_each(|file| *tar_users.entry(file).or_default() += 1);
            layers.into_iter().for_each(|layer| *layer_users.entry(layer).or_default() += 1);
            image.blobs.iter().for_each(|blob| *blob_users.entry(*blob).or_default() += 1);
        }
        let mut references: BTreeMap<Digest, Vec<ImageRef>> =
            self.images().list()?.into_iter().map(|image| (image.record.id, image.references)).collect();
        let mut usage = Vec::new();
        for (id, image) in &inventory.images {
            let (mut size, mut shared) = (0, 0);
            let layers = layers_of(image.snapshot);
            for (file, bytes) in tars_of(&layers) {
                size += bytes;
                shared += if tar_users[file] > 1 { bytes } else { 0 };
            }
            for layer in layers {
                let bytes = inventory.layers.get(&layer).map_or(0, |row| row.size);
                size += bytes;
                shared += if layer_users[&layer] > 1 { bytes } else { 0 };
            }
            for blob in &image.blobs {
                let bytes = inventory.blobs.get(blob).map_or(0, |row| row.size);
                size += bytes;
                shared += if blob_users[blob] > 1 { bytes } else { 0 };
            }
            let mut snapshots = BTreeSet::new();
            if let Some(top) = image.snapshot {
                inventory.chain(top, &mut snapshots);
            }
            let references = references.remove(id).unwrap_or_default();
            usage.push(ImageUsage { id: *id, references, size, shared, snapshots });
        }
        Ok(usage)
    }

    fn mount_usage(&self) -> Result<Vec<MountUsage>, PruneError> {
        let mut usage = Vec::new();
        for info in self.cache_mounts().list()? {
            let in_use = self.try_lock(&lock_name(&info.hash, info.instance), LockMode::Exclusive)?.is_none();
            let size = self.cache_mounts().size(&info)?;
            usage.push(MountUsage { info, size, in_use });
        }
        Ok(usage)
    }
}

fn form_usage(inventory: &Inventory, holds: &BTreeSet<Hold>) -> Vec<FormUsage> {
    let leased = Reach::leased(inventory, holds).blobs;
    let own = inventory.own_forms(&Reach::durable(inventory));
    let usage = own.into_iter().map(|(digest, size)| {
        let form = &inventory.forms[&digest];
        let on_layer = inventory.snapshots.iter().filter(|(_, row)| form.layers.contains(&row.layer));
        let snapshots = on_layer.map(|(id, _)| *id).collect();
        FormUsage { digest, size, snapshots, used_at: form.used_at, in_use: leased.contains(&digest) }
    });
    usage.collect()
}
