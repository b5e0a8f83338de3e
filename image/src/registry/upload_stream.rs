//! A blob into a registry while it is still being made: its digest is known when its last byte is.
//!
//! One request carries all bytes, in chunks of unknown number as Docker sends them, and the request that ends the upload
//! says the digest. Where that request breaks off, the registry is asked what it has, and gets the rest in parts of known
//! length as they are made, as any other interrupted upload does. A registry that takes no such stream is left alone:
//! the upload is given up, and the blob, which is whole by then, goes as any other does, from its beginning. So nothing
//! of a half upload remains.

use std::io::{self, Read};

use super::client::Client;
use super::error::{Action, Cause, RegistryError};
use super::retry::{Again, Retry};
use super::transfer::{TransferSink, TransferState};
use super::upload::target;
use super::upload_session::{Goal, OpenBytes, Upload};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::reference::ImageRef;

/// The fewest bytes that are sent at once after an interruption, unless they are the last ones.
const PART: u64 = 4 << 20;

/// A blob that is being made by somebody else.
pub trait UnfinishedBlob: Sync {
    /// Its bytes from `from` on. Reading waits for those that are not there yet, and fails when they will not come.
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send + '_>>;

    /// How many bytes there are: at least so many, unless it is whole with fewer. Waits for that.
    fn grown(&self, least: u64) -> io::Result<u64>;

    /// What it became; waits for that.
    fn whole(&self) -> io::Result<Descriptor>;
}

impl Client {
    /// Sends a blob into a repository while it is being made; what it became, or `None` when it did not get there this
    /// way. Until it is there it is watched as `named`.
    pub fn push_unfinished(
        &self,
        name: &ImageRef,
        named: &Digest,
        blob: &dyn UnfinishedBlob,
        watch: &dyn TransferSink,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let endpoint = self.push_endpoint(name);
        let open = |from: u64| -> io::Result<OpenBytes<'_>> { blob.open(from).map(|bytes| bytes as OpenBytes<'_>) };
        let mut upload = Upload::new(self, &endpoint, name, (watch, *named), &open);
        let policy = self.retry_policy();
        self.tried(Action::PushBlob, target(name, None), policy, |_| upload.begin())?;
        let mut first = true;
        let sent = self.tried(Action::PushBlob, target(name, None), policy, |retry| match std::mem::take(&mut first) {
            true => upload.stream(retry),
            false => follow(&mut upload, blob, retry),
        });
        let mut whole = None;
        let ended = sent.and_then(|()| {
            self.tried(Action::PushBlob, target(name, None), policy, |retry| {
                if whole.is_none() {
                    let descriptor = whole.insert(blob.whole().map_err(Cause::Storage)?);
                    upload.all_sent(descriptor.size);
                    upload.goal = Goal::Whole(descriptor.digest, descriptor.size);
                }
                upload.attempt(retry)
            })
        });
        match (ended, whole) {
            (Ok(()), Some(descriptor)) => {
                watch.transfer(&descriptor.digest, TransferState::Done);
                Ok(Some(descriptor))
            }
            (Ok(()), None) => unreachable!("what ended has a digest"),
            (Err(error), _) if error.is_cancelled() => Err(error),
            // All attempts were made: the same blob would meet the same silence.
            (Err(error), _) if error.attempts > 1 && error.cause.again() != Again::Never => Err(error),
            (Err(error), _) => {
                tracing::debug!(%error, cause = %error.cause, "not taken as a stream; it goes when it is whole");
                upload.give_up();
                Ok(None)
            }
        }
    }
}

/// Sends what there is after what the registry has, until there is all of it.
fn follow(upload: &mut Upload<'_>, blob: &dyn UnfinishedBlob, retry: &mut Retry) -> Result<(), Cause> {
    loop {
        let least = upload.offset() + PART.max(upload.least());
        let there = blob.grown(least).map_err(Cause::Storage)?;
        upload.goal = Goal::Part(there);
        upload.attempt(retry)?;
        if there < least {
            return Ok(());
        }
    }
}
