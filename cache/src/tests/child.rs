//! What child processes do: the first argument says what, the second where.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use rbuild_image::{BlobSink, Descriptor, Digest, ImageRef, MediaType};

use super::PATIENT;
use super::ingest::{SIZE, content};
use crate::failpoint::armed;
use crate::gc::{GcPolicy, PruneMode, PruneScope};
use crate::lease::Hold;
use crate::lock::{LockMode, LockName, wait_silently};
use crate::store::{OpenOptions, Store};
use crate::testing::{child_arguments, child_says, child_waits, snapshot};

#[test]
#[ignore = "runs only in child processes of other tests"]
fn entry() {
    let arguments = child_arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [what, root, rest @ ..] = &arguments[..] else { return };
    if let Some(points) = rest.iter().find_map(|argument| argument.strip_prefix("failpoints:")) {
        armed::arm(points);
    }
    if *what == "everything" {
        return everything(Path::new(*root));
    }
    if *what == "rebuild" {
        return drop(Store::rebuild(Path::new(*root), OpenOptions::new("child rebuild")).unwrap());
    }
    let store = Store::open(Path::new(*root), OpenOptions::new(format!("child {what}"))).unwrap();
    match *what {
        "lock" => {
            let _lock = store.lock(&LockName::other("test", rest[0]), LockMode::Exclusive, &wait_silently).unwrap();
            child_says("locked");
            child_waits();
        }
        "count" => count(&store, Path::new(rest[0])),
        "ingest-half" => ingest(&store, SIZE / 2),
        "ingest" => ingest(&store, SIZE),
        "put" => {
            let lease = store.lease("put").unwrap();
            store.blobs_for(&lease, &wait_silently).put_all(&[b"one", b"two"]).unwrap();
        }
        "commit" => {
            let lease = store.lease("commit").unwrap();
            let active = store.snapshots().prepare(None, &lease).unwrap();
            store
                .records()
                .record(&super::records::record(&["step"], Some(active.commit(&lease).unwrap().id())))
                .unwrap();
        }
        "tag" => tag(&store, &rest[0].parse().unwrap()),
        "lease" => {
            let lease = store.lease("child").unwrap();
            std::fs::write(lease.scratch_name("file").unwrap(), "draft").unwrap();
            let id = snapshot(&store, &lease, None, 1000);
            lease.hold(Hold::Snapshot(id)).unwrap();
            lease.hold(Hold::Outside { kind: "cgroup".into(), name: "a b\n".into() }).unwrap();
            child_says("leased");
            child_waits();
        }
        "lookup" => {
            let lease = store.lease("lookup").unwrap();
            child_says("looking");
            let found = store.records().lookup(&super::records::key(rest[0]), &lease).unwrap();
            child_says(if found.is_some() { "hit" } else { "miss" });
        }
        "prune" => {
            store.prune(&GcPolicy::new("test", PruneScope::All), PruneMode::Apply, PATIENT).unwrap();
        }
        "prune-loop" => {
            while !Path::new(rest[0]).exists() {
                store.prune(&GcPolicy::new("test", PruneScope::All), PruneMode::Apply, PATIENT).unwrap();
            }
        }
        other => panic!("no such child: {other}"),
    }
    child_says("done");
}

/// Adds one to a number in a file, a hundred times, each under a lock: lost updates show.
fn count(store: &Store, file: &Path) {
    for _ in 0..100 {
        let _lock = store.lock(&LockName::other("count", ""), LockMode::Exclusive, &wait_silently).unwrap();
        let number: u64 = std::fs::read_to_string(file).unwrap().parse().unwrap();
        std::fs::write(file, (number + 1).to_string()).unwrap();
    }
}

/// Brings in the blob that all these tests use, up to `stop` bytes; says what it found.
fn ingest(store: &Store, stop: usize) {
    let lease = store.lease("ingest").unwrap();
    let on_wait = |waiting: &crate::lock::Waiting<'_>| {
        if let Some(holder) = &waiting.holder {
            child_says(&format!("waiting for {}", holder.pid));
        }
        ControlFlow::Continue(())
    };
    let sink = store.blobs_for(&lease, &on_wait);
    let bytes = content();
    let descriptor = Descriptor::new(MediaType::OciLayerGzip, Digest::sha256(&bytes), bytes.len() as u64);
    let mut writer = sink.begin(&descriptor).unwrap();
    let start = usize::try_from(writer.resume_offset()).unwrap();
    child_says(&format!("resumes at {start}"));
    if stop > start {
        writer.write_all(&bytes[start..stop]).unwrap();
    }
    if stop < SIZE {
        child_says("half");
        child_waits();
    }
    writer.commit().unwrap();
}

/// Moves a reference to and fro.
fn tag(store: &Store, reference: &ImageRef) {
    let images = store.images().list().unwrap();
    for round in 0..20 {
        store.images().tag(reference, &images[round % images.len()].record.id).unwrap();
    }
}

/// Does everything that makes something last; says what went wrong, or how often each point was hit.
fn everything(root: &Path) {
    match super::failpoints::workload(root) {
        Ok(()) => {
            let hits = armed::hits().into_iter().map(|(name, count)| format!("{name}:{count}"));
            child_says(&format!("hits {}", hits.collect::<Vec<_>>().join(" ")));
        }
        Err(error) => {
            let mut chain = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                chain = format!("{chain}: {error}");
                cause = error.source();
            }
            child_says(&format!("error {}", chain.replace('\n', " ")));
        }
    }
}
