//! Layers that come before those below them have their place, so that several are taken in beside each other.
//!
//! | kind | before the parent is known | when it is |
//! |---|---|---|
//! | tar | the bytes are made, verified and written | what says where members go, the index, is made from the tar, whose contents are passed over |
//! | directory | the files are unpacked, as far as the layer itself says where they go | they are renamed into place |
//!
//! A layer that asks what is below it (a directory without an entry, a link to a lower layer's file) cannot be unpacked
//! ahead: that is an error here, and it is applied when its parent is there.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rbuild_image::{ContainerPath, DiffId};

use super::apply::{Unpacked, unpack};
use super::directory;
use super::handle::{Committed, Sharing, Snapshot};
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
    form: Form,
}

/// What is at a received layer's place.
#[derive(Clone, Copy, Debug)]
enum Form {
    Tar,
    Files { sharing: Sharing, describes_root: bool },
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
        let received = match self.makes_tars()? {
            true => tar_layer::keep(tar, Some(expected), &place)
                .map(|found| (found, Form::Tar))
                .map_err(SnapshotError::from),
            false => unpack_ahead(tar, expected, &place),
        };
        match received {
            Ok((found, form)) => Ok(Received { place, found, form }),
            Err(error) => {
                drop(remove_tree(&place));
                Err(error)
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
        let (diff, sharing) = match received.form {
            Form::Tar => {
                let place = tar_layer::place(active.scratch());
                fs::rename(&received.place, &place).at("rename", &received.place)?;
                active.take_in(tar_layer::describe(received.found, &place, active.parent_view().clone())?)?
            }
            Form::Files { sharing, describes_root } => {
                let root = active.parent_view().lstat(&ContainerPath::root()).at("inspect", &received.place)?;
                let root = (!describes_root).then_some(root.as_ref());
                directory::place(&received.place, active.scratch(), root)?;
                (received.found.as_diff(), sharing)
            }
        };
        active.seal(lease, Some(diff), sharing)
    }
}

fn unpack_ahead(
    tar: &mut (dyn Read + Send),
    expected: DiffId,
    place: &Path,
) -> Result<(Unpacked, Form), SnapshotError> {
    let mut writer = directory::ahead(place)?;
    let found = unpack(tar, Some(expected), &mut writer)?;
    let sharing = Sharing::of(writer.depends_on_parent());
    Ok((found, Form::Files { sharing, describes_root: writer.describes_root() }))
}
