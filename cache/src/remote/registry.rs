//! A cache in a registry: the manifest under a tag, the rest beside it.

use rbuild_image::registry::{Client, TransferSink};
use rbuild_image::{BlobSink, BlobSource, Descriptor, Digest, Document, ImageRef, MediaType};

use super::{CacheSource, CacheTarget, PlaceError};

/// A repository and tag.
#[derive(Clone)]
pub struct RegistryCache {
    client: Client,
    name: ImageRef,
    /// Repositories of the same registry that may have blobs already.
    mount_from: Vec<ImageRef>,
}

impl RegistryCache {
    /// The cache of this name.
    pub fn new(client: Client, name: &ImageRef) -> Self {
        Self { client, name: name.tag_or_latest(), mount_from: Vec::new() }
    }

    /// Blobs may be taken over from these repositories where they are in the same registry.
    #[must_use]
    pub fn mounting_from(mut self, names: &[ImageRef]) -> Self {
        self.mount_from.extend(names.iter().cloned());
        self
    }
}

impl CacheSource for RegistryCache {
    fn root(&self) -> Result<(Descriptor, Document), PlaceError> {
        let fetched = self.client.fetch_manifest(&self.name)?;
        Ok((fetched.descriptor, fetched.document))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, PlaceError> {
        Ok(self.client.fetch_described(&self.name, descriptor)?.document)
    }

    fn bytes(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, PlaceError> {
        Ok(self.client.fetch_bytes(&self.name, blob, limit)?)
    }

    fn blob(&self, blob: &Descriptor, sink: &dyn BlobSink, watch: &dyn TransferSink) -> Result<(), PlaceError> {
        // Where else a blob may be had is what a stranger wrote: only this registry is asked.
        let blob = Descriptor { urls: Vec::new(), ..blob.clone() };
        Ok(self.client.fetch_blob(&self.name, &blob, sink, watch)?)
    }
}

impl CacheTarget for RegistryCache {
    fn put_blob(&self, blob: &Descriptor, from: &dyn BlobSource, watch: &dyn TransferSink) -> Result<(), PlaceError> {
        self.client.push_blob(&self.name, blob, &self.mount_from, from, watch)?;
        Ok(())
    }

    fn put_root(&self, media_type: &MediaType, bytes: &[u8]) -> Result<Digest, PlaceError> {
        Ok(self.client.push_manifest(&self.name, media_type, bytes)?.digest)
    }
}
