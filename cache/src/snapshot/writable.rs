//! A writable place on a snapshot that outlives the process: what a container changes in its image.
//!
//! It differs from an active snapshot in where it is and how long it stays: its directory belongs to the caller, is
//! never committed as it is, and is not removed on drop. The caller keeps the snapshot underneath, by a lease or a root.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_executor::Rootfs;
use rbuild_image::ContainerPath;

use super::directory;
use super::store::{SnapshotError, Snapshots};
use super::writer::LayerWriter;
use crate::id::SnapshotId;
use crate::path_error::AtPath;
use crate::view::{LayerReader, View};

/// A writable place. See the module.
pub struct Writable {
    snapshots: Snapshots,
    parent: Option<SnapshotId>,
    place: PathBuf,
}

impl std::fmt::Debug for Writable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writable").field("parent", &self.parent).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Snapshots {
    /// Makes the directory `place`, which must not exist, a writable place on `parent` (`None`: on nothing).
    pub fn make_writable(&self, parent: Option<SnapshotId>, place: &Path) -> Result<Writable, SnapshotError> {
        let root = self.view(parent)?.lstat(&ContainerPath::root()).at("inspect the parent of", place)?;
        let writable = self.writable(parent, place);
        directory::prepare(place, root.as_ref())?;
        Ok(writable)
    }

    /// A writable place that was made before.
    pub fn writable(&self, parent: Option<SnapshotId>, place: &Path) -> Writable {
        Writable { snapshots: self.clone(), parent, place: place.to_path_buf() }
    }
}

impl Writable {
    /// How to mount it.
    pub fn rootfs(&self) -> Result<Rootfs, SnapshotError> {
        let chain = self.parent.map(|id| self.snapshots.chain(id)).transpose()?.unwrap_or_default();
        Ok(directory::rootfs(&self.place, self.snapshots.lowers(&chain)?))
    }

    /// The parent with the changes on top, merged.
    pub fn view(&self) -> Result<View, SnapshotError> {
        let chain = self.parent.map(|id| self.snapshots.chain(id)).transpose()?.unwrap_or_default();
        let mut layers = vec![directory::changes(&self.place)];
        layers.extend(self.snapshots.readers(&chain)?);
        Ok(View::new(layers))
    }

    /// What was changed, by itself.
    pub fn changes(&self) -> Arc<dyn LayerReader> {
        directory::changes(&self.place)
    }

    /// Writes into it without mounting it; only before anything else was written.
    pub fn writer(&self) -> Result<LayerWriter, SnapshotError> {
        Ok(directory::writer(&self.place, Arc::new(self.snapshots.view(self.parent)?))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::{Content, Metadata};
    use super::*;

    #[test]
    fn a_writable_place_shows_its_parent_and_what_was_changed() {
        let home = tempfile::tempdir().unwrap();
        let store = crate::Store::open(&home.path().join("store"), crate::OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        let snapshots = store.snapshots();
        let base = snapshots.prepare(None, &lease).unwrap();
        let mut writer = base.writer().unwrap();
        let metadata = Metadata { mode: 0o644, ..Metadata::default() };
        writer.file(&ContainerPath::new("/base"), &metadata, Content::Bytes(b"base")).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let base = base.commit(&lease).unwrap();

        let place = home.path().join("place");
        let writable = snapshots.make_writable(Some(base.id()), &place).unwrap();
        let mut writer = writable.writer().unwrap();
        writer.file(&ContainerPath::new("/own"), &metadata, Content::Bytes(b"own")).unwrap();
        writer.finish().unwrap();
        drop((writer, writable));

        let again = snapshots.writable(Some(base.id()), &place);
        let view = again.view().unwrap();
        let names: Vec<Vec<u8>> =
            view.list(&ContainerPath::root()).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [b"base".to_vec(), b"own".to_vec()]);
        let Rootfs::Overlay { lowers, upper, .. } = again.rootfs().unwrap() else { panic!("an overlay") };
        assert_eq!(lowers, base.rootfs_lowers().unwrap());
        assert!(upper.starts_with(&place));
        assert!(snapshots.make_writable(None, &place).is_err(), "a place is made once");
    }
}
