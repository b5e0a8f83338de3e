//! Layers that are taken in before their parents have a place are what they are when they come one after another.

use super::*;

/// Puts layers on each other: all are received first, the topmost one before the others, and those that cannot be are
/// applied in their turn. How many were received; `None` for the top where a layer is refused.
fn stack_ahead(bench: &Bench, layers: &[Vec<u8>]) -> (Option<Snapshot<Committed>>, usize) {
    let snapshots = bench.store.snapshots();
    let receive = |tar: &Vec<u8>| {
        let expected = DiffId::new(Digest::sha256(tar));
        snapshots.receive(&mut tar.as_slice(), expected, &bench.lease).ok()
    };
    let mut received: Vec<_> = layers.iter().rev().map(receive).collect();
    let count = received.iter().flatten().count();
    let mut top: Option<Snapshot<Committed>> = None;
    for tar in layers {
        let parent = top.as_ref().map(Snapshot::id);
        let next = match received.pop().expect("one for each layer") {
            Some(received) => snapshots.put_on(parent, received, &bench.lease),
            None => bench.apply(parent, tar),
        };
        match next {
            Ok(next) => top = Some(next),
            Err(_) => return (None, count),
        }
    }
    (top, count)
}

fn root_of(snapshot: &Snapshot<Committed>) -> (u32, u32, u32) {
    let stat = snapshot.view().unwrap().lstat(&ContainerPath::root()).unwrap().unwrap();
    (stat.mode, stat.uid, stat.gid)
}

#[test]
fn layers_that_say_where_everything_goes_are_unpacked_before_what_is_below() {
    if !is_root("layers_that_say_where_everything_goes_are_unpacked_before_what_is_below") {
        return;
    }
    let mut root = dir("/");
    (root.0.mode, root.0.uid) = (0o711, 7);
    let layers = [
        archive(&[root, dir("etc"), file("etc/passwd", "root"), dir("data"), file("data/one", "1"), dir("gone")]),
        archive(&[file(".wh.gone", ""), dir("data"), file("data/.wh.one", ""), file("data/two", "2")]),
        archive(&[dir("etc"), file("etc/.wh..wh..opq", ""), file("etc/new", "n"), hard("etc/also", "etc/new")]),
        archive(&[file("data", "was a directory"), link("way", "etc")]),
        archive(&[dir("data"), dir("data/sub"), file("data/sub/deep", "d"), file("top", "t")]),
    ];
    for bench in Bench::each() {
        let one_by_one = bench.stack(&layers);
        let other = Bench::of(match bench.has_tars() {
            true => SnapshotterChoice::Erofs,
            false => SnapshotterChoice::Directory,
        });
        let (ahead, count) = stack_ahead(&other, &layers);
        let ahead = ahead.unwrap();
        assert_eq!(count, layers.len(), "every one of them");
        assert_eq!(mounted_listing(&other, &ahead), mounted_listing(&bench, &one_by_one));
        assert_eq!((root_of(&ahead), root_of(&one_by_one)), ((0o711, 7, 0), (0o711, 7, 0)));
        // They stand on any parent, as they do when they came one by one.
        for tar in &layers {
            let diff_id = DiffId::new(Digest::sha256(tar));
            let free = |bench: &Bench| bench.store.snapshots().has_free_layer(&diff_id).unwrap();
            assert_eq!(free(&other), free(&bench));
        }
    }
}

#[test]
fn what_only_the_parent_knows_is_not_guessed() {
    if !is_root("what_only_the_parent_knows_is_not_guessed") {
        return;
    }
    let bench = Bench::of(SnapshotterChoice::Directory);
    let snapshots = bench.store.snapshots();
    for (what, members) in [
        ("a directory without an entry", vec![file("etc/passwd", "x")]),
        ("a link to a lower file", vec![dir("a"), hard("a/b", "a/lower")]),
        ("an opaque root", vec![file(".wh..wh..opq", "")]),
        ("a whiteout in a directory without an entry", vec![file("etc/.wh.passwd", "")]),
    ] {
        let tar = archive(&members);
        let received = snapshots.receive(&mut tar.as_slice(), DiffId::new(Digest::sha256(&tar)), &bench.lease);
        assert!(received.is_err(), "{what}");
    }
    let tar = archive(&[dir("a")]);
    let other = DiffId::new(Digest::sha256("other"));
    assert!(snapshots.receive(&mut tar.as_slice(), other, &bench.lease).is_err(), "not what was expected");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 40, fork: false, ..Default::default() })]

    #[test]
    fn any_stack_of_layers_is_the_same_either_way(layers in proptest::collection::vec(any_layer(), 1..5)) {
        if !is_root("any_stack_of_layers_is_the_same_either_way") {
            return Ok(());
        }
        let layers: Vec<Vec<u8>> = layers.iter().map(|members| archive(members)).collect();
        let (one_by_one, ahead) = (Bench::of(SnapshotterChoice::Directory), Bench::of(SnapshotterChoice::Directory));
        let mut parent = None;
        for tar in &layers {
            match one_by_one.apply(parent, tar) {
                Ok(snapshot) => parent = Some(snapshot.id()),
                Err(_) => {
                    proptest::prop_assert!(stack_ahead(&ahead, &layers).0.is_none());
                    return Ok(());
                }
            }
        }
        let expected = one_by_one.store.snapshots().get(parent.unwrap()).unwrap();
        let (found, _) = stack_ahead(&ahead, &layers);
        let found = found.unwrap();
        proptest::prop_assert_eq!(mounted_listing(&ahead, &found), mounted_listing(&one_by_one, &expected));
        proptest::prop_assert_eq!(listing(&found.view().unwrap()), listing(&expected.view().unwrap()));
    }
}
