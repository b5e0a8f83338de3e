//! Blobs on their way into the store, for whoever unpacks them while they come.
//!
//! What is read here is not verified yet: that it unpacks to the digest which the image's config names is what makes it
//! a layer. A blob that turns out to be damaged is fetched once more by whoever brings it; a reader of the first copy
//! then fails, and asks for the whole one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rbuild_cache::{LeasedBlobs, Store};
use rbuild_image::{BlobSink, BlobSource, BlobWriter, Descriptor, Digest};

/// How often a reader that waits asks whether to stop.
const SLICE: Duration = Duration::from_millis(50);

/// A sink that tells how far its blobs are.
pub(super) struct Arrivals<'a> {
    store: &'a Store,
    sink: LeasedBlobs<'a>,
    blobs: BTreeMap<Digest, Arc<Arrival>>,
    needless: BTreeSet<Digest>,
}

/// One blob.
struct Arrival {
    size: u64,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    state: State,
    /// Which copy of the blob it is: another one after each that was damaged.
    copy: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has begun to bring it.
    Awaited,
    /// So many bytes are there.
    Growing(u64),
    /// It is there and verified.
    Whole,
    /// It will not come.
    Lost,
}

impl Arrival {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        self.progress().state = state;
        self.changed.notify_all();
    }

    /// Waits until it is as `enough` says; its progress then.
    fn wait(&self, cancelled: &dyn Fn() -> bool, enough: impl Fn(&Progress) -> bool) -> io::Result<Progress> {
        let mut progress = self.progress();
        loop {
            if progress.state == State::Lost || cancelled() {
                return Err(io::Error::other("its bytes did not come"));
            }
            if enough(&progress) {
                return Ok(*progress);
            }
            progress = self.changed.wait_timeout(progress, SLICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<'a> Arrivals<'a> {
    /// Expects `blobs` to come into `sink`, but for those that are `needless` and were not kept.
    pub(super) fn new(
        store: &'a Store,
        sink: LeasedBlobs<'a>,
        blobs: &[Descriptor],
        needless: BTreeSet<Digest>,
    ) -> Self {
        let awaited = |blob: &Descriptor| {
            let progress = Mutex::new(Progress { state: State::Awaited, copy: 0 });
            (blob.digest, Arc::new(Arrival { size: blob.size, progress, changed: Condvar::new() }))
        };
        Self { store, sink, blobs: blobs.iter().map(awaited).collect(), needless }
    }

    /// Says that what is not there will not come.
    pub(super) fn give_up(&self) {
        for blob in self.blobs.values() {
            let mut progress = blob.progress();
            if progress.state != State::Whole {
                progress.state = State::Lost;
            }
            drop(progress);
            blob.changed.notify_all();
        }
    }

    /// Waits until a blob is there and verified.
    pub(super) fn wait_whole(&self, digest: &Digest, cancelled: &dyn Fn() -> bool) -> io::Result<()> {
        match self.blobs.get(digest) {
            Some(blob) => blob.wait(cancelled, |progress| progress.state == State::Whole).map(drop),
            None => Ok(()),
        }
    }

    /// Reads a blob from its beginning, waiting for what is not there yet.
    pub(super) fn open<'r>(
        &self,
        digest: &Digest,
        cancelled: &'r (dyn Fn() -> bool + Sync),
    ) -> io::Result<Box<dyn Read + Send + 'r>> {
        let Some(blob) = self.blobs.get(digest) else { return self.store.blobs().open(digest) };
        let progress = blob.wait(cancelled, |progress| progress.state != State::Awaited)?;
        if progress.state == State::Whole {
            return self.store.blobs().open(digest);
        }
        let file = self.store.blobs().open_arriving(digest)?;
        Ok(Box::new(Growing { file, arrival: Arc::clone(blob), copy: progress.copy, offset: 0, cancelled }))
    }
}

impl BlobSink for Arrivals<'_> {
    fn contains(&self, digest: &Digest) -> io::Result<bool> {
        let there = self.sink.contains(digest)? || self.needless.contains(digest);
        if let (true, Some(blob)) = (there, self.blobs.get(digest)) {
            blob.set(State::Whole);
        }
        Ok(there)
    }

    fn begin(&self, expected: &Descriptor) -> io::Result<Box<dyn BlobWriter>> {
        let writer = self.sink.begin(expected)?;
        let Some(blob) = self.blobs.get(&expected.digest) else { return Ok(writer) };
        let bytes = writer.resume_offset();
        blob.set(State::Growing(bytes));
        Ok(Box::new(Reporting { writer, bytes, arrival: Arc::clone(blob) }))
    }
}

/// Reports what is written.
struct Reporting {
    writer: Box<dyn BlobWriter>,
    bytes: u64,
    arrival: Arc<Arrival>,
}

impl Write for Reporting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.bytes += written as u64;
        self.arrival.set(State::Growing(self.bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl BlobWriter for Reporting {
    fn resume_offset(&self) -> u64 {
        self.writer.resume_offset()
    }

    fn commit(self: Box<Self>) -> io::Result<()> {
        let result = self.writer.commit();
        let mut progress = self.arrival.progress();
        match result {
            Ok(()) => progress.state = State::Whole,
            Err(_) => *progress = Progress { state: State::Awaited, copy: progress.copy + 1 },
        }
        drop(progress);
        self.arrival.changed.notify_all();
        result
    }
}

/// Reads a file that grows.
struct Growing<'r> {
    file: File,
    arrival: Arc<Arrival>,
    copy: u32,
    offset: u64,
    cancelled: &'r (dyn Fn() -> bool + Sync),
}

impl Read for Growing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (offset, copy, size) = (self.offset, self.copy, self.arrival.size);
        if offset >= size || buffer.is_empty() {
            return Ok(0);
        }
        let there = |progress: &Progress| match progress.state {
            State::Growing(bytes) => bytes,
            State::Whole => size,
            State::Awaited | State::Lost => 0,
        };
        let progress =
            self.arrival.wait(self.cancelled, |progress| progress.copy != copy || there(progress) > offset)?;
        if progress.copy != copy {
            return Err(io::Error::other("the copy that was read is damaged"));
        }
        let most = usize::try_from(there(&progress).min(size) - offset).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use rbuild_cache::{OpenOptions, wait_silently};
    use rbuild_image::MediaType;

    use super::*;

    fn blob(bytes: &[u8]) -> Descriptor {
        Descriptor::of(MediaType::OciLayerGzip, bytes)
    }

    #[test]
    fn a_reader_follows_the_writer_and_ends_with_it() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let descriptor = blob(&bytes);
        let sink = store.blobs_for(&lease, &wait_silently);
        let arrivals = Arrivals::new(&store, sink, std::slice::from_ref(&descriptor), BTreeSet::new());
        std::thread::scope(|threads| {
            let reading = threads.spawn(|| {
                let mut read = Vec::new();
                arrivals.open(&descriptor.digest, &|| false).unwrap().read_to_end(&mut read).unwrap();
                read
            });
            let mut writer = arrivals.begin(&descriptor).unwrap();
            for piece in bytes.chunks(77_777) {
                writer.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(reading.join().unwrap() == bytes, "before it is verified");
            writer.commit().unwrap();
        });
        arrivals.wait_whole(&descriptor.digest, &|| false).unwrap();
    }

    #[test]
    fn a_damaged_copy_is_not_mixed_with_the_next_one() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        let good = vec![7; 100_000];
        let descriptor = blob(&good);
        let sink = store.blobs_for(&lease, &wait_silently);
        let arrivals = Arrivals::new(&store, sink, std::slice::from_ref(&descriptor), BTreeSet::new());
        let mut writer = arrivals.begin(&descriptor).unwrap();
        writer.write_all(&vec![8; 50_000]).unwrap();
        let mut reader = arrivals.open(&descriptor.digest, &|| false).unwrap();
        reader.read_exact(&mut [0; 10]).unwrap();
        writer.write_all(&vec![8; 50_000]).unwrap();
        assert!(writer.commit().is_err());
        let mut again = arrivals.begin(&descriptor).unwrap();
        again.write_all(&good).unwrap();
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
        again.commit().unwrap();
        let mut read = Vec::new();
        arrivals.open(&descriptor.digest, &|| false).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == good);
    }

    #[test]
    fn nobody_waits_for_what_will_not_come() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
        let lease = store.lease("test").unwrap();
        let descriptor = blob(b"never");
        let arrivals = Arrivals::new(
            &store,
            store.blobs_for(&lease, &wait_silently),
            std::slice::from_ref(&descriptor),
            BTreeSet::new(),
        );
        std::thread::scope(|threads| {
            let reading = threads.spawn(|| arrivals.open(&descriptor.digest, &|| false).map(drop));
            arrivals.give_up();
            assert!(reading.join().unwrap().is_err());
        });
        assert!(arrivals.wait_whole(&descriptor.digest, &|| true).is_err());
    }
}
