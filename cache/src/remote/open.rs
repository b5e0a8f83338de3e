//! What a cache elsewhere knows: its manifest and config, nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use rbuild_image::{
    ContentDigest, Descriptor, DiffId, Digest, Document, DocumentError, ImageConfig, JsonError, MAX_CONFIG_BYTES,
    MAX_LAYERS, Manifest, is_image, parse_config,
};

use super::format::{CacheConfig, CacheConfigError, MAX_CACHE_CONFIG_BYTES, Note, Record, known_time};
use super::manifest::{CREATED, CacheManifest, UNCOMPRESSED};
use super::{CacheSource, PlaceError, inline};

/// The most images of an index that are looked into for caches.
const MAX_IMAGES: usize = 64;

/// Why a cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenCacheError {
    /// It cannot be read.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its config is refused.
    #[error(transparent)]
    Config(#[from] CacheConfigError),
    /// It is an image whose config is refused.
    #[error("invalid image")]
    Image(#[from] DocumentError),
    /// It is an image without a cache in it.
    #[error("it is an image that carries no cache")]
    NoCache,
}

impl From<JsonError> for OpenCacheError {
    fn from(error: JsonError) -> Self {
        Self::Image(error.into())
    }
}

/// A layer of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteLayer {
    /// Its blob; `None` where only a store that has the layer can give it.
    pub blob: Option<Descriptor>,
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// When it was made, by the cache's word.
    pub created_at: Option<Timestamp>,
    /// What it holds, by the cache's word.
    pub content: Option<ContentDigest>,
}

/// What a key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteResult {
    /// The layers, lowest first; none is the empty tree.
    pub layers: Vec<RemoteLayer>,
    /// How long the step took; nothing where the cache does not say.
    pub took: Option<Duration>,
    /// The op's key.
    pub step: Option<Digest>,
    /// Further keys that lead here, by content.
    pub also: Vec<Digest>,
}

/// A cache elsewhere.
pub struct RemoteCache {
    pub(super) source: Option<Box<dyn CacheSource>>,
    parts: Vec<Part>,
    /// By key: part and record.
    answers: BTreeMap<Digest, (usize, usize)>,
    steps: BTreeSet<Digest>,
}

/// One config with its layers: a cache has one, an index of images with caches in them one each.
struct Part {
    config: CacheConfig,
    layers: Vec<Option<RemoteLayer>>,
}

impl std::fmt::Debug for RemoteCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteCache").field("answers", &self.answers.len()).finish_non_exhaustive()
    }
}

impl RemoteCache {
    /// Fetches a cache's manifest and config.
    pub fn open(source: Box<dyn CacheSource>) -> Result<Self, OpenCacheError> {
        let (_, document) = source.root()?;
        let parts = match CacheManifest::read(&document) {
            Some(manifest) => vec![whole(&*source, &manifest)?],
            None => inside_images(&*source, &document)?,
        };
        Ok(Self::of(Some(source), parts))
    }

    /// The cache in the config of an image that is stored here: its layers are, too, or nobody has them.
    pub fn of_stored_image(config: &ImageConfig) -> Result<Self, OpenCacheError> {
        let part = inside(config, &[])?.ok_or(OpenCacheError::NoCache)?;
        Ok(Self::of(None, vec![part]))
    }

    fn of(source: Option<Box<dyn CacheSource>>, parts: Vec<Part>) -> Self {
        let (mut answers, mut steps) = (BTreeMap::new(), BTreeSet::new());
        for (number, part) in parts.iter().enumerate() {
            for (at, record) in part.config.records.iter().enumerate() {
                let (Some(key), Some(note)) = (record.key, &record.note) else { continue };
                if part.can_answer(record) {
                    for key in std::iter::once(key).chain(note.also.iter().copied()) {
                        answers.entry(key).or_insert((number, at));
                    }
                    steps.extend(note.step);
                }
            }
        }
        Self { source, parts, answers, steps }
    }

    /// Whether a key leads to a result here, or an op's key to some result of that op.
    pub fn knows(&self, key: &Digest) -> bool {
        self.answers.contains_key(key) || self.steps.contains(key)
    }

    /// What a key leads to.
    pub fn find(&self, key: &Digest) -> Option<RemoteResult> {
        let (part, at) = self.answers.get(key)?;
        let part = self.parts.get(*part)?;
        part.result(part.config.records.get(*at)?)
    }

    /// How many keys can answer for steps of rbuild.
    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// How many records there are, BuildKit's included, whose keys are made of other things than ours.
    pub fn records(&self) -> usize {
        self.parts.iter().map(|part| part.config.records.len()).sum()
    }
}

impl Part {
    fn can_answer(&self, record: &Record) -> bool {
        match record.results.first() {
            None => record.note.as_ref().is_some_and(|note| note.empty),
            Some(outcome) => self.config.stack(&outcome.layers).iter().all(|layer| self.layers[*layer].is_some()),
        }
    }

    fn result(&self, record: &Record) -> Option<RemoteResult> {
        let Note { step, also, took, content, .. } = record.note.clone().unwrap_or_default();
        let stack = record.results.first().map(|outcome| self.config.stack(&outcome.layers)).unwrap_or_default();
        if stack.len() > MAX_LAYERS {
            return None;
        }
        let mut layers: Vec<RemoteLayer> =
            stack.iter().map(|layer| self.layers[*layer].clone()).collect::<Option<_>>()?;
        if let Some(top) = layers.last_mut() {
            top.content = content;
        }
        Some(RemoteResult { layers, took: took.map(Duration::from_micros), step, also })
    }

    /// Says of each layer what the records about it say its content is, so that the layers below a result are as
    /// good as those of results.
    fn with_contents(mut self) -> Self {
        for record in &self.config.records {
            let content = record.note.as_ref().and_then(|note| note.content);
            let top = record.results.first().and_then(|outcome| self.config.stack(&outcome.layers).last().copied());
            if let (Some(content), Some(Some(layer))) = (content, top.and_then(|top| self.layers.get_mut(top))) {
                layer.content = Some(content);
            }
        }
        self
    }
}

/// A cache by itself.
fn whole(source: &dyn CacheSource, manifest: &CacheManifest) -> Result<Part, OpenCacheError> {
    let bytes = source.bytes(&manifest.config, MAX_CACHE_CONFIG_BYTES)?;
    let config = CacheConfig::parse(&bytes)?;
    let layer = |layer: &super::format::Layer| {
        // What the manifest does not list, nobody promised to keep.
        let blob = manifest.layers.get(&layer.blob)?;
        let noted = layer.notes.as_ref().and_then(|notes| notes.diff_id);
        let diff_id = blob.annotations.get(UNCOMPRESSED).and_then(|text| text.parse().ok()).or(noted)?;
        let created = layer.notes.as_ref().and_then(|notes| notes.created_at.as_deref());
        let created_at = known_time(blob.annotations.get(CREATED).map(String::as_str).or(created));
        Some(RemoteLayer { blob: Some(blob.clone()), diff_id: DiffId::new(diff_id), created_at, content: None })
    };
    let layers = config.layers.iter().map(layer).collect();
    Ok(Part { config, layers }.with_contents())
}

/// The caches that images carry.
fn inside_images(source: &dyn CacheSource, document: &Document) -> Result<Vec<Part>, OpenCacheError> {
    let mut parts = Vec::new();
    let mut look = |manifest: &Manifest| {
        if manifest.config.media_type.is_config() {
            let config = source.bytes(&manifest.config, MAX_CONFIG_BYTES)?;
            parts.extend(inside(&parse_config(&config, manifest)?, &manifest.layers)?);
        }
        Ok::<_, OpenCacheError>(())
    };
    match document {
        Document::Manifest(manifest) => look(manifest)?,
        Document::Index(index) => {
            for child in index.manifests.iter().filter(|child| is_image(child)).take(MAX_IMAGES) {
                if let Document::Manifest(manifest) = source.manifest(child)? {
                    look(&manifest)?;
                }
            }
        }
    }
    if parts.is_empty() { Err(OpenCacheError::NoCache) } else { Ok(parts) }
}

/// The cache that one image carries; `blobs` are its layers, as far as they are known.
fn inside(config: &ImageConfig, blobs: &[Descriptor]) -> Result<Option<Part>, OpenCacheError> {
    let Some(records) = inline::records(config) else { return Ok(None) };
    let parsed = CacheConfig::parse_inline(&records, &inline::layers(config))?;
    let mut history = config.history.iter().filter(|line| !line.empty_layer);
    let mut layers = Vec::new();
    for (at, diff_id) in config.rootfs.diff_ids.iter().enumerate() {
        let created_at = known_time(history.next().and_then(|line| line.created.as_deref()));
        let blob = blobs.get(at).cloned();
        layers.push(Some(RemoteLayer { blob, diff_id: *diff_id, created_at, content: None }));
    }
    Ok(Some(Part { config: parsed, layers }.with_contents()))
}
