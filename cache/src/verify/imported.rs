//! Layers that came from outside, compared with the blobs they came as, where these are still there.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;

use rbuild_image::layer::Decoder;
use rbuild_image::{BlobSource, DiffId, Digest, MAX_MANIFEST_BYTES, parse_manifest};

use super::{Problem, VerifyReport};
use crate::db::{DbError, Text};
use crate::gc::PruneError;
use crate::id::{LayerId, SnapshotId};
use crate::lease::{Hold, Lease};
use crate::snapshot::{ApplyError, SnapshotError, Times};
use crate::store::Store;

/// An unpacked layer from outside.
pub(crate) struct ImportedLayer {
    pub(crate) layer: LayerId,
    /// A snapshot that has it as its topmost one.
    pub(crate) snapshot: SnapshotId,
    pub(crate) parent: Option<SnapshotId>,
    pub(crate) diff_id: DiffId,
    /// How it is kept.
    pub(crate) kind: String,
}

impl Store {
    pub(super) fn check_imported_layers(
        &self,
        interrupt: &(dyn Fn() -> ControlFlow<()> + Sync),
        report: &mut VerifyReport,
    ) -> Result<(), PruneError> {
        let lease = self.lease("verify")?;
        let sources = self.layer_sources()?;
        for imported in self.imported_layers()? {
            if interrupt().is_break() {
                report.interrupted = true;
                return Ok(());
            }
            let (layer, kind) = (imported.layer, imported.kind.as_str());
            let known = |problem: &Problem| matches!(problem, Problem::LayerMissing { layer: missing, .. } if *missing == layer);
            if kind == "erofs" {
                self.check_tar(&imported, &lease, report)?;
                continue;
            }
            let ImportedLayer { layer, snapshot, parent, diff_id, .. } = imported;
            let blob = sources.get(&diff_id).filter(|blob| !report.damaged_blobs().contains(blob));
            let Some(blob) = blob.copied().filter(|_| !report.problems.iter().any(known)) else {
                report.unchecked += 1;
                continue;
            };
            lease.hold(Hold::Snapshot(snapshot))?;
            lease.hold(Hold::Blob(blob))?;
            if !self.rescue_snapshot(snapshot)? || self.rescue_blob(&blob)?.is_none() {
                continue;
            }
            let snapshots = self.snapshots();
            let want =
                self.layer_tar(&blob).and_then(|mut tar| snapshots.content_of_tar(parent, &mut *tar, diff_id, &lease));
            // A tar that cannot be unpacked here and now says nothing about the layer.
            let Ok(want) = want else {
                report.unchecked += 1;
                continue;
            };
            match snapshots.content_now(snapshot) {
                Ok(got) if got == want => {}
                Ok(_) => report.problems.push(Problem::LayerFiles { layer, diff_id }),
                Err(error) => report.problems.push(Problem::LayerUnreadable { layer, detail: error.to_string() }),
            }
        }
        Ok(())
    }

    /// Compares a layer that is kept as its tar with its digest.
    fn check_tar(&self, imported: &ImportedLayer, lease: &Lease, report: &mut VerifyReport) -> Result<(), PruneError> {
        let layer = imported.layer;
        lease.hold(Hold::Snapshot(imported.snapshot))?;
        let missing =
            |problem: &Problem| matches!(problem, Problem::LayerMissing { layer: missing, .. } if *missing == layer);
        if report.problems.iter().any(missing) || !self.rescue_snapshot(imported.snapshot)? {
            return Ok(());
        }
        let snapshot = self.snapshots().get(imported.snapshot);
        let written = snapshot.and_then(|snapshot| snapshot.write_tar_with(Times::Kept, &mut std::io::sink()));
        match written {
            Ok(diff) if diff.diff_id == imported.diff_id => {}
            Ok(diff) => {
                report.problems.push(Problem::LayerContent { layer, want: imported.diff_id, got: diff.diff_id });
            }
            Err(error) => report.problems.push(Problem::LayerUnreadable { layer, detail: error.to_string() }),
        }
        Ok(())
    }

    /// All layers from outside.
    pub(crate) fn imported_layers(&self) -> Result<Vec<ImportedLayer>, DbError> {
        self.db().read(|tx| {
            let sql =
                "SELECT l.id, min(s.id), s.parent, l.diff_id, l.kind FROM layers l JOIN snapshots s ON s.layer = l.id
                       WHERE l.diff_id IS NOT NULL AND l.diff_id IS l.content_digest GROUP BY l.id ORDER BY l.id";
            tx.all(sql, [], |row| {
                let Text(diff_id) = row.get(3)?;
                Ok(ImportedLayer {
                    layer: row.get(0)?,
                    snapshot: row.get(1)?,
                    parent: row.get(2)?,
                    diff_id,
                    kind: row.get(4)?,
                })
            })
        })
    }

    /// Which blob a layer from outside came as, by the manifests of the images that are there.
    pub(crate) fn layer_sources(&self) -> Result<BTreeMap<DiffId, Digest>, DbError> {
        let mut sources = BTreeMap::new();
        for image in self.images().list()? {
            let Some(descriptor) = &image.record.manifest else { continue };
            let Ok(bytes) = self.blobs().read(&descriptor.digest, MAX_MANIFEST_BYTES) else { continue };
            let Ok(manifest) = parse_manifest(&bytes, Some(&descriptor.media_type)) else { continue };
            if manifest.layers.len() == image.record.diff_ids.len() {
                let blobs = manifest.layers.iter().map(|layer| layer.digest);
                sources.extend(image.record.diff_ids.iter().copied().zip(blobs));
            }
        }
        Ok(sources)
    }

    /// The uncompressed bytes of a layer's blob.
    pub(crate) fn layer_tar(&self, blob: &Digest) -> Result<Box<dyn Read + Send>, SnapshotError> {
        let open = || Decoder::new(self.blobs().open(blob)?);
        Ok(Box::new(open().map_err(ApplyError::Read)?))
    }
}
