//! Repair: what can be had again is, and what cannot is forgotten as far as it is only a cache.
//!
//! Never deletes an image. Damaged files that were replaced go to `quarantine/`, for whoever wants to know what
//! happened to them; the next collection takes them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rbuild_image::{BlobSink, BlobWriter, Descriptor, Digest};

use crate::content::begin_replacing;
use crate::db::{DbError, Durability, Text, Tx};
use crate::gc::{GcPolicy, PruneControl, PruneError, PruneMode, PruneReport};
use crate::id::{LayerId, ResultId};
use crate::layout::Layout;
use crate::lease::{self, Hold, Lease};
use crate::lock::OnWait;
use crate::path_error::{AtPath, PathError};
use crate::store::Store;
use crate::tombstone::evict;
use crate::verify::{Problem, VerifyReport};

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Records whose layers were damaged.
    pub records: Vec<ResultId>,
    /// What was collected then.
    pub collected: PruneReport,
}

/// Takes in blobs in place of damaged ones; those that are sound it has already.
#[derive(Clone, Copy)]
pub struct Replacements<'a> {
    store: &'a Store,
    lease: &'a Lease,
    on_wait: OnWait<'a>,
    damaged: &'a BTreeSet<Digest>,
}

impl BlobSink for Replacements<'_> {
    fn contains(&self, digest: &Digest) -> io::Result<bool> {
        Ok(!self.damaged.contains(digest))
    }

    fn begin(&self, expected: &Descriptor) -> io::Result<Box<dyn BlobWriter>> {
        self.lease.hold(Hold::Blob(expected.digest))?;
        if !self.damaged.contains(&expected.digest) {
            return self.store.blobs_for(self.lease, self.on_wait).begin(expected);
        }
        keep_copy(self.store.layout(), &self.store.layout().blob(&expected.digest), &expected.digest.hex())?;
        Ok(begin_replacing(self.store, expected.digest, expected.size, self.on_wait)?)
    }
}

impl Store {
    /// For taking in `damaged` blobs once more.
    pub fn replacements<'a>(
        &'a self,
        lease: &'a Lease,
        on_wait: OnWait<'a>,
        damaged: &'a BTreeSet<Digest>,
    ) -> Replacements<'a> {
        Replacements { store: self, lease, on_wait, damaged }
    }

    /// The blobs that damaged layers came as, and that are not here: with them [`Self::restore_layers`] can do more.
    pub fn missing_sources(&self, report: &VerifyReport) -> Result<BTreeSet<Digest>, DbError> {
        let damaged: BTreeSet<LayerId> = report.problems.iter().filter_map(Problem::layer).collect();
        if damaged.is_empty() {
            return Ok(BTreeSet::new());
        }
        let sources = self.layer_sources()?;
        let layers = self.imported_layers()?.into_iter().filter(|imported| damaged.contains(&imported.layer));
        let blobs = layers.filter_map(|imported| sources.get(&imported.diff_id).copied());
        Ok(blobs.filter(|blob| self.blobs().len(blob).is_err()).collect())
    }

    /// Unpacks damaged layers from outside once more, where the blobs they came as are sound; those that are whole now.
    /// Layers that a live process uses are left alone.
    pub fn restore_layers(&self, report: &VerifyReport) -> Result<Vec<LayerId>, PruneError> {
        let damaged: BTreeSet<LayerId> = report.problems.iter().filter_map(Problem::layer).collect();
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let in_use = self.layers_in_use()?;
        let lease = self.lease("repair")?;
        let sources = self.layer_sources()?;
        let mut restored = self.snapshots().restore_indexes(report, &in_use)?;
        // Parents first: what is unpacked looks at what is below.
        for imported in self.imported_layers()? {
            let layer = imported.layer;
            if restored.contains(&layer) {
                continue;
            }
            let Some(blob) = sources.get(&imported.diff_id) else { continue };
            if !damaged.contains(&layer) || in_use.contains(&layer) || report.damaged_blobs().contains(blob) {
                continue;
            }
            lease.hold(Hold::Blob(*blob))?;
            let snapshots = self.snapshots();
            let replaced = self.layer_tar(blob).and_then(|mut tar| {
                snapshots.replace_layer(layer, imported.parent, &mut *tar, imported.diff_id, &lease)
            });
            match replaced {
                Ok(before) => {
                    restored.push(layer);
                    set_aside(self.layout(), &self.layout().layer(&before), &before)?;
                }
                Err(error) => tracing::debug!(%layer, %error, "not restored"),
            }
        }
        Ok(restored)
    }

    /// Deletes garbage, and cache records whose layers are damaged.
    pub fn repair(&self, report: &VerifyReport, control: PruneControl<'_>) -> Result<RepairReport, PruneError> {
        let damaged: BTreeSet<LayerId> = report.problems.iter().filter_map(Problem::layer).collect();
        let lost: Vec<&String> = report.problems.iter().filter_map(lost_mount).collect();
        let now = self.now();
        let records = self.db().write(Durability::Synced, |tx| {
            let records = records_on(tx, &damaged)?;
            for record in &records {
                evict(tx, *record, "damaged", now)?;
            }
            for problem in &report.problems {
                if let Problem::MergedIndex { snapshot, layers } = problem {
                    // Whoever mounts the chain next makes it again.
                    tx.execute("DELETE FROM merged WHERE snapshot = ?1 AND layers = ?2", (snapshot, layers))?;
                }
            }
            // What can be made again need not be mended: the collection takes it.
            for blob in report.damaged_blobs() {
                tx.execute("UPDATE layer_forms SET kept_at = NULL WHERE digest = ?1", [Text(blob)])?;
            }
            for id in lost {
                tx.execute("DELETE FROM cache_mounts WHERE id = ?1", [id])?;
            }
            Ok::<_, DbError>(records)
        })?;
        let collected = self.prune(&GcPolicy::garbage(), PruneMode::Apply, control)?;
        Ok(RepairReport { records, collected })
    }

    /// The layers that live leases hold.
    fn layers_in_use(&self) -> Result<BTreeSet<LayerId>, PruneError> {
        let mut layers = BTreeSet::new();
        for hold in lease::live(self.layout())?.holds {
            let Hold::Snapshot(top) = hold else { continue };
            let sql = "WITH RECURSIVE chain (id, parent, layer) AS (
                           SELECT id, parent, layer FROM snapshots WHERE id = ?1
                           UNION ALL SELECT s.id, s.parent, s.layer FROM snapshots s JOIN chain c ON s.id = c.parent)
                       SELECT layer FROM chain";
            layers.extend(self.db().read(|tx| tx.all(sql, [top], |row| row.get::<_, LayerId>(0)))?);
        }
        Ok(layers)
    }
}

/// Moves something damaged that has no row any more out of the way.
fn set_aside(layout: &Layout, path: &Path, name: &str) -> Result<(), PathError> {
    let target = quarantine(layout)?.join(name);
    match fs::rename(path, &target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("rename", path),
        _ => Ok(()),
    }
}

/// Keeps the damaged file that is about to be replaced under a second name.
fn keep_copy(layout: &Layout, path: &Path, name: &str) -> Result<(), PathError> {
    let target = quarantine(layout)?.join(name);
    match fs::hard_link(path, &target) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
            Err(error).at("link", path)
        }
        _ => Ok(()),
    }
}

fn quarantine(layout: &Layout) -> Result<std::path::PathBuf, PathError> {
    let path = layout.quarantine();
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("create", &path),
        _ => Ok(path),
    }
}

/// The records whose snapshots stand on one of these layers.
fn records_on(tx: &Tx<'_>, layers: &BTreeSet<LayerId>) -> Result<Vec<ResultId>, DbError> {
    let mut records = BTreeSet::new();
    for layer in layers {
        let sql = "WITH RECURSIVE above (id) AS (
                       SELECT id FROM snapshots WHERE layer = ?1
                       UNION SELECT s.id FROM snapshots s JOIN above a ON s.parent = a.id)
                   SELECT r.id FROM results r JOIN above a ON r.snapshot = a.id";
        records.extend(tx.all(sql, [layer], |row| row.get::<_, ResultId>(0))?);
    }
    Ok(records.into_iter().collect())
}

fn lost_mount(problem: &Problem) -> Option<&String> {
    match problem {
        Problem::MountMissing { id, .. } => Some(id),
        _ => None,
    }
}
