//! The places: a directory, a registry (both shapes of manifest), inside an image.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rbuild_image::registry::{Client, ClientOptions, Silent};
use rbuild_image::{
    Descriptor, DiffId, Digest, Flavour, ImageConfig, ImageRef, MediaType, MemoryBlobs, Platform, assemble_with_config,
};

use super::{CacheDraft, CacheSource, Maker, is_root, promises};
use crate::remote::{CACHE_CONFIG_TYPE, CacheShape, CacheTarget, LocalCache, RegistryCache, embed, write_manifest};

/// A place that a cache can be in.
pub(super) trait Place {
    /// Writes what `maker` made; gives the digest of the manifest.
    fn write(&self, maker: &Maker, draft: CacheDraft, image: &[super::DraftLayer]) -> Digest;

    /// The way to read it.
    fn source(&self) -> Box<dyn CacheSource>;

    /// Whether it has only what is in the image.
    fn is_inline(&self) -> bool {
        false
    }
}

/// Writes a cache by itself.
fn write_whole(target: &dyn CacheTarget, maker: &Maker, draft: CacheDraft, shape: CacheShape, oci: Flavour) -> Digest {
    let (config, layers) = draft.finish();
    for layer in &layers {
        target.put_blob(layer, maker, &Silent).unwrap();
    }
    let (media_type, manifest) = write_manifest(&config, &layers, shape, oci);
    let mut memory = MemoryBlobs::default();
    let descriptor = Descriptor::of(MediaType::from(CACHE_CONFIG_TYPE), &config);
    memory.insert(config);
    target.put_blob(&descriptor, &memory, &Silent).unwrap();
    target.put_root(&media_type, &manifest).unwrap()
}

struct Directory(PathBuf, CacheShape, Flavour);

impl Place for Directory {
    fn write(&self, maker: &Maker, draft: CacheDraft, _: &[super::DraftLayer]) -> Digest {
        write_whole(&LocalCache::tagged(&self.0, "latest"), maker, draft, self.1, self.2)
    }

    fn source(&self) -> Box<dyn CacheSource> {
        Box::new(LocalCache::tagged(&self.0, "latest"))
    }
}

struct Registry(Client, ImageRef, CacheShape);

impl Place for Registry {
    fn write(&self, maker: &Maker, draft: CacheDraft, _: &[super::DraftLayer]) -> Digest {
        write_whole(&RegistryCache::new(self.0.clone(), &self.1), maker, draft, self.2, Flavour::Oci)
    }

    fn source(&self) -> Box<dyn CacheSource> {
        Box::new(RegistryCache::new(self.0.clone(), &self.1))
    }
}

/// An image in a directory that carries its cache.
struct Inline(PathBuf);

impl Place for Inline {
    fn write(&self, maker: &Maker, draft: CacheDraft, image: &[super::DraftLayer]) -> Digest {
        let target = LocalCache::tagged(&self.0, "latest");
        let mut config = ImageConfig::new(&Platform::host());
        config.rootfs.diff_ids = image.iter().map(|layer| layer.diff_id).collect::<Vec<DiffId>>();
        config.history = image
            .iter()
            .map(|layer| rbuild_image::History {
                created: layer.created_at.map(|time| time.to_string()),
                ..Default::default()
            })
            .collect();
        let blobs: Vec<Digest> = image.iter().map(|layer| layer.blob.digest).collect();
        embed(&mut config, &draft.finish_inline(&blobs).unwrap());
        let layers: Vec<Descriptor> = image.iter().map(|layer| layer.blob.clone()).collect();
        let none = std::collections::BTreeMap::new();
        let made = assemble_with_config(config.to_json(), &config.platform(), &layers, Flavour::Oci, &none).unwrap();
        for layer in &layers {
            target.put_blob(layer, maker, &Silent).unwrap();
        }
        let mut memory = MemoryBlobs::default();
        memory.insert(made.config.1);
        target.put_blob(&made.config.0, &memory, &Silent).unwrap();
        target.put_root(&made.manifest.0.media_type, &made.manifest.1).unwrap()
    }

    fn source(&self) -> Box<dyn CacheSource> {
        Box::new(LocalCache::tagged(&self.0, "latest"))
    }

    fn is_inline(&self) -> bool {
        true
    }
}

/// Debian's registry on loopback; ends with the test.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(dir: &Path) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.display()
        );
        std::fs::write(&config, text).unwrap();
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            println!("SKIPPED: docker-registry is not installed");
            return None;
        };
        let served = Self { child, port };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(served);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the registry does not come up");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_directory_keeps_the_promises() {
    if !is_root("a_directory_keeps_the_promises") {
        return;
    }
    for (shape, flavour) in
        [(CacheShape::Image, Flavour::Oci), (CacheShape::Index, Flavour::Oci), (CacheShape::Index, Flavour::Docker)]
    {
        promises::keep(&|| {
            let home = tempfile::tempdir().unwrap();
            let place: Box<dyn Place> = Box::new(Directory(home.path().join("cache"), shape, flavour));
            (place, Box::new(home))
        });
    }
}

#[test]
fn an_image_keeps_the_promises_for_what_is_in_it() {
    if !is_root("an_image_keeps_the_promises_for_what_is_in_it") {
        return;
    }
    promises::keep(&|| {
        let home = tempfile::tempdir().unwrap();
        let place: Box<dyn Place> = Box::new(Inline(home.path().join("cache")));
        (place, Box::new(home))
    });
}

#[test]
fn a_registry_keeps_the_promises() {
    if !is_root("a_registry_keeps_the_promises") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let Some(served) = Served::start(home.path()) else { return };
    let number = std::sync::atomic::AtomicU32::new(0);
    for shape in [CacheShape::Image, CacheShape::Index] {
        promises::keep(&|| {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let name = format!("127.0.0.1:{}/app{number}:cache", served.port).parse().unwrap();
            let client = Client::new(ClientOptions::default());
            (Box::new(Registry(client, name, shape)) as Box<dyn Place>, Box::new(()) as Box<dyn std::any::Any>)
        });
    }
}

#[test]
fn a_directory_holds_several_tags_and_every_digest() {
    if !is_root("a_directory_holds_several_tags_and_every_digest") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let maker = Maker::new();
    let (draft, _) = maker.cache();
    let write = |tag: &str, draft: CacheDraft| {
        let target = LocalCache::tagged(home.path(), tag);
        write_whole(&target, &maker, draft, CacheShape::Image, Flavour::Oci)
    };
    let first = write("one", draft);
    let second = write("two", CacheDraft::default());
    write("one", CacheDraft::default());
    let root = |cache: LocalCache| cache.root().unwrap().0.digest;
    assert_eq!(root(LocalCache::tagged(home.path(), "two")), second);
    assert_eq!(root(LocalCache::tagged(home.path(), "one")), second);
    assert_eq!(root(LocalCache::with_digest(home.path(), first)), first, "the older one is still there");
    assert!(LocalCache::tagged(home.path(), "three").root().unwrap_err().is_absent());
    assert!(LocalCache::tagged(&home.path().join("nowhere"), "one").root().unwrap_err().is_absent());
}
