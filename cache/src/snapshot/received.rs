//! Layers that come before those below them have their place.
//!
//! The bytes of a layer are made, verified and written without a word about its parent, so that this is done for
//! several layers beside each other. What says where members go, the index, needs the parent; it is made from the tar
//! that is there, whose contents are passed over, when the layer gets its place. Only layers that are kept as tars come
//! this way: the files of a directory depend on what is below it.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use rbuild_image::DiffId;

use super::apply::Unpacked;
use super::handle::{Committed, Snapshot};
use super::store::{SnapshotError, Snapshots};
use super::tar_layer;
use crate::db::Text;
use crate::id::SnapshotId;
use crate::lease::Lease;
use crate::path_error::AtPath;
use crate::removal::remove_tree;

/// A layer whose bytes are there and verified. Dropped, they go.
#[derive(Debug)]
pub struct Received {
    place: PathBuf,
    found: Unpacked,
}

impl Received {
    /// What it is known by.
    pub fn diff_id(&self) -> DiffId {
        self.found.diff_id
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // It was moved, or stays behind and goes with the lease.
        if let Err(error) = remove_tree(&self.place) {
            tracing::debug!(path = %self.place.display(), %error, "left for the end of the lease");
        }
    }
}

impl Snapshots {
    /// Whether [`Self::receive`] is of use here.
    pub fn receives(&self) -> Result<bool, SnapshotError> {
        self.makes_tars()
    }

    /// Whether a layer is here that may stand on any parent.
    pub fn has_free_layer(&self, diff_id: &DiffId) -> Result<bool, SnapshotError> {
        let sql = "SELECT 1 FROM layers WHERE diff_id = ?1 AND depends_on_parent = 0";
        Ok(self.store.db().read(|tx| tx.first(sql, [Text(diff_id)], |_| Ok(())))?.is_some())
    }

    /// Takes in a layer from outside whose place is not known yet: the uncompressed bytes of `tar` must have the digest
    /// `expected`. Callers serialise by layer, as for [`Self::apply`].
    pub fn receive(
        &self,
        tar: &mut (dyn Read + Send),
        expected: DiffId,
        lease: &Lease,
    ) -> Result<Received, SnapshotError> {
        let place = lease.scratch_name("received")?;
        match tar_layer::keep(tar, Some(expected), &place) {
            Ok(found) => Ok(Received { place, found }),
            Err(error) => {
                drop(remove_tree(&place));
                Err(error.into())
            }
        }
    }

    /// Puts a layer that was received on top of `parent`.
    pub fn put_on(
        &self,
        parent: Option<SnapshotId>,
        received: Received,
        lease: &Lease,
    ) -> Result<Snapshot<Committed>, SnapshotError> {
        let active = self.prepare(parent, lease)?;
        let place = tar_layer::place(active.scratch());
        fs::rename(&received.place, &place).at("rename", &received.place)?;
        let taken = tar_layer::describe(received.found, &place, active.parent_view().clone())?;
        let (diff, sharing) = active.take_in(taken)?;
        active.seal(lease, Some(diff), sharing)
    }
}
