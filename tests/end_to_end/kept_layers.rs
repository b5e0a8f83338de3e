//! What a push compressed serves the next one, until room is needed.

use std::fs;
use std::path::Path;

use crate::bench::Bench;
use crate::peers::has;
use crate::registry::Registry;
use crate::transfers::noise;

const LAYERS: usize = 2;

struct Scene {
    // They are to end before the bench looks for what is left.
    registries: Vec<Registry>,
    bench: Bench,
}

impl Scene {
    /// An image of two layers, built and not pushed; `None` without what the test needs.
    fn new() -> Option<Self> {
        let bench = Bench::new()?;
        if !has("docker-registry") || !has("skopeo") || !has("strace") {
            return None;
        }
        let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY one /\nCOPY two /\n")]);
        fs::write(context.join("one"), noise(1, 1 << 20)).unwrap();
        fs::write(context.join("two"), noise(2, 1 << 20)).unwrap();
        let _built = bench.build("app", &context).ok();
        Some(Self { registries: Vec::new(), bench })
    }

    /// Pushes to a registry that has nothing yet: the manifest's digest, and how many layers were written anew for it.
    fn push(&mut self, env: (&str, &str)) -> (String, usize) {
        let number = self.registries.len();
        let registry = Registry::start(&self.bench.path(format!("registry{number}")));
        let name = registry.name("app:1");
        self.registries.push(registry);
        let _tagged = self.bench.rbuild(["tag", "app", &name]).run().ok();
        let trace = self.bench.path(format!("trace{number}"));
        let by = ["strace", "-f", "-e", "trace=openat,open,creat", "-o", trace.to_str().unwrap()];
        let _pushed = self.bench.through(by, ["push", &name]).env(env.0, env.1).run().ok();
        (digest(&name), made(&trace))
    }

    fn large_blobs(&self) -> usize {
        let list = fs::read_dir(self.bench.store().join("blobs/sha256")).unwrap().map(Result::unwrap);
        list.filter(|entry| entry.metadata().unwrap().len() > 1 << 16).count()
    }
}

/// Files for compressed layers that a traced program made.
fn made(trace: &Path) -> usize {
    let text = fs::read_to_string(trace).unwrap();
    assert!(text.contains("meta.db"), "the trace shows what was opened");
    text.lines().filter(|line| line.contains("/layer-") && line.contains("O_CREAT")).count()
}

fn digest(name: &str) -> String {
    let place = format!("docker://{name}");
    let args = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &place];
    let ran = std::process::Command::new("skopeo").args(args).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

const USUAL: (&str, &str) = ("RBUILD_LAYER_BLOBS", "keep");

#[test]
fn a_second_registry_gets_what_was_compressed_for_the_first() {
    let Some(mut scene) = Scene::new() else { return };
    let (first, made) = scene.push(USUAL);
    assert_eq!((made, scene.large_blobs()), (LAYERS, LAYERS));
    let du = scene.bench.rbuild(["cache", "du"]).run().ok().stdout;
    let row = du.lines().find(|line| line.starts_with("kept for pushes")).unwrap();
    assert!(row.contains(" 2 ") && row.matches("2.1MB").count() == 2, "{du}");
    let _sound = scene.bench.rbuild(["cache", "verify"]).run().ok();
    assert_eq!(scene.push(USUAL), (first.clone(), 0), "nothing is compressed");

    // Room for everything else: only the copies go, and the steps stay.
    let steps = || scene.bench.rbuild(["cache", "ls", "-q"]).run().ok().stdout.lines().count();
    let before = steps();
    let _pruned = scene.bench.rbuild(["cache", "prune", "--max-used-space", "1KB"]).run().ok();
    assert_eq!((scene.large_blobs(), steps()), (0, before));
    let _sound = scene.bench.rbuild(["cache", "verify"]).run().ok();
    assert_eq!(scene.push(USUAL), (first.clone(), LAYERS), "made again, the same, and kept again");
    assert_eq!(scene.large_blobs(), LAYERS);
    assert_eq!(scene.push(USUAL), (first, 0));
}

#[test]
fn who_lets_go_of_blobs_keeps_none_of_these() {
    let Some(mut scene) = Scene::new() else { return };
    let (first, _) = scene.push(USUAL);
    assert_eq!(scene.large_blobs(), LAYERS);
    let drop = ("RBUILD_LAYER_BLOBS", "drop");
    assert_eq!(scene.push(drop).0, first);
    assert_eq!(scene.large_blobs(), 0);
    assert_eq!(scene.push(drop), (first, LAYERS));
    assert_eq!(scene.large_blobs(), 0);
    let _sound = scene.bench.rbuild(["cache", "verify"]).run().ok();
}

#[test]
fn a_build_that_pushes_keeps_too() {
    let Some(mut scene) = Scene::new() else { return };
    let registry = Registry::start(&scene.bench.path("built"));
    let name = registry.name("app:1");
    let _built = scene.bench.rbuild(["build", "--push", "-t", &name]).arg(scene.bench.path("ctx")).run().ok();
    assert_eq!(scene.large_blobs(), LAYERS);
    assert_eq!(scene.push(USUAL), (digest(&name), 0));
}

#[test]
fn a_copy_out_of_the_store_sends_and_keeps_as_a_push_does() {
    let Some(mut scene) = Scene::new() else { return };
    let copy = |to: &str, number: usize| {
        let trace = scene.bench.path(format!("copy{number}"));
        let by = ["strace", "-f", "-e", "trace=openat,open,creat", "-o", trace.to_str().unwrap()];
        let copied = scene.bench.through(by, ["image", "copy", "store:app", to]).run().ok();
        (copied.stdout.trim().to_owned(), made(&trace))
    };
    let registry = Registry::start(&scene.bench.path("first"));
    let name = registry.name("app:1");
    let (first, made) = copy(&name, 0);
    assert_eq!((first.as_str(), made), (digest(&name).as_str(), LAYERS));
    let second = Registry::start(&scene.bench.path("second"));
    assert_eq!(copy(&format!("docker://{}", second.name("app:1")), 1), (first.clone(), 0), "nothing is compressed");
    let by_digest = format!("{}@{first}", second.name("other/app"));
    assert_eq!(copy(&by_digest, 2), (first.clone(), 0));
    let wrong = format!("{}@sha256:{}", second.name("other/app"), "0".repeat(64));
    let _refused =
        scene.bench.rbuild(["image", "copy", "store:app", &wrong]).run().fails(1).says("the image is sha256:");
    assert_eq!(scene.large_blobs(), LAYERS);
    let archive = format!("oci-archive:{}", scene.bench.path("out.tar").display());
    assert_eq!(copy(&archive, 3), (first.clone(), 0));
    assert_eq!(scene.push(USUAL), (first, 0));
}
