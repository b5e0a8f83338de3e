//! A build's images put together: one manifest for each platform, what was attested about them, and the index over all
//! where there is more than one manifest. Equal images and equal attestations give equal bytes.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use rbuild_cache::snapshot::Times;
use rbuild_cache::{Lease, Store};
use rbuild_image::{
    AttestationForm, BlobSource, DescribedBytes, Descriptor, Digest, Flavour, Platform, assemble_attestations,
    assemble_index,
};

use super::attest::Attester;
use super::pack::Packing;
use super::stage::{self, Ready, Recipe, Staged};
use super::{Built, epoch};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::request::{Annotation, AnnotationPlace, AttestAs, BuildRequest, ImageForm};

/// Whether one manifest may stand for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An index only over several manifests.
    AsNeeded,
    /// Always an index.
    Index,
}

/// Images ready to leave together.
pub(super) struct Bundle<'a> {
    /// The images, in the order of the platforms.
    pub(super) staged: Vec<Staged<'a>>,
    /// The index, or the only manifest.
    pub(super) root: DescribedBytes,
    /// Whether the root is an index.
    pub(super) is_index: bool,
    /// Attestation manifests that the index names, and their parts, in the order of the platforms.
    pub(super) attestations: Vec<DescribedBytes>,
    /// Attestation manifests that refer to an image and stand beside it.
    pub(super) referrers: Vec<DescribedBytes>,
    memory: BTreeMap<Digest, Vec<u8>>,
}

/// What a bundle is made of.
pub(crate) struct Parts<'a, 'b> {
    /// The engine.
    pub(crate) engine: &'a Engine,
    /// Its store.
    pub(crate) store: &'a Store,
    /// Holds what is made.
    pub(crate) lease: &'b Lease,
    /// What the user wants.
    pub(crate) request: &'b BuildRequest,
    /// The results, one for each platform.
    pub(crate) built: &'b [Built],
    /// Says what is attested.
    pub(crate) attester: &'b Attester<'b>,
}

impl<'a> Bundle<'a> {
    /// Packs what was built as `form` says; `ready` is told of each layer that can leave.
    pub(super) fn new(
        parts: &Parts<'a, '_>,
        form: &ImageForm,
        flavour: Flavour,
        shape: Shape,
        ready: Ready<'_>,
    ) -> Result<Self, Failure> {
        let Parts { engine, store, lease, request, built, attester } = *parts;
        let notes: Vec<&Annotation> = request.annotations.iter().chain(&form.annotations).collect();
        // Docker's documents have no place for annotations.
        let flavour = if notes.is_empty() { flavour } else { Flavour::Oci };
        let times = match form.rewrite_timestamp {
            false => Times::Kept,
            true => Times::ClampedTo(epoch(request)?.ok_or_else(|| {
                Failure::usage(
                    "rewrite-timestamp needs SOURCE_DATE_EPOCH",
                    "set it in the environment or by --build-arg, or build with --reproducible",
                )
            })?),
        };
        let mut staged = Vec::new();
        for one in built {
            let recipe = Recipe {
                packing: Packing { compression: form.compression, flavour },
                existing: form.existing,
                times,
                base_layers: one.base_layers,
                annotations: chosen(&notes, AnnotationPlace::Manifest, Some(&one.config.platform())),
            };
            let record = one.record(store, lease)?;
            staged.push(stage::pack_layers(engine, lease, &record, &one.config, &recipe, ready)?);
        }
        let (mut attestations, mut memory, mut manifests) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (one, staged) in built.iter().zip(&staged) {
            let mut manifest = staged.manifest.clone();
            manifest.annotations = chosen(&notes, AnnotationPlace::ManifestDescriptor, manifest.platform.as_ref());
            manifests.push(manifest);
            let statements = attester.statements(one, staged, &names(request, form), (store, lease))?;
            if !statements.is_empty() {
                let form = match form.attestations {
                    AttestAs::Index => AttestationForm::Image,
                    AttestAs::IndexedArtifact | AttestAs::Referrer => AttestationForm::Artifact,
                };
                attestations.push(assemble_attestations(&staged.manifest, statements, form));
            }
        }
        // Attestations follow all images, as BuildKit has them.
        let (mut documents, mut referrers) = (Vec::new(), Vec::new());
        for attested in attestations {
            if form.attestations == AttestAs::Referrer {
                let parts = std::iter::once(attested.config).chain(attested.layers);
                memory.extend(parts.map(|(descriptor, bytes)| (descriptor.digest, bytes)));
                referrers.push(attested.manifest);
                continue;
            }
            manifests.push(attested.manifest.0.clone());
            documents.push(attested.manifest);
            documents.push(attested.config);
            documents.extend(attested.layers);
        }
        let is_index = shape == Shape::Index || manifests.len() != 1;
        if !is_index
            && notes
                .iter()
                .any(|note| note.place != AnnotationPlace::Manifest && note.place != AnnotationPlace::IndexDescriptor)
        {
            return Err(Failure::new("index annotations not supported for single platform export")
                .with_help("leave the prefix out, or build with --provenance, --sbom or several platforms"));
        }
        let mut root = match (is_index, staged.first()) {
            (false, Some(only)) => (manifests.remove(0), only.manifest_bytes.clone()),
            _ => assemble_index(manifests, flavour, &chosen(&notes, AnnotationPlace::Index, None)),
        };
        root.0.annotations = chosen(&notes, AnnotationPlace::IndexDescriptor, None);
        memory.extend(documents.iter().map(|(descriptor, bytes)| (descriptor.digest, bytes.clone())));
        memory.insert(root.0.digest, root.1.clone());
        Ok(Self { staged, root, is_index, attestations: documents, referrers, memory })
    }

    /// The image's id: of the first platform.
    pub(super) fn id(&self) -> Option<Digest> {
        self.staged.first().map(|staged| staged.document.config.digest)
    }

    fn first<T>(&self, ask: impl Fn(&Staged<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for staged in &self.staged {
            match ask(staged) {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The names of a form's image.
pub(super) fn names(request: &BuildRequest, form: &ImageForm) -> Vec<rbuild_image::ImageRef> {
    if form.names.is_empty() { request.tags.clone() } else { form.names.clone() }
}

/// The annotations of one place; later ones win.
fn chosen(notes: &[&Annotation], place: AnnotationPlace, platform: Option<&Platform>) -> BTreeMap<String, String> {
    let fits = |note: &&&Annotation| {
        note.place == place && note.platform.as_ref().is_none_or(|wanted| platform == Some(&wanted.normalised()))
    };
    notes.iter().filter(fits).map(|note| (note.key.clone(), note.value.clone())).collect()
}

impl BlobSource for Bundle<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match self.memory.get(digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => self.first(|staged| staged.open(digest)),
        }
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        match self.memory.get(digest) {
            Some(bytes) => Ok(bytes.len() as u64),
            None => self.first(|staged| staged.size(digest)),
        }
    }
}

/// Every blob that the images of a bundle name, once: configs and layers, not manifests.
pub(super) fn blobs<'b>(bundle: &'b Bundle<'_>) -> BTreeMap<Digest, &'b Descriptor> {
    let named = |staged: &'b Staged<'_>| std::iter::once(&staged.document.config).chain(&staged.document.layers);
    bundle.staged.iter().flat_map(named).map(|blob| (blob.digest, blob)).collect()
}
