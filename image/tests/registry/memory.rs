//! A store in memory, which keeps partial blobs as a real one does, and an image to put into it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use rbuild_image::registry::{TransferSink, TransferState};
use rbuild_image::{
    BlobSink, BlobSource, BlobWriter, Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform,
};

/// Whole blobs, and the beginnings of others.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    whole: BTreeMap<Digest, Vec<u8>>,
    partial: BTreeMap<Digest, Vec<u8>>,
}

impl MemoryStore {
    pub(crate) fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.inner.lock().unwrap().whole.insert(digest, bytes.to_vec());
        digest
    }

    pub(crate) fn put_partial(&self, digest: Digest, bytes: &[u8]) {
        self.inner.lock().unwrap().partial.insert(digest, bytes.to_vec());
    }

    pub(crate) fn partial(&self, digest: &Digest) -> Option<usize> {
        self.inner.lock().unwrap().partial.get(digest).map(Vec::len)
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.inner.lock().unwrap().whole.get(digest).cloned()
    }

    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.inner.lock().unwrap().whole.keys().copied().collect()
    }
}

impl BlobSource for MemoryStore {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.get(digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        Ok(self.get(digest).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }
}

impl BlobSink for MemoryStore {
    fn contains(&self, digest: &Digest) -> io::Result<bool> {
        Ok(self.get(digest).is_some())
    }

    fn begin(&self, expected: &Descriptor) -> io::Result<Box<dyn BlobWriter>> {
        let bytes = self.inner.lock().unwrap().partial.remove(&expected.digest).unwrap_or_default();
        let resumed = bytes.len() as u64;
        Ok(Box::new(Writer { store: self.clone(), expected: expected.clone(), bytes: Some(bytes), resumed }))
    }
}

struct Writer {
    store: MemoryStore,
    expected: Descriptor,
    bytes: Option<Vec<u8>>,
    resumed: u64,
}

impl Write for Writer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.as_mut().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Writer {
    fn resume_offset(&self) -> u64 {
        self.resumed
    }

    fn commit(mut self: Box<Self>) -> io::Result<()> {
        let bytes = self.bytes.take().unwrap();
        self.expected.verify(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.store.put(&bytes);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            self.store.put_partial(self.expected.digest, &bytes);
        }
    }
}

/// Remembers what happened to which blob.
#[derive(Default)]
pub(crate) struct Watch(Mutex<Vec<(Digest, TransferState)>>);

impl Watch {
    /// How often blobs came to this end.
    pub(crate) fn count(&self, state: TransferState) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, seen)| *seen == state).count()
    }

    /// The last numbers that were reported for a blob.
    pub(crate) fn last_moving(&self, digest: &Digest) -> Option<(u64, u64)> {
        self.0.lock().unwrap().iter().rev().find_map(|(seen, state)| match state {
            TransferState::Moving { current, total } if seen == digest => Some((*current, *total)),
            _ => None,
        })
    }
}

impl TransferSink for Watch {
    fn transfer(&self, digest: &Digest, state: TransferState) {
        self.0.lock().unwrap().push((*digest, state));
    }
}

/// An image whose blobs are in a store.
pub(crate) struct TestImage {
    pub store: MemoryStore,
    pub manifest: Vec<u8>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

impl TestImage {
    /// An image with one layer for each size. The layers are noise, which registries do not look into.
    pub(crate) fn new(seed: &str, sizes: &[usize]) -> Self {
        let store = MemoryStore::default();
        let mut config = ImageConfig::new(&Platform::host());
        let mut layers = Vec::new();
        for (at, size) in sizes.iter().enumerate() {
            let bytes = noise(&format!("{seed}{at}"), *size);
            store.put(&bytes);
            config.rootfs.diff_ids.push(DiffId::new(Digest::sha256(&bytes)));
            layers.push(Descriptor::of(MediaType::OciLayer, &bytes));
        }
        let config_bytes = config.to_json();
        store.put(&config_bytes);
        let config = Descriptor::of(MediaType::OciConfig, &config_bytes);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            artifact_type: None,
            config: config.clone(),
            layers: layers.clone(),
            subject: None,
            annotations: BTreeMap::new(),
            extra: serde_json::Map::new(),
        }
        .to_json();
        store.put(&manifest);
        Self { store, manifest, config, layers }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    /// All blobs that a pull brings: layers, config and manifest.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let mut all: Vec<Digest> = self.layers.iter().map(|layer| layer.digest).collect();
        all.extend([self.config.digest, self.digest()]);
        all.sort();
        all.dedup();
        all
    }
}

/// Bytes that look random and are the same every time.
pub(crate) fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 64);
    let mut block = Digest::sha256(seed);
    while out.len() < size {
        out.extend_from_slice(block.as_bytes());
        block = Digest::sha256(block.as_bytes());
    }
    out.truncate(size);
    out
}
