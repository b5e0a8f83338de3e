//! Writing caches elsewhere: layers go while later steps still run, config and manifest when all is done.
//!
//! A build that fails leaves layers that nothing names, never a manifest that names what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use rbuild_cache::remote::{
    CACHE_CONFIG_TYPE, CacheDraft, CacheTarget, DraftLayer, DraftRecord, LocalCache, RegistryCache, embed,
    write_manifest,
};
use rbuild_cache::{Lease, SnapshotId, Store};
use rbuild_image::registry::{Client, Silent};
use rbuild_image::{BlobSource, Descriptor, DiffId, Digest, ImageRef, MediaType, MemoryBlobs};
use rbuild_solver::{EventSink, Graph, Op, Source, VertexId, VertexReport};

use super::import::{Imports, client};
use super::pack::{Packer, Ready};
use super::report::{Images, Layer, Step, steps};
use super::spec::{CacheExport, CacheMode, ExportPlace, OnExportError};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::output::Built;
use crate::output::pack::Packing;
use crate::progress::Progress;

/// Layers that are packed or sent at once.
const PARALLEL: usize = 4;

/// The caches that a build writes.
pub(crate) struct Exports<'a> {
    store: &'a Store,
    imports: &'a Imports<'a>,
    progress: &'a Progress,
    graph: &'a Graph,
    /// Vertices whose layers are in an image.
    in_images: BTreeSet<VertexId>,
    targets: Vec<Export<'a>>,
    inline: bool,
}

/// One cache that is written.
struct Export<'a> {
    spec: &'a CacheExport,
    target: Box<dyn CacheTarget>,
    packer: Packer<'a>,
    queue: Mutex<Option<Sender<SnapshotId>>>,
    sent: Mutex<BTreeSet<Digest>>,
    failure: Mutex<Option<Failure>>,
}

/// What a build's caches are made of.
pub(crate) struct ExportParts<'a> {
    /// The engine.
    pub(crate) engine: &'a Engine,
    /// Its store.
    pub(crate) store: &'a Store,
    /// Holds what is packed.
    pub(crate) lease: &'a Lease,
    /// The caches that are looked in.
    pub(crate) imports: &'a Imports<'a>,
    /// Who listens.
    pub(crate) progress: &'a Progress,
    /// What is built.
    pub(crate) graph: &'a Graph,
    /// The vertices that become images.
    pub(crate) targets: &'a [VertexId],
    /// The caches to write.
    pub(crate) wanted: &'a [CacheExport],
}

impl<'a> Exports<'a> {
    /// Prepares to write caches. Nothing is connected yet.
    pub(crate) fn new(parts: &ExportParts<'a>) -> Result<Self, Failure> {
        let ExportParts { engine, store, lease, imports, progress, graph, targets, wanted } = *parts;
        let remote = wanted.iter().any(|spec| matches!(spec.place, ExportPlace::Registry(_)));
        let connection: Option<Client> = remote.then(|| client(engine)).transpose()?;
        let sources = base_images(graph);
        let target = |spec: &'a CacheExport| {
            let target: Box<dyn CacheTarget> = match &spec.place {
                ExportPlace::Registry(name) => {
                    Box::new(RegistryCache::new(connection.clone()?, name).mounting_from(&sources))
                }
                ExportPlace::Local { directory, tag } => Box::new(LocalCache::tagged(directory, tag)),
                ExportPlace::Inline => return None,
            };
            let packing = Packing { compression: spec.compression, flavour: spec.flavour };
            let packer = Packer::new(store, lease, packing, spec.existing);
            let (queue, sent, failure) = Default::default();
            Some(Export { spec, target, packer, queue, sent, failure })
        };
        Ok(Self {
            store,
            imports,
            progress,
            graph,
            in_images: in_images(graph, targets),
            targets: wanted.iter().filter_map(target).collect(),
            inline: wanted.iter().any(|spec| spec.place == ExportPlace::Inline),
        })
    }

    /// Sends what [`Self::offer`] takes in while `work` goes on; returns when all of it is sent.
    pub(crate) fn pushing<T>(&self, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            for export in &self.targets {
                let (sender, offered) = channel();
                *export.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                scope.spawn(move || offered.into_iter().for_each(|snapshot| export.send_ahead(self.store, snapshot)));
            }
            let result = work();
            for export in &self.targets {
                drop(export.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
            result
        })
    }

    /// Takes in the product of a vertex, to be sent by and by.
    pub(super) fn offer(&self, vertex: VertexId, snapshot: Option<SnapshotId>) {
        let Some(snapshot) = snapshot else { return };
        for export in &self.targets {
            if export.spec.mode == CacheMode::Min && !self.in_images.contains(&vertex) {
                continue;
            }
            if let Some(queue) = &*export.queue.lock().unwrap_or_else(PoisonError::into_inner) {
                queue.send(snapshot).expect("the receiver goes only after the sender was taken away");
            }
        }
    }

    /// Puts the cache into the configs of the images, where that was asked for.
    pub(crate) fn embed(&self, vertices: &[VertexReport], built: &mut [Built]) -> Result<(), Failure> {
        if !self.inline {
            return Ok(());
        }
        for image in built {
            let diff_ids = image.config.rootfs.diff_ids.clone();
            let image_layers: Vec<Digest> = diff_ids.iter().map(|diff_id| *diff_id.digest()).collect();
            let images = [diff_ids];
            let steps = steps(self.store, self.imports, self.graph, vertices, &Images(&images), CacheMode::Min)?;
            let mut draft = CacheDraft::default();
            for step in &steps {
                let layer = |layer: &Layer| DraftLayer {
                    blob: Descriptor::new(MediaType::OciLayer, *layer.diff_id().digest(), 0),
                    diff_id: layer.diff_id(),
                    created_at: None,
                };
                let layers = step.layers.as_ref().map(|layers| layers.iter().map(layer).collect());
                // No times: the same build gives the same image.
                draft.add(&DraftRecord { took: None, created_at: None, ..record(step, layers) });
            }
            if let Some(records) = draft.finish_inline(&image_layers) {
                embed(&mut image.config, &records);
            }
        }
        Ok(())
    }

    /// Sends what is missing, then config and manifest. Fails only where the user asked for that.
    pub(crate) fn finish(&self, vertices: &[VertexReport], built: &[Built]) -> Result<(), Failure> {
        let images: Vec<Vec<DiffId>> = built.iter().map(|image| image.config.rootfs.diff_ids.clone()).collect();
        let mut fatal = None;
        for export in &self.targets {
            let place = &export.spec.place;
            match export.finish(self, vertices, &Images(&images)) {
                Ok(()) => self.progress.export(&format!("exporting cache to {place}")),
                Err(failure) => {
                    let failure = failure.within(&format!("cannot write the cache to {place}"));
                    match export.spec.on_error {
                        OnExportError::Fail => fatal = fatal.or(Some(failure)),
                        OnExportError::Warn => self.progress.emit(rbuild_solver::Event::Warning {
                            vertex: None,
                            message: failure.message().to_owned(),
                        }),
                    }
                }
            }
        }
        fatal.map_or(Ok(()), Err)
    }
}

/// A step with layers as they are in one place.
fn record(step: &Step, layers: Option<Vec<DraftLayer>>) -> DraftRecord {
    let top = step.layers.as_ref().and_then(|layers| layers.last());
    DraftRecord {
        key: step.key,
        also: step.also.clone(),
        step: step.step,
        took: step.took,
        // When the layer was made, which is the same whoever tells it.
        created_at: top.and_then(Layer::created_at),
        content: top.and_then(Layer::content),
        inputs: step.inputs.clone(),
        layers,
    }
}

impl Export<'_> {
    /// Sends the layers of a snapshot. What goes wrong is told at the end.
    fn send_ahead(&self, store: &Store, snapshot: SnapshotId) {
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        let send = || -> Result<(), Failure> {
            for layer in store.snapshots().layers(snapshot)? {
                self.send(&self.packer.pack(&layer)?)?;
            }
            Ok(())
        };
        if let Err(failure) = send() {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    }

    fn send(&self, ready: &Ready) -> Result<(), Failure> {
        self.put(&ready.draft.blob, &self.packer.bytes(ready))
    }

    fn put(&self, blob: &Descriptor, from: &dyn BlobSource) -> Result<(), Failure> {
        if self.sent.lock().unwrap_or_else(PoisonError::into_inner).contains(&blob.digest) {
            return Ok(());
        }
        self.target.put_blob(blob, from, &Silent)?;
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest);
        Ok(())
    }

    fn finish(&self, all: &Exports<'_>, vertices: &[VertexReport], images: &Images<'_>) -> Result<(), Failure> {
        if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failure);
        }
        let steps = steps(all.store, all.imports, all.graph, vertices, images, self.spec.mode)?;
        let mut layers: BTreeMap<DiffId, &Layer> = BTreeMap::new();
        for layer in steps.iter().filter_map(|step| step.layers.as_ref()).flatten() {
            // One that is here is better than one that would have to be fetched.
            match (layer, layers.get(&layer.diff_id())) {
                (Layer::Here(_), _) | (_, None) => drop(layers.insert(layer.diff_id(), layer)),
                (Layer::Elsewhere(_), Some(_)) => {}
            }
        }
        let drafts = self.send_all(all, &layers.into_values().collect::<Vec<_>>())?;
        let mut draft = CacheDraft::default();
        for step in &steps {
            let layers = step.layers.as_ref().and_then(|layers| {
                layers.iter().map(|layer| drafts.get(&layer.diff_id()).cloned()).collect::<Option<Vec<_>>>()
            });
            draft.add(&record(step, layers));
        }
        let (config, blobs) = draft.finish();
        let (media_type, manifest) = write_manifest(&config, &blobs, self.spec.shape, self.spec.flavour);
        let mut memory = MemoryBlobs::default();
        let descriptor = Descriptor::of(MediaType::from(CACHE_CONFIG_TYPE), &config);
        memory.insert(config);
        self.put(&descriptor, &memory)?;
        self.target.put_root(&media_type, &manifest)?;
        Ok(())
    }

    /// Sends layers, several at once; gives what they are called there. Those that nobody can give are left out.
    fn send_all(&self, all: &Exports<'_>, layers: &[&Layer]) -> Result<BTreeMap<DiffId, DraftLayer>, Failure> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Result<BTreeMap<DiffId, DraftLayer>, Failure>> = Mutex::new(Ok(BTreeMap::new()));
        let work = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = self.send_one(all, layer);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *done, sent) {
                    (Ok(done), Ok(Some(draft))) => drop(done.insert(draft.diff_id, draft)),
                    (Ok(_), Err(failure)) => {
                        next.store(layers.len(), Ordering::Relaxed);
                        *done = Err(failure);
                    }
                    _ => {}
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL.min(layers.len()) {
                scope.spawn(work);
            }
            work();
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_one(&self, all: &Exports<'_>, layer: &Layer) -> Result<Option<DraftLayer>, Failure> {
        match layer {
            Layer::Here(info) => {
                let ready = self.packer.pack(info)?;
                self.send(&ready)?;
                Ok(Some(ready.draft))
            }
            Layer::Elsewhere(remote) => {
                let Some(blob) = &remote.blob else { return Ok(None) };
                let blob = Descriptor::new(blob.media_type.clone(), blob.digest, blob.size);
                self.put(&blob, &Fetching { all, blob: &blob })?;
                Ok(Some(DraftLayer { blob, diff_id: remote.diff_id, created_at: remote.created_at }))
            }
        }
    }
}

/// A blob that is fetched only when the target wants its bytes.
struct Fetching<'a> {
    all: &'a Exports<'a>,
    blob: &'a Descriptor,
}

impl BlobSource for Fetching<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.all.imports.fetch_blob(self.blob).map_err(io::Error::other)?;
        BlobSource::open(&self.all.store.blobs(), digest)
    }

    fn size(&self, _: &Digest) -> io::Result<u64> {
        Ok(self.blob.size)
    }
}

/// Where base images come from: a registry may have their layers already.
pub(crate) fn base_images(graph: &Graph) -> Vec<ImageRef> {
    let reference = |id| match &graph.vertex(id).op {
        Op::Source(Source::Image(image)) => Some(image.reference.clone()),
        _ => None,
    };
    graph.ids().filter_map(reference).collect()
}

/// The vertices whose layers are in an image: a target, what it stands on, and so on.
fn in_images(graph: &Graph, targets: &[VertexId]) -> BTreeSet<VertexId> {
    let below = |id: &VertexId| match &graph.vertex(*id).op {
        Op::Run(_) | Op::File(_) => graph.vertex(*id).inputs.first().copied().flatten(),
        Op::Source(_) => None,
    };
    targets.iter().flat_map(|target| std::iter::successors(Some(*target), below)).collect()
}
