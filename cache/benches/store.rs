//! The store's two hot paths: what is remembered of a context's files, and layers that are written. Everything is in a
//! temporary directory (`TMPDIR` says where). `./dev bench-micro store`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::path::Path;

use divan::Bencher;
use divan::counter::ItemsCount;
use rbuild_cache::snapshot::{Content, Metadata};
use rbuild_cache::{FileDigest, FileStamp, OpenOptions, Store};
use rbuild_image::ContainerPath;

fn main() {
    divan::main();
}

fn store() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store"), OpenOptions::new("bench")).unwrap();
    (place, store)
}

fn path(number: usize) -> String {
    format!("src/part-{}/file-{number}.rs", number / 100)
}

/// Old enough to be remembered.
fn stamp(number: usize) -> FileStamp {
    FileStamp { dev: 1, ino: number as u64, size: 4096, mtime: 1_000_000_000, ctime: 1_000_000_000, mode: 0o100_644 }
}

/// The index of a context whose files have not changed: loaded, and asked for each of them.
#[divan::bench(args = [1_000, 50_000])]
fn file_index_of_an_unchanged_context(bencher: Bencher<'_, '_>, files: usize) {
    let (_place, store) = store();
    let root = Path::new("/context");
    let index = store.file_index(root).unwrap();
    let digest = FileDigest::of(&b"content"[..]).unwrap();
    for number in 0..files {
        index.insert(path(number).as_bytes(), stamp(number), digest);
    }
    index.save().unwrap();
    let paths: Vec<String> = (0..files).map(path).collect();
    bencher.counter(ItemsCount::new(files)).bench(|| {
        let index = store.file_index(root).unwrap();
        for (number, path) in paths.iter().enumerate() {
            assert!(index.get(path.as_bytes(), &stamp(number)).is_some());
        }
        index.save().unwrap();
    });
}

/// A layer of small files: written, digested, made durable and visible.
#[divan::bench(args = [10, 1_000], sample_count = 10, sample_size = 1)]
fn layer_written(bencher: Bencher<'_, '_>, files: usize) {
    let (_place, store) = store();
    let lease = store.lease("bench").unwrap();
    let bytes = [7; 4096];
    let metadata = Metadata { mode: 0o644, ..Metadata::default() };
    bencher.counter(ItemsCount::new(files)).bench(|| {
        let active = store.snapshots().prepare(None, &lease).unwrap();
        let mut writer = active.writer().unwrap();
        for number in 0..files {
            let path = ContainerPath::new(format!("/file-{number}"));
            writer.file(&path, &metadata, Content::Bytes(&bytes)).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        active.commit(&lease).unwrap()
    });
}
