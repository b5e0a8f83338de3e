//! Chains and views that a build has used, remembered while it runs: each step stands on the one before, so that its chain is
//! one link more and its view one layer more, and neither is asked of the database or of the layers again.
//!
//! A layer never changes, but it may get another form: a step's directory becomes a tar. Who sees to that [forgets](Remembered::forget)
//! the chains with the layer; views stay, since the old form stays as long as anybody who began before may use it. Another
//! process may do the same, and then this one goes on with the old form. Whether a snapshot is still there is asked each time
//! ([`Snapshots::chain`]). Nothing is remembered outside of builds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::links::Chain;
use super::store::{SnapshotError, Snapshots};
use crate::id::{LayerId, SnapshotId};
use crate::path_error::AtPath;
use crate::view::{Names, View};

/// So many views are remembered, the last ones that were wanted: what was read of has open files.
const MOST_VIEWS: usize = 64;

/// A view, and when it was last wanted.
#[derive(Debug)]
struct Seen {
    view: Arc<View>,
    last: u64,
}

/// What is known of snapshots.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many builds want it remembered.
    users: usize,
    chains: BTreeMap<SnapshotId, Chain>,
    views: BTreeMap<SnapshotId, Seen>,
    /// Counts how often a view was wanted.
    wanted: u64,
    /// How often something was forgotten: what was read before may not be remembered after.
    forgotten: u64,
}

/// Tells whether something was forgotten since it was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(u64);

impl Remembered {
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
            *state = State { forgotten: state.forgotten, ..State::default() };
        }
    }

    /// The chain of a snapshot.
    pub(super) fn chain(&self, id: SnapshotId) -> Option<Chain> {
        self.state().chains.get(&id).cloned()
    }

    /// Whether there is any chain.
    pub(super) fn has_chains(&self) -> bool {
        !self.state().chains.is_empty()
    }

    /// To be taken before the rows of a chain are read.
    pub(super) fn since(&self) -> Since {
        Since(self.state().forgotten)
    }

    /// Remembers a chain that was read after `since`, and those that it stands on.
    pub(super) fn note_chain(&self, chain: &Chain, since: Since) {
        let mut state = self.state();
        if state.users == 0 || state.forgotten != since.0 {
            return;
        }
        for chain in chain.each() {
            let Some(top) = chain.top().map(|row| row.snapshot) else { return };
            if state.chains.contains_key(&top) {
                return;
            }
            state.chains.insert(top, chain);
        }
    }

    /// Forgets all chains with one of these layers.
    pub(super) fn forget(&self, layers: &BTreeSet<LayerId>) {
        let mut state = self.state();
        state.forgotten += 1;
        let mut gone = BTreeSet::new();
        // What is on top of a snapshot has a larger id.
        for (id, chain) in &state.chains {
            let has = chain.top().is_some_and(|row| layers.contains(&row.id));
            if has || chain.below().top().is_some_and(|row| gone.contains(&row.snapshot)) {
                gone.insert(*id);
            }
        }
        state.chains.retain(|id, _| !gone.contains(id));
    }

    /// Forgets all chains.
    pub(super) fn forget_chains(&self) {
        let mut state = self.state();
        state.forgotten += 1;
        state.chains.clear();
    }

    fn view(&self, id: SnapshotId) -> Option<Arc<View>> {
        let mut state = self.state();
        state.wanted += 1;
        let now = state.wanted;
        let seen = state.views.get_mut(&id)?;
        seen.last = now;
        Some(seen.view.clone())
    }

    /// Remembers a view, unless somebody was faster: the one that counts.
    fn note_view(&self, id: SnapshotId, view: Arc<View>) -> Arc<View> {
        let mut state = self.state();
        if state.users == 0 {
            return view;
        }
        state.wanted += 1;
        let last = state.wanted;
        let view = state.views.entry(id).or_insert(Seen { view, last }).view.clone();
        if state.views.len() > MOST_VIEWS {
            let longest_ago = state.views.iter().min_by_key(|(_, seen)| seen.last).map(|(id, _)| *id);
            longest_ago.map(|id| state.views.remove(&id));
        }
        view
    }
}

impl Snapshots {
    pub(super) fn remembered(&self) -> &Remembered {
        self.store.snapshotting().remembered()
    }

    /// Everything that a chain holds, merged: the view of what is below with one layer more, where that is known.
    pub(super) fn view_of(&self, chain: &Chain) -> Result<Arc<View>, SnapshotError> {
        let Some(top) = chain.top() else { return Ok(Arc::new(View::empty())) };
        let remembered = self.remembered();
        if let Some(view) = remembered.view(top.snapshot) {
            return Ok(view);
        }
        let below = chain.below();
        let known = below.top().and_then(|below| remembered.view(below.snapshot));
        let view = match known {
            Some(known) => {
                self.ensure_indexes(chain)?;
                let (kind, path) = (top.snapshotter()?, self.path(top));
                // What lists the layer is closed again; the other is opened when something in the layer is read.
                let names = Names::of(&*kind.reader(&path)).at("list", &path)?;
                known.grow(kind.reader(&path), names)
            }
            None => None,
        };
        let view = match view {
            Some(view) => view,
            None => View::new(self.readers(chain)?),
        };
        Ok(remembered.note_view(top.snapshot, Arc::new(view)))
    }
}

#[cfg(test)]
mod tests {
    use rbuild_image::ContainerPath;

    use super::super::writer::{Content, Metadata};
    use super::*;
    use crate::gc::{GcPolicy, PruneMode, PruneScope};
    use crate::lease::Lease;
    use crate::snapshot::SnapshotterChoice;
    use crate::store::{OpenOptions, Store};
    use crate::tests::PATIENT;

    /// What a step does that copies a file.
    fn copied(snapshots: &Snapshots, parent: Option<SnapshotId>, name: &str, lease: &Lease) -> SnapshotId {
        let active = snapshots.prepare(parent, lease).unwrap();
        let mut writer = active.writer().unwrap();
        writer.make_directory(&ContainerPath::new("/out"), &Metadata::default()).unwrap();
        let path = ContainerPath::new(format!("/out/{name}"));
        writer.file(&path, &Metadata::default(), Content::Bytes(name.as_bytes())).unwrap();
        writer.finish().unwrap();
        drop(writer);
        active.commit_soon(lease).unwrap()
    }

    /// What a program of a step does.
    fn ran(snapshots: &Snapshots, parent: SnapshotId, name: &str, lease: &Lease) -> SnapshotId {
        let active = snapshots.prepare(Some(parent), lease).unwrap();
        let directory = active.scratch().join("upper/ran");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(name), name).unwrap();
        active.commit_soon(lease).unwrap()
    }

    fn store(home: &std::path::Path, snapshotter: SnapshotterChoice) -> Store {
        Store::open(home, OpenOptions { snapshotter, ..OpenOptions::new("test") }).unwrap()
    }

    fn told(view: &View) -> Vec<String> {
        let mut told = Vec::new();
        let mut visit = |path: &ContainerPath, stat: &crate::view::Stat| {
            let content = view.read_regular(path.as_bytes(), 100)?;
            told.push(format!("{path} {:?} {:o} {content:?}", stat.kind, stat.mode));
            Ok(())
        };
        view.walk(&ContainerPath::root(), &mut visit).unwrap();
        told
    }

    #[test]
    fn a_build_sees_the_same_as_who_reads_its_layers_anew() {
        for choice in [SnapshotterChoice::Directory, SnapshotterChoice::Auto] {
            let home = tempfile::tempdir().unwrap();
            let here = store(&home.path().join("store"), choice);
            let (snapshots, lease) = (here.snapshots(), here.lease("test").unwrap());
            let build = snapshots.convert_meanwhile();
            let mut tops = vec![copied(&snapshots, None, "first", &lease)];
            for n in 0..40 {
                let parent = tops[tops.len() - 1];
                tops.push(match n % 3 {
                    0 => ran(&snapshots, parent, &n.to_string(), &lease),
                    _ => copied(&snapshots, Some(parent), &n.to_string(), &lease),
                });
            }
            // Another branch.
            tops.push(copied(&snapshots, Some(tops[20]), "branch", &lease));
            let seen: Vec<_> = tops.iter().map(|id| told(&snapshots.view(Some(*id)).unwrap())).collect();
            tops.iter().for_each(|id| snapshots.settle(*id).unwrap());
            let other = store(&home.path().join("store"), choice);
            let anew: Vec<_> = tops.iter().map(|id| told(&other.snapshots().view(Some(*id)).unwrap())).collect();
            assert_eq!(seen, anew, "{choice:?}");
            assert!(snapshots.remembered().state().views.len() > 40);
            drop(build);
            let state = snapshots.remembered().state();
            assert!(state.views.is_empty() && state.chains.is_empty());
        }
    }

    #[test]
    fn a_chain_is_read_again_when_a_layer_has_another_form() {
        let home = tempfile::tempdir().unwrap();
        let here = store(home.path(), SnapshotterChoice::Auto);
        if here.snapshots().mounts_erofs().is_err() {
            println!("SKIPPED a_chain_is_read_again_when_a_layer_has_another_form: no layer can be a tar here");
            return;
        }
        let (snapshots, lease) = (here.snapshots(), here.lease("test").unwrap());
        let _build = snapshots.convert_meanwhile();
        let first = copied(&snapshots, None, "first", &lease);
        let second = ran(&snapshots, first, "second", &lease);
        let third = copied(&snapshots, Some(second), "third", &lease);
        let since = snapshots.remembered().since();
        let known = snapshots.chain(third).unwrap();
        // Its tar, if it is not there yet.
        snapshots.become_tars(&[snapshots.get(second).unwrap()]).unwrap();
        let kinds = |chain: &Chain| chain.iter().map(|row| row.kind.clone()).collect::<Vec<_>>();
        assert_eq!(kinds(&snapshots.chain(third).unwrap()), ["erofs", "erofs", "erofs"]);
        // Who read it before does not bring the old one back.
        snapshots.remembered().forget_chains();
        snapshots.remembered().note_chain(&known, since);
        assert!(!snapshots.remembered().has_chains());
    }

    #[test]
    fn what_is_remembered_does_not_outlive_what_is_collected() {
        let home = tempfile::tempdir().unwrap();
        let here = store(home.path(), SnapshotterChoice::Directory);
        let snapshots = here.snapshots();
        let _build = snapshots.convert_meanwhile();
        let lease = here.lease("test").unwrap();
        let first = copied(&snapshots, None, "first", &lease);
        snapshots.settle(first).unwrap();
        assert_eq!(snapshots.chain(first).unwrap().len(), 1);
        drop(lease);
        here.prune(&GcPolicy::new("test", PruneScope::All), PruneMode::Apply, PATIENT).unwrap();
        let error = snapshots.chain(first).unwrap_err().to_string();
        assert!(error.contains("there is no snapshot"), "{error}");
    }
}
