//! What every place must keep.

use std::sync::{Arc, Mutex};

use super::places::Place;
use super::{Lie, Maker, Watched, bring, key};
use crate::remote::{BringError, CacheDraft, DraftLayer, OpenCacheError, RemoteCache};
use crate::testing::TestStore;

type NewPlace<'a> = &'a dyn Fn() -> (Box<dyn Place>, Box<dyn std::any::Any>);

/// The whole list, each promise in a place of its own.
pub(super) fn keep(place: NewPlace<'_>) {
    for promise in [
        what_was_written_is_found,
        nothing_but_manifest_and_config_is_read_to_look,
        a_result_comes_whole_and_once,
        the_same_cache_is_the_same_document,
        a_place_without_layers_gives_an_error,
        layers_of_other_content_are_refused,
        layers_with_other_bytes_are_refused,
        an_absent_cache_is_absent,
    ] {
        let (place, _kept) = place();
        promise(&*place);
    }
}

/// A written cache, who made it, and what was read of it.
struct Written {
    maker: Maker,
    snapshots: [crate::id::SnapshotId; 3],
    cache: RemoteCache,
    read: Arc<Mutex<Vec<String>>>,
}

fn image(maker: &Maker, top: crate::id::SnapshotId) -> Vec<DraftLayer> {
    maker.layers(top)
}

fn written(place: &dyn Place, lie: Lie) -> Written {
    let maker = Maker::new();
    let (draft, snapshots) = maker.cache();
    place.write(&maker, draft, &image(&maker, snapshots[1]));
    let read = Arc::new(Mutex::new(Vec::new()));
    let cache = RemoteCache::open(Box::new(Watched { inner: place.source(), read: read.clone(), lie })).unwrap();
    Written { maker, snapshots, cache, read }
}

fn what_was_written_is_found(place: &dyn Place) {
    let Written { maker, snapshots, cache, .. } = written(place, Lie::No);
    for (name, snapshot) in ["a", "b"].into_iter().zip(snapshots) {
        let found = cache.find(&key(name)).unwrap();
        assert_eq!(cache.find(&key(&format!("content of {name}"))), Some(found.clone()));
        assert!(cache.knows(&key(&format!("op of {name}"))));
        let made = maker.store.store.snapshots().layers(snapshot).unwrap();
        let diff_ids: Vec<_> = found.layers.iter().map(|layer| layer.diff_id).collect();
        assert_eq!(diff_ids, made.iter().map(|layer| layer.diff.diff_id).collect::<Vec<_>>());
        assert_eq!(found.layers.last().unwrap().created_at, Some(made.last().unwrap().created_at));
        assert_eq!(found.took.unwrap().as_millis(), 1500);
    }
    assert!(cache.find(&key("base")).is_none() && cache.find(&key("x")).is_none() && !cache.knows(&key("x")));
    assert_eq!(cache.find(&key("c")).is_some(), !place.is_inline());
    assert_eq!(cache.find(&key("nothing")).unwrap().layers, []);
}

fn nothing_but_manifest_and_config_is_read_to_look(place: &dyn Place) {
    let Written { cache, read, .. } = written(place, Lie::No);
    assert!(cache.find(&key("b")).is_some());
    assert_eq!(*read.lock().unwrap(), ["root", "config"]);
}

fn a_result_comes_whole_and_once(place: &dyn Place) {
    let Written { maker, snapshots, cache, read } = written(place, Lie::No);
    let other = TestStore::new();
    let lease = other.lease();
    assert_eq!(bring(&cache, &other.store, &lease, "nothing").unwrap(), None);
    read.lock().unwrap().clear();
    let b = bring(&cache, &other.store, &lease, "b").unwrap().unwrap();
    assert_eq!(*read.lock().unwrap(), ["layer", "layer"], "those of b, not that of c");
    let (mine, theirs) = (other.store.snapshots(), maker.store.store.snapshots());
    let facts = |layers: Vec<crate::snapshot::LayerInfo>| {
        layers.into_iter().map(|layer| (layer.diff, layer.created_at)).collect::<Vec<_>>()
    };
    assert_eq!(facts(mine.layers(b).unwrap()), facts(theirs.layers(snapshots[1]).unwrap()));
    let same = |id| mine.rootfs_identity(Some(id)).unwrap();
    assert_eq!(same(b), theirs.rootfs_identity(Some(snapshots[1])).unwrap(), "it counts as made here");
    // It needs no blob to leave again.
    assert!(!mine.get(b).unwrap().is_imported());
    read.lock().unwrap().clear();
    let again = bring(&cache, &other.store, &lease, "b").unwrap().unwrap();
    assert_eq!((again, read.lock().unwrap().len()), (b, 0));
}

fn the_same_cache_is_the_same_document(place: &dyn Place) {
    let maker = Maker::new();
    let (draft, snapshots) = maker.cache();
    let image = image(&maker, snapshots[1]);
    let first = place.write(&maker, draft.clone(), &image);
    assert_eq!(place.write(&maker, draft, &image), first);
    // In whatever order steps came.
    let mut other = CacheDraft::default();
    let [a, b, c] = snapshots;
    other.add(&super::DraftRecord { layers: None, ..maker.record("base", &[], None) });
    other.add(&maker.record("nothing", &["base"], None));
    other.add(&maker.record("a", &["base"], Some(a)));
    other.add(&maker.record("c", &["a"], Some(c)));
    other.add(&maker.record("b", &["a"], Some(b)));
    assert_eq!(place.write(&maker, other, &image), first);
}

/// No trace of what was refused.
fn is_empty(store: &TestStore) -> bool {
    let count = |sql: &str| store.store.db().read(|tx| tx.one(sql, [], |row| row.get::<_, i64>(0))).unwrap_or(1);
    count("SELECT count(*) FROM snapshots") + count("SELECT count(*) FROM results") == 0
}

fn a_place_without_layers_gives_an_error(place: &dyn Place) {
    let Written { cache, .. } = written(place, Lie::NoLayers);
    let other = TestStore::new();
    let error = bring(&cache, &other.store, &other.lease(), "b").unwrap_err();
    assert!(matches!(error, BringError::Place(_)), "{error}");
    assert!(is_empty(&other));
}

fn layers_of_other_content_are_refused(place: &dyn Place) {
    if place.is_inline() {
        return; // an image's config says what its layers are
    }
    let Written { cache, .. } = written(place, Lie::OtherContent);
    let other = TestStore::new();
    let error = bring(&cache, &other.store, &other.lease(), "b").unwrap_err();
    assert!(matches!(error, BringError::Snapshot(_)), "{error}");
    assert!(is_empty(&other));
}

fn layers_with_other_bytes_are_refused(place: &dyn Place) {
    let Written { cache, .. } = written(place, Lie::OtherBytes);
    let other = TestStore::new();
    let error = bring(&cache, &other.store, &other.lease(), "b").unwrap_err();
    assert!(matches!(error, BringError::Place(_)), "{error}");
    assert!(is_empty(&other) && other.store.blobs().list().unwrap().is_empty());
}

fn an_absent_cache_is_absent(place: &dyn Place) {
    match RemoteCache::open(place.source()) {
        Err(OpenCacheError::Place(error)) => assert!(error.is_absent(), "{error}"),
        other => panic!("{other:?}"),
    }
}
