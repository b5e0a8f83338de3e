//! Archives that were cut or had bits flipped: `load` refuses them, or what it takes is the very image, and the store is
//! sound. What the damage was is the same every time; `./dev damage` tries more of it, and other damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::Bench;

/// How many damages a normal run tries, of each kind.
const COUNT: usize = 24;

/// A small generator (xorshift64*): the same damages every time.
pub(crate) struct Random(u64);

impl Random {
    /// The damages of one test; other ones with each number that the environment gives.
    pub(crate) fn new(test: u64) -> Self {
        let given = std::env::var("RBUILD_TEST_DAMAGE_SEED").ok().map(|text| text.parse().expect("a number"));
        let seed = test.wrapping_add(1000_u64.wrapping_mul(given.unwrap_or(0)));
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    /// Cuts the bytes or flips one bit; says what it did.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) -> String {
        let at = self.below(bytes.len());
        if self.below(3) == 0 {
            bytes.truncate(at);
            return format!("cut to {at} bytes");
        }
        let bit = self.below(8);
        bytes[at] ^= 1 << bit;
        format!("bit {bit} of byte {at} flipped")
    }
}

/// How many damages a test tries; the environment says how many all tests together do.
pub(crate) fn count() -> usize {
    let wanted = std::env::var("RBUILD_TEST_DAMAGES").ok().map(|text| text.parse::<usize>().expect("a number"));
    wanted.map_or(COUNT, |all| all.div_ceil(9))
}

/// An image with two layers, as archives: plain and compressed; and its id.
struct Originals {
    bench: Bench,
    id: String,
}

impl Originals {
    fn make() -> Option<Self> {
        let bench = Bench::new()?;
        let dockerfile = "FROM scratch\nCOPY a /a\nCOPY b /b/\nENV X=y\nCMD [\"/a\"]\n";
        let noise: String = (0..2000_u32).map(|n| char::from(33 + (n.wrapping_mul(7919) >> 3) as u8 % 90)).collect();
        let context = bench.context("ctx", [("Dockerfile", dockerfile), ("a", "small\n"), ("b", noise.as_str())]);
        for format in ["oci", "docker"] {
            let output = format!("type={format},dest={format}.tar");
            let _built = bench.rbuild(["build", "-t", "app:1", "-o", &output]).arg(&context).run().ok();
        }
        let layout = bench.path("layout");
        fs::create_dir(&layout).unwrap();
        let unpacked = Command::new("tar").arg("-xf").arg(bench.path("oci.tar")).arg("-C").arg(&layout).status();
        assert!(unpacked.unwrap().success());
        let _loaded = bench.rbuild(["load", "-i"]).arg(bench.path("oci.tar")).run().ok();
        let id = bench.rbuild(["images", "-q", "--no-trunc", "app:1"]).run().ok().stdout;
        Some(Self { bench, id })
    }

    /// Loads into a new store: refused, or the very image and a sound store.
    fn try_load(&self, arguments: &[&str], place: &Path, what: &str) -> bool {
        let store = self.bench.path("damaged-store");
        let ran = self.bench.rbuild_at(&store, ["load"]).args(arguments).arg(place).run();
        assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
        let taken = match ran.code {
            0 => {
                let ids = self.bench.rbuild_at(&store, ["images", "-q", "--no-trunc"]).run().ok().stdout;
                assert!(!ids.is_empty() && ids.lines().all(|id| id == self.id.trim()), "{what}: {ids}");
                true
            }
            1 => {
                assert!(!ran.stderr.is_empty(), "{what}: refused without a word");
                let left = self.bench.rbuild_at(&store, ["images", "-q"]).run().ok().stdout;
                assert_eq!(left, "", "{what}: refused, but an image stays");
                false
            }
            code => panic!("{what}: exit code {code}: {}", ran.stderr),
        };
        let sound = self.bench.rbuild_at(&store, ["cache", "verify"]).run();
        assert_eq!(sound.code, 0, "{what}: {}{}", sound.stdout, sound.stderr);
        fs::remove_dir_all(&store).unwrap();
        taken
    }

    /// Damages a whole archive, again and again.
    fn damage_archive(&self, name: &str, seed: u64) {
        let original = fs::read(self.bench.path(name)).unwrap();
        let mut random = Random::new(seed);
        let mut taken = 0;
        for _ in 0..count() {
            let mut bytes = original.clone();
            let what = format!("{name}: {}", random.damage(&mut bytes));
            let damaged = self.bench.path("damaged");
            fs::write(&damaged, &bytes).unwrap();
            taken += usize::from(self.try_load(&["-i"], &damaged, &what));
        }
        // Padding between members, and headers that nobody needs, are most of a small tar.
        assert!(taken * 10 <= count() * 9, "{name}: {taken} of {} damages went unnoticed", count());
    }
}

#[test]
fn damaged_archives_are_refused_or_harmless() {
    let Some(originals) = Originals::make() else { return };
    originals.damage_archive("docker.tar", 1);
    originals.damage_archive("oci.tar", 2);
}

#[test]
fn damaged_compressed_archives_are_refused_or_harmless() {
    let Some(originals) = Originals::make() else { return };
    let tar = originals.bench.path("docker.tar");
    assert!(Command::new("gzip").arg("-9k").arg(&tar).status().unwrap().success());
    originals.damage_archive("docker.tar.gz", 3);
}

/// Every byte of a layout's blobs counts: nothing of it is padding.
#[test]
fn damaged_blobs_are_refused() {
    let Some(originals) = Originals::make() else { return };
    let layout = originals.bench.path("layout");
    let blobs: Vec<PathBuf> = {
        let mut blobs: Vec<_> =
            fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
        blobs.sort();
        blobs
    };
    assert!(blobs.len() >= 4, "two layers, a config, a manifest: {blobs:?}");
    let mut random = Random::new(4);
    for turn in 0..count() {
        let blob = &blobs[turn % blobs.len()];
        let original = fs::read(blob).unwrap();
        let mut bytes = original.clone();
        let what = format!("{}: {}", blob.display(), random.damage(&mut bytes));
        fs::write(blob, &bytes).unwrap();
        assert!(!originals.try_load(&["--oci"], &layout, &what), "{what}: it was taken");
        fs::write(blob, &original).unwrap();
    }
    assert!(originals.try_load(&["--oci"], &layout, "the original"));
}

/// The digests are right, of a manifest whose layer is not what the config says.
#[test]
fn layers_that_are_not_what_the_config_says_are_refused_or_harmless() {
    let Some(originals) = Originals::make() else { return };
    let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let layout = originals.bench.path("layout");
    let index = read(&layout.join("index.json"));
    let blob = |digest: &serde_json::Value| {
        layout.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let store = |bytes: &[u8]| -> (String, usize) {
        let file = originals.bench.path("blob");
        fs::write(&file, bytes).unwrap();
        let sum = Command::new("sha256sum").arg(&file).output().unwrap().stdout;
        let hex = String::from_utf8(sum).unwrap()[..64].to_owned();
        fs::rename(&file, layout.join("blobs/sha256").join(&hex)).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut random = Random::new(5);
    for turn in 0..count() {
        let mut manifest = manifest.clone();
        let layer = turn % manifest["layers"].as_array().unwrap().len();
        let mut bytes = fs::read(blob(&manifest["layers"][layer]["digest"])).unwrap();
        let what = format!("layer {layer}: {}", random.damage(&mut bytes));
        let (digest, size) = store(&bytes);
        manifest["layers"][layer]["digest"] = digest.into();
        manifest["layers"][layer]["size"] = size.into();
        let (digest, size) = store(&serde_json::to_vec(&manifest).unwrap());
        let mut index = index.clone();
        for line in index["manifests"].as_array_mut().unwrap() {
            line["digest"] = digest.clone().into();
            line["size"] = size.into();
        }
        fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        // A bit of gzip's header may say nothing: then the image is the same.
        let _taken = originals.try_load(&["--oci"], &layout, &what);
    }
}
