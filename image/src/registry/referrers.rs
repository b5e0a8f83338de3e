//! Manifests about other manifests: attestations, signatures (OCI distribution-spec 1.1, "Listing Referrers").
//!
//! A registry that knows of referrers says so when it takes one. For others their list is kept by clients, as an index
//! under the tag `sha256-DIGEST`. Two clients that add to that list at the same moment may lose one entry: the
//! specification has no remedy.

use std::collections::BTreeMap;

use ureq::http::{Method, header};

use super::client::{Client, repository};
use super::error::{Action, Cause, RegistryError};
use super::exchange::Call;
use super::token::Scopes;
use super::upload::target;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::document::{Document, DocumentError, MAX_MANIFEST_BYTES};
use crate::index::Index;
use crate::manifest::Manifest;
use crate::media_type::MediaType;
use crate::reference::ImageRef;

impl Client {
    /// Lists the manifests about the one with this digest.
    pub fn referrers(&self, name: &ImageRef, subject: &Digest) -> Result<Index, RegistryError> {
        let endpoint = self.push_endpoint(name);
        let path = format!("{}/referrers/{subject}", repository(&endpoint, name));
        let scopes = Scopes::pull(&repository(&endpoint, name));
        let item = Some(subject.to_string());
        let known = self.tried(Action::FetchManifest, target(name, item), self.retry_policy(), |_| {
            let reply = self.request(&endpoint, &path, &scopes, &|uri| {
                Call::new(Method::GET, uri).header(header::ACCEPT, MediaType::OciIndex)
            })?;
            match reply.status {
                200 => {
                    let bytes = reply.into_bytes(MAX_MANIFEST_BYTES)?;
                    match Document::parse(&bytes, Some(&MediaType::OciIndex))? {
                        Document::Index(index) => Ok(Some(index)),
                        Document::Manifest(_) => Err(not_an_index()),
                    }
                }
                // It knows nothing of referrers.
                400 | 404 | 405 => {
                    reply.discard();
                    Ok(None)
                }
                _ => Err(reply.into_error()),
            }
        })?;
        match known {
            Some(index) => Ok(index),
            None => self.listed_by_tag(name, subject),
        }
    }

    /// Stores a manifest that has a subject, and sees to it that it is found from there. Its blobs are there.
    pub fn push_referrer(
        &self,
        name: &ImageRef,
        media_type: &MediaType,
        bytes: &[u8],
        manifest: &Manifest,
    ) -> Result<Descriptor, RegistryError> {
        let digest = Descriptor::of(media_type.clone(), bytes).digest;
        let (mut descriptor, known) = self.put_manifest(&name.with_digest(digest), media_type, bytes)?;
        let (None, Some(subject)) = (known, &manifest.subject) else { return Ok(descriptor) };
        let artifact_type = manifest.artifact_type.clone();
        let artifact_type = artifact_type.unwrap_or_else(|| manifest.config.media_type.to_string());
        descriptor.extra.insert("artifactType".to_owned(), artifact_type.into());
        descriptor.annotations.clone_from(&manifest.annotations);
        let mut index = self.listed_by_tag(name, &subject.digest)?;
        if !index.manifests.iter().any(|listed| listed.digest == digest) {
            index.manifests.push(descriptor.clone());
            self.push_manifest(&fallback(name, &subject.digest), &MediaType::OciIndex, &index.to_json())?;
        }
        Ok(descriptor)
    }

    /// The list that clients keep.
    fn listed_by_tag(&self, name: &ImageRef, subject: &Digest) -> Result<Index, RegistryError> {
        let (endpoint, tagged) = (self.push_endpoint(name), fallback(name, subject));
        let item = tagged.tag().map(str::to_owned);
        let fetched = self.tried(Action::FetchManifest, target(name, item), self.retry_policy(), |_| {
            self.manifest_from(&endpoint, &tagged, None).and_then(|fetched| match fetched.document {
                Document::Index(index) => Ok(index),
                Document::Manifest(_) => Err(not_an_index()),
            })
        });
        match fetched {
            Err(error) if error.is_not_found() => Ok(Index {
                schema_version: 2,
                media_type: Some(MediaType::OciIndex),
                artifact_type: None,
                manifests: Vec::new(),
                subject: None,
                annotations: BTreeMap::new(),
                extra: serde_json::Map::new(),
            }),
            other => other,
        }
    }
}

/// The tag under which clients keep the list.
fn fallback(name: &ImageRef, subject: &Digest) -> ImageRef {
    // At most 64 characters of the digest, says the specification: a tag has room for no more.
    let hex: String = subject.hex().chars().take(64).collect();
    name.with_tag(&format!("{}-{hex}", subject.algorithm().name())).expect("algorithm and hex digits make a tag")
}

fn not_an_index() -> Cause {
    DocumentError::TypeMismatch { declared: MediaType::OciIndex, found: MediaType::OciManifest }.into()
}
