//! A layer's file while it is being compressed, for whoever sends it meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rbuild_image::registry::{Cancel, UnfinishedBlob};
use rbuild_image::write_behind::WriteBehind;
use rbuild_image::{Descriptor, DiffId, Digest};

/// How often a reader that waits asks whether to stop.
const SLICE: Duration = Duration::from_millis(50);

/// A file that grows until it is a layer's blob.
#[derive(Debug)]
pub(crate) struct GrowingLayer {
    path: PathBuf,
    /// Digest of the layer's tar: what it is called until it has one of its own.
    named: Digest,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Debug)]
enum State {
    /// So many bytes are there.
    Growing(u64),
    /// It is whole.
    Whole(Box<Descriptor>),
    /// It will not be.
    Lost,
}

impl GrowingLayer {
    pub(super) fn new(path: &Path, diff_id: &DiffId) -> Arc<Self> {
        let (path, named) = (path.to_owned(), *diff_id.digest());
        Arc::new(Self { path, named, state: Mutex::new(State::Growing(0)), changed: Condvar::new() })
    }

    /// Where it grows.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it is called until it has a digest of its own.
    pub(super) fn named(&self) -> &Digest {
        &self.named
    }

    /// Says what it became.
    pub(super) fn is_whole(&self, descriptor: Descriptor) {
        *self.state() = State::Whole(Box::new(descriptor));
        self.changed.notify_all();
    }

    fn lose(&self) {
        let mut state = self.state();
        if let State::Growing(_) = *state {
            *state = State::Lost;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What it became; `None` as soon as there are more than `bytes`.
    pub(super) fn whole_within(&self, bytes: u64, cancel: &Cancel) -> io::Result<Option<Descriptor>> {
        match self.wait(cancel, |state| matches!(state, State::Growing(there) if *there > bytes))? {
            State::Whole(descriptor) => Ok(Some(*descriptor)),
            State::Growing(_) | State::Lost => Ok(None),
        }
    }

    /// Waits until it does not grow any more, or as much as is `enough`.
    fn wait(&self, cancel: &Cancel, enough: impl Fn(&State) -> bool) -> io::Result<State> {
        let mut state = self.state();
        loop {
            match &*state {
                State::Lost => return Err(io::Error::other("the layer could not be compressed")),
                _ if cancel.is_cancelled() => return Err(io::Error::other("stopped waiting for a layer")),
                State::Whole(_) => return Ok(state.clone()),
                State::Growing(_) if enough(&state) => return Ok(state.clone()),
                State::Growing(_) => {}
            }
            state = self.changed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grown(&self, more: u64) {
        if let State::Growing(bytes) = &mut *self.state() {
            *bytes += more;
        }
        self.changed.notify_all();
    }
}

/// Held while the layer is made: where it is dropped before the layer is whole, nobody waits any longer.
#[derive(Debug)]
pub(super) struct Making(pub(super) Arc<GrowingLayer>);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.lose();
    }
}

/// Writes the file, and tells those who read it.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) file: WriteBehind,
    pub(super) layer: Option<Arc<GrowingLayer>>,
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Some(layer) = &self.layer {
            layer.grown(written as u64);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A layer that grows, for one who may be told to stop.
#[derive(Debug)]
pub(super) struct Followed<'a> {
    pub(super) layer: &'a GrowingLayer,
    pub(super) cancel: &'a Cancel,
}

impl UnfinishedBlob for Followed<'_> {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        let mut file = File::open(&self.layer.path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Box::new(Follower { file, offset: from, layer: self.layer, cancel: self.cancel }))
    }

    fn grown(&self, least: u64) -> io::Result<u64> {
        match self.layer.wait(self.cancel, |state| matches!(state, State::Growing(there) if *there >= least))? {
            State::Growing(there) => Ok(there),
            State::Whole(descriptor) => Ok(descriptor.size),
            State::Lost => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn whole(&self) -> io::Result<Descriptor> {
        match self.layer.wait(self.cancel, |_| false)? {
            State::Whole(descriptor) => Ok(*descriptor),
            State::Growing(_) | State::Lost => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

struct Follower<'a> {
    file: File,
    offset: u64,
    layer: &'a GrowingLayer,
    cancel: &'a Cancel,
}

impl Read for Follower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = self.offset;
        let state = self.layer.wait(self.cancel, |state| matches!(state, State::Growing(there) if *there > offset))?;
        let there = match &state {
            State::Growing(there) => *there,
            State::Whole(descriptor) => descriptor.size,
            State::Lost => offset,
        };
        let most = usize::try_from(there - offset).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use rbuild_image::MediaType;

    use super::*;

    #[test]
    fn a_follower_reads_what_is_written_to_the_end_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("layer");
        let layer = GrowingLayer::new(&path, &DiffId::new(Digest::sha256("tar")));
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut out = Growing { file: WriteBehind::new(File::create(&path).unwrap()), layer: Some(Arc::clone(&layer)) };
        let cancel = Cancel::never();
        std::thread::scope(|threads| {
            let following = threads.spawn(|| {
                let blob = Followed { layer: &layer, cancel: &cancel };
                let mut read = Vec::new();
                blob.open(0).unwrap().read_to_end(&mut read).unwrap();
                (read, blob.whole().unwrap())
            });
            for piece in bytes.chunks(33_333) {
                out.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(layer.whole_within(1, &cancel).unwrap().is_none(), "it is larger");
            let descriptor = Descriptor::of(MediaType::OciLayerGzip, &bytes);
            layer.is_whole(descriptor.clone());
            let (read, whole) = following.join().unwrap();
            assert!(read == bytes);
            assert_eq!(whole, descriptor);
            assert_eq!(layer.whole_within(1, &cancel).unwrap(), Some(descriptor));
        });
    }

    #[test]
    fn who_follows_what_is_lost_or_is_told_to_stop_does_not_wait() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("layer");
        std::fs::write(&path, b"half").unwrap();
        let layer = GrowingLayer::new(&path, &DiffId::new(Digest::sha256("tar")));
        let stopped = Cancel::when(|| true);
        assert!(Followed { layer: &layer, cancel: &stopped }.whole().is_err());
        drop(Making(Arc::clone(&layer)));
        let blob = Followed { layer: &layer, cancel: &Cancel::never() };
        assert!(blob.open(0).unwrap().read_to_end(&mut Vec::new()).is_err());
        assert!(blob.whole().is_err());
    }
}
