//! An image to a registry: blobs that it lacks, several at once, then manifests, then the index, then tags — so that
//! nothing there ever names what is missing. A manifest about another one is pushed by its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use crate::blob::BlobSource;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::document::{Document, MAX_INDEX_NESTING, MAX_MANIFEST_BYTES};
use crate::media_type::MediaType;
use crate::reference::ImageRef;
use crate::registry::{Action, Cause, Client, RegistryError, Target, TransferSink, in_parallel};

/// What is pushed, and where to.
#[derive(Clone, Debug)]
pub struct PushRequest<'a> {
    /// The repository, with the tag or digest under which the image is stored.
    pub name: &'a ImageRef,
    /// Further tags for the same image.
    pub tags: &'a [String],
    /// What the image's manifest or index is called.
    pub media_type: &'a MediaType,
    /// The manifest or index.
    pub bytes: &'a [u8],
    /// Repositories of the same registry that may have some of the blobs.
    pub mount_from: &'a [ImageRef],
    /// Blobs that the repository is known to have.
    pub there: &'a BTreeSet<Digest>,
}

/// A manifest or index that is on its way.
struct Item {
    media_type: MediaType,
    bytes: Vec<u8>,
    digest: Digest,
    document: Document,
}

/// Pushes an image. `source` has the blobs, and the manifests that an index names.
pub fn push(
    client: &Client,
    request: &PushRequest<'_>,
    source: &dyn BlobSource,
    watch: &dyn TransferSink,
) -> Result<Descriptor, RegistryError> {
    let name = request.name.tag_or_latest();
    let root = Descriptor::of(request.media_type.clone(), request.bytes);
    let mut items = Vec::new();
    let mut blobs = BTreeMap::new();
    collect(&root, request.bytes.to_vec(), source, 0, &mut items, &mut blobs)
        .map_err(|cause| failed(&name, root.digest, cause))?;

    // The largest first: a long one that starts last is what everybody waits for.
    let mut queue: Vec<&Descriptor> = blobs.values().filter(|blob| !request.there.contains(&blob.digest)).collect();
    queue.sort_by_key(|blob| (std::cmp::Reverse(blob.size), blob.digest));
    in_parallel(&queue, client.parallel(), client.cancel(), |blob, cancel| {
        client.with_cancel(cancel.clone()).push_blob(&name, blob, request.mount_from, source, watch).map(drop)
    })?;

    // Children come before what names them; the root comes last.
    let (last, children) = items.split_last().expect("the root was collected");
    for item in children {
        client.push_manifest(&name.with_digest(item.digest), &item.media_type, &item.bytes)?;
    }
    match &last.document {
        // What is about another manifest is found from there.
        Document::Manifest(manifest) if name.digest().is_some() && manifest.subject.is_some() => {
            client.push_referrer(&name, &last.media_type, &last.bytes, manifest)?;
        }
        _ => drop(client.push_manifest(&name, &last.media_type, &last.bytes)?),
    }
    for tag in request.tags {
        let tagged = name.with_tag(tag).map_err(|error| failed(&name, root.digest, invalid(error.to_string())))?;
        client.push_manifest(&tagged, &last.media_type, &last.bytes)?;
    }
    Ok(root)
}

fn invalid(reason: String) -> Cause {
    Cause::Storage(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

fn failed(name: &ImageRef, digest: Digest, cause: Cause) -> RegistryError {
    let target = Target {
        registry: name.registry().to_owned(),
        repository: name.repository().to_owned(),
        item: Some(digest.to_string()),
    };
    RegistryError { action: Action::PushManifest, target: Box::new(target), attempts: 1, cause: Box::new(cause) }
}

/// Lists a manifest's blobs, or an index' manifests and theirs, depth first.
fn collect(
    descriptor: &Descriptor,
    bytes: Vec<u8>,
    source: &dyn BlobSource,
    depth: usize,
    items: &mut Vec<Item>,
    blobs: &mut BTreeMap<Digest, Descriptor>,
) -> Result<(), Cause> {
    if depth > MAX_INDEX_NESTING {
        return Err(Cause::Nesting(MAX_INDEX_NESTING));
    }
    descriptor.verify(&bytes)?;
    let document = Document::parse(&bytes, Some(&descriptor.media_type))?;
    match &document {
        Document::Manifest(manifest) => {
            for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                // What registries may not hold is fetched from its addresses by whoever pulls.
                if !blob.media_type.is_foreign_layer() {
                    blobs.entry(blob.digest).or_insert_with(|| blob.clone());
                }
            }
        }
        Document::Index(index) => {
            for child in &index.manifests {
                let bytes = read(source, child)?;
                collect(child, bytes, source, depth + 1, items, blobs)?;
            }
        }
    }
    if !items.iter().any(|item| item.digest == descriptor.digest) {
        items.push(Item { media_type: descriptor.media_type.clone(), bytes, digest: descriptor.digest, document });
    }
    Ok(())
}

fn read(source: &dyn BlobSource, manifest: &Descriptor) -> Result<Vec<u8>, Cause> {
    let mut bytes = Vec::new();
    let reader = source.open(&manifest.digest).map_err(Cause::Storage)?;
    reader.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(Cause::Storage)?;
    Ok(bytes)
}
