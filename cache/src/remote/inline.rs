//! A cache inside an image's config: records only, the image's layers are the layers.

use rbuild_image::{Digest, ImageConfig};
use serde_json::Value;

/// The field of an image's config; its value is base64, as Go writes bytes.
pub const INLINE_CACHE_FIELD: &str = "moby.buildkit.cache.v0";

/// Puts records into an image's config.
pub fn embed(config: &mut ImageConfig, records: &[u8]) {
    config.extra.insert(INLINE_CACHE_FIELD.to_owned(), Value::String(encode(records)));
}

/// Takes the records out of a config: those of a base image say nothing about what is built on it.
pub fn forget(config: &mut ImageConfig) {
    config.extra.remove(INLINE_CACHE_FIELD);
}

/// The records in an image's config; `None` when there are none, or they are no base64.
pub(super) fn records(config: &ImageConfig) -> Option<Vec<u8>> {
    decode(config.extra.get(INLINE_CACHE_FIELD)?.as_str()?)
}

/// The digests that stand for an image's layers where its config alone is known.
pub(super) fn layers(config: &ImageConfig) -> Vec<Digest> {
    config.rootfs.diff_ids.iter().map(|diff_id| *diff_id.digest()).collect()
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
