//! Images whose manifests, indexes, configs or layers are damaged on their way from a registry or in a layout on disk: `pull`
//! and `FROM` refuse them, or what they take is the very image, and the store is sound. What the damage was is the same every
//! time; `./dev damage` tries more of it, and other damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::bench::{Bench, Ran};
use crate::damaged_archives::Random;
use crate::server::{Answer, Request, Server};

/// What a registry holds: blobs and manifests by digest, and the digest that its tag stands for.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) root: String,
}

impl Content {
    pub(crate) fn of_layout(layout: &Path) -> Self {
        let mut blobs = BTreeMap::new();
        for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap().map(Result::unwrap) {
            let digest = format!("sha256:{}", entry.file_name().to_str().unwrap());
            blobs.insert(digest, fs::read(entry.path()).unwrap());
        }
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        Self { blobs, root: index["manifests"][0]["digest"].as_str().unwrap().to_owned() }
    }

    fn json(&self, digest: &str) -> Value {
        serde_json::from_slice(&self.blobs[digest]).unwrap()
    }

    fn put(&mut self, bytes: Vec<u8>) -> String {
        let digest = rbuild_image::Digest::sha256(&bytes).to_string();
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Index, manifest, config and layers of this machine's platform.
    fn parts(&self) -> Vec<String> {
        let manifest = digest_of(&self.json(&self.root)["manifests"][0]);
        let document = self.json(&manifest);
        let layers = document["layers"].as_array().unwrap().iter().map(digest_of).collect::<Vec<_>>();
        [vec![self.root.clone(), manifest.clone(), digest_of(&document["config"])], layers].concat()
    }

    /// The same image with another layer in the place of one, all digests right but for what the config says of it.
    fn with_layer(&self, position: usize, bytes: Vec<u8>) -> Self {
        let mut changed = self.clone();
        let mut index = self.json(&self.root);
        let mut manifest = self.json(&digest_of(&index["manifests"][0]));
        let size = bytes.len();
        manifest["layers"][position]["digest"] = changed.put(bytes).into();
        manifest["layers"][position]["size"] = size.into();
        let manifest = serde_json::to_vec(&manifest).unwrap();
        index["manifests"][0]["size"] = manifest.len().into();
        index["manifests"][0]["digest"] = changed.put(manifest).into();
        changed.root = changed.put(serde_json::to_vec(&index).unwrap());
        changed
    }
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

/// What happens to one of the blobs whenever it is sent.
#[derive(Clone, Debug)]
enum Damage {
    /// Other bytes, of the same or of another length.
    Other(Vec<u8>),
    /// So many connections end after so many bytes.
    Cut(usize, u32),
}

struct Scene {
    content: Content,
    damage: Option<(String, Damage)>,
}

fn answer(scene: &mut Scene, request: &Request) -> Answer {
    let (path, item) = request.path.rsplit_once('/').unwrap();
    let digest = if item == "1" { scene.content.root.clone() } else { item.to_owned() };
    let Some(whole) = scene.content.blobs.get(&digest).cloned() else {
        return Answer::new(if request.path == "/v2/" { 200 } else { 404 });
    };
    let mut bytes = whole;
    match &mut scene.damage {
        Some((target, Damage::Other(other))) if *target == digest => bytes.clone_from(other),
        Some((target, Damage::Cut(at, times))) if *target == digest && *times > 0 && request.method == "GET" => {
            *times -= 1;
            let at = *at % bytes.len();
            return Answer::Cut(200, bytes, at);
        }
        _ => {}
    }
    if path.ends_with("/manifests") {
        let kind = serde_json::from_slice::<Value>(&scene.content.blobs[&digest]).unwrap()["mediaType"].clone();
        let length = bytes.len().to_string();
        return Answer::body(200, bytes)
            .with("Content-Type", kind.as_str().unwrap())
            .with("Docker-Content-Digest", digest)
            .with("Content-Length", length);
    }
    match request.range().filter(|from| *from < bytes.len()) {
        None => Answer::body(200, bytes),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::body(206, bytes.split_off(from)).with("Content-Range", range)
        }
    }
}

/// An image of two platforms and two layers, in a layout and in a registry, and what it is known by here.
struct Originals {
    bench: Bench,
    server: Server,
    scene: Arc<Mutex<Scene>>,
    content: Content,
    id: String,
}

impl Originals {
    fn make(compression: &str) -> Option<Self> {
        let bench = Bench::new()?;
        let dockerfile = "FROM scratch\nCOPY a /a\nCOPY b /b/\nENV X=y\nCMD [\"/a\"]\n";
        let noise: String = (0..3000_u32).map(|n| char::from(33 + (n.wrapping_mul(7919) >> 3) as u8 % 90)).collect();
        let context = bench.context("ctx", [("Dockerfile", dockerfile), ("a", "small\n"), ("b", noise.as_str())]);
        let platforms = match rbuild_image::Platform::host().to_string().as_str() {
            "linux/amd64" => "linux/amd64,linux/arm64",
            other => &format!("{other},linux/amd64"),
        };
        let output = format!("type=oci,dest=layout,tar=false,compression={compression},force-compression=true");
        let ran = bench.rbuild(["build", "--platform", platforms, "-o", &output]).arg(&context).run();
        let _built = ran.ok();
        let content = Content::of_layout(&bench.path("layout"));
        let scene = Arc::new(Mutex::new(Scene { content: content.clone(), damage: None }));
        let served = Arc::clone(&scene);
        let server = Server::start(move |request| answer(&mut served.lock().unwrap(), request));
        let id = content.parts()[2].clone();
        Some(Self { bench, server, scene, content, id })
    }

    fn name(&self) -> String {
        format!("{}/app:1", self.server.host)
    }

    fn set(&self, content: Content, damage: Option<(String, Damage)>) {
        *self.scene.lock().unwrap() = Scene { content, damage };
    }

    /// Pulls into a new store, or builds on the image there: whether it was taken. If so it is the very image; the store is
    /// sound either way, and has the image after a pull that meets no damage.
    fn meet(&self, how: How, what: &str) -> bool {
        let store = self.bench.path("meeting");
        let rbuild = |args: &[&str]| self.bench.rbuild_at(&store, args);
        let name = self.name();
        let layout = format!("base=oci-layout://{}:1", self.bench.path("damaged-layout").display());
        let ran = match how {
            How::Pull => rbuild(&["pull", "-q", &name]).run(),
            How::PullByDigest => {
                let root = self.scene.lock().unwrap().content.root.clone();
                rbuild(&["pull", "-q", &format!("{}/app@{root}", self.server.host)]).run()
            }
            How::From => {
                let dockerfile = format!("FROM {name}\nCOPY --from={name} /b/b /copied\n");
                rbuild(&["build", "-q", "-"]).input(dockerfile).run()
            }
            How::Layout => {
                let dockerfile = "FROM base\nCOPY --from=base /b/b /copied\n";
                rbuild(&["build", "-q", "--build-context", &layout, "-"]).input(dockerfile).run()
            }
        };
        assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
        let taken = match ran.code {
            0 => true,
            1 => false,
            code => panic!("{what}: exit code {code}: {}", ran.stderr),
        };
        let images = rbuild(&["images", "-q", "--no-trunc"]).run().ok().stdout;
        match (taken, how) {
            (true, How::Pull | How::PullByDigest) => assert_eq!(images.trim(), self.id, "{what}"),
            (true, How::From | How::Layout) => {}
            (false, _) => {
                assert!(!ran.stderr.trim().is_empty(), "{what}: refused without a word");
                assert_eq!(images, "", "{what}: refused, but an image stays");
            }
        }
        let sound: Ran = rbuild(&["cache", "verify"]).run();
        assert_eq!(sound.code, 0, "{what}: {}{}", sound.stdout, sound.stderr);
        self.set(self.content.clone(), None);
        let _whole = rbuild(&["pull", "-q", &name]).run().ok();
        assert!(rbuild(&["images", "-q", "--no-trunc"]).run().ok().stdout.contains(&self.id), "{what}: afterwards");
        fs::remove_dir_all(&store).unwrap();
        taken
    }
}

/// Half as many as of archives: each is met over a network.
fn count() -> usize {
    crate::damaged_archives::count().div_ceil(2)
}

#[derive(Clone, Copy, Debug)]
enum How {
    Pull,
    PullByDigest,
    From,
    Layout,
}

/// Damages what one of the parts is, again and again.
fn damages(compression: &str, seed: u64) {
    let Some(originals) = Originals::make(compression) else { return };
    let mut random = Random::new(seed);
    let parts = originals.content.parts();
    for turn in 0..count() {
        let how = [How::Pull, How::From, How::PullByDigest][turn % 3];
        let target = parts[random.below(parts.len())].clone();
        let mut bytes = originals.content.blobs[&target].clone();
        let (damage, said) = match random.below(5) {
            0 => {
                let at = random.below(bytes.len());
                (Damage::Cut(at, 1), format!("cut after {at} bytes, once"))
            }
            _ => {
                let said = random.damage(&mut bytes);
                (Damage::Other(bytes), said)
            }
        };
        let what = format!("{how:?}: part {target}: {said}");
        let passes = matches!(damage, Damage::Cut(..));
        originals.set(originals.content.clone(), Some((target, damage)));
        assert_eq!(originals.meet(how, &what), passes, "{what}");
    }
}

#[test]
fn what_is_damaged_on_its_way_is_not_taken() {
    damages("gzip", 11);
}

#[test]
fn what_is_damaged_on_its_way_is_not_taken_as_zstd_either() {
    damages("zstd", 12);
}

/// All digests are right, but those that the config has of the uncompressed layers.
#[test]
fn layers_that_another_image_has_are_refused_or_harmless() {
    for (compression, seed) in [("gzip", 13), ("zstd", 14)] {
        let Some(originals) = Originals::make(compression) else { return };
        let mut random = Random::new(seed);
        let layers = originals.content.parts().split_off(3);
        for turn in 0..count() {
            let how = [How::Pull, How::From, How::PullByDigest][turn % 3];
            let position = turn % layers.len();
            let mut bytes = originals.content.blobs[&layers[position]].clone();
            let what = format!("{how:?}: {compression} layer {position}: {}", random.damage(&mut bytes));
            originals.set(originals.content.with_layer(position, bytes), None);
            // A bit of a header may say nothing: then the image is the same.
            let _taken = originals.meet(how, &what);
        }
    }
}

#[test]
fn what_is_damaged_in_a_layout_is_no_base() {
    let Some(originals) = Originals::make("gzip") else { return };
    let mut random = Random::new(15);
    let parts = originals.content.parts();
    let copy = originals.bench.path("damaged-layout");
    let archive = |content: &Content, damaged: Option<(&str, &[u8])>| {
        let _gone = fs::remove_dir_all(&copy);
        fs::create_dir_all(copy.join("blobs/sha256")).unwrap();
        for (digest, bytes) in &content.blobs {
            let bytes = damaged.filter(|(target, _)| target == digest).map_or(bytes.as_slice(), |(_, bytes)| bytes);
            fs::write(copy.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        }
        fs::write(copy.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        let root = serde_json::json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": content.root,
            "size": content.blobs[&content.root].len(), "annotations": {"org.opencontainers.image.ref.name": "1"}});
        fs::write(copy.join("index.json"), serde_json::json!({"schemaVersion": 2, "manifests": [root]}).to_string())
            .unwrap();
    };
    archive(&originals.content, None);
    assert!(originals.meet(How::Layout, "the original"));
    for _ in 0..count() {
        let target = &parts[random.below(parts.len())];
        let mut bytes = originals.content.blobs[target].clone();
        let what = format!("part {target}: {}", random.damage(&mut bytes));
        archive(&originals.content, Some((target, &bytes)));
        assert!(!originals.meet(How::Layout, &what), "{what}: it was taken");
    }
}
