//! The history of builds: who is alive, what is forgotten, and who made what.

use std::fs;
use std::time::Duration;

use rbuild_image::Digest;

use crate::builds::{BuildEnd, BuildId, BuildStatus, BuildVertex, Detail, HistoryLimits, NewBuild, VertexOutcome};
use crate::id::CacheKey;
use crate::index::{KeyKind, NewRecord, RecordKey};
use crate::store::Store;
use crate::testing::TestStore;

fn begin(store: &Store, lease: &crate::Lease) -> BuildId {
    let id = BuildId::random().unwrap();
    let build = NewBuild {
        id: id.clone(),
        arguments: vec!["build".into(), ".".into()],
        context: "/src".into(),
        dockerfile: "Dockerfile".into(),
        target: None,
        detail: Detail::new(),
    };
    store.builds().begin(&build, lease).unwrap();
    id
}

fn end(log_bytes: u64, vertices: Vec<BuildVertex>) -> BuildEnd {
    BuildEnd { status: BuildStatus::Succeeded, image: None, error: None, vertices, detail: Detail::new(), log_bytes }
}

fn statuses(store: &Store) -> Vec<BuildStatus> {
    store.builds().list(100).unwrap().into_iter().map(|record| record.status).collect()
}

#[test]
fn a_build_whose_lease_is_dead_was_aborted() {
    let home = TestStore::new();
    let lease = home.store.lease("build").unwrap();
    let id = begin(&home.store, &lease);
    assert_eq!(statuses(&home.store), [BuildStatus::Running]);
    drop(lease);
    assert_eq!(statuses(&home.store), [BuildStatus::Aborted]);
    assert_eq!(home.store.builds().find(&id.as_str()[..6]).unwrap()[0].build.id, id);
    // One that did say how it ended stays so.
    home.store.builds().finish(&id, &end(0, Vec::new())).unwrap();
    assert_eq!(statuses(&home.store), [BuildStatus::Succeeded]);
}

#[test]
fn the_maker_of_a_result_is_the_build_that_ran_it() {
    let home = TestStore::new();
    let lease = home.store.lease("build").unwrap();
    let (first, second) = (begin(&home.store, &lease), begin(&home.store, &lease));
    let key = CacheKey::new(Digest::sha256("step"));
    let record = NewRecord {
        keys: vec![RecordKey { key, kind: KeyKind::Definition, description: String::new() }],
        snapshot: None,
        content_digest: None,
        subject: "RUN make".into(),
        build: Some(first.to_string()),
        duration: Duration::from_secs(1),
        description: None,
        usage: None,
    };
    let result = home.store.records().record(&record).unwrap();
    let vertex = |outcome| BuildVertex {
        name: "RUN make".into(),
        outcome,
        key: Some(key),
        result: Some(result),
        started_at: None,
        duration: None,
        detail: Detail::new(),
    };
    let (ran, hit) = (vertex(VertexOutcome::Done), vertex(VertexOutcome::Cached));
    home.store.builds().finish(&first, &end(0, vec![hit.clone(), ran])).unwrap();
    home.store.builds().finish(&second, &end(0, vec![hit])).unwrap();
    assert_eq!(home.store.builds().maker(result).unwrap(), Some((first.clone(), 1)));
    let records = home.store.builds().list(10).unwrap();
    let counts: Vec<_> = records.iter().map(|record| (record.vertices, record.cached, record.completed)).collect();
    assert!(counts.contains(&(2, 1, 2)) && counts.contains(&(1, 1, 1)), "{counts:?}");
    home.store.builds().remove(&first).unwrap();
    assert_eq!(home.store.builds().maker(result).unwrap(), None);
}

#[test]
fn the_oldest_builds_are_forgotten_with_their_files_and_running_ones_are_not() {
    let home = TestStore::new();
    let (store, lease) = (&home.store, home.store.lease("build").unwrap());
    let running = begin(store, &lease);
    let mut ended = Vec::new();
    for _ in 0..12 {
        // Which of two builds is older is a matter of time; within one microsecond it is none of their ids.
        home.clock.advance(Duration::from_secs(1));
        let id = begin(store, &lease);
        fs::create_dir(store.builds().files(&id)).unwrap();
        fs::write(store.builds().files(&id).join("events.jsonl"), "x").unwrap();
        store.builds().finish(&id, &end(10, Vec::new())).unwrap();
        ended.push(id);
    }
    let stray = BuildId::random().unwrap();
    fs::create_dir(store.builds().files(&stray)).unwrap();
    let wide = HistoryLimits { builds: 100, bytes: 1000 };
    assert_eq!(store.builds().trim(wide).unwrap(), 0);
    assert_eq!(store.builds().trim(HistoryLimits { builds: 100, bytes: 100 }).unwrap(), 3);
    assert!(!store.builds().files(&stray).exists());
    assert_eq!(store.builds().trim(HistoryLimits { builds: 5, bytes: 1000 }).unwrap(), 4);
    let kept: Vec<bool> = ended.iter().map(|id| store.builds().files(id).exists()).collect();
    assert_eq!(kept, [[false; 7].as_slice(), &[true; 5]].concat(), "the newest stay");
    assert!(store.builds().find(running.as_str()).unwrap().len() == 1);
    assert_eq!(store.builds().trim(HistoryLimits { builds: 5, bytes: 0 }).unwrap(), 4, "the newest stays");
}
