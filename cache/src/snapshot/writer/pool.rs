//! Threads that copy file contents while the writer goes on with names.
//!
//! Not the rayon pool: these threads wait for disks. The queue is short on purpose, since every waiting job keeps a
//! directory open.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use rbuild_image::ContainerPath;

use super::content::{Copier, OpenContent};
use super::metadata::Metadata;

/// How many batches may wait.
const QUEUE: usize = 8;
/// Files of one directory that travel together: handing over one costs about as much as copying a small file.
const BATCH: usize = 16;

/// One file to be copied.
pub(super) struct Job {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: Box<[u8]>,
    pub(super) path: ContainerPath,
    pub(super) metadata: Metadata,
    pub(super) open: OpenContent,
}

#[derive(Default)]
struct State {
    open_batches: usize,
    failed: Option<(ContainerPath, io::Error)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    idle: Condvar,
}

/// The threads; they end with the value.
pub(super) struct Pool {
    sender: Option<SyncSender<Vec<Job>>>,
    /// Jobs of one directory that are not on their way yet.
    pending: Vec<Job>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let (receiver, shared) = (Arc::new(Mutex::new(receiver)), Arc::new(Shared::default()));
        let copier = Arc::new(Copier::new());
        let mut pool = Self { sender: Some(sender), pending: Vec::new(), shared, threads: Vec::new() };
        for _ in 0..threads {
            let (receiver, shared, copier) = (receiver.clone(), pool.shared.clone(), copier.clone());
            let body = move || work(&receiver, &shared, &copier);
            pool.threads.push(std::thread::Builder::new().name("copy".into()).spawn(body)?);
        }
        Ok(pool)
    }

    /// Queues a job; an earlier job's failure comes back instead.
    pub(super) fn submit(&mut self, job: Job) -> Result<(), (ContainerPath, io::Error)> {
        if self.pending.last().is_some_and(|last| !Arc::ptr_eq(&last.dir, &job.dir)) {
            self.flush()?;
        }
        self.pending.push(job);
        if self.pending.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), (ContainerPath, io::Error)> {
        let batch = std::mem::take(&mut self.pending);
        let Some(first) = batch.first().map(|job| job.path.clone()) else { return Ok(()) };
        {
            let mut state = self.shared.state.lock().expect("no panic while held");
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            state.open_batches += 1;
        }
        let sender = self.sender.as_ref().expect("present until dropped");
        sender.send(batch).map_err(|_| (first, io::Error::other("the copying threads have ended")))
    }

    /// Waits until every queued job is done.
    pub(super) fn drain(&mut self) -> Result<(), (ContainerPath, io::Error)> {
        self.flush()?;
        let mut state = self.shared.state.lock().expect("no panic while held");
        while state.open_batches > 0 {
            state = self.shared.idle.wait(state).expect("no panic while held");
        }
        match state.failed.take() {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            // A panic of the thread has been counted as a failed job already.
            drop(thread.join());
        }
    }
}

/// Counts a batch as done also when copying panics.
struct Done<'a> {
    shared: &'a Shared,
    failed: Option<(ContainerPath, io::Error)>,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().expect("no panic while held");
        state.open_batches -= 1;
        if let Some(failed) = self.failed.take() {
            state.failed.get_or_insert(failed);
        }
        self.shared.idle.notify_all();
    }
}

fn work(receiver: &Mutex<Receiver<Vec<Job>>>, shared: &Shared, copier: &Copier) {
    loop {
        let batch = match receiver.lock() {
            Ok(receiver) => receiver.recv(),
            Err(_) => return,
        };
        let Ok(batch) = batch else { return };
        let unfinished = batch.first().map(|job| (job.path.clone(), io::Error::other("the copying thread panicked")));
        let mut done = Done { shared, failed: unfinished };
        // After a failure the rest is only counted down.
        let skip = shared.state.lock().expect("no panic while held").failed.is_some();
        let mut failed = None;
        for Job { dir, name, path, metadata, open } in batch {
            if skip || failed.is_some() {
                break;
            }
            let copied = open().and_then(|file| copier.copy(&dir, &name, &file, &metadata));
            failed = copied.err().map(|error| (path, error));
        }
        done.failed = failed;
    }
}
