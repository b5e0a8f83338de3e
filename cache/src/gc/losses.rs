//! What goes missing when records go: which images and builds would make these steps again.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_image::ImageRef;

use super::{PruneReport, PrunedRecord};
use crate::db::{DbError, Text, Tx};
use crate::id::{ResultId, SnapshotId};
use crate::store::Store;

/// A build or an image, and the steps that it would have to do again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose loss.
    pub loser: Loser,
    /// Positions in the report's records, in the order of eviction.
    pub records: Vec<usize>,
}

/// Who would have hit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loser {
    /// Building this image again.
    Image(ImageRef),
    /// The latest build of this Dockerfile, by which no tagged image is left.
    Build {
        /// Its context.
        context: String,
        /// Its Dockerfile.
        dockerfile: String,
        /// Its target stage.
        target: Option<String>,
    },
}

impl Store {
    /// Tells whose next build misses what a dry run would take. Steps are an image's when their layers are among its
    /// own, and a build's when its latest run hit or made them.
    pub fn losses(&self, report: &PruneReport) -> Result<Vec<Loss>, DbError> {
        let positions: BTreeMap<ResultId, usize> =
            report.records.iter().map(|record: &PrunedRecord| record.result).zip(0..).collect();
        self.db().read(|tx| {
            let mut losses: BTreeMap<Loser, BTreeSet<usize>> = BTreeMap::new();
            let mut named = BTreeSet::new();
            for (reference, result) in image_steps(tx)? {
                if let Some(position) = positions.get(&result) {
                    losses.entry(Loser::Image(reference)).or_default().insert(*position);
                    named.insert(*position);
                }
            }
            for (build, result) in build_steps(tx)? {
                if let Some(position) = positions.get(&result) {
                    losses.entry(build).or_default().insert(*position);
                }
            }
            // A build all of whose losses its image tells already says nothing new.
            losses.retain(|loser, records| matches!(loser, Loser::Image(_)) || !records.is_subset(&named));
            Ok(losses
                .into_iter()
                .map(|(loser, records)| Loss { loser, records: records.into_iter().collect() })
                .collect())
        })
    }
}

/// Tags, and the results whose snapshots are in their images' chains.
fn image_steps(tx: &Tx<'_>) -> Result<Vec<(ImageRef, ResultId)>, DbError> {
    let tops: Vec<(Text<ImageRef>, SnapshotId)> = tx.all(
        "SELECT t.reference, i.snapshot FROM tags t JOIN images i ON i.id = t.image
         WHERE i.snapshot IS NOT NULL AND instr(t.reference, '@') = 0 ORDER BY t.reference, i.snapshot",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut steps = Vec::new();
    for (Text(reference), top) in tops {
        let sql = "WITH RECURSIVE chain (id, parent) AS (
                       SELECT id, parent FROM snapshots WHERE id = ?1
                       UNION ALL SELECT s.id, s.parent FROM snapshots s JOIN chain c ON s.id = c.parent)
                   SELECT r.id FROM results r JOIN chain c ON r.snapshot = c.id ORDER BY r.id";
        let results = tx.all(sql, [top], |row| row.get(0))?;
        steps.extend(results.into_iter().map(|result| (reference.clone(), result)));
    }
    Ok(steps)
}

/// The latest build of each Dockerfile, and the results that its steps hit or made.
fn build_steps(tx: &Tx<'_>) -> Result<Vec<(Loser, ResultId)>, DbError> {
    let sql = "SELECT b.context, b.dockerfile, b.target, v.result FROM builds b
               JOIN build_vertices v ON v.build = b.id
               WHERE v.result IS NOT NULL AND b.started_at = (
                   SELECT max(o.started_at) FROM builds o
                   WHERE o.context = b.context AND o.dockerfile = b.dockerfile AND o.target IS b.target)
               ORDER BY b.context, b.dockerfile, b.target, v.position";
    tx.all(sql, [], |row| {
        let build = Loser::Build { context: row.get(0)?, dockerfile: row.get(1)?, target: row.get(2)? };
        Ok((build, row.get(3)?))
    })
}
