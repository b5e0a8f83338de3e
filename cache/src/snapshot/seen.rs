//! What was found out about the files of layers that are tars, remembered while a build runs: each step asks it of every layer
//! of its chain, several times.
//!
//! A layer never changes, and its path is never used twice, so what was found stays true as long as the layer is there; who
//! removes one that the build does not hold removes its row as well, and nobody asks. Only files that somebody takes away by
//! hand are not missed before the build ends. Nothing is remembered outside of builds, where each layer is asked for once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rbuild_image::Digest;

use super::layer_row::LayerRow;
use super::store::Snapshots;
use super::tar_layer::Files;

/// What is known of layers, by their paths.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many builds want it remembered.
    users: usize,
    layers: BTreeMap<String, (Digest, Facts)>,
}

/// What is asked of a layer that is a tar, and has a sound index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Bytes of the index.
    pub(super) index: u64,
    /// Whether there is a side blob.
    pub(super) has_side: bool,
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to remember; [`Self::end`] it as often.
    pub(super) fn begin(&self) {
        self.state().users += 1;
    }

    pub(super) fn end(&self) {
        let mut state = self.state();
        state.users -= 1;
        if state.users == 0 {
            state.layers.clear();
        }
    }

    /// What was found out of the layer with this index.
    pub(super) fn of(&self, row: &LayerRow) -> Option<Facts> {
        let index = row.index.as_ref()?.digest;
        self.state().layers.get(&row.path).filter(|(digest, _)| *digest == index).map(|(_, facts)| *facts)
    }

    /// Remembers what was found out of a layer whose index is sound.
    pub(super) fn note(&self, row: &LayerRow, facts: Facts) {
        let mut state = self.state();
        if let Some(index) = row.index.as_ref().filter(|_| state.users > 0) {
            state.layers.insert(row.path.clone(), (index.digest, facts));
        }
    }
}

impl Facts {
    /// Looks at the files, as they are.
    pub(super) fn of(files: &Files) -> io::Result<Self> {
        Ok(Self { index: fs::metadata(&files.index)?.len(), has_side: files.side.exists() })
    }
}

impl Snapshots {
    pub(super) fn facts(&self, row: &LayerRow) -> io::Result<Facts> {
        match self.store.snapshotting().seen().of(row) {
            Some(facts) => Ok(facts),
            None => Facts::of(&Files::of(&self.path(row))),
        }
    }

    /// The files of a layer with contents, in the order in which its index numbers them.
    pub(super) fn devices_of(&self, row: &LayerRow) -> Vec<PathBuf> {
        Files::of(&self.path(row)).devices(self.store.snapshotting().seen().of(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::tars::bench;
    use rbuild_image::layer::TarWriter;

    #[test]
    fn what_was_found_is_remembered_while_a_build_runs() {
        let Some(home) = bench("what_was_found_is_remembered") else { return };
        let (store, lease) = (&home.store, home.lease());
        let snapshots = store.snapshots();
        let tar = TarWriter::new(Vec::new()).finish().unwrap();
        let id = snapshots.apply(None, &mut &tar[..], None, &lease).unwrap().id();
        let row = snapshots.top_row(id).unwrap();
        let known = || store.snapshotting().seen().of(&row);
        let builds = [snapshots.convert_meanwhile(), snapshots.convert_meanwhile()];
        assert_eq!(known(), None);
        snapshots.get(id).unwrap().rootfs_lowers().unwrap();
        let index = Files::of(&snapshots.path(&row)).index;
        assert_eq!(known(), Some(Facts { index: fs::metadata(&index).unwrap().len(), has_side: false }));
        let other = LayerRow { index: None, ..row.clone() };
        assert_eq!(store.snapshotting().seen().of(&other), None, "of that index");
        let [first, second] = builds;
        drop(first);
        assert!(known().is_some(), "one goes on");
        drop(second);
        assert_eq!(known(), None);
        fs::remove_file(&index).unwrap();
        snapshots.get(id).unwrap().rootfs_lowers().unwrap();
        assert!(index.exists(), "nothing is taken for granted outside of builds");
    }
}
