//! A blob into a registry while it is still being made: its digest is known when its last byte is.
//!
//! One request carries all bytes, in chunks of unknown number as Docker sends them, and the request that ends the upload
//! says the digest. There is one attempt: whatever goes wrong, the upload is given up, and the blob, which is whole by
//! then, goes as any other does, from its beginning and with all attempts. So nothing of a half upload remains.

use std::io::{self, Read};

use ureq::http::{Method, Uri, header};

use super::client::{CONTENT_DIGEST, Client, check_claim};
use super::error::{Action, Cause, LocalRead, RegistryError};
use super::exchange::{Call, Payload};
use super::location;
use super::mirror::Endpoint;
use super::retry::RetryPolicy;
use super::token::Scopes;
use super::transfer::{TransferSink, TransferState};
use super::upload::{session_of, target, uploaded_range};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::reference::ImageRef;

/// A blob that is being made by somebody else.
pub trait UnfinishedBlob: Sync {
    /// Its bytes from the beginning. Reading waits for those that are not there yet, and fails when they will not come.
    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>>;

    /// What it became; waits for that.
    fn whole(&self) -> io::Result<Descriptor>;
}

impl Client {
    /// Sends a blob into a repository while it is being made; what it became, or `None` when it did not get there this
    /// way. Until its digest is known it is watched as `named`.
    pub fn push_unfinished(
        &self,
        name: &ImageRef,
        named: &Digest,
        blob: &dyn UnfinishedBlob,
        watch: &dyn TransferSink,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let endpoint = self.push_endpoint(name);
        let scopes = Scopes::push(name.repository());
        let begin = |_: &mut _| self.begin_upload(&endpoint, name, &scopes);
        let session = self.tried(Action::PushBlob, target(name, None), self.retry_policy(), begin)?;
        let once = RetryPolicy { attempts: 1, ..self.retry_policy() };
        let sent = self.tried(Action::PushBlob, target(name, None), once, |_| {
            self.send_unfinished(&endpoint, &scopes, &session, blob, &mut |current| {
                watch.transfer(named, TransferState::Flowing { current });
            })
        });
        match sent {
            Ok(descriptor) => {
                let size = descriptor.size;
                watch.transfer(named, TransferState::Moving { current: size, total: size });
                watch.transfer(&descriptor.digest, TransferState::Done);
                Ok(Some(descriptor))
            }
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) => {
                tracing::debug!(%error, cause = %error.cause, "not taken as a stream; it goes when it is whole");
                // Registries forget sessions by themselves; not all of them let us end one.
                if let Ok(reply) = self.authorized(&endpoint, &scopes, &Call::new(Method::DELETE, session)) {
                    reply.discard();
                }
                Ok(None)
            }
        }
    }

    fn send_unfinished(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        session: &Uri,
        blob: &dyn UnfinishedBlob,
        advance: &mut dyn FnMut(u64),
    ) -> Result<Descriptor, Cause> {
        let advance = std::cell::RefCell::new(advance);
        let open = || -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(Told { inner: blob.open()?, bytes: 0, advance: &advance }))
        };
        let mut call =
            Call::new(Method::PATCH, session.clone()).header(header::CONTENT_TYPE, "application/octet-stream");
        call.payload = Payload::Unbounded { open: &open };
        call.answer_within = Some(self.commit_timeout());
        let reply = self.authorized(endpoint, scopes, &call)?;
        drop(call);
        if reply.status != 202 {
            return Err(reply.into_error());
        }
        let kept = reply.text(header::RANGE).and_then(uploaded_range);
        let session = session_of(reply)?;
        let whole = blob.whole().map_err(Cause::Storage)?;
        // "0-0" is what registries say of one byte and of none.
        if kept.is_some_and(|kept| kept != whole.size.max(1)) {
            return Err(Cause::Protocol("the registry kept another number of bytes than were sent".to_owned()));
        }
        let uri = location::with_query(&session, &[("digest", &whole.digest.to_string())])?;
        let mut call = Call::new(Method::PUT, uri).header(header::CONTENT_TYPE, "application/octet-stream");
        call.answer_within = Some(self.commit_timeout());
        let reply = self.authorized(endpoint, scopes, &call)?;
        if !matches!(reply.status, 201 | 204) {
            return Err(reply.into_error());
        }
        check_claim(reply.text(CONTENT_DIGEST), &whole.digest)?;
        reply.discard();
        Ok(whole)
    }
}

/// Tells how much was read, and marks failures as ours.
struct Told<'a, 'f, R> {
    inner: R,
    bytes: u64,
    advance: &'a std::cell::RefCell<&'f mut dyn FnMut(u64)>,
}

impl<R: Read> Read for Told<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.inner.read(buffer).map_err(|error| io::Error::other(LocalRead(error)))?;
        self.bytes += amount as u64;
        (self.advance.borrow_mut())(self.bytes);
        Ok(amount)
    }
}
