//! Blobs and manifests into a registry.
//!
//! A blob is first asked for, then mounted from a repository that may have it, then uploaded: small ones in one
//! request, others in a session that is resumed from where the registry says it is. A session that the registry
//! forgot is begun anew once. When the answer to the last request is lost, the registry is asked whether it has the
//! blob. A session's address may be on another host; credentials do not follow it there.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::http::{Method, Uri, header};

use super::client::{CONTENT_DIGEST, Client, blob_path, check_claim, item, manifest_path, repository};
use super::error::{Action, Cause, LocalRead, RegistryError, Target};
use super::exchange::{Call, Payload, Reply};
use super::location;
use super::mirror::Endpoint;
use super::retry::Retry;
use super::token::Scopes;
use super::transfer::{TransferSink, TransferState};
use crate::blob::BlobSource;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::reference::ImageRef;

/// Blobs up to this size are sent with the request that ends their upload.
const MONOLITHIC: u64 = 1 << 20;
/// More bytes sent than this is progress.
const PROGRESS: u64 = 64 << 10;

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
            // Registries forget sessions by themselves; not all of them let us end one.
            if let Ok(reply) = self.authorized(&endpoint, &scopes, &Call::new(Method::DELETE, session)) {
                reply.discard();
            }
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
        let mut upload = Upload {
            client: self,
            endpoint: &endpoint,
            scopes: Scopes::push(name.repository()),
            name,
            blob,
            source,
            watch,
            session: None,
            offset: 0,
            doubt: Doubt::None,
            restarted: false,
            moved: AtomicU64::new(0),
        };
        for from in elsewhere.iter().filter(|from| from.registry() == name.registry()) {
            if from.repository() != name.repository() && upload.mount(from)? {
                watch.transfer(&blob.digest, TransferState::Mounted);
                return Ok(Pushed::Mounted);
            }
        }
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

    fn head_blob(&self, endpoint: &Endpoint, name: &ImageRef, digest: &Digest) -> Result<bool, Cause> {
        let path = blob_path(endpoint, name, digest);
        let scopes = Scopes::push(name.repository());
        let reply = self.request(endpoint, &path, &scopes, &|uri| Call::new(Method::HEAD, uri))?;
        match reply.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(reply.into_error()),
        }
    }

    pub(super) fn begin_upload(&self, endpoint: &Endpoint, name: &ImageRef, scopes: &Scopes) -> Result<Uri, Cause> {
        let path = format!("{}/blobs/uploads/", repository(endpoint, name));
        let reply = self.request(endpoint, &path, scopes, &|uri| Call::new(Method::POST, uri))?;
        if reply.status != 202 {
            return Err(reply.into_error());
        }
        session_of(reply)
    }
}

pub(super) fn target(name: &ImageRef, item: Option<String>) -> Target {
    Target { registry: name.registry().to_owned(), repository: name.repository().to_owned(), item }
}

/// Where a session goes on.
pub(super) fn session_of(reply: Reply) -> Result<Uri, Cause> {
    let session = location::follow(&reply.uri, reply.text(header::LOCATION).unwrap_or_default())?;
    reply.discard();
    Ok(session)
}

/// What is not known about a session after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Nothing.
    None,
    /// How much of the blob it has.
    Offset,
    /// Whether it was ended.
    Ended,
}

struct Upload<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    scopes: Scopes,
    name: &'a ImageRef,
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    watch: &'a dyn TransferSink,
    session: Option<Uri>,
    /// How many bytes the session has.
    offset: u64,
    doubt: Doubt,
    restarted: bool,
    /// Bytes handed to the network in this attempt.
    moved: AtomicU64,
}

impl Upload<'_> {
    /// Tries to have the blob taken from another repository; a registry that does not want to begins an upload.
    fn mount(&mut self, from: &ImageRef) -> Result<bool, RegistryError> {
        let scopes = Scopes::push(self.name.repository()).and_pull(from.repository());
        let digest = self.blob.digest.to_string();
        let path = format!(
            "{}/blobs/uploads/?mount={digest}&from={}",
            repository(self.endpoint, self.name),
            location::escape_query(from.repository()),
        );
        let target = target(self.name, Some(digest));
        let result = self.client.tried(Action::PushBlob, target, self.client.retry_policy(), |_| {
            let reply = self.client.request(self.endpoint, &path, &scopes, &|uri| Call::new(Method::POST, uri))?;
            match reply.status {
                201 => {
                    check_claim(reply.text(CONTENT_DIGEST), &self.blob.digest)?;
                    reply.discard();
                    Ok(None)
                }
                202 => session_of(reply).map(Some),
                _ => Err(reply.into_error()),
            }
        });
        match result {
            Ok(None) => Ok(true),
            Ok(session) => {
                self.session = session;
                Ok(false)
            }
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) => {
                tracing::debug!(%error, cause = %error.cause, "cannot mount; uploading instead");
                Ok(false)
            }
        }
    }

    fn attempt(&mut self, retry: &mut Retry) -> Result<(), Cause> {
        if retry.attempts() > 1 {
            self.watch.transfer(&self.blob.digest, TransferState::Retrying { attempts: retry.attempts() });
        }
        self.moved.store(0, Ordering::Relaxed);
        let result = match self.go_on(retry) {
            Err(Cause::Status { status: 404, .. }) if self.session.is_some() && !self.restarted => {
                tracing::debug!(digest = %self.blob.digest, "the registry has forgotten the upload; beginning anew");
                self.restarted = true;
                self.forget_session();
                self.go_on(retry)
            }
            other => other,
        };
        if result.is_err() && self.moved.load(Ordering::Relaxed) >= PROGRESS {
            retry.moved();
        }
        result
    }

    fn forget_session(&mut self) {
        (self.session, self.offset, self.doubt) = (None, 0, Doubt::None);
    }

    fn go_on(&mut self, retry: &mut Retry) -> Result<(), Cause> {
        if self.doubt == Doubt::Ended && self.client.head_blob(self.endpoint, self.name, &self.blob.digest)? {
            return Ok(());
        }
        if self.doubt != Doubt::None {
            self.ask_offset(retry)?;
        }
        if self.session.is_none() {
            self.session = Some(self.client.begin_upload(self.endpoint, self.name, &self.scopes)?);
            self.offset = 0;
        }
        let size = self.blob.size;
        let limit = self.client.upload_chunk().unwrap_or(u64::MAX).max(1);
        if self.offset > 0 || size > MONOLITHIC.min(limit) {
            while self.offset < size {
                let length = (size - self.offset).min(limit);
                self.patch(length)?;
                retry.progressed();
            }
        }
        self.put()
    }

    /// Asks the registry how much of the blob it has.
    fn ask_offset(&mut self, retry: &mut Retry) -> Result<(), Cause> {
        let Some(session) = self.session.clone() else {
            self.doubt = Doubt::None;
            return Ok(());
        };
        let reply = self.client.authorized(self.endpoint, &self.scopes, &Call::new(Method::GET, session))?;
        if !matches!(reply.status, 200 | 202 | 204) {
            return Err(reply.into_error());
        }
        let offset = match reply.text(header::RANGE).map(uploaded_range) {
            None => 0,
            // "0-0" is what registries say of one byte and of none. Who sends that byte twice spoils the blob.
            Some(Some(1)) | Some(None) => {
                reply.discard();
                self.forget_session();
                return Ok(());
            }
            Some(Some(offset)) => offset,
        };
        if offset > self.blob.size {
            reply.discard();
            self.forget_session();
            return Ok(());
        }
        if reply.headers.contains_key(header::LOCATION) {
            self.session = Some(session_of(reply)?);
        } else {
            reply.discard();
        }
        if offset >= self.offset + PROGRESS {
            retry.progressed();
        }
        (self.offset, self.doubt) = (offset, Doubt::None);
        Ok(())
    }

    /// Sends the next `length` bytes.
    fn patch(&mut self, length: u64) -> Result<(), Cause> {
        let session = self.session.clone().expect("begun before");
        let (from, to) = (self.offset, self.offset + length - 1);
        let open = || self.open(from, length);
        let mut call = Call::new(Method::PATCH, session).header(header::CONTENT_TYPE, "application/octet-stream");
        if from > 0 || length < self.blob.size {
            // A blob in one piece is a stream to registries that know no chunks.
            call = call.header(header::CONTENT_RANGE, format!("{from}-{to}"));
        }
        call.payload = Payload::Stream { length, open: &open };
        let result = self.client.authorized(self.endpoint, &self.scopes, &call);
        drop(call);
        let reply = self.settle(result, Doubt::Offset)?;
        if reply.status != 202 {
            self.doubt = Doubt::Offset;
            return Err(reply.into_error());
        }
        let kept = reply.text(header::RANGE).and_then(uploaded_range);
        self.session = Some(session_of(reply)?);
        self.offset = kept.filter(|kept| (from + 1..=to + 1).contains(kept)).unwrap_or(to + 1);
        self.report();
        Ok(())
    }

    /// Ends the upload, with the whole blob when nothing was sent yet.
    fn put(&mut self) -> Result<(), Cause> {
        let session = self.session.clone().expect("begun before");
        let uri = location::with_query(&session, &[("digest", &self.blob.digest.to_string())])?;
        let length = self.blob.size - self.offset;
        let from = self.offset;
        let open = || self.open(from, length);
        let mut call = Call::new(Method::PUT, uri).header(header::CONTENT_TYPE, "application/octet-stream");
        if length > 0 {
            call.payload = Payload::Stream { length, open: &open };
        }
        call.answer_within = Some(self.client.commit_timeout());
        let result = self.client.authorized(self.endpoint, &self.scopes, &call);
        drop(call);
        let reply = self.settle(result, Doubt::Ended)?;
        if !matches!(reply.status, 201 | 204) {
            let cause = reply.into_error();
            self.doubt = if cause.leaves_doubt() { Doubt::Ended } else { Doubt::Offset };
            return Err(cause);
        }
        check_claim(reply.text(CONTENT_DIGEST), &self.blob.digest)?;
        reply.discard();
        self.offset = self.blob.size;
        self.report();
        Ok(())
    }

    /// Remembers what a lost answer leaves open.
    fn settle(&mut self, result: Result<Reply, Cause>, doubt: Doubt) -> Result<Reply, Cause> {
        if let Err(cause) = &result {
            self.doubt = if cause.leaves_doubt() { doubt } else { Doubt::Offset };
        }
        result
    }

    fn report(&self) {
        let state = TransferState::Moving { current: self.offset, total: self.blob.size };
        self.watch.transfer(&self.blob.digest, state);
    }

    /// Opens `length` bytes of the blob from `from` on.
    fn open(&self, from: u64, length: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut reader = self.source.open(&self.blob.digest)?;
        let skipped = io::copy(&mut reader.by_ref().take(from), &mut io::sink())?;
        if skipped < from {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let watched = Watched {
            inner: reader.take(length),
            digest: self.blob.digest,
            watch: self.watch,
            moved: &self.moved,
            current: from,
            total: self.blob.size,
        };
        Ok(Box::new(watched))
    }
}

/// Reports what is read, and marks failures as ours.
struct Watched<'a, R> {
    inner: R,
    digest: Digest,
    watch: &'a dyn TransferSink,
    moved: &'a AtomicU64,
    current: u64,
    total: u64,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let amount = self.inner.read(buf).map_err(|error| io::Error::other(LocalRead(error)))?;
        self.current += amount as u64;
        self.moved.fetch_add(amount as u64, Ordering::Relaxed);
        let state = TransferState::Moving { current: self.current, total: self.total };
        self.watch.transfer(&self.digest, state);
        Ok(amount)
    }
}

/// How many bytes a session has, from its `Range: 0-N`; `None` when that cannot be read.
pub(super) fn uploaded_range(text: &str) -> Option<u64> {
    let range = text.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let end = range.strip_prefix("0-")?;
    if end.is_empty() || !end.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    end.parse::<u64>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_sessions() {
        for (text, want) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", Some(1)),
            ("1-5", None),
            ("0--1", None),
            ("0-", None),
            ("0-18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(uploaded_range(text), want, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_range_is_read_or_refused(text in "\\PC{0,30}", end in 0u64..u64::MAX) {
            let _ = uploaded_range(&text);
            proptest::prop_assert_eq!(uploaded_range(&format!("0-{end}")), Some(end + 1));
        }
    }
}
