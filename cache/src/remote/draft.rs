//! A cache that is being written: records and the layers they lead to, in the order that BuildKit sorts them, so that
//! the same cache is the same document.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_image::{ContentDigest, Descriptor, DiffId, Digest};

use super::format::{CacheConfig, Layer, Link, Note, Outcome, Record, Stack};
use super::manifest::{CREATED, UNCOMPRESSED};

/// A layer as it will be in the place that the cache is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftLayer {
    /// Its blob.
    pub blob: Descriptor,
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// A step's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftRecord {
    /// The key that leads to it, and that other records link to.
    pub key: Digest,
    /// Further keys that lead to it, by content.
    pub also: Vec<Digest>,
    /// The op's key.
    pub step: Option<Digest>,
    /// How long it took; `None` leaves it out.
    pub took: Option<Duration>,
    /// When it was done; `None` leaves it out.
    pub created_at: Option<Timestamp>,
    /// What its topmost layer holds.
    pub content: Option<ContentDigest>,
    /// Keys of the records that it reads.
    pub inputs: Vec<Digest>,
    /// Its layers, lowest first; `None` for a record that only others link to. No layers: the empty tree.
    pub layers: Option<Vec<DraftLayer>>,
}

/// Collects records.
#[derive(Clone, Debug, Default)]
pub struct CacheDraft {
    layers: Vec<Layer>,
    by_place: BTreeMap<(Digest, Option<usize>), usize>,
    blobs: BTreeMap<Digest, DraftLayer>,
    records: Vec<Record>,
    by_key: BTreeMap<Digest, usize>,
}

impl CacheDraft {
    /// Whether there is nothing that could answer for a step.
    pub fn is_empty(&self) -> bool {
        self.records.iter().all(|record| record.results.is_empty() && !record.note.as_ref().is_some_and(|n| n.empty))
    }

    /// Adds a record. What it reads must have been added before; what was not is left out. A key that is known already
    /// keeps what it has.
    pub fn add(&mut self, record: &DraftRecord) {
        if self.by_key.contains_key(&record.key) {
            return;
        }
        let created_at = record.created_at;
        let results: Vec<Outcome> = record
            .layers
            .as_deref()
            .and_then(|layers| self.add_layers(layers))
            .map_or_else(Vec::new, |top| vec![Outcome { layers: Stack::Top(top), created_at }]);
        let answers = record.layers.is_some();
        let note = Note {
            step: record.step,
            also: record.also.clone(),
            took: record.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            content: record.content,
            empty: record.layers.as_ref().is_some_and(Vec::is_empty),
        };
        // No list of links is empty: BuildKit refuses such a record.
        let inputs: Vec<Vec<Link>> = record
            .inputs
            .iter()
            .filter_map(|key| self.by_key.get(key))
            .map(|record| vec![Link { record: *record, selector: String::new() }])
            .collect();
        self.by_key.insert(record.key, self.records.len());
        self.records.push(Record { key: Some(record.key), results, inputs, note: answers.then_some(note) });
    }

    fn add_layers(&mut self, layers: &[DraftLayer]) -> Option<usize> {
        let mut parent = None;
        for layer in layers {
            let blob = layer.blob.digest;
            let next = self.layers.len();
            let at = *self.by_place.entry((blob, parent)).or_insert(next);
            if at == next {
                self.layers.push(Layer { blob, parent, notes: None });
                self.blobs.entry(blob).or_insert_with(|| layer.clone());
            }
            parent = Some(at);
        }
        parent
    }

    /// The config, and the descriptors of its layers' blobs with what BuildKit notes on them, each once.
    pub fn finish(self) -> (Vec<u8>, Vec<Descriptor>) {
        let Self { layers, records, blobs, .. } = self;
        let config = sorted(CacheConfig { layers, records });
        let mut descriptors: Vec<Descriptor> = Vec::new();
        for layer in &config.layers {
            let Some(draft) = blobs.get(&layer.blob) else { continue };
            if descriptors.last().is_none_or(|last| last.digest != layer.blob) {
                descriptors.push(described(draft));
            }
        }
        (config.to_json(), descriptors)
    }

    /// The records that an image with these layers (lowest first, by the digests of their blobs or tars) can answer
    /// for, for its config to carry.
    pub fn finish_inline(self, image: &[Digest]) -> Option<Vec<u8>> {
        let Self { layers, records, .. } = self;
        let config = CacheConfig { layers, records };
        let position = |outcome: &Outcome| {
            let stack = config.stack(&outcome.layers);
            let same = stack.len() <= image.len()
                && stack.iter().zip(image).all(|(layer, wanted)| config.layers[*layer].blob == *wanted);
            same.then(|| stack.len() - 1)
        };
        // Records go in order, so what one reads is known before it.
        let (mut kept, mut renamed) = (Vec::new(), BTreeMap::new());
        for (at, record) in config.records.iter().enumerate() {
            let results: Vec<Outcome> = record
                .results
                .iter()
                .filter_map(|outcome| {
                    Some(Outcome { layers: Stack::Top(position(outcome)?), created_at: outcome.created_at })
                })
                .collect();
            if results.is_empty() && !record.note.as_ref().is_some_and(|note| note.empty) {
                continue;
            }
            let link =
                |link: &Link| Some(vec![Link { record: *renamed.get(&link.record)?, selector: link.selector.clone() }]);
            let inputs = record.inputs.iter().flatten().filter_map(link).collect();
            renamed.insert(at, kept.len());
            kept.push(Record { results, inputs, ..record.clone() });
        }
        if kept.is_empty() {
            return None;
        }
        let layer = |(at, blob): (usize, &Digest)| Layer { blob: *blob, parent: at.checked_sub(1), notes: None };
        let layers: Vec<Layer> = image.iter().enumerate().map(layer).collect();
        Some(CacheConfig { records: sorted_records(kept), layers }.to_inline_json())
    }
}

/// A layer's descriptor as BuildKit's exporter writes it.
fn described(layer: &DraftLayer) -> Descriptor {
    let blob = &layer.blob;
    let mut out = Descriptor::new(blob.media_type.clone(), blob.digest, blob.size);
    out.annotations.insert(UNCOMPRESSED.to_owned(), layer.diff_id.to_string());
    if let Some(time) = layer.created_at {
        out.annotations.insert(CREATED.to_owned(), time.to_string());
    }
    out
}

/// Layers by blob and parent, records by key and what they read.
fn sorted(config: CacheConfig) -> CacheConfig {
    let mut order: Vec<usize> = (0..config.layers.len()).collect();
    let place = |at: &usize| (config.layers[*at].blob.to_string(), config.layers[*at].parent);
    order.sort_by_cached_key(place);
    let mut moved = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        moved[*old] = new;
    }
    let layer = |old: &usize| {
        let layer = &config.layers[*old];
        Layer { parent: layer.parent.map(|parent| moved[parent]), ..layer.clone() }
    };
    let layers = order.iter().map(layer).collect();
    let mut records = config.records;
    for outcome in records.iter_mut().flat_map(|record| &mut record.results) {
        match &mut outcome.layers {
            Stack::Top(top) => *top = moved[*top],
            Stack::Each(each) => each.iter_mut().for_each(|layer| *layer = moved[*layer]),
        }
    }
    CacheConfig { layers, records: sorted_records(records) }
}

fn sorted_records(records: Vec<Record>) -> Vec<Record> {
    let key = |at: usize| records[at].key.map(|key| key.to_string());
    let compare = |a: &usize, b: &usize| {
        let ((a, ra), (b, rb)) = ((*a, &records[*a]), (*b, &records[*b]));
        key(a).cmp(&key(b)).then(ra.inputs.len().cmp(&rb.inputs.len())).then_with(|| {
            for (left, right) in ra.inputs.iter().zip(&rb.inputs) {
                let by_length = left.len().cmp(&right.len());
                let by_link = left.iter().zip(right).map(|(left, right)| {
                    left.selector.cmp(&right.selector).then_with(|| key(left.record).cmp(&key(right.record)))
                });
                let differ = std::iter::once(by_length).chain(by_link).find(|order| *order != Ordering::Equal);
                if let Some(order) = differ {
                    return order;
                }
            }
            Ordering::Equal
        })
    };
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by(compare);
    let mut moved = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        moved[*old] = new;
    }
    let record = |old: &usize| {
        let mut record = records[*old].clone();
        for links in &mut record.inputs {
            links.iter_mut().for_each(|link| link.record = moved[link.record]);
            links.sort_by_key(|link| link.record);
        }
        record
    };
    order.iter().map(record).collect()
}
