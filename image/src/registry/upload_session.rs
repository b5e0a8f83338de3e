//! One blob's upload: small ones in one request, others in a session that is resumed from where the registry says it is.
//!
//! ```text
//! POST …/uploads/ ─> session ── PATCH bytes (Content-Range) ─┬─> PUT ?digest= ─> there
//!                                  ^         broken │        │
//!                                  └── GET: Range ──┘   (more bytes come)
//! ```
//!
//! Which bytes a registry has after a broken connection, only the registry knows. One that forgot the session, or does
//! not say, gets the blob from its beginning in another session. When the answer to the last request is lost, the
//! registry is asked whether it has the blob. A session's address may be on another host; credentials do not follow it
//! there.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::http::{Method, Uri, header};

use super::client::{CONTENT_DIGEST, Client, check_claim};
use super::error::{Cause, LocalRead};
use super::exchange::{Call, Payload, Reply};
use super::location;
use super::mirror::Endpoint;
use super::retry::Retry;
use super::token::Scopes;
use super::transfer::{TransferSink, TransferState};
use crate::digest::Digest;
use crate::reference::ImageRef;

/// Blobs up to this size are sent with the request that ends their upload.
const MONOLITHIC: u64 = 1 << 20;
/// More bytes sent than this is progress.
const PROGRESS: u64 = 64 << 10;
/// By which a registry says how short a part may be that is not the last one.
const LEAST_PART: &str = "oci-chunk-min-length";

/// Bytes that are sent.
pub(super) type OpenBytes<'a> = Box<dyn Read + 'a>;

/// An upload that a registry has begun.
pub(super) struct Session {
    /// Where it goes on.
    pub(super) uri: Uri,
    /// The fewest bytes of a part that is not the last one; 0 where the registry does not mind.
    pub(super) least: u64,
}

/// The session that an answer names.
pub(super) fn session_of(reply: Reply) -> Result<Session, Cause> {
    let uri = location::follow(&reply.uri, reply.text(header::LOCATION).unwrap_or_default())?;
    let least = reply.text(LEAST_PART).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    reply.discard();
    Ok(Session { uri, least })
}

/// How far an upload is to go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// The first so many bytes are to be there; others will come.
    Part(u64),
    /// It is to become the blob of this digest and size.
    Whole(Digest, u64),
}

impl Goal {
    fn size(self) -> u64 {
        match self {
            Self::Part(size) | Self::Whole(_, size) => size,
        }
    }
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

/// An upload, over all its attempts.
pub(super) struct Upload<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    scopes: Scopes,
    name: &'a ImageRef,
    pub(super) goal: Goal,
    /// Opens the blob at an offset.
    open: &'a dyn Fn(u64) -> io::Result<OpenBytes<'a>>,
    watch: &'a dyn TransferSink,
    /// What it is watched as.
    named: Digest,
    session: Option<Uri>,
    least: u64,
    /// How many bytes the session has.
    offset: u64,
    doubt: Doubt,
    restarted: bool,
    /// Bytes handed to the network in this attempt.
    moved: AtomicU64,
}

impl<'a> Upload<'a> {
    /// One that has not begun, of what `open` opens.
    pub(super) fn new(
        client: &'a Client,
        endpoint: &'a Endpoint,
        name: &'a ImageRef,
        (watch, named): (&'a dyn TransferSink, Digest),
        open: &'a dyn Fn(u64) -> io::Result<OpenBytes<'a>>,
    ) -> Self {
        Self {
            client,
            endpoint,
            scopes: Scopes::push(name.repository()),
            name,
            goal: Goal::Part(0),
            open,
            watch,
            named,
            session: None,
            least: 0,
            offset: 0,
            doubt: Doubt::None,
            restarted: false,
            moved: AtomicU64::new(0),
        }
    }

    /// Takes a session that was begun already, if any was.
    pub(super) fn goes_on_in(&mut self, session: Option<Session>) {
        if let Some(Session { uri, least }) = session {
            (self.session, self.least) = (Some(uri), least);
        }
    }

    /// Sees to it that there is a session.
    pub(super) fn begin(&mut self) -> Result<(), Cause> {
        if self.session.is_none() {
            let session = self.client.begin_upload(self.endpoint, self.name, &self.scopes)?;
            self.offset = 0;
            self.goes_on_in(Some(session));
        }
        Ok(())
    }

    /// Ends it without a result.
    pub(super) fn give_up(self) {
        if let Some(session) = self.session {
            self.client.give_up_upload(self.endpoint, &self.scopes, session);
        }
    }

    /// How many bytes the session has, as far as that is known.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The fewest bytes of a part that is not the last one.
    pub(super) fn least(&self) -> u64 {
        self.least
    }

    /// Says how many bytes there were in all, when all were sent.
    pub(super) fn all_sent(&mut self, size: u64) {
        // "0-0" is what registries say of one byte and of none.
        let doubtful = self.offset > size.max(1) || (self.offset == 1 && size > 1);
        match doubtful {
            true => self.forget_session(),
            false => self.offset = self.offset.min(size),
        }
    }

    /// Sends everything in one request that says no length: whoever opens the blob waits for what is not there yet.
    pub(super) fn stream(&mut self, retry: &mut Retry) -> Result<(), Cause> {
        self.moved.store(0, Ordering::Relaxed);
        let result = self.stream_once();
        self.note_motion(&result, retry);
        result
    }

    fn stream_once(&mut self) -> Result<(), Cause> {
        self.begin()?;
        let session = self.session.clone().expect("begun before");
        let open = || -> io::Result<Box<dyn Read + '_>> { Ok(Box::new(self.watched((self.open)(0)?, 0, u64::MAX))) };
        let mut call = Call::new(Method::PATCH, session).header(header::CONTENT_TYPE, "application/octet-stream");
        call.payload = Payload::Unbounded { open: &open };
        call.answer_within = Some(self.client.commit_timeout());
        let result = self.client.authorized(self.endpoint, &self.scopes, &call);
        drop(call);
        let kept = self.taken(result)?;
        self.offset = kept.unwrap_or_else(|| self.moved.load(Ordering::Relaxed));
        Ok(())
    }

    /// Tries to reach the goal.
    pub(super) fn attempt(&mut self, retry: &mut Retry) -> Result<(), Cause> {
        if retry.attempts() > 1 {
            self.watch.transfer(&self.named, TransferState::Retrying { attempts: retry.attempts() });
        }
        self.moved.store(0, Ordering::Relaxed);
        let result = match self.go_on(retry) {
            Err(Cause::Status { status: status @ (404 | 416), .. }) if self.session.is_some() && !self.restarted => {
                tracing::debug!(named = %self.named, status, "the registry does not know the upload as we do");
                self.restarted = true;
                match status {
                    416 => self.doubt = Doubt::Offset,
                    _ => self.forget_session(),
                }
                self.go_on(retry)
            }
            other => other,
        };
        self.note_motion(&result, retry);
        result
    }

    fn note_motion(&self, result: &Result<(), Cause>, retry: &mut Retry) {
        if result.is_err() && self.moved.load(Ordering::Relaxed) >= PROGRESS {
            retry.moved();
        }
    }

    fn forget_session(&mut self) {
        (self.session, self.offset, self.doubt) = (None, 0, Doubt::None);
    }

    fn go_on(&mut self, retry: &mut Retry) -> Result<(), Cause> {
        if let (Doubt::Ended, Goal::Whole(digest, _)) = (self.doubt, self.goal)
            && self.client.head_blob(self.endpoint, self.name, &digest)?
        {
            return Ok(());
        }
        if self.doubt != Doubt::None {
            self.ask_offset(retry)?;
        }
        self.begin()?;
        let size = self.goal.size();
        let limit = self.client.upload_chunk().unwrap_or(u64::MAX).max(self.least).max(1);
        let is_part = matches!(self.goal, Goal::Part(_));
        if is_part || self.offset > 0 || size > MONOLITHIC.min(limit) {
            while self.offset < size {
                let length = (size - self.offset).min(limit);
                self.patch(length)?;
                retry.progressed();
            }
        }
        match self.goal {
            Goal::Part(_) => Ok(()),
            Goal::Whole(digest, size) => self.put(digest, size),
        }
    }

    /// Asks the registry how much of the blob it has.
    fn ask_offset(&mut self, retry: &mut Retry) -> Result<(), Cause> {
        let Some(session) = self.session.clone() else {
            self.doubt = Doubt::None;
            return Ok(());
        };
        let reply = self.client.authorized(self.endpoint, &self.scopes, &Call::new(Method::GET, session))?;
        match reply.status {
            200 | 202 | 204 => {}
            // It was forgotten, or this registry does not say.
            400 | 404 | 405 | 410 | 416 | 501 => {
                reply.discard();
                self.forget_session();
                return Ok(());
            }
            _ => return Err(reply.into_error()),
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
        if offset > self.goal.size() {
            reply.discard();
            self.forget_session();
            return Ok(());
        }
        if reply.headers.contains_key(header::LOCATION) {
            self.session = Some(session_of(reply)?.uri);
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
        let open = || self.part(from, length);
        let mut call = Call::new(Method::PATCH, session).header(header::CONTENT_TYPE, "application/octet-stream");
        let is_all = matches!(self.goal, Goal::Whole(_, size) if length == size);
        if !is_all {
            // A blob in one piece is a stream to registries that know no chunks.
            call = call.header(header::CONTENT_RANGE, format!("{from}-{to}"));
        }
        call.payload = Payload::Stream { length, open: &open };
        let result = self.client.authorized(self.endpoint, &self.scopes, &call);
        drop(call);
        let kept = self.taken(result)?;
        self.offset = kept.filter(|kept| (from + 1..=to + 1).contains(kept)).unwrap_or(to + 1);
        self.report();
        Ok(())
    }

    /// Ends the upload, with the whole blob when nothing was sent yet.
    fn put(&mut self, digest: Digest, size: u64) -> Result<(), Cause> {
        let session = self.session.clone().expect("begun before");
        let uri = location::with_query(&session, &[("digest", &digest.to_string())])?;
        let length = size - self.offset;
        let from = self.offset;
        let open = || self.part(from, length);
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
        check_claim(reply.text(CONTENT_DIGEST), &digest)?;
        reply.discard();
        self.offset = size;
        self.report();
        Ok(())
    }

    /// Reads the answer to bytes that were sent: where the session goes on, and how many it says to have.
    fn taken(&mut self, result: Result<Reply, Cause>) -> Result<Option<u64>, Cause> {
        let reply = self.settle(result, Doubt::Offset)?;
        if reply.status != 202 {
            self.doubt = Doubt::Offset;
            return Err(reply.into_error());
        }
        let kept = reply.text(header::RANGE).and_then(uploaded_range);
        self.session = Some(session_of(reply)?.uri);
        Ok(kept)
    }

    /// Remembers what a lost answer leaves open.
    fn settle(&mut self, result: Result<Reply, Cause>, doubt: Doubt) -> Result<Reply, Cause> {
        if let Err(cause) = &result {
            self.doubt = if cause.leaves_doubt() { doubt } else { Doubt::Offset };
        }
        result
    }

    fn state(&self, current: u64) -> TransferState {
        match self.goal {
            Goal::Part(_) => TransferState::Flowing { current },
            Goal::Whole(_, total) => TransferState::Moving { current, total },
        }
    }

    fn report(&self) {
        self.watch.transfer(&self.named, self.state(self.offset));
    }

    /// Opens `length` bytes of the blob from `from` on.
    fn part(&self, from: u64, length: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.watched((self.open)(from)?, from, length)))
    }

    fn watched(&self, bytes: OpenBytes<'a>, from: u64, length: u64) -> Watched<'_, 'a> {
        Watched { inner: bytes.take(length), upload: self, current: from }
    }
}

/// Reports what is read, and marks failures as ours.
struct Watched<'u, 'a> {
    inner: io::Take<OpenBytes<'a>>,
    upload: &'u Upload<'a>,
    current: u64,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let amount = self.inner.read(buf).map_err(|error| io::Error::other(LocalRead(error)))?;
        self.current += amount as u64;
        self.upload.moved.fetch_add(amount as u64, Ordering::Relaxed);
        self.upload.watch.transfer(&self.upload.named, self.upload.state(self.current));
        Ok(amount)
    }
}

/// How many bytes a session has, from its `Range: 0-N`; `None` when that cannot be read.
fn uploaded_range(text: &str) -> Option<u64> {
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
