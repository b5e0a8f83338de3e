//! Manifest or index: parsing where declared type, the document's own type and its shape must agree.
//!
//! Registries and archives hand over bytes with a claim about them. A document that could be taken for either kind
//! is refused (CVE-2021-41190), as are other schema versions, duplicate keys and trailing bytes.

use serde_json::Value;

use crate::config::ImageConfig;
use crate::descriptor::Descriptor;
use crate::index::Index;
use crate::manifest::Manifest;
use crate::media_type::MediaType;
use crate::strict_json::{self, JsonError};

/// The most bytes a manifest or index may have.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The most bytes an image configuration may have.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// How deep indexes may be nested.
pub const MAX_INDEX_NESTING: usize = 4;
/// The most layers an image may have.
pub const MAX_LAYERS: usize = 512;

/// Fields whose presence tells what a document is.
const DECISIVE: [&str; 6] = ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject"];

/// A parsed manifest or index.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Bytes that are not the manifest or index they claim to be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not acceptable as JSON.
    #[error("invalid document")]
    Json(#[from] JsonError),
    /// The first manifest format, or another version.
    #[error("manifest schema version {found} is not supported, only 2 is")]
    SchemaVersion {
        /// What the document says, as JSON.
        found: String,
    },
    /// The transport's type and the document's differ.
    #[error("declared as {declared}, but the document says {found}")]
    TypeMismatch {
        /// The type of the descriptor or the Content-Type.
        declared: MediaType,
        /// The document's `mediaType`.
        found: MediaType,
    },
    /// The type names neither a manifest nor an index.
    #[error("{found} is neither an image manifest nor an index")]
    NotAnImage {
        /// The type.
        found: MediaType,
    },
    /// The manifest lists something that is no layer.
    #[error("{found} is not a layer")]
    NotALayer {
        /// The type.
        found: MediaType,
    },
    /// The fields belong to another kind of document than the type.
    #[error("declared as {media_type}, but has the fields of {shape}")]
    Shape {
        /// The type.
        media_type: MediaType,
        /// What the fields look like.
        shape: &'static str,
    },
    /// Fields of both kinds, or of none.
    #[error("the document has {shape}")]
    Ambiguous {
        /// What the fields look like.
        shape: &'static str,
    },
    /// More layers than an image may have.
    #[error("the image has {count} layers, the limit is {MAX_LAYERS}")]
    TooManyLayers {
        /// How many it has.
        count: usize,
    },
    /// The configuration does not fit the manifest.
    #[error("the manifest has {layers} layers, the configuration {diff_ids} diff ids")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Diff ids of the configuration.
        diff_ids: usize,
    },
}

impl Document {
    /// Parses a manifest or index. `declared` is what the transport or the descriptor calls it, if anything does.
    pub fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<Self, DocumentError> {
        let value = strict_json::parse_value(bytes, MAX_MANIFEST_BYTES)?;
        let is_index = classify(&value, declared)?;
        if is_index {
            return Ok(Self::Index(serde_json::from_value(value).map_err(JsonError::from)?));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(JsonError::from)?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers { count: manifest.layers.len() });
        }
        Ok(Self::Manifest(manifest))
    }

    /// The type under which the document travels: its own, else the one its shape has in OCI.
    pub fn media_type(&self) -> MediaType {
        match self {
            Self::Manifest(manifest) => manifest.media_type.clone().unwrap_or(MediaType::OciManifest),
            Self::Index(index) => index.media_type.clone().unwrap_or(MediaType::OciIndex),
        }
    }

    /// What the document refers to: config and layers, or manifests.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }
}

/// Parses the manifest of one image.
pub fn parse_manifest(bytes: &[u8], declared: Option<&MediaType>) -> Result<Manifest, DocumentError> {
    match Document::parse(bytes, declared)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(DocumentError::Ambiguous { shape: "manifests, where one image is wanted" }),
    }
}

/// Parses an index or manifest list.
pub fn parse_index(bytes: &[u8], declared: Option<&MediaType>) -> Result<Index, DocumentError> {
    match Document::parse(bytes, declared)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(DocumentError::Ambiguous { shape: "layers, where an index is wanted" }),
    }
}

/// Parses an image configuration and checks that it has one diff id for each layer of `manifest`.
pub fn parse_config(bytes: &[u8], manifest: &Manifest) -> Result<ImageConfig, DocumentError> {
    let config = ImageConfig::parse(bytes)?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(DocumentError::LayerCount { layers, diff_ids });
    }
    Ok(config)
}

/// Tells an index from a manifest, or refuses.
fn classify(value: &Value, declared: Option<&MediaType>) -> Result<bool, DocumentError> {
    let Value::Object(map) = value else { return Err(DocumentError::Ambiguous { shape: "no fields" }) };
    strict_json::refuse_case_variants(map, &DECISIVE)?;
    let own = match map.get("mediaType") {
        None => None,
        Some(Value::String(text)) => Some(MediaType::from(text.as_str())),
        Some(_) => return Err(DocumentError::Ambiguous { shape: "a mediaType that is no text" }),
    };
    let schema1 = [declared, own.as_ref()].into_iter().flatten().any(MediaType::is_schema1);
    let version = map.get("schemaVersion");
    if schema1 || version.and_then(Value::as_u64) != Some(2) {
        let found = version.map_or_else(|| "(none)".to_owned(), |version| version.to_string());
        return Err(DocumentError::SchemaVersion { found: found.chars().take(40).collect() });
    }
    if let (Some(declared), Some(own)) = (declared, &own)
        && declared != own
    {
        return Err(DocumentError::TypeMismatch { declared: declared.clone(), found: own.clone() });
    }
    let has = |field: &str| map.contains_key(field);
    let is_index = match (has("manifests"), has("layers") || has("config")) {
        (true, true) => return Err(DocumentError::Ambiguous { shape: "both manifests and layers or config" }),
        (false, false) => return Err(DocumentError::Ambiguous { shape: "neither manifests nor layers" }),
        (is_index, _) => is_index,
    };
    if let Some(media_type) = declared.or(own.as_ref()) {
        if !media_type.is_manifest() && !media_type.is_index() {
            return Err(DocumentError::NotAnImage { found: media_type.clone() });
        }
        if media_type.is_index() != is_index {
            let shape = if is_index { "an index" } else { "a manifest" };
            return Err(DocumentError::Shape { media_type: media_type.clone(), shape });
        }
    }
    Ok(is_index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;

    fn parse(text: &str, declared: Option<MediaType>) -> Result<Document, String> {
        Document::parse(text.as_bytes(), declared.as_ref()).map_err(|error| match error {
            DocumentError::Json(source) => source.to_string(),
            other => other.to_string(),
        })
    }

    #[test]
    fn type_and_shape_must_agree() {
        let manifest = format!(r#"{{"schemaVersion":2,{CONFIG},"layers":[]}}"#);
        let typed =
            |media_type: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}",{CONFIG},"layers":[]}}"#);
        assert!(matches!(parse(&manifest, None), Ok(Document::Manifest(_))));
        assert!(parse(&manifest, Some(MediaType::DockerManifest)).is_ok());
        assert!(parse(&typed(MediaType::OciManifest.as_str()), None).is_ok());
        for (text, declared, want) in [
            (
                manifest.clone(),
                Some(MediaType::OciIndex),
                "declared as application/vnd.oci.image.index.v1+json, but has the fields of a manifest",
            ),
            (typed(MediaType::OciIndex.as_str()), None, "has the fields of a manifest"),
            (
                typed(MediaType::OciManifest.as_str()),
                Some(MediaType::DockerManifest),
                "declared as application/vnd.docker.distribution.manifest.v2+json, but the document says application/vnd.oci.image.manifest.v1+json",
            ),
            (typed("text/html"), None, "text/html is neither an image manifest nor an index"),
            (
                manifest.replace("\"layers\"", "\"manifests\":[],\"layers\""),
                None,
                "the document has both manifests and layers",
            ),
            (manifest.replace("\"layers\"", "\"Manifests\":[],\"layers\""), None, "in case only"),
            (manifest.replace("\"layers\"", "\"layers\":[],\"layers\""), None, "duplicate key"),
            (format!("{manifest}x"), None, "trailing"),
            (manifest.replace(":2,", ":1,"), None, "manifest schema version 1 is not supported, only 2 is"),
            (manifest.replace("\"schemaVersion\":2,", ""), None, "schema version (none)"),
            (manifest.clone(), Some(MediaType::DockerSchema1Signed), "schema version"),
            (r#"{"schemaVersion":2}"#.to_owned(), None, "neither manifests nor layers"),
            ("[]".to_owned(), None, "no fields"),
            (manifest.replace("sha256:44", "sha256:../"), None, "invalid digest"),
            (manifest.replace("\"size\":2", "\"size\":-2"), None, "invalid value"),
        ] {
            let error = parse(&text, declared).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn counts_and_sizes_are_bounded() {
        let layer = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
        let with =
            |count: usize| format!(r#"{{"schemaVersion":2,{CONFIG},"layers":[{}]}}"#, vec![layer; count].join(","));
        assert!(parse(&with(MAX_LAYERS), None).is_ok());
        assert!(parse(&with(MAX_LAYERS + 1), None).unwrap_err().contains("the image has 513 layers, the limit is 512"));
        let large = format!("{}{}", with(0), " ".repeat(4 << 20));
        let words = format!("the document has {} bytes, the limit is 4194304", large.len());
        assert_eq!(parse(&large, None).unwrap_err(), words);
        let manifest = parse_manifest(with(1).as_bytes(), None).unwrap();
        let error = parse_config(br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}"#, &manifest);
        assert!(matches!(error, Err(DocumentError::LayerCount { layers: 1, diff_ids: 0 })));
    }

    #[test]
    fn what_has_a_cause_leaves_the_details_to_it() {
        let error = Document::parse(b"{", None).unwrap_err();
        assert_eq!(error.to_string(), "invalid document");
        assert!(std::error::Error::source(&error).is_some());
        let found = MediaType::OciConfig;
        assert_eq!(
            DocumentError::NotALayer { found }.to_string(),
            "application/vnd.oci.image.config.v1+json is not a layer"
        );
    }

    #[test]
    fn unknown_fields_are_kept() {
        let text = format!(r#"{{"schemaVersion":2,{CONFIG},"layers":[],"future":{{"b":1,"a":2}}}}"#);
        let manifest = parse_manifest(text.as_bytes(), None).unwrap();
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in proptest::collection::vec(0u8.., 0..200), cut in 0usize..400) {
            drop(Document::parse(&bytes, None));
            let mut text = format!(r#"{{"schemaVersion":2,{CONFIG},"layers":[]}}"#).into_bytes();
            let at = cut % text.len();
            text.splice(at..(at + bytes.len() / 8).min(text.len()), bytes.drain(..bytes.len() / 8));
            drop(Document::parse(&text, None));
        }
    }
}
