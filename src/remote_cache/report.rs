//! What a build has to tell to a cache: its steps, in the order of the graph, with the keys that others may find them by.

use std::time::Duration;

use rbuild_cache::remote::{RecordedStep, RemoteLayer};
use rbuild_cache::snapshot::LayerInfo;
use rbuild_cache::{CacheKey, Store};
use rbuild_image::{ContentDigest, DiffId, Digest};
use rbuild_solver::{Graph, Op, Product, Source, VertexReport};

use super::Imports;
use super::spec::CacheMode;
use crate::cli::report::Failure;

/// A step as it goes into a cache.
pub(super) struct Step {
    /// Its definition key.
    pub(super) key: Digest,
    /// Its content keys, sorted.
    pub(super) also: Vec<Digest>,
    /// Its op's key.
    pub(super) step: Option<Digest>,
    /// How long it took.
    pub(super) took: Option<Duration>,
    /// Definition keys of what it reads.
    pub(super) inputs: Vec<Digest>,
    /// Its layers, lowest first; `None` when only others link to it.
    pub(super) layers: Option<Vec<Layer>>,
}

/// A layer of a result.
pub(super) enum Layer {
    /// Of this store.
    Here(LayerInfo),
    /// Of a cache that was looked in; nobody needed it here.
    Elsewhere(Box<RemoteLayer>),
}

impl Layer {
    pub(super) fn diff_id(&self) -> DiffId {
        match self {
            Self::Here(layer) => layer.diff.diff_id,
            Self::Elsewhere(layer) => layer.diff_id,
        }
    }

    /// What it holds without times, as far as that is more than its diff_id.
    pub(super) fn content(&self) -> Option<ContentDigest> {
        match self {
            Self::Here(layer) => {
                Some(layer.diff.content_digest).filter(|content| content.digest() != layer.diff.diff_id.digest())
            }
            Self::Elsewhere(layer) => layer.content,
        }
    }

    pub(super) fn created_at(&self) -> Option<jiff::Timestamp> {
        match self {
            Self::Here(layer) => Some(layer.created_at),
            Self::Elsewhere(layer) => layer.created_at,
        }
    }
}

/// What was built: the diff_ids of each platform's image.
pub(super) struct Images<'a>(pub(super) &'a [Vec<DiffId>]);

impl Images<'_> {
    /// Whether these layers are the lowest of some image.
    fn begin_with(&self, layers: &[Layer]) -> bool {
        let same = |image: &&Vec<DiffId>| {
            layers.len() <= image.len() && layers.iter().zip(*image).all(|(layer, wanted)| layer.diff_id() == *wanted)
        };
        self.0.iter().any(|image| same(&image))
    }
}

/// The steps of a build.
pub(super) fn steps(
    store: &Store,
    imports: &Imports<'_>,
    graph: &Graph,
    vertices: &[VertexReport],
    images: &Images<'_>,
    mode: CacheMode,
) -> Result<Vec<Step>, Failure> {
    let definition = |id: &rbuild_solver::VertexId| {
        vertices.iter().find(|report| report.vertex == *id).and_then(|report| report.definition)
    };
    let mut steps = Vec::new();
    for report in vertices {
        let Some(key) = report.definition else { continue };
        let inputs = graph.inputs(report.vertex).iter().filter_map(definition).collect();
        let mut step = Step { key, also: Vec::new(), step: None, took: None, inputs, layers: None };
        // Base images are looked up where they are, not in caches.
        if !matches!(graph.vertex(report.vertex).op, Op::Source(Source::Image(_) | Source::Context(_))) {
            step.layers = match &report.product {
                Some(Product::Snapshot(None)) => Some(Vec::new()),
                Some(Product::Snapshot(Some(snapshot))) => {
                    Some(store.snapshots().layers(*snapshot)?.into_iter().map(Layer::Here).collect())
                }
                Some(Product::Context(_)) => None,
                None => None,
            };
            match (&report.product, RecordedStep::of(store, &CacheKey::new(key))?) {
                (Some(_), Some(recorded)) => {
                    (step.also, step.step, step.took) = (recorded.content, recorded.step, Some(recorded.took));
                }
                (Some(_), None) => {}
                // Nobody needed it here: what the cache says of it is passed on.
                (None, _) => {
                    if let Some(found) = imports.find(&key) {
                        (step.also, step.step, step.took) = (found.also, found.step, found.took);
                        step.layers = Some(found.layers.into_iter().map(Box::new).map(Layer::Elsewhere).collect());
                    }
                }
            }
        }
        if mode == CacheMode::Min && !step.layers.as_ref().is_some_and(|layers| images.begin_with(layers)) {
            step.layers = None;
        }
        steps.push(step);
    }
    Ok(steps)
}
