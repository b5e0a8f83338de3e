//! The cache config, BuildKit's `application/vnd.buildkit.cacheconfig.v0`: layers that name their parents, and records
//! that lead from keys to layers.
//!
//! ```text
//! {"layers":  [{"blob": DIGEST, "parent": INDEX or -1}, …],          an absent parent is 0, as Go writes it
//!  "records": [{"digest": KEY, "layers": [{"layer": INDEX, "createdAt": TIME}], "chains": [{"layers": [INDEX, …]}],
//!               "inputs": [[{"link": INDEX, "selector": TEXT}]], "rbuild": {…}}, …]}
//! ```
//!
//! Invariants of a [`CacheConfig`]: every index leads somewhere, no layer is its own ancestor, no record its own input.
//! A document that breaks one is refused whole, as BuildKit does. `rbuild` is ours; BuildKit passes over it.

use jiff::Timestamp;
use rbuild_image::{ContentDigest, Digest, MAX_LAYERS};
use serde::{Deserialize, Serialize};

/// Media type of a cache config.
pub const CACHE_CONFIG_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The most bytes a cache config may have: about 60,000 records.
pub const MAX_CACHE_CONFIG_BYTES: u64 = 16 << 20;
/// The most layers.
const MAX_CACHE_LAYERS: usize = 20_000;
/// The most records.
const MAX_RECORDS: usize = 100_000;

/// A cache config that is refused.
#[derive(Debug, thiserror::Error)]
pub enum CacheConfigError {
    /// More bytes than allowed.
    #[error("the cache config has {size} bytes, the limit is {MAX_CACHE_CONFIG_BYTES}")]
    TooLarge {
        /// How many it has.
        size: u64,
    },
    /// Not JSON, or values of other types than the format has.
    #[error("invalid cache config")]
    Json(#[from] serde_json::Error),
    /// More entries than allowed.
    #[error("the cache config has {count} {what}, the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it has.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// An index that leads nowhere.
    #[error("{what} {at} of the cache config refers to {to} {index}, which does not exist")]
    Index {
        /// What refers: `layer`, `record`.
        what: &'static str,
        /// Which.
        at: usize,
        /// To what.
        to: &'static str,
        /// The index.
        index: i64,
    },
    /// Something that contains itself.
    #[error("{what} {at} of the cache config leads to itself")]
    Loop {
        /// What: `layer`, `record`.
        what: &'static str,
        /// Which.
        at: usize,
    },
    /// A chain of more layers than an image may have.
    #[error("layer {at} of the cache config has more than {MAX_LAYERS} layers below it")]
    Depth {
        /// Which.
        at: usize,
    },
}

/// A cache config whose indexes are sound.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CacheConfig {
    pub(super) layers: Vec<Layer>,
    pub(super) records: Vec<Record>,
}

/// A layer on its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) blob: Digest,
    pub(super) parent: Option<usize>,
    pub(super) notes: Option<LayerNotes>,
}

/// What backends without a manifest keep beside a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerNotes {
    #[serde(rename = "diffID", default, skip_serializing_if = "Option::is_none")]
    pub(super) diff_id: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
}

/// A key and what it leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// The key; `None` where BuildKit has one that is no digest (`random:…`), which nothing looks up.
    pub(super) key: Option<Digest>,
    pub(super) results: Vec<Outcome>,
    /// By input, the records that may stand there.
    pub(super) inputs: Vec<Vec<Link>>,
    pub(super) note: Option<Note>,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) layers: Stack,
    pub(super) created_at: Option<Timestamp>,
}

/// How a result names its layers. Written out only when asked for: a small document could otherwise ask for gigabytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    /// A layer and all that it stands on.
    Top(usize),
    /// One by one, lowest first; never empty.
    Each(Vec<usize>),
}

/// An input of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) record: usize,
    pub(super) selector: String,
}

/// What rbuild says about its own records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The op's key, which says whether an op ever ran in any form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<Digest>,
    /// Further keys that lead to the same result: those by content.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) also: Vec<Digest>,
    /// Microseconds that the step took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) took: Option<u64>,
    /// What the topmost layer holds, without times: a claim, computed again before it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<ContentDigest>,
    /// Whether the result is the empty tree, which has no layers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) empty: bool,
}

/// The document as it travels.
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    layers: Vec<WireLayer>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    records: Vec<WireRecord>,
}

#[derive(Serialize, Deserialize)]
struct WireLayer {
    blob: Digest,
    #[serde(default, skip_serializing_if = "is_zero")]
    parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<LayerNotes>,
}

#[derive(Serialize, Deserialize)]
struct WireRecord {
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    layers: Vec<WireResult>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    chains: Vec<WireChain>,
    #[serde(default)]
    digest: String,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Option<Vec<WireInput>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rbuild: Option<Note>,
}

#[derive(Serialize, Deserialize)]
struct WireResult {
    layer: i64,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct WireChain {
    layers: Vec<i64>,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct WireInput {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    selector: String,
    link: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl CacheConfig {
    /// Parses a document from a stranger.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CacheConfigError> {
        check_size(bytes)?;
        let wire: Wire = serde_json::from_slice(bytes)?;
        let layers = layers(wire.layers)?;
        let records = records(wire.records, &layers)?;
        Ok(Self { layers, records })
    }

    /// Parses records that an image carries; its layers are the layers.
    pub(super) fn parse_inline(bytes: &[u8], image: &[Digest]) -> Result<Self, CacheConfigError> {
        check_size(bytes)?;
        let wire: Option<Vec<WireRecord>> = serde_json::from_slice(bytes)?;
        let layer = |(at, blob): (usize, &Digest)| Layer { blob: *blob, parent: at.checked_sub(1), notes: None };
        let layers: Vec<Layer> = image.iter().enumerate().map(layer).collect();
        let records = records(wire.unwrap_or_default(), &layers)?;
        Ok(Self { layers, records })
    }

    /// The layers of a result, lowest first.
    pub(super) fn stack(&self, stack: &Stack) -> Vec<usize> {
        match stack {
            Stack::Each(layers) => layers.clone(),
            Stack::Top(top) => {
                let below = |layer: &usize| self.layers[*layer].parent;
                let mut chain: Vec<usize> = std::iter::successors(Some(*top), below).collect();
                chain.reverse();
                chain
            }
        }
    }

    /// The document, as Go writes it.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let layer = |layer: &Layer| WireLayer {
            blob: layer.blob,
            parent: layer.parent.map_or(-1, index),
            annotations: layer.notes.clone(),
        };
        let wire = Wire { layers: self.layers.iter().map(layer).collect(), records: self.wire_records() };
        serde_json::to_vec(&wire).expect("a config has only string keys and whole numbers")
    }

    /// Its records alone, for an image to carry.
    pub(super) fn to_inline_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.wire_records()).expect("records have only string keys and whole numbers")
    }

    fn wire_records(&self) -> Vec<WireRecord> {
        let time = |result: &Outcome| result.created_at.map(|time| time.to_string());
        let result = |result: &Outcome| match &result.layers {
            Stack::Top(top) => Some(WireResult { layer: index(*top), created_at: time(result) }),
            Stack::Each(_) => None,
        };
        let chain = |result: &Outcome| match &result.layers {
            Stack::Each(layers) => {
                Some(WireChain { layers: layers.iter().copied().map(index).collect(), created_at: time(result) })
            }
            Stack::Top(_) => None,
        };
        let link = |link: &Link| WireInput { selector: link.selector.clone(), link: index(link.record) };
        let record = |record: &Record| WireRecord {
            layers: record.results.iter().filter_map(result).collect(),
            chains: record.results.iter().filter_map(chain).collect(),
            digest: record.key.map(|key| key.to_string()).unwrap_or_default(),
            inputs: record.inputs.iter().map(|links| Some(links.iter().map(link).collect())).collect(),
            rbuild: record.note.clone(),
        };
        self.records.iter().map(record).collect()
    }
}

fn check_size(bytes: &[u8]) -> Result<(), CacheConfigError> {
    let size = bytes.len() as u64;
    if size > MAX_CACHE_CONFIG_BYTES { Err(CacheConfigError::TooLarge { size }) } else { Ok(()) }
}

fn index(index: usize) -> i64 {
    i64::try_from(index).expect("configs are bounded")
}

/// An index from outside, checked.
fn place(index: i64, len: usize, what: &'static str, at: usize, to: &'static str) -> Result<usize, CacheConfigError> {
    let found = usize::try_from(index).ok().filter(|index| *index < len);
    found.ok_or(CacheConfigError::Index { what, at, to, index })
}

fn bounded<T>(items: &[T], what: &'static str, limit: usize) -> Result<(), CacheConfigError> {
    if items.len() > limit {
        return Err(CacheConfigError::TooMany { what, count: items.len(), limit });
    }
    Ok(())
}

/// Go's zero time, year 1, means that nothing is known.
pub(super) fn known_time(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(|text| text.parse::<Timestamp>().ok()).filter(|time| *time > Timestamp::UNIX_EPOCH)
}

fn layers(wire: Vec<WireLayer>) -> Result<Vec<Layer>, CacheConfigError> {
    bounded(&wire, "layers", MAX_CACHE_LAYERS)?;
    let len = wire.len();
    let layer = |(at, layer): (usize, WireLayer)| {
        let parent = match layer.parent {
            -1 => None,
            parent => Some(place(parent, len, "layer", at, "layer")?),
        };
        Ok(Layer { blob: layer.blob, parent, notes: layer.annotations })
    };
    let layers: Vec<Layer> = wire.into_iter().enumerate().map(layer).collect::<Result<_, CacheConfigError>>()?;
    // Each chain is walked once: what is known to end is not walked again.
    let mut depth: Vec<Option<usize>> = vec![None; len];
    for start in 0..len {
        let (mut path, mut at) = (Vec::new(), Some(start));
        let below = loop {
            match at {
                None => break 0,
                Some(layer) => match depth[layer] {
                    Some(known) => break known,
                    // More steps than layers: a circle.
                    None if path.len() > len => return Err(CacheConfigError::Loop { what: "layer", at: start }),
                    None => {
                        path.push(layer);
                        at = layers[layer].parent;
                    }
                },
            }
        };
        for (above, layer) in path.iter().rev().enumerate() {
            let found = below + above + 1;
            if found > MAX_LAYERS {
                return Err(CacheConfigError::Depth { at: *layer });
            }
            depth[*layer] = Some(found);
        }
    }
    Ok(layers)
}

fn records(wire: Vec<WireRecord>, layers: &[Layer]) -> Result<Vec<Record>, CacheConfigError> {
    bounded(&wire, "records", MAX_RECORDS)?;
    let len = wire.len();
    let mut out = Vec::with_capacity(len);
    for (at, record) in wire.into_iter().enumerate() {
        let layer = |index: i64| place(index, layers.len(), "record", at, "layer");
        let mut results = Vec::new();
        for result in &record.layers {
            let layers = Stack::Top(layer(result.layer)?);
            results.push(Outcome { layers, created_at: known_time(result.created_at.as_deref()) });
        }
        for chain in &record.chains {
            bounded(&chain.layers, "layers in a chain", MAX_LAYERS)?;
            let layers = chain.layers.iter().map(|index| layer(*index)).collect::<Result<Vec<_>, _>>()?;
            if !layers.is_empty() {
                let layers = Stack::Each(layers);
                results.push(Outcome { layers, created_at: known_time(chain.created_at.as_deref()) });
            }
        }
        let link = |input: WireInput| {
            let record = place(input.link, len, "record", at, "record")?;
            Ok(Link { record, selector: input.selector })
        };
        let links = |links: Option<Vec<WireInput>>| links.unwrap_or_default().into_iter().map(link).collect();
        let inputs = record.inputs.into_iter().map(links).collect::<Result<Vec<Vec<Link>>, CacheConfigError>>()?;
        out.push(Record { key: record.digest.parse().ok(), results, inputs, note: record.rbuild });
    }
    refuse_loops(&out)?;
    Ok(out)
}

/// Depth first without recursion: a hostile document may nest as deep as it has records.
fn refuse_loops(records: &[Record]) -> Result<(), CacheConfigError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; records.len()];
    for start in 0..records.len() {
        let mut stack = vec![(start, false)];
        while let Some((at, leaving)) = stack.pop() {
            if leaving {
                marks[at] = Mark::Done;
                continue;
            }
            match marks[at] {
                Mark::Done => continue,
                Mark::Open => return Err(CacheConfigError::Loop { what: "record", at }),
                Mark::New => {}
            }
            marks[at] = Mark::Open;
            stack.push((at, true));
            for link in records[at].inputs.iter().flatten() {
                match marks[link.record] {
                    Mark::Open => return Err(CacheConfigError::Loop { what: "record", at: link.record }),
                    Mark::New => stack.push((link.record, false)),
                    Mark::Done => {}
                }
            }
        }
    }
    Ok(())
}
