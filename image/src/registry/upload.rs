//! Blobs and manifests into a registry: a blob is first asked for, then mounted from a repository that may have it, then
//! [uploaded](super::upload_session).

use std::io::{self, Read};

use ureq::http::{Method, Uri, header};

use super::client::{CONTENT_DIGEST, Client, blob_path, check_claim, item, manifest_path, repository};
use super::error::{Action, Cause, RegistryError, Target};
use super::exchange::{Call, Payload};
use super::location;
use super::mirror::Endpoint;
use super::token::Scopes;
use super::transfer::{TransferSink, TransferState};
use super::upload_session::{Goal, OpenBytes, Session, Upload, session_of};
use crate::blob::BlobSource;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::reference::ImageRef;

/// By which a registry says that it lists a manifest among its subject's referrers.
const SUBJECT: &str = "oci-subject";

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Client {
    /// Whether a repository has a blob.
    pub fn has_blob(&self, name: &ImageRef, digest: &Digest) -> Result<bool, RegistryError> {
        let endpoint = self.push_endpoint(name);
        self.tried(Action::PushBlob, target(name, Some(digest.to_string())), self.retry_policy(), |_| {
            self.head_blob(&endpoint, name, digest)
        })
    }

    /// Checks that we may write to a repository, by beginning an upload and giving it up.
    pub fn check_push(&self, name: &ImageRef) -> Result<(), RegistryError> {
        let endpoint = self.push_endpoint(name);
        let scopes = Scopes::push(name.repository());
        self.tried(Action::PushBlob, target(name, None), self.retry_policy(), |_| {
            let session = self.begin_upload(&endpoint, name, &scopes)?;
            self.give_up_upload(&endpoint, &scopes, session.uri);
            Ok(())
        })
    }

    /// Sees to it that a repository has a blob. `elsewhere` are repositories of the same registry that may have it.
    pub fn push_blob(
        &self,
        name: &ImageRef,
        blob: &Descriptor,
        elsewhere: &[ImageRef],
        source: &dyn BlobSource,
        watch: &dyn TransferSink,
    ) -> Result<Pushed, RegistryError> {
        if self.has_blob(name, &blob.digest)? {
            watch.transfer(&blob.digest, TransferState::Present);
            return Ok(Pushed::Present);
        }
        let endpoint = self.push_endpoint(name);
        let open = |from: u64| -> io::Result<OpenBytes<'_>> {
            let mut reader = source.open(&blob.digest)?;
            let skipped = io::copy(&mut reader.by_ref().take(from), &mut io::sink())?;
            if skipped < from {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(reader)
        };
        let mut upload = Upload::new(self, &endpoint, name, (watch, blob.digest), &open);
        for from in elsewhere.iter().filter(|from| from.registry() == name.registry()) {
            if from.repository() == name.repository() {
                continue;
            }
            match self.mount(&endpoint, name, blob, from)? {
                Mount::Done => {
                    watch.transfer(&blob.digest, TransferState::Mounted);
                    return Ok(Pushed::Mounted);
                }
                // A registry that does not want to has begun an upload.
                Mount::Refused(session) => upload.goes_on_in(session),
            }
        }
        upload.goal = Goal::Whole(blob.digest, blob.size);
        let target = target(name, Some(blob.digest.to_string()));
        self.tried(Action::PushBlob, target, self.retry_policy(), |retry| upload.attempt(retry))?;
        watch.transfer(&blob.digest, TransferState::Done);
        Ok(Pushed::Uploaded)
    }

    /// Stores a manifest or index under the tag or digest of `name`.
    pub fn push_manifest(
        &self,
        name: &ImageRef,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<Descriptor, RegistryError> {
        self.put_manifest(name, media_type, bytes).map(|(descriptor, _)| descriptor)
    }

    /// As [`Self::push_manifest`]; with what the registry says of the manifest's subject.
    pub(super) fn put_manifest(
        &self,
        name: &ImageRef,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<(Descriptor, Option<String>), RegistryError> {
        let endpoint = self.push_endpoint(name);
        let path = manifest_path(&endpoint, name);
        let scopes = Scopes::push(name.repository());
        let descriptor = Descriptor::of(media_type.clone(), bytes);
        let subject = self.tried(Action::PushManifest, target(name, item(name)), self.retry_policy(), |_| {
            let reply = self.request(&endpoint, &path, &scopes, &|uri| {
                let mut call = Call::new(Method::PUT, uri).header(header::CONTENT_TYPE, media_type);
                call.payload = Payload::Bytes(bytes);
                call
            })?;
            if !matches!(reply.status, 200..=202) {
                return Err(reply.into_error());
            }
            check_claim(reply.text(CONTENT_DIGEST), &descriptor.digest)?;
            let subject = reply.text(SUBJECT).map(str::to_owned);
            reply.discard();
            Ok(subject)
        })?;
        Ok((descriptor, subject))
    }

    pub(super) fn head_blob(&self, endpoint: &Endpoint, name: &ImageRef, digest: &Digest) -> Result<bool, Cause> {
        let path = blob_path(endpoint, name, digest);
        let scopes = Scopes::push(name.repository());
        let reply = self.request(endpoint, &path, &scopes, &|uri| Call::new(Method::HEAD, uri))?;
        match reply.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(reply.into_error()),
        }
    }

    /// Has a blob taken from another repository of the same registry.
    fn mount(
        &self,
        endpoint: &Endpoint,
        name: &ImageRef,
        blob: &Descriptor,
        from: &ImageRef,
    ) -> Result<Mount, RegistryError> {
        let scopes = Scopes::push(name.repository()).and_pull(from.repository());
        let digest = blob.digest.to_string();
        let path = format!(
            "{}/blobs/uploads/?mount={digest}&from={}",
            repository(endpoint, name),
            location::escape_query(from.repository()),
        );
        let result = self.tried(Action::PushBlob, target(name, Some(digest)), self.retry_policy(), |_| {
            let reply = self.request(endpoint, &path, &scopes, &|uri| Call::new(Method::POST, uri))?;
            match reply.status {
                201 => {
                    check_claim(reply.text(CONTENT_DIGEST), &blob.digest)?;
                    reply.discard();
                    Ok(Mount::Done)
                }
                202 => session_of(reply).map(|session| Mount::Refused(Some(session))),
                _ => Err(reply.into_error()),
            }
        });
        match result {
            Err(error) if !error.is_cancelled() => {
                tracing::debug!(%error, cause = %error.cause, "cannot mount; uploading instead");
                Ok(Mount::Refused(None))
            }
            other => other,
        }
    }

    pub(super) fn begin_upload(&self, endpoint: &Endpoint, name: &ImageRef, scopes: &Scopes) -> Result<Session, Cause> {
        let path = format!("{}/blobs/uploads/", repository(endpoint, name));
        let reply = self.request(endpoint, &path, scopes, &|uri| Call::new(Method::POST, uri))?;
        if reply.status != 202 {
            return Err(reply.into_error());
        }
        session_of(reply)
    }

    /// Ends an upload without a result. Registries forget sessions by themselves; not all of them let us end one.
    pub(super) fn give_up_upload(&self, endpoint: &Endpoint, scopes: &Scopes, session: Uri) {
        if let Ok(reply) = self.authorized(endpoint, scopes, &Call::new(Method::DELETE, session)) {
            reply.discard();
        }
    }
}

/// What became of the wish to have a blob taken from another repository.
enum Mount {
    /// It is there.
    Done,
    /// It has to be sent; perhaps in a session that was begun.
    Refused(Option<Session>),
}

pub(super) fn target(name: &ImageRef, item: Option<String>) -> Target {
    Target { registry: name.registry().to_owned(), repository: name.repository().to_owned(), item }
}
