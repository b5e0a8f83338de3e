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

const QUEUE: usize = 32;

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
    open_jobs: usize,
    failed: Option<(ContainerPath, io::Error)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    idle: Condvar,
}

/// The threads; they end with the value.
pub(super) struct Pool {
    sender: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let (receiver, shared) = (Arc::new(Mutex::new(receiver)), Arc::new(Shared::default()));
        let copier = Arc::new(Copier::new());
        let mut pool = Self { sender: Some(sender), shared, threads: Vec::new() };
        for _ in 0..threads {
            let (receiver, shared, copier) = (receiver.clone(), pool.shared.clone(), copier.clone());
            let body = move || work(&receiver, &shared, &copier);
            pool.threads.push(std::thread::Builder::new().name("copy".into()).spawn(body)?);
        }
        Ok(pool)
    }

    /// Queues a job; an earlier job's failure comes back instead.
    pub(super) fn submit(&self, job: Job) -> Result<(), (ContainerPath, io::Error)> {
        {
            let mut state = self.shared.state.lock().expect("no panic while held");
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            state.open_jobs += 1;
        }
        let sender = self.sender.as_ref().expect("present until dropped");
        if let Err(unsent) = sender.send(job) {
            return Err((unsent.0.path, io::Error::other("the copying threads have ended")));
        }
        Ok(())
    }

    /// Waits until every queued job is done.
    pub(super) fn drain(&self) -> Result<(), (ContainerPath, io::Error)> {
        let mut state = self.shared.state.lock().expect("no panic while held");
        while state.open_jobs > 0 {
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

/// Counts a job as done also when it panics.
struct Done<'a> {
    shared: &'a Shared,
    failed: Option<(ContainerPath, io::Error)>,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().expect("no panic while held");
        state.open_jobs -= 1;
        if let Some(failed) = self.failed.take() {
            state.failed.get_or_insert(failed);
        }
        self.shared.idle.notify_all();
    }
}

fn work(receiver: &Mutex<Receiver<Job>>, shared: &Shared, copier: &Copier) {
    loop {
        let job = match receiver.lock() {
            Ok(receiver) => receiver.recv(),
            Err(_) => return,
        };
        let Ok(Job { dir, name, path, metadata, open }) = job else { return };
        let unfinished = (path.clone(), io::Error::other("the copying thread panicked"));
        let mut done = Done { shared, failed: Some(unfinished) };
        // After a failure the rest is only counted down.
        let skip = shared.state.lock().expect("no panic while held").failed.is_some();
        let result = if skip { Ok(()) } else { open().and_then(|file| copier.copy(&dir, &name, &file, &metadata)) };
        done.failed = result.err().map(|error| (path, error));
    }
}
