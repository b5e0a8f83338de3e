//! Layers and a configuration become a manifest, manifests become an index.
//!
//! Written as BuildKit writes them, so equal inputs give equal digests: field order, indentation, which annotations of
//! layers stay. Nothing here asks the time.

use std::collections::BTreeMap;

use crate::config::{History, ImageConfig, RootFs};
use crate::descriptor::Descriptor;
use crate::digest::DiffId;
use crate::document::MAX_LAYERS;
use crate::index::{Index, REFERENCE_DIGEST, REFERENCE_TYPE};
use crate::manifest::Manifest;
use crate::media_type::{Flavour, MediaType};
use crate::platform::Platform;

/// Annotations of layer descriptors that only say where a layer was kept.
const INTERNAL_ANNOTATIONS: [&str; 2] = ["containerd.io/", "buildkit/"];

/// A layer as an image has it: the blob, and the digest of what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// The blob.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
}

/// A document and the descriptor that names it.
pub type DescribedBytes = (Descriptor, Vec<u8>);

/// An image without its layers' bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct AssembledImage {
    /// The manifest; its descriptor has the platform.
    pub manifest: DescribedBytes,
    /// The configuration, whose digest is the image's id.
    pub config: DescribedBytes,
    /// The layers as the manifest names them.
    pub layers: Vec<Descriptor>,
}

/// Layers that make no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A descriptor that does not name a layer.
    #[error("{media_type} is not a layer")]
    NotALayer {
        /// What it names.
        media_type: MediaType,
    },
    /// More layers than an image may have.
    #[error("the image would have {count} layers, the limit is {MAX_LAYERS}")]
    TooManyLayers {
        /// How many.
        count: usize,
    },
}

/// Makes an image of a configuration and its layers, lowest first. The configuration's layers are replaced by these,
/// and its history is made to fit them; annotations go into the manifest (OCI only: Docker's has no place for them).
pub fn assemble(
    config: &ImageConfig,
    layers: &[LayerBlob],
    flavour: Flavour,
    annotations: &BTreeMap<String, String>,
) -> Result<AssembledImage, AssembleError> {
    let mut config = config.clone();
    config.rootfs = RootFs { diff_ids: layers.iter().map(|layer| layer.diff_id).collect(), ..RootFs::default() };
    fit_history(&mut config.history, layers.len());
    let bytes = config.to_json();
    let descriptors: Vec<Descriptor> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    assemble_with_config(bytes, &config.platform(), &descriptors, flavour, annotations)
}

/// Makes an image of a configuration that is to stay as it is, byte for byte.
pub fn assemble_with_config(
    config: Vec<u8>,
    platform: &Platform,
    layers: &[Descriptor],
    flavour: Flavour,
    annotations: &BTreeMap<String, String>,
) -> Result<AssembledImage, AssembleError> {
    if layers.len() > MAX_LAYERS {
        return Err(AssembleError::TooManyLayers { count: layers.len() });
    }
    let layers = layers.iter().map(|layer| layer_of(layer, flavour)).collect::<Result<Vec<_>, _>>()?;
    let config = (Descriptor::of(MediaType::config(flavour), &config), config);
    let media_type = MediaType::manifest(flavour);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        artifact_type: None,
        config: config.0.clone(),
        layers: layers.clone(),
        subject: None,
        annotations: if flavour == Flavour::Oci { annotations.clone() } else { BTreeMap::new() },
        extra: serde_json::Map::new(),
    };
    let bytes = manifest.to_json();
    let descriptor = Descriptor { platform: Some(platform.clone()), ..Descriptor::of(media_type, &bytes) };
    Ok(AssembledImage { manifest: (descriptor, bytes), config, layers })
}

/// Makes an index of manifests, whose descriptors should have their platforms.
pub fn assemble_index(
    manifests: Vec<Descriptor>,
    flavour: Flavour,
    annotations: &BTreeMap<String, String>,
) -> DescribedBytes {
    let media_type = MediaType::index(flavour);
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: if flavour == Flavour::Oci { annotations.clone() } else { BTreeMap::new() },
        extra: serde_json::Map::new(),
    };
    let bytes = index.to_json();
    (Descriptor::of(media_type, &bytes), bytes)
}

/// What is attested about an image, ready to be named in its index.
#[derive(Clone, Debug, PartialEq)]
pub struct Attestations {
    /// The manifest; its descriptor says which image it is about.
    pub manifest: DescribedBytes,
    /// Its config, which only lists the statements.
    pub config: DescribedBytes,
    /// The statements.
    pub layers: Vec<DescribedBytes>,
}

/// What an attestation manifest looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestationForm {
    /// An image for no platform: what every registry takes.
    Image,
    /// An OCI artefact whose subject is the image (BuildKit's `oci-artifact=true`).
    Artifact,
}

/// What kind of artefact an attestation manifest is.
pub const ATTESTATION_ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// Attaches in-toto statements to an image as BuildKit does: each with its predicate type is a layer of a manifest for
/// no platform, which the index names beside the image's.
pub fn assemble_attestations(
    image: &Descriptor,
    statements: Vec<(String, Vec<u8>)>,
    form: AttestationForm,
) -> Attestations {
    let platform = Platform::new("unknown", "unknown", None);
    let mut config = ImageConfig::new(&platform);
    let mut layers = Vec::new();
    for (predicate_type, bytes) in statements {
        let mut descriptor = Descriptor::of(MediaType::from("application/vnd.in-toto+json"), &bytes);
        descriptor.annotations.insert("in-toto.io/predicate-type".to_owned(), predicate_type);
        config.rootfs.diff_ids.push(DiffId::new(descriptor.digest));
        layers.push((descriptor, bytes));
    }
    let (config, artifact_type, subject) = match form {
        AttestationForm::Image => {
            let config = config.to_json();
            ((Descriptor::of(MediaType::OciConfig, &config), config), None, None)
        }
        AttestationForm::Artifact => {
            let subject = Descriptor::new(image.media_type.clone(), image.digest, image.size);
            (empty_config(), Some(ATTESTATION_ARTIFACT.to_owned()), Some(subject))
        }
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        artifact_type,
        config: config.0.clone(),
        layers: layers.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
        subject,
        annotations: BTreeMap::new(),
        extra: serde_json::Map::new(),
    };
    let bytes = manifest.to_json();
    let mut descriptor = Descriptor { platform: Some(platform), ..Descriptor::of(MediaType::OciManifest, &bytes) };
    descriptor.annotations.insert(REFERENCE_DIGEST.to_owned(), image.digest.to_string());
    descriptor.annotations.insert(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned());
    Attestations { manifest: (descriptor, bytes), config, layers }
}

/// The config of what has none (OCI image-spec, "Guidance for an Empty Descriptor").
fn empty_config() -> DescribedBytes {
    let bytes = b"{}".to_vec();
    let mut descriptor = Descriptor::of(MediaType::from("application/vnd.oci.empty.v1+json"), &bytes);
    descriptor.extra.insert("data".to_owned(), "e30=".into());
    (descriptor, bytes)
}

/// A layer's descriptor in the words of `flavour`, without what only its last keeper needed.
fn layer_of(layer: &Descriptor, flavour: Flavour) -> Result<Descriptor, AssembleError> {
    let not_a_layer = || AssembleError::NotALayer { media_type: layer.media_type.clone() };
    let compression = layer.media_type.compression().ok_or_else(not_a_layer)?;
    let mut out = layer.clone();
    if !layer.media_type.is_foreign_layer() {
        out.media_type = MediaType::layer(flavour, compression).ok_or_else(not_a_layer)?;
        out.urls.clear();
    }
    out.annotations.retain(|key, _| !INTERNAL_ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)));
    out.platform = None;
    Ok(out)
}

/// Makes the history name as many layers as there are, as BuildKit does: missing lines are added above, surplus ones
/// count as empty from the bottom.
fn fit_history(history: &mut Vec<History>, layers: usize) {
    let have = history.iter().filter(|line| !line.empty_layer).count();
    for line in history.iter_mut().filter(|line| !line.empty_layer).take(have.saturating_sub(layers)) {
        line.empty_layer = true;
    }
    for _ in have..layers {
        history.push(History { comment: "rbuild".to_owned(), ..History::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::document::{parse_config, parse_index, parse_manifest};

    fn layer(media_type: MediaType, seed: &str) -> LayerBlob {
        let mut descriptor = Descriptor::new(media_type, Digest::sha256(seed), 7);
        descriptor.annotations.insert("containerd.io/uncompressed".to_owned(), "sha256:x".to_owned());
        descriptor.annotations.insert("kept".to_owned(), "yes".to_owned());
        LayerBlob { descriptor, diff_id: DiffId::new(Digest::sha256(format!("diff {seed}"))) }
    }

    #[test]
    fn an_image_is_written_as_buildkit_writes_it() {
        let config = ImageConfig::new(&"linux/arm/v7".parse().unwrap());
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let layers = [layer(MediaType::DockerLayerGzip, "one")];
        let image = assemble(&config, &layers, Flavour::Oci, &annotations).unwrap();
        insta::assert_snapshot!(String::from_utf8(image.manifest.1.clone()).unwrap(), @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": "sha256:b9d052ca1844df700a9f376227b48953a613461d6b811f9060c879f1139a7ead",
            "size": 209
          },
          "layers": [
            {
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "digest": "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
              "size": 7,
              "annotations": {
                "kept": "yes"
              }
            }
          ],
          "annotations": {
            "a": "b"
          }
        }
        "#);
        insta::assert_snapshot!(String::from_utf8(image.config.1.clone()).unwrap(), @r#"{"architecture":"arm","config":{},"history":[{"comment":"rbuild"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:fbe1e3e48c53677cb41bb07fdbdf6736f7ee0a8122dba70f46b828c3d1fa517c"]},"variant":"v7"}"#);
        let parsed = parse_manifest(&image.manifest.1, Some(&image.manifest.0.media_type)).unwrap();
        assert_eq!(parse_config(&image.config.1, &parsed).unwrap().rootfs.diff_ids, [layers[0].diff_id]);
        assert!(image.manifest.0.verify(&image.manifest.1).is_ok() && image.config.0.verify(&image.config.1).is_ok());
        let docker = assemble(&config, &layers, Flavour::Docker, &annotations).unwrap();
        let parsed = parse_manifest(&docker.manifest.1, Some(&MediaType::DockerManifest)).unwrap();
        assert_eq!(parsed.layers[0].media_type, MediaType::DockerLayerGzip);
        assert!(parsed.annotations.is_empty());
        let (descriptor, bytes) = assemble_index(vec![image.manifest.0, docker.manifest.0], Flavour::Oci, &annotations);
        let index = parse_index(&bytes, Some(&descriptor.media_type)).unwrap();
        assert_eq!(index.platforms()[0].to_string(), "linux/arm/v7");
    }

    #[test]
    fn history_names_each_layer() {
        let line = |empty_layer| History { empty_layer, ..History::default() };
        for (have, layers, want) in [
            (vec![true, false], 1, vec![true, false]),
            (vec![true], 2, vec![true, false, false]),
            (vec![false, true, false], 1, vec![true, true, false]),
            (vec![], 0, vec![]),
        ] {
            let mut history: Vec<History> = have.iter().map(|empty| line(*empty)).collect();
            fit_history(&mut history, layers);
            assert_eq!(history.iter().map(|line| line.empty_layer).collect::<Vec<_>>(), want);
        }
    }

    #[test]
    fn only_layers_make_an_image() {
        let config = ImageConfig::default();
        let odd = assemble(&config, &[layer(MediaType::OciConfig, "x")], Flavour::Oci, &BTreeMap::new());
        assert_eq!(odd.unwrap_err().to_string(), "application/vnd.oci.image.config.v1+json is not a layer");
        let many = vec![layer(MediaType::OciLayer, "x"); MAX_LAYERS + 1];
        let error = assemble(&config, &many, Flavour::Oci, &BTreeMap::new());
        assert_eq!(error.unwrap_err().to_string(), "the image would have 513 layers, the limit is 512");
    }
}
