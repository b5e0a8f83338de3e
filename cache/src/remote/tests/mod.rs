//! One list of promises, kept by every place that a cache can be in.

mod documents;
mod errors;
mod places;
mod promises;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;

use rbuild_image::layer::{EncodeOptions, Encoder};
use rbuild_image::registry::{Silent, TransferSink};
use rbuild_image::{
    BlobSink, BlobSource, Compression, ContainerPath, Descriptor, Digest, Document, Hashing, MediaType,
};

use super::{CacheDraft, CacheSource, DraftLayer, DraftRecord, PlaceError, RemoteCache};
use crate::id::SnapshotId;
use crate::lease::Lease;
use crate::lock::wait_silently;
use crate::snapshot::{Content, Metadata};
use crate::store::Store;
use crate::testing::TestStore;
use crate::testing::members::is_root;

fn key(text: &str) -> Digest {
    Digest::sha256(text)
}

/// A store that has made some layers, and what they are as blobs.
struct Maker {
    store: TestStore,
    lease: Lease,
    blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
}

impl Maker {
    fn new() -> Self {
        let store = TestStore::new();
        let lease = store.lease();
        Self { store, lease, blobs: Mutex::default() }
    }

    /// Makes a layer with one file, as a step does.
    fn step(&self, parent: Option<SnapshotId>, name: &str, text: &str) -> SnapshotId {
        let active = self.store.store.snapshots().prepare(parent, &self.lease).unwrap();
        let mut writer = active.writer().unwrap();
        let metadata = Metadata { mode: 0o640, ..Metadata::default() };
        let path = ContainerPath::new(name);
        writer.file(&path, &metadata, Content::Stream(&mut text.as_bytes(), text.len() as u64)).unwrap();
        writer.finish().unwrap();
        drop(writer);
        active.commit(&self.lease).unwrap().id()
    }

    /// The layers of a snapshot, compressed.
    fn layers(&self, snapshot: SnapshotId) -> Vec<DraftLayer> {
        let snapshots = self.store.store.snapshots();
        let pack = |layer: &crate::snapshot::LayerInfo| {
            let options = EncodeOptions::new(Compression::Gzip);
            let mut out = Encoder::new(Hashing::new(Vec::new()), options).unwrap();
            snapshots.get(layer.snapshot).unwrap().write_tar(&mut out).unwrap();
            let (bytes, digest, size) = out.finish().unwrap().finish();
            self.blobs.lock().unwrap().insert(digest, bytes);
            let blob = Descriptor::new(MediaType::OciLayerGzip, digest, size);
            DraftLayer { blob, diff_id: layer.diff.diff_id, created_at: Some(layer.created_at) }
        };
        snapshots.layers(snapshot).unwrap().iter().map(pack).collect()
    }

    /// What a step's result is in a cache.
    fn record(&self, name: &str, inputs: &[&str], snapshot: Option<SnapshotId>) -> DraftRecord {
        let layers = snapshot.map(|snapshot| self.layers(snapshot)).unwrap_or_default();
        let content = snapshot.map(|id| self.store.store.snapshots().get(id).unwrap().layer().unwrap().content_digest);
        DraftRecord {
            key: key(name),
            also: vec![key(&format!("content of {name}"))],
            step: Some(key(&format!("op of {name}"))),
            took: Some(Duration::from_millis(1500)),
            created_at: layers.last().and_then(|layer| layer.created_at),
            content,
            inputs: inputs.iter().map(|input| key(input)).collect(),
            layers: Some(layers),
        }
    }

    /// `base` ← `a` ← `b`, and `base` ← `c`, which is in no image that ends with `b`.
    fn cache(&self) -> (CacheDraft, [SnapshotId; 3]) {
        let a = self.step(None, "/a", "made by a");
        self.store.clock.advance(Duration::from_secs(60));
        let b = self.step(Some(a), "/b", "made by b");
        let c = self.step(Some(a), "/c", "made by c");
        let mut draft = CacheDraft::default();
        draft.add(&DraftRecord { layers: None, ..self.record("base", &[], None) });
        draft.add(&self.record("a", &["base"], Some(a)));
        draft.add(&self.record("b", &["a"], Some(b)));
        draft.add(&self.record("c", &["a"], Some(c)));
        draft.add(&self.record("nothing", &["base"], None));
        (draft, [a, b, c])
    }
}

impl BlobSource for Maker {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let blobs = self.blobs.lock().unwrap();
        let bytes = blobs.get(digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(bytes.clone())))
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        Ok(self.blobs.lock().unwrap().get(digest).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }
}

/// Counts what is read, and can lie.
struct Watched {
    inner: Box<dyn CacheSource>,
    read: std::sync::Arc<Mutex<Vec<String>>>,
    lie: Lie,
}

/// What a place does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Nothing.
    No,
    /// Layers are gone.
    NoLayers,
    /// Layers' descriptors promise other content than the blobs have.
    OtherContent,
    /// Layers are sent with other bytes than their digests say.
    OtherBytes,
}

impl CacheSource for Watched {
    fn root(&self) -> Result<(Descriptor, Document), PlaceError> {
        self.read.lock().unwrap().push("root".into());
        let (descriptor, mut document) = self.inner.root()?;
        if self.lie == Lie::OtherContent {
            let layers = match &mut document {
                Document::Manifest(manifest) => &mut manifest.layers,
                Document::Index(index) => &mut index.manifests,
            };
            for layer in layers {
                let wrong = key("something else").to_string();
                layer.annotations.entry("containerd.io/uncompressed".into()).and_modify(|digest| *digest = wrong);
            }
        }
        Ok((descriptor, document))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, PlaceError> {
        self.inner.manifest(descriptor)
    }

    fn bytes(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, PlaceError> {
        self.read.lock().unwrap().push("config".into());
        self.inner.bytes(blob, limit)
    }

    fn blob(&self, blob: &Descriptor, sink: &dyn BlobSink, watch: &dyn TransferSink) -> Result<(), PlaceError> {
        self.read.lock().unwrap().push("layer".into());
        match self.lie {
            Lie::NoLayers => Err(PlaceError::Blob(io::ErrorKind::NotFound.into())),
            Lie::OtherBytes => {
                let bytes = vec![b'x'; blob.size as usize];
                rbuild_image::copy_blob(&mut bytes.as_slice(), blob, sink).map_err(PlaceError::Blob)
            }
            Lie::No | Lie::OtherContent => self.inner.blob(blob, sink, watch),
        }
    }
}

/// Brings a key's result into a store.
fn bring(
    cache: &RemoteCache,
    store: &Store,
    lease: &Lease,
    name: &str,
) -> Result<Option<SnapshotId>, super::BringError> {
    let result = cache.find(&key(name)).unwrap_or_else(|| panic!("the cache has no {name}"));
    cache.bring(&result, store, lease, &Silent, &wait_silently)
}
