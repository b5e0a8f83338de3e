//! Layers whose tars are equal have one file.
//!
//! The same tar comes about for several layers where its index depends on what is below, or where steps wrote the same in two
//! places. Each layer's directory then has a hard link to one file. Whoever makes such a layer compares its bytes with those
//! that are there, so that damage is never passed on, and puts the link in the place of its own file, which may never reach the
//! disk then. A collection does the same for tars that were made at the same time, or before there were links.
//!
//! `tar_file` says whose file it is, by the path that is never used twice, and `tar_bytes` how much of a layer's size that is:
//! bytes that are counted once, and given back with the last link. A link without a row that says so is counted twice until
//! the next collection, and nothing else is wrong with it. Nothing here is needed: what cannot be linked stays a file of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rbuild_image::DiffId;

use super::store::Snapshots;
use super::tar_layer::{self, Files};
use crate::db::{DbError, Durability, Text, Tx};
use crate::failpoint;
use crate::gc::PruneError;
use crate::id::LayerId;
use crate::lease::Lease;
use crate::path_error::PathError;

/// How many files with the same digest a new one is compared with; there is more than one only where some are damaged.
const CANDIDATES: i64 = 4;
/// What is compared at a time.
const PIECE: usize = 256 * 1024;

/// Whose file the tar of a layer is, which is about to be named.
#[derive(Clone, Debug)]
pub(super) struct SharedTar {
    /// The path of the layer that it was written for.
    pub(super) file: String,
    /// Its bytes on disk.
    pub(super) bytes: u64,
}

impl SharedTar {
    /// Says of the layers that had the file alone until now that they do not any more.
    pub(super) fn note(&self, tx: &Tx<'_>) -> Result<(), DbError> {
        let sql = "UPDATE layers SET tar_bytes = ?2 WHERE path = ?1 AND tar_file IS NULL AND tar_bytes IS NULL";
        tx.execute(sql, (&self.file, self.bytes)).map(drop)
    }
}

/// What is in the way of a link.
enum NoLink {
    /// Nothing to be told: the other file differs or has gone, or the file system has no more links to give.
    Unlike,
    /// The own file cannot be replaced.
    Failed(PathError),
}

/// A layer with a tar.
struct Member {
    layer: LayerId,
    path: String,
    /// By its row.
    file: String,
    is_noted: bool,
}

impl Snapshots {
    /// Puts a link in the place of the tar in `place` where a layer has one with the same bytes already.
    pub(super) fn share_tar(&self, place: &Path, diff_id: DiffId) -> Result<Option<SharedTar>, PathError> {
        let sql = "SELECT path, coalesce(tar_file, path) FROM layers
                   WHERE diff_id = ?1 AND kind = ?2 GROUP BY coalesce(tar_file, path) ORDER BY min(id) LIMIT ?3";
        let others = self.store.db().read(|tx| {
            tx.all(sql, (Text(diff_id), tar_layer::NAME, CANDIDATES), |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
        });
        // What is not found is not shared.
        for (path, file) in others.unwrap_or_default() {
            match link(&self.store.layout().layer(&path), place, &place.join("link")) {
                Ok((bytes, _)) => return Ok(Some(SharedTar { file, bytes })),
                Err(NoLink::Unlike) => {}
                Err(NoLink::Failed(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Gives layers one file whose tars are equal and have several; the bytes that this gives back.
    pub(crate) fn share_equal_tars(
        &self,
        lease: &Lease,
        interrupt: &(dyn Fn() -> ControlFlow<()> + Sync),
    ) -> Result<u64, PruneError> {
        let mut freed = 0;
        for members in self.with_equal_tars()?.into_values() {
            let mut firsts: Vec<&Member> = Vec::new();
            for member in &members {
                if interrupt().is_break() {
                    return Ok(freed);
                }
                match self.share_with_one_of(&firsts, member, lease)? {
                    Some(bytes) => freed += bytes,
                    None => firsts.push(member),
                }
            }
        }
        Ok(freed)
    }

    fn share_with_one_of(&self, firsts: &[&Member], member: &Member, lease: &Lease) -> Result<Option<u64>, PruneError> {
        let layout = self.store.layout();
        let (place, via) = (layout.layer(&member.path), lease.scratch_name("link")?);
        for first in firsts {
            let (bytes, freed) = match link(&layout.layer(&first.path), &place, &via) {
                Ok(linked) => linked,
                Err(NoLink::Unlike) => continue,
                Err(NoLink::Failed(error)) => return Err(error.into()),
            };
            if member.file != first.file || !member.is_noted || !first.is_noted {
                let shared = SharedTar { file: first.file.clone(), bytes };
                self.store.db().write(Durability::Lazy, |tx| {
                    shared.note(tx)?;
                    let sql = "UPDATE layers SET tar_file = ?3, tar_bytes = ?4 WHERE id = ?1 AND path = ?2";
                    tx.execute(sql, (member.layer, &member.path, &shared.file, bytes))
                })?;
            }
            return Ok(Some(freed));
        }
        Ok(None)
    }

    /// Layers with a digest that several have, the earliest first.
    fn with_equal_tars(&self) -> Result<BTreeMap<String, Vec<Member>>, DbError> {
        let sql = "SELECT diff_id, id, path, coalesce(tar_file, path), tar_bytes IS NOT NULL FROM layers
                   WHERE kind = ?1 AND diff_id IN (
                       SELECT diff_id FROM layers WHERE kind = ?1 AND diff_id IS NOT NULL GROUP BY diff_id HAVING count(*) > 1)
                   ORDER BY id";
        let rows = self.store.db().read(|tx| {
            tx.all(sql, [tar_layer::NAME], |row| {
                let (layer, path, file, is_noted) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((row.get::<_, String>(0)?, Member { layer, path, file, is_noted }))
            })
        })?;
        let mut equal: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        for (diff_id, member) in rows {
            equal.entry(diff_id).or_default().push(member);
        }
        Ok(equal)
    }
}

/// Puts a link to the tar of the layer in `other`, made as `via`, in the place of that in `own`; its bytes, and those that this
/// gave back.
fn link(other: &Path, own: &Path, via: &Path) -> Result<(u64, u64), NoLink> {
    let (other, tar) = (Files::of(other).tar, Files::of(own).tar);
    let unlike = |_: io::Error| NoLink::Unlike;
    let (theirs, ours) = (File::open(&other).map_err(unlike)?, File::open(&tar).map_err(unlike)?);
    let (before, after) = (ours.metadata().map_err(unlike)?, theirs.metadata().map_err(unlike)?);
    let bytes = after.blocks() * 512;
    if before.dev() != after.dev() || before.len() != after.len() {
        return Err(NoLink::Unlike);
    }
    if before.ino() == after.ino() {
        return Ok((bytes, 0));
    }
    if !are_equal(&theirs, &ours, before.len()).map_err(unlike)? {
        return Err(NoLink::Unlike);
    }
    fs::hard_link(&other, via).map_err(unlike)?;
    if let Err(source) = failpoint::hit("layer-share").and_then(|()| fs::rename(via, &tar)) {
        drop(fs::remove_file(via));
        return Err(NoLink::Failed(PathError { action: "rename", path: via.to_owned(), source }));
    }
    Ok((bytes, if before.nlink() == 1 { before.blocks() * 512 } else { 0 }))
}

fn are_equal(one: &File, other: &File, length: u64) -> io::Result<bool> {
    let mut pieces = [vec![0; PIECE], vec![0; PIECE]];
    let mut at = 0;
    while at < length {
        let piece = usize::try_from((length - at).min(PIECE as u64)).expect("at most a piece");
        let [left, right] = &mut pieces;
        one.read_exact_at(&mut left[..piece], at)?;
        other.read_exact_at(&mut right[..piece], at)?;
        if left[..piece] != right[..piece] {
            return Ok(false);
        }
        at += piece as u64;
    }
    Ok(true)
}
