//! Blobs of pulled layers that are not kept: nothing is missing, what leaves is what came, and nothing comes twice.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::{Bench, Call};
use crate::peers::has;
use crate::registry::Registry;
use crate::transfers::noise;

const LAYER: usize = 1 << 20;

/// An image of two layers of noise in a registry, and a place for stores that let go of blobs.
struct Scene {
    // It is to end before the bench looks for what is left.
    registry: Registry,
    bench: Bench,
    image: String,
}

impl Scene {
    fn new() -> Option<Self> {
        let bench = Bench::new()?;
        if !has("docker-registry") || !has("skopeo") {
            return None;
        }
        let driver = bench.rbuild(["info", "-f", "{{.Driver}}"]).run().ok().stdout;
        if driver.trim() != "erofs" {
            eprintln!("SKIPPED: layers cannot be tars here");
            return None;
        }
        let registry = Registry::start(&bench.path("registry"));
        let image = registry.name("base/app:1");
        let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY one /\nCOPY two /\n")]);
        fs::write(context.join("one"), noise(1, LAYER)).unwrap();
        fs::write(context.join("two"), noise(2, LAYER)).unwrap();
        let _pushed = bench.rbuild(["build", "--push", "-t", &image]).arg(&context).run().ok();
        Some(Self { registry, bench, image })
    }

    /// The program on a store of that name, told to let go of blobs.
    fn dropping<const N: usize>(&self, store: &str, args: [&str; N]) -> Call {
        self.keeping(store, args).env("RBUILD_LAYER_BLOBS", "drop")
    }

    fn keeping<const N: usize>(&self, store: &str, args: [&str; N]) -> Call {
        self.bench.rbuild_at(&self.bench.path(store), args)
    }

    /// Blobs of a store that are larger than documents.
    fn large(&self, store: &str) -> Vec<String> {
        let list = fs::read_dir(self.bench.path(store).join("blobs/sha256")).unwrap().map(Result::unwrap);
        let large = list.filter(|entry| entry.metadata().unwrap().len() > 1 << 16);
        large.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// Requests since there were `seen` that fetched a blob from where the image lies.
    fn fetched(&self, seen: usize) -> Vec<String> {
        let requests = self.registry.requests().split_off(seen);
        requests.into_iter().filter(|request| request.contains("GET") && request.contains("/blobs/")).collect()
    }
}

fn manifest(reference: &str) -> String {
    let place = format!("docker://{reference}");
    let ran = std::process::Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &place]).output();
    let ran = ran.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// Blocks of all files below a directory, each inode once.
fn disk_use(directory: &Path) -> u64 {
    let ran = std::process::Command::new("du").args(["-s", "-B1"]).arg(directory).output().unwrap();
    String::from_utf8(ran.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn what_was_let_go_of_is_mounted_skipped_or_fetched_again() {
    let Some(scene) = Scene::new() else { return };
    let original = manifest(&scene.image);
    let _pulled = scene.keeping("kept", ["pull", &scene.image]).run().ok();
    let _pulled = scene.dropping("lean", ["pull", &scene.image]).run().ok();
    assert_eq!(scene.large("kept").len(), 2);
    assert_eq!(scene.large("lean"), [""; 0]);
    let layers = |store: &str| disk_use(&scene.bench.path(store).join("layers"));
    assert_eq!(layers("lean"), layers("kept"));
    let _verified = scene.keeping("lean", ["cache", "verify"]).run().ok();

    // To the same registry nothing is sent, and nothing is fetched.
    let seen = scene.registry.requests().len();
    let beside = scene.registry.name("other/app:2");
    let _tagged = scene.keeping("lean", ["tag", &scene.image, &beside]).run().ok();
    let _pushed = scene.dropping("lean", ["push", &beside]).run().ok();
    assert_eq!(manifest(&beside), original);
    assert_eq!(scene.fetched(seen), [""; 0]);

    // For another one they come again, and do not stay.
    let seen = scene.registry.requests().len();
    let elsewhere = Registry::start(&scene.bench.path("elsewhere"));
    let there = elsewhere.name("app:3");
    let _tagged = scene.keeping("lean", ["tag", &scene.image, &there]).run().ok();
    let _pushed = scene.dropping("lean", ["push", &there]).run().ok();
    assert_eq!(manifest(&there), original);
    assert_eq!(scene.fetched(seen).len(), 2, "{:?}", scene.fetched(seen));
    assert_eq!(scene.large("lean"), [""; 0]);

    // An archive is the same, too.
    for store in ["lean", "kept"] {
        let archive = scene.bench.path(format!("{store}.tar"));
        let _saved = scene.keeping(store, ["save", "-o", archive.to_str().unwrap(), &scene.image]).run().ok();
    }
    let bytes = |store: &str| fs::read(scene.bench.path(format!("{store}.tar"))).unwrap();
    assert!(bytes("lean") == bytes("kept"));
    // What that fetched is garbage.
    let _pruned = scene.dropping("lean", ["cache", "prune"]).run().ok();
    assert_eq!(scene.large("lean"), [""; 0]);
    let df = scene.keeping("lean", ["cache", "du", "--format", "json"]).run().ok().stdout;
    assert!(df.contains("\"reclaimable\":0"), "{df}");
}

#[test]
fn images_on_what_was_let_go_of_share_its_layers() {
    let Some(scene) = Scene::new() else { return };
    let layers = |reference: &str| {
        let manifest: serde_json::Value = serde_json::from_str(&manifest(reference)).unwrap();
        let layers = manifest["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let base = layers(&scene.image);
    let dockerfile = format!("FROM {}\nCOPY three /\n", scene.image);
    let context = scene.bench.context("more", [("Dockerfile", &dockerfile), ("three", "three")]);
    let derived = scene.registry.name("derived/app:1");
    let build = scene.dropping("lean", ["build", "--progress=plain", "-t", &derived]).arg(&context);
    let _built = build.run().ok();
    assert_eq!(scene.large("lean"), [""; 0]);
    let seen = scene.registry.requests().len();
    let _pushed = scene.dropping("lean", ["push", &derived]).run().ok();
    assert_eq!(layers(&derived)[..2], base);
    assert_eq!(scene.fetched(seen), [""; 0]);

    // Who has the layers fetches only what is new.
    let _pulled = scene.dropping("second", ["pull", &scene.image]).run().ok();
    let seen = scene.registry.requests().len();
    let _pulled = scene.dropping("second", ["pull", &derived]).run().ok();
    let fetched = scene.fetched(seen);
    assert!(!fetched.iter().any(|request| base.iter().any(|layer| request.contains(layer))), "{fetched:?}");
    let _verified = scene.keeping("second", ["cache", "verify"]).run().ok();
    assert_eq!(scene.large("second"), [""; 0]);
}

#[test]
fn blobs_go_when_the_setting_changes_and_stay_where_they_are_needed() {
    let Some(mut scene) = Scene::new() else { return };
    let config = scene.bench.path("config.toml");
    fs::write(&config, "layerBlobs = \"drop\"\n").unwrap();
    let _pulled = scene.keeping("late", ["pull", &scene.image]).run().ok();
    assert_eq!(scene.large("late").len(), 2);
    let pruned = scene.keeping("late", ["cache", "prune", "--dry-run"]).env("RBUILD_CONFIG", config.to_str().unwrap());
    let _told = pruned.run().ok();
    assert_eq!(scene.large("late").len(), 2);
    let pruned = scene.keeping("late", ["cache", "prune"]).env("RBUILD_CONFIG", config.to_str().unwrap());
    let _pruned = pruned.run().ok();
    assert_eq!(scene.large("late"), [""; 0]);

    // A directory is checked against its blob.
    let _pulled = scene.dropping("directories", ["--snapshotter=directory", "pull", &scene.image]).run().ok();
    assert_eq!(scene.large("directories").len(), 2);

    let _wrong = scene.keeping("late", ["pull", &scene.image]).env("RBUILD_LAYER_BLOBS", "maybe").run().fails(1);

    // Where they cannot be had any more, that is said.
    let there = Registry::start(&scene.bench.path("there"));
    let name = there.name("app:1");
    let _tagged = scene.keeping("late", ["tag", &scene.image, &name]).run().ok();
    scene.registry.kill();
    let failed = scene.dropping("late", ["push", &name]).run().fails(1);
    assert!(failed.stderr.contains("is not kept here as it came (see layerBlobs)"), "{}", failed.stderr);
    // What needs no blob goes on.
    let saved = scene.bench.path("flat.tar");
    let _tagged = scene.keeping("late", ["tag", &scene.image, "base"]).run().ok();
    let flat = scene.bench.context("flat", [("Dockerfile", "FROM base\nLABEL a=b\n")]);
    let output = format!("type=tar,dest={}", saved.display());
    let _built = scene.dropping("late", ["build", "-o", &output]).arg(&flat).run().ok();
    assert!(fs::metadata(&saved).unwrap().len() > 2 * LAYER as u64);
}

#[test]
fn blobs_that_may_be_pushed_elsewhere_stay_and_others_go_when_room_is_short() {
    let Some(scene) = Scene::new() else { return };
    let auto = |store: &str, args: &[&str]| {
        scene.bench.rbuild_at(&scene.bench.path(store), args).env("RBUILD_LAYER_BLOBS", "auto").run().ok()
    };
    // There is room.
    let _pulled = auto("auto", &["pull", &scene.image]);
    let context = scene.bench.context("on", [("Dockerfile", &format!("FROM {}\nLABEL a=b\n", scene.image))]);
    let _built = auto("auto", &["build", "-t", &scene.registry.name("on:1"), context.to_str().unwrap()]);
    assert_eq!(scene.large("auto").len(), 2);
    // An image that was built on it is to go elsewhere.
    let _built = auto("auto", &["build", "-t", "example.com/on:1", context.to_str().unwrap()]);
    let _pruned = auto("auto", &["cache", "prune"]);
    assert_eq!(scene.large("auto").len(), 2);
    let _removed = auto("auto", &["rmi", "example.com/on:1"]);
    let _pruned = auto("auto", &["cache", "prune"]);
    assert_eq!(scene.large("auto"), [""; 0]);
    // There is none: before and after what brings more.
    let config = scene.bench.path("small.toml");
    fs::write(&config, "[gc]\nmaxUsedSpace = \"1MB\"\n").unwrap();
    let _pulled = scene.keeping("short", ["pull", &scene.image]).run().ok();
    assert_eq!(scene.large("short").len(), 2);
    let build = scene.keeping("short", ["build", "-t", &scene.registry.name("on:1"), context.to_str().unwrap()]);
    let build = build.env("RBUILD_LAYER_BLOBS", "auto").env("RBUILD_CONFIG", config.to_str().unwrap());
    let _built = build.run().ok();
    assert_eq!(scene.large("short"), [""; 0]);
    let pull = scene.keeping("second", ["pull", &scene.image]).env("RBUILD_LAYER_BLOBS", "auto");
    let _pulled = pull.env("RBUILD_CONFIG", config.to_str().unwrap()).run().ok();
    assert_eq!(scene.large("second"), [""; 0]);
}

/// The directories of layers with a tar that is not tiny, by name.
fn tars(store: &Path) -> Vec<PathBuf> {
    let layers = fs::read_dir(store.join("layers")).unwrap().map(|entry| entry.unwrap().path());
    let large = |layer: &PathBuf| fs::metadata(layer.join("tar")).is_ok_and(|tar| tar.len() > 1 << 16);
    let mut layers: Vec<PathBuf> = layers.filter(large).collect();
    layers.sort();
    layers
}

#[test]
fn what_is_damaged_is_fetched_again_though_its_blobs_were_let_go_of() {
    let Some(mut scene) = Scene::new() else { return };
    let store = scene.bench.path("lean");
    let _pulled = scene.dropping("lean", ["pull", &scene.image]).run().ok();
    // An index needs no blob.
    fs::remove_file(tars(&store)[0].join("index")).unwrap();
    fs::write(tars(&store)[1].join("index"), "damaged").unwrap();
    let _repaired = scene.dropping("lean", ["cache", "verify", "--repair"]).run().ok();
    let _ran = scene.dropping("lean", ["cache", "verify"]).run().ok();
    // Other bytes, and none.
    let damaged = tars(&store);
    fs::write(damaged[0].join("tar"), noise(3, LAYER)).unwrap();
    fs::remove_file(damaged[1].join("tar")).unwrap();
    let _found = scene.dropping("lean", ["cache", "verify"]).run().fails(1);
    let seen = scene.registry.requests().len();
    let repaired = scene.dropping("lean", ["cache", "verify", "--repair"]).run().ok();
    assert!(repaired.stdout.contains("unpacked layer"), "{}", repaired.stdout);
    assert_eq!(scene.fetched(seen).len(), 2);
    assert_eq!(tars(&store).len(), 2);
    assert_eq!(scene.large("lean"), [""; 0]);
    let _verified = scene.keeping("lean", ["cache", "verify"]).run().ok();

    // A lost database: the image is put together from its tars, with the manifest that it came with.
    let original = manifest(&scene.image);
    fs::write(store.join("meta.db"), "lost").unwrap();
    let rebuilt = scene.dropping("lean", ["cache", "verify", "--rebuild"]).run().ok();
    let listed = scene.dropping("lean", ["images", "-aq", "--no-trunc"]).run().ok().stdout;
    let id = listed.trim().to_owned();
    assert!(id.starts_with("sha256:"), "{listed} {}", rebuilt.stdout);
    let inspected = scene.dropping("lean", ["image", "inspect", &id]).run().ok().stdout;
    let config: serde_json::Value = serde_json::from_str(&original).unwrap();
    assert_eq!(config["config"]["digest"].as_str(), Some(id.as_str()), "{inspected}");
    let _verified = scene.keeping("lean", ["cache", "verify"]).run().ok();

    // The registry has gone: what is damaged stays so, and that is said.
    fs::write(tars(&store)[0].join("tar"), noise(4, LAYER)).unwrap();
    scene.registry.kill();
    let failed = scene.dropping("lean", ["cache", "verify", "--repair"]).run().fails(1);
    assert!(failed.stdout.contains("layer ") || failed.stderr.contains("layer "), "{}{}", failed.stdout, failed.stderr);
}
