//! Blobs from a registry into a sink: resumed where an earlier attempt, or an earlier process, stopped.
//!
//! The digest decides at the end, so a part may be added to what is there only if it begins exactly where that ends:
//! 206 must match the offset, a 200 is the whole blob and its known beginning is skipped, 416 makes us ask for the
//! whole. Reading stops when more comes than the descriptor says.

use std::io::{self, Read};

use ureq::http::Method;
use ureq::http::Uri;
use ureq::http::header;

use super::client::{Client, blob_path, repository};
use super::error::{Action, Cause, RegistryError, Target};
use super::exchange::{Call, Reply, body_error};
use super::location;
use super::mirror::{Endpoint, Wanted};
use super::retry::Retry;
use super::token::Scopes;
use super::transfer::{TransferSink, TransferState};
use crate::blob::{BlobSink, BlobWriter};
use crate::descriptor::Descriptor;
use crate::reference::ImageRef;

/// An attempt that brought this many bytes has reached something.
const PROGRESS: u64 = 64 << 10;
/// Bytes read at once.
const BUFFER: usize = 128 << 10;

impl Client {
    /// Fetches a blob into a sink, unless the sink has it. Returns when it is verified and kept.
    pub fn fetch_blob(
        &self,
        name: &ImageRef,
        blob: &Descriptor,
        sink: &dyn BlobSink,
        watch: &dyn TransferSink,
    ) -> Result<(), RegistryError> {
        let mut download = Download { client: self, name, blob, sink, watch, partial: None, ranges: true };
        let item = Some(blob.digest.to_string());
        let result = self.ask_endpoints(Action::FetchBlob, name, item.clone(), Wanted::Digest, |endpoint, retry| {
            download.attempt(&Source::Registry(endpoint), retry)
        });
        match result {
            Err(error) if error.is_not_found() && blob.media_type.is_foreign_layer() => {
                download.elsewhere().unwrap_or(Err(error))
            }
            other => other,
        }
    }
}

/// Who gives the bytes.
enum Source<'a> {
    /// An endpoint, which may ask for credentials.
    Registry(&'a Endpoint),
    /// An address from the descriptor, which gets none.
    Url(&'a Uri),
}

struct Download<'a> {
    client: &'a Client,
    name: &'a ImageRef,
    blob: &'a Descriptor,
    sink: &'a dyn BlobSink,
    watch: &'a dyn TransferSink,
    /// The writer, and how many bytes it has.
    partial: Option<(Box<dyn BlobWriter>, u64)>,
    /// Whether parts may be asked for.
    ranges: bool,
}

impl Download<'_> {
    /// Tries the addresses of a layer that registries need not hold; `None` when it has none.
    fn elsewhere(&mut self) -> Option<Result<(), RegistryError>> {
        let base = self.client.base(&self.client.push_endpoint(self.name)).ok()?;
        let mut last = None;
        for url in &self.blob.urls {
            let target = Target {
                registry: self.name.registry().to_owned(),
                repository: self.name.repository().to_owned(),
                item: Some(self.blob.digest.to_string()),
            };
            let client = self.client;
            let result = client.tried(Action::FetchBlob, target, client.retry_policy(), |retry| {
                let uri = location::follow(&base, url)?;
                self.attempt(&Source::Url(&uri), retry)
            });
            match result {
                Err(error) if !error.is_cancelled() => last = Some(Err(error)),
                other => return Some(other),
            }
        }
        last
    }

    fn attempt(&mut self, source: &Source<'_>, retry: &mut Retry) -> Result<(), Cause> {
        if self.partial.is_none() && self.sink.contains(&self.blob.digest).map_err(Cause::Storage)? {
            self.watch.transfer(&self.blob.digest, TransferState::Present);
            return Ok(());
        }
        if retry.attempts() > 1 {
            self.watch.transfer(&self.blob.digest, TransferState::Retrying { attempts: retry.attempts() });
        }
        let result = self.complete(source, retry);
        let Err(Cause::Corrupt { .. }) = result else { return result };
        // The sink has thrown away what it had. One damaged copy may be an accident on the way, two are not.
        tracing::warn!(digest = %self.blob.digest, "content did not match its digest; fetching it once more");
        self.ranges = true;
        self.complete(source, retry)
    }

    fn complete(&mut self, source: &Source<'_>, retry: &mut Retry) -> Result<(), Cause> {
        if self.partial.is_none() {
            let writer = self.sink.begin(self.blob).map_err(Cause::Storage)?;
            let offset = writer.resume_offset();
            self.partial = Some((writer, offset));
        }
        if self.partial.as_ref().is_some_and(|(_, offset)| *offset < self.blob.size) {
            self.receive(source, retry)?;
        }
        let (writer, _) = self.partial.take().expect("begun above");
        let digest = self.blob.digest;
        writer.commit().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Cause::Corrupt { digest, source: error },
            _ => Cause::Storage(error),
        })?;
        self.watch.transfer(&digest, TransferState::Done);
        Ok(())
    }

    fn receive(&mut self, source: &Source<'_>, retry: &mut Retry) -> Result<(), Cause> {
        let (writer, offset) = self.partial.as_mut().expect("only called with a writer");
        let size = self.blob.size;
        let from = if self.ranges { *offset } else { 0 };
        let make = |uri| match from {
            0 => Call::new(Method::GET, uri),
            from => Call::new(Method::GET, uri).header(header::RANGE, format!("bytes={from}-")),
        };
        let reply = match source {
            Source::Registry(endpoint) => {
                let path = blob_path(endpoint, self.name, &self.blob.digest);
                self.client.request(endpoint, &path, &Scopes::pull(&repository(endpoint, self.name)), &make)?
            }
            Source::Url(uri) => self.client.send_plain(&make((*uri).clone()))?,
        };
        // Where the body begins in the blob.
        let mut position = match begins_at(&reply, from, size) {
            Ok(Some(position)) => position,
            Ok(None) => return Err(reply.into_error()),
            Err(cause) => {
                if matches!(cause, Cause::WrongRange(_)) {
                    self.ranges = false;
                }
                return Err(cause);
            }
        };
        let mut body = reply.into_body();
        let mut buffer = vec![0; BUFFER];
        let mut fresh = 0;
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(body_error(error)),
            };
            super::cancel::check()?;
            let known = offset.saturating_sub(position).min(read);
            position += read;
            if position > size {
                return Err(Cause::TooLarge { limit: size });
            }
            let new = &buffer[known as usize..read as usize];
            writer.write_all(new).map_err(Cause::Storage)?;
            *offset += new.len() as u64;
            fresh += new.len() as u64;
            if fresh >= PROGRESS {
                retry.progressed();
                fresh = 0;
            }
            self.watch.transfer(&self.blob.digest, TransferState::Moving { current: *offset, total: size });
        }
        if position < size { Err(Cause::Short { wanted: size, got: position }) } else { Ok(()) }
    }
}

/// Where the body of an answer begins in the blob; `None` when it is an error message.
fn begins_at(reply: &Reply, from: u64, size: u64) -> Result<Option<u64>, Cause> {
    match reply.status {
        200 => {
            let offered = reply.text(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
            match offered {
                Some(offered) if offered != size => Err(Cause::WrongSize { wanted: size, offered }),
                _ => Ok(Some(0)),
            }
        }
        206 => {
            let text = reply.text(header::CONTENT_RANGE).unwrap_or_default();
            match content_range(text) {
                Some(range) if range.start == from && range.total.is_none_or(|total| total == size) => Ok(Some(from)),
                _ => Err(Cause::WrongRange(super::error::escaped(text.as_bytes()))),
            }
        }
        416 if from > 0 => Err(Cause::WrongRange("it has no such part".to_owned())),
        _ => Ok(None),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    start: u64,
    end: u64,
    total: Option<u64>,
}

/// `bytes 5-9/10` or `bytes 5-9/*` (RFC 9110 §14.4).
fn content_range(text: &str) -> Option<ContentRange> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let number =
        |text: &str| -> Option<u64> { if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None } };
    let (start, end) = (number(start)?, number(end)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    let sound = unit.eq_ignore_ascii_case("bytes") && start <= end && total.is_none_or(|total| end < total);
    sound.then_some(ContentRange { start, end, total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let range = |start, end, total| Some(ContentRange { start, end, total });
        for (text, want) in [
            ("bytes 5-9/10", range(5, 9, Some(10))),
            ("Bytes 0-0/*", range(0, 0, None)),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes -5/10", None),
            ("bytes 5-/10", None),
            ("bytes +5-9/10", None),
            ("items 5-9/10", None),
            ("bytes 5-99999999999999999999/*", None),
            ("", None),
        ] {
            assert_eq!(content_range(text), want, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_content_range_is_read_or_refused(text in "\\PC{0,40}", start in 0u64.., length in 0u64..1000) {
            let _ = content_range(&text);
            if let Some(end) = start.checked_add(length) {
                let text = format!("bytes {start}-{end}/*");
                proptest::prop_assert_eq!(content_range(&text), Some(ContentRange { start, end, total: None }));
            }
        }
    }
}
