//! The images of the conformance corpus, four ways: as in `four_ways`, for what Dockerfiles make. Run by `./dev equality`, which
//! builds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use rbuild_executor::Rootfs;
use rbuild_image::Digest;
use rbuild_image::layer::{Decoder, TarReader};
use serde_json::Value;

use super::four_ways::{assert_equal, extract, of_rootfs, without_counts};
use super::*;
use crate::erofs::described::{Described, of_directory};

/// Archives as `./dev equality` leaves them.
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/corpus-images");
/// With so many layers, all that are tars are merged.
const MERGED: usize = 16;

/// The blobs of an OCI archive, and its `index.json`.
fn contents(archive: &Path) -> (BTreeMap<Digest, Vec<u8>>, Value) {
    let (mut blobs, mut index) = (BTreeMap::new(), Value::Null);
    let mut reader = tar::Archive::new(File::open(archive).unwrap());
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| hex.len() == 64) {
            blobs.insert(format!("sha256:{hex}").parse().unwrap(), bytes);
        } else if name == "index.json" {
            index = serde_json::from_slice(&bytes).unwrap();
        }
    }
    (blobs, index)
}

/// The layers of every image that a document leads to, as tars.
fn images(document: &Value, blobs: &BTreeMap<Digest, Vec<u8>>, found: &mut Vec<Vec<Vec<u8>>>) {
    let blob = |of: &Value| &blobs[&of["digest"].as_str().unwrap().parse::<Digest>().unwrap()];
    for child in document["manifests"].as_array().into_iter().flatten() {
        let attests = child["annotations"].get("vnd.docker.reference.type").is_some();
        if !attests {
            images(&serde_json::from_slice(blob(child)).unwrap(), blobs, found);
        }
    }
    if let Some(layers) = document["layers"].as_array() {
        let tar = |layer: &Value| {
            let mut tar = Vec::new();
            Decoder::new(&blob(layer)[..]).unwrap().read_to_end(&mut tar).unwrap();
            tar
        };
        found.push(layers.iter().map(tar).collect());
    }
}

/// Extracts a layer. A directory that it has no entry for keeps its time, whatever comes into it.
fn extract_layer(tar: &Path, root: &Path) {
    let mut named = BTreeSet::new();
    let mut reader = TarReader::new(File::open(tar).unwrap());
    while let Some(entry) = reader.next_entry().unwrap() {
        named.insert(root.join(&entry.path.to_string()[1..]));
    }
    let mut times = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
        }
        let modified = fs::metadata(&directory).unwrap().modified().unwrap();
        times.push((directory, modified));
    }
    extract(tar, root);
    for (directory, modified) in times {
        let is_there = fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir());
        if is_there && !named.contains(&directory) {
            File::open(&directory).unwrap().set_modified(modified).unwrap();
        }
    }
}

fn compare(name: &str, layers: &[Vec<u8>]) {
    let home = tempfile::tempdir().unwrap();
    let extracted = home.path().join("extracted");
    fs::create_dir(&extracted).unwrap();
    for tar in layers {
        let path = home.path().join("layer.tar");
        fs::write(&path, tar).unwrap();
        extract_layer(&path, &extracted);
    }
    let expected = without_counts(of_directory(&extracted));
    // A root that no layer has an entry for is of the time when it was made.
    let rest = |mut described: Described| {
        described.remove("");
        described
    };
    let files = rest(expected.clone());
    for bench in Bench::each() {
        let snapshots = bench.store.snapshots();
        let top = bench.stack(layers).id();
        let active = snapshots.prepare(Some(top), &bench.lease).unwrap();
        let chain = snapshots.chain(top).unwrap();
        let Rootfs::Overlay { lowers, upper, work } = active.rootfs().unwrap() else { panic!("an overlay") };
        let each = chain.iter().map(|row| row.snapshotter().unwrap().lower(&snapshots.path(row), None)).collect();
        let kind = &chain.top().unwrap().kind;
        let single = Rootfs::Overlay { lowers: each, upper: upper.clone(), work: work.clone() };
        assert_equal(&format!("{name}: {kind}"), &rest(of_rootfs(&single)), &files);
        if bench.has_tars() {
            assert!(lowers.len() < chain.len(), "{name}: nothing is merged");
            let merged = Rootfs::Overlay { lowers, upper, work };
            assert_equal(&format!("{name}: merged"), &rest(of_rootfs(&merged)), &files);
        }
        let view = snapshots.view(Some(top)).unwrap();
        let mut names = Vec::new();
        view.walk(&ContainerPath::root(), &mut |path, _| {
            names.push(path.to_string()[1..].bytes().collect::<Vec<u8>>().escape_ascii().to_string());
            Ok(())
        })
        .unwrap();
        names.sort();
        assert!(names.iter().eq(expected.keys()), "{name}: the view of {kind}");
    }
}

#[test]
#[ignore = "needs the images that `./dev equality` builds"]
fn the_corpus_images_are_the_same_four_ways() {
    if !is_root("the_corpus_images_are_the_same_four_ways") {
        return;
    }
    let mut archives: Vec<_> = fs::read_dir(IMAGES).unwrap().map(|entry| entry.unwrap().path()).collect();
    archives.sort();
    let mut compared = 0;
    for archive in &archives {
        let name = archive.file_name().unwrap().to_string_lossy();
        let (blobs, index) = contents(archive);
        let mut found = Vec::new();
        images(&index, &blobs, &mut found);
        for mut layers in found {
            // Layers that add to one directory, so that all become one merged index.
            for n in layers.len()..MERGED {
                layers.push(archive_of(n));
            }
            compare(&name, &layers);
            compared += 1;
        }
    }
    println!("{compared} images of {} archives are the same", archives.len());
    assert!(compared >= 100, "only {compared} images");
}

fn archive_of(n: usize) -> Vec<u8> {
    archive(&[dir("more"), file(&format!("more/{n}"), &n.to_string())])
}
