//! Everything that collection looks at, in memory, and what can be reached in it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rbuild_image::Digest;

use crate::db::{DbError, Micros, Text, Tx};
use crate::id::{LayerId, ResultId, SnapshotId};
use crate::lease::Hold;
use crate::roots::{self, Kept};

#[derive(Clone, Debug)]
pub(super) struct SnapshotRow {
    pub(super) parent: Option<SnapshotId>,
    pub(super) layer: LayerId,
    pub(super) doomed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct LayerRow {
    pub(super) path: String,
    /// Bytes on disk that are its own, with the merged indexes of which it is the topmost layer: these go with it, or before.
    pub(super) size: u64,
    /// Its tar, where other layers may have the same file.
    pub(super) tar: Option<SharedTar>,
}

#[derive(Clone, Debug)]
pub(super) struct SharedTar {
    pub(super) file: String,
    pub(super) size: u64,
}

#[derive(Clone, Debug)]
pub(super) struct ImageRow {
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) used_at: Timestamp,
    pub(super) tagged: bool,
    pub(super) blobs: BTreeSet<Digest>,
}

#[derive(Clone, Debug)]
pub(super) struct ResultRow {
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) subject: String,
    pub(super) used_at: Timestamp,
    pub(super) duration: u64,
    /// Whether the step checked out a repository.
    pub(super) is_checkout: bool,
}

#[derive(Clone, Debug)]
pub(super) struct BlobRow {
    pub(super) size: u64,
    pub(super) doomed: bool,
}

/// A compressed layer that is kept for the next one who wants it.
#[derive(Clone, Debug)]
pub(super) struct FormRow {
    /// The layers that become this.
    pub(super) layers: BTreeSet<LayerId>,
    pub(super) used_at: Timestamp,
}

/// One consistent state of the database.
#[derive(Clone, Debug)]
pub(super) struct Inventory {
    pub(super) snapshots: BTreeMap<SnapshotId, SnapshotRow>,
    pub(super) layers: BTreeMap<LayerId, LayerRow>,
    pub(super) blobs: BTreeMap<Digest, BlobRow>,
    pub(super) layer_blobs: BTreeMap<LayerId, BTreeSet<Digest>>,
    /// Blobs that are copies of what can be made again.
    pub(super) forms: BTreeMap<Digest, FormRow>,
    pub(super) images: BTreeMap<Digest, ImageRow>,
    pub(super) results: BTreeMap<ResultId, ResultRow>,
    pub(super) roots: Vec<Kept>,
}

impl Inventory {
    pub(super) fn load(tx: &Tx<'_>) -> Result<Self, DbError> {
        let snapshots = tx.all("SELECT id, parent, layer, doomed FROM snapshots", [], |row| {
            Ok((row.get(0)?, SnapshotRow { parent: row.get(1)?, layer: row.get(2)?, doomed: row.get(3)? }))
        })?;
        let layers = "SELECT l.id, l.path, l.size + coalesce((SELECT sum(m.size) FROM merged m
                          JOIN snapshots s ON s.id = m.snapshot WHERE s.layer = l.id), 0) - coalesce(l.tar_bytes, 0),
                          coalesce(l.tar_file, l.path), l.tar_bytes FROM layers l";
        let layers = tx.all(layers, [], |row| {
            let (file, bytes) = (row.get(3)?, row.get::<_, Option<u64>>(4)?);
            let tar = bytes.map(|size| SharedTar { file, size });
            Ok((row.get(0)?, LayerRow { path: row.get(1)?, size: row.get(2)?, tar }))
        })?;
        let blobs = tx.all("SELECT digest, size, doomed FROM blobs", [], |row| {
            let Text(digest) = row.get(0)?;
            Ok((digest, BlobRow { size: row.get(1)?, doomed: row.get(2)? }))
        })?;
        let results = tx.all("SELECT id, snapshot, subject, used_at, duration FROM results", [], |row| {
            let Micros(used_at) = row.get(3)?;
            let duration = row.get::<_, i64>(4)?.unsigned_abs();
            let (snapshot, subject) = (row.get(1)?, row.get(2)?);
            Ok((row.get(0)?, ResultRow { snapshot, subject, used_at, duration, is_checkout: false }))
        })?;
        let mut results: BTreeMap<ResultId, ResultRow> = results.into_iter().collect();
        // The text that a key is the digest of begins with the step's operation.
        let checkouts =
            "SELECT DISTINCT k.result FROM keys k JOIN descriptions d ON d.definition = k.key WHERE d.op = 'git'";
        for id in tx.all(checkouts, [], |row| row.get::<_, ResultId>(0))? {
            results.entry(id).and_modify(|row| row.is_checkout = true);
        }
        let mut layer_blobs: BTreeMap<LayerId, BTreeSet<Digest>> = BTreeMap::new();
        for (layer, Text(blob)) in
            tx.all("SELECT layer, blob FROM layer_blobs", [], |row| Ok((row.get(0)?, row.get(1)?)))?
        {
            layer_blobs.entry(layer).or_default().insert(blob);
        }
        Ok(Self {
            snapshots: snapshots.into_iter().collect(),
            layers: layers.into_iter().collect(),
            blobs: blobs.into_iter().collect(),
            layer_blobs,
            forms: load_forms(tx)?,
            images: load_images(tx)?,
            results,
            roots: roots::all(tx)?.into_values().flatten().collect(),
        })
    }

    /// Bytes of a snapshot's topmost layer.
    pub(super) fn size_of(&self, snapshot: SnapshotId) -> u64 {
        self.snapshots.get(&snapshot).map_or(0, |row| self.bytes_of([row.layer]))
    }

    /// Bytes of layers; of a tar that several of them have, once.
    pub(super) fn bytes_of(&self, layers: impl IntoIterator<Item = LayerId>) -> u64 {
        let rows: Vec<&LayerRow> = layers.into_iter().filter_map(|layer| self.layers.get(&layer)).collect();
        let tars: BTreeMap<&str, u64> = rows.iter().filter_map(|row| row.tar()).collect();
        rows.iter().map(|row| row.size).sum::<u64>() + tars.values().sum::<u64>()
    }

    /// The tar of a layer that others may have, too.
    pub(super) fn shared_tar(&self, layer: LayerId) -> Option<(&str, u64)> {
        self.layers.get(&layer)?.tar()
    }

    /// Bytes of a layer and of its compressed forms, but for a tar that others may have.
    pub(super) fn layer_bytes(&self, layer: LayerId) -> u64 {
        let own = self.layers.get(&layer).map_or(0, |row| row.size);
        let blobs = self.layer_blobs.get(&layer).into_iter().flatten().filter_map(|blob| self.blobs.get(blob));
        own + blobs.map(|row| row.size).sum::<u64>()
    }

    /// The compressed layers that nothing else keeps, and their sizes.
    pub(super) fn own_forms(&self, durable: &Reach) -> BTreeMap<Digest, u64> {
        let attached: BTreeSet<&Digest> = self.layer_blobs.values().flatten().collect();
        let own = self.forms.keys().filter(|digest| !durable.blobs.contains(digest) && !attached.contains(digest));
        own.filter_map(|digest| Some((*digest, self.blobs.get(digest)?.size))).collect()
    }

    /// Adds a snapshot and its parents.
    pub(super) fn chain(&self, top: SnapshotId, into: &mut BTreeSet<SnapshotId>) {
        let mut next = Some(top);
        while let Some(id) = next {
            let Some(row) = self.snapshots.get(&id) else { return };
            if !into.insert(id) {
                return;
            }
            next = row.parent;
        }
    }
}

impl LayerRow {
    fn tar(&self) -> Option<(&str, u64)> {
        self.tar.as_ref().map(|tar| (tar.file.as_str(), tar.size))
    }
}

fn load_forms(tx: &Tx<'_>) -> Result<BTreeMap<Digest, FormRow>, DbError> {
    let sql = "SELECT f.digest, f.layer, f.kept_at FROM layer_forms f JOIN blobs b ON b.digest = f.digest
               WHERE f.kept_at IS NOT NULL";
    let rows = tx.all(sql, [], |row| {
        let (Text(digest), Micros(used_at)) = (row.get(0)?, row.get(2)?);
        Ok((digest, row.get(1)?, used_at))
    })?;
    let mut forms: BTreeMap<Digest, FormRow> = BTreeMap::new();
    for (digest, layer, used_at) in rows {
        let form = forms.entry(digest).or_insert(FormRow { layers: BTreeSet::new(), used_at });
        form.layers.insert(layer);
        form.used_at = form.used_at.max(used_at);
    }
    Ok(forms)
}

fn load_images(tx: &Tx<'_>) -> Result<BTreeMap<Digest, ImageRow>, DbError> {
    let rows = tx.all("SELECT id, snapshot, used_at FROM images", [], |row| {
        let (Text(id), Micros(used_at)) = (row.get(0)?, row.get(2)?);
        Ok((id, ImageRow { snapshot: row.get(1)?, used_at, tagged: false, blobs: BTreeSet::new() }))
    })?;
    let mut images: BTreeMap<Digest, ImageRow> = rows.into_iter().collect();
    // A reference by digest is no tag.
    let tagged = "SELECT DISTINCT image FROM tags WHERE instr(reference, '@') = 0";
    for Text(id) in tx.all(tagged, [], |row| row.get::<_, Text<Digest>>(0))? {
        if let Some(image) = images.get_mut(&id) {
            image.tagged = true;
        }
    }
    for (Text(id), Text(blob)) in tx.all("SELECT image, blob FROM image_blobs", [], |row| {
        Ok((row.get::<_, Text<Digest>>(0)?, row.get::<_, Text<Digest>>(1)?))
    })? {
        if let Some(image) = images.get_mut(&id) {
            image.blobs.insert(blob);
        }
    }
    Ok(images)
}

/// What something keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    pub(super) snapshots: BTreeSet<SnapshotId>,
    pub(super) layers: BTreeSet<LayerId>,
    pub(super) blobs: BTreeSet<Digest>,
}

impl Reach {
    /// Marks from images (but for those that go), roots, kept results and live leases.
    pub(super) fn of(
        inventory: &Inventory,
        results: &BTreeSet<ResultId>,
        gone: &BTreeSet<Digest>,
        holds: &BTreeSet<Hold>,
    ) -> Self {
        let mut reach = Self::default();
        reach.mark_durable(inventory, gone);
        reach.mark_leased(inventory, holds);
        for row in results.iter().filter_map(|id| inventory.results.get(id)) {
            if let Some(snapshot) = row.snapshot {
                inventory.chain(snapshot, &mut reach.snapshots);
            }
        }
        reach.layers.extend(reach.snapshots.iter().map(|id| inventory.snapshots[id].layer));
        let attached = reach.layers.iter().filter_map(|id| inventory.layer_blobs.get(id));
        reach.blobs.extend(attached.flatten());
        for (digest, form) in &inventory.forms {
            if !reach.layers.is_disjoint(&form.layers) {
                reach.blobs.insert(*digest);
            }
        }
        reach
    }

    /// What images and containers keep.
    pub(super) fn durable(inventory: &Inventory) -> Self {
        let mut reach = Self::default();
        reach.mark_durable(inventory, &BTreeSet::new());
        reach
    }

    /// What live leases keep.
    pub(super) fn leased(inventory: &Inventory, holds: &BTreeSet<Hold>) -> Self {
        let mut reach = Self::default();
        reach.mark_leased(inventory, holds);
        reach
    }

    /// Layers that are not reached, with their sizes.
    pub(super) fn unreached_layers(&self, inventory: &Inventory) -> Vec<(LayerId, u64)> {
        let mut kept: BTreeSet<&str> =
            self.layers.iter().filter_map(|id| inventory.shared_tar(*id)).map(|(file, _)| file).collect();
        let mut unreached = Vec::new();
        for (id, row) in inventory.layers.iter().filter(|(id, _)| !self.layers.contains(id)) {
            // A tar that several of them have counts with the first.
            let tar = row.tar().filter(|(file, _)| kept.insert(file)).map_or(0, |(_, size)| size);
            unreached.push((*id, row.size + tar));
        }
        unreached
    }

    /// Blobs that are not reached, with their sizes.
    pub(super) fn unreached_blobs(&self, inventory: &Inventory) -> Vec<(Digest, u64)> {
        let rows = inventory.blobs.iter().filter(|(digest, _)| !self.blobs.contains(digest));
        rows.map(|(digest, row)| (*digest, row.size)).collect()
    }

    fn mark_durable(&mut self, inventory: &Inventory, gone: &BTreeSet<Digest>) {
        for (_, image) in inventory.images.iter().filter(|(id, _)| !gone.contains(id)) {
            self.blobs.extend(&image.blobs);
            if let Some(snapshot) = image.snapshot {
                inventory.chain(snapshot, &mut self.snapshots);
            }
        }
        for kept in &inventory.roots {
            match kept {
                Kept::Blob(digest) => drop(self.blobs.insert(*digest)),
                Kept::Snapshot(id) => inventory.chain(*id, &mut self.snapshots),
            }
        }
    }

    fn mark_leased(&mut self, inventory: &Inventory, holds: &BTreeSet<Hold>) {
        let paths: BTreeMap<&str, LayerId> =
            inventory.layers.iter().map(|(id, row)| (row.path.as_str(), *id)).collect();
        for hold in holds {
            match hold {
                Hold::Blob(digest) => drop(self.blobs.insert(*digest)),
                Hold::Snapshot(id) => inventory.chain(*id, &mut self.snapshots),
                Hold::Layer(path) => self.layers.extend(paths.get(path.as_str())),
                Hold::Outside { .. } => {}
            }
        }
    }
}
