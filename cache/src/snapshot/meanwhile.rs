//! Turning what steps wrote into tars while other steps run.
//!
//! A step's changes are a directory when it ends, so that the next step need not wait. One thread, which is there only while
//! there is work, turns these into tars: all that came within a moment, or while it was busy with those before, together. What needs a layer's
//! digests earlier turns it itself, or waits for those being turned. Nothing waits for the rest: at the end of the build what
//! is not done stays a directory, and what is half done is given up, which costs the time of a write.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::convert::Busy;
use super::store::{SnapshotError, Snapshots};
use crate::id::SnapshotId;

/// How long the first of several layers waits for the others.
const GATHERING: Duration = Duration::from_millis(300);
/// So many wait for no more.
const ENOUGH: usize = 32;

/// Layers that are to become tars, and who does it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    ended: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// How many want this to be done.
    users: usize,
    waiting: VecDeque<SnapshotId>,
    /// Whether there is a thread.
    working: bool,
}

/// While this lives, layers that steps of this process wrote become tars. At its end nothing goes on.
#[derive(Debug)]
pub struct Meanwhile {
    queue: Arc<Queue>,
}

impl Snapshots {
    /// Turns what steps write into tars while other steps run, where layers are kept so.
    pub fn convert_meanwhile(&self) -> Meanwhile {
        let queue = Arc::clone(self.store.snapshotting().queue());
        queue.lock().users += 1;
        Meanwhile { queue }
    }

    /// To be done for the topmost layer of a snapshot that a step wrote.
    pub(super) fn convert_later(&self, id: SnapshotId) {
        let queue = self.store.snapshotting().queue();
        let mut state = queue.lock();
        if state.users == 0 {
            return;
        }
        state.waiting.push_back(id);
        queue.changed.notify_all();
        if state.working {
            return;
        }
        let (snapshots, own) = (self.clone(), Arc::clone(queue));
        let work = move || own.work(&snapshots);
        // Without a thread they stay directories.
        state.working = std::thread::Builder::new().name("layers-to-tars".to_owned()).spawn(work).is_ok();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, snapshots: &Snapshots) {
        let mut ending = Ending { queue: self, armed: true };
        loop {
            let batch = {
                let mut state = self.gather();
                let batch = std::mem::take(&mut state.waiting);
                if batch.is_empty() {
                    state.working = false;
                    ending.armed = false;
                    self.ended.notify_all();
                    return;
                }
                batch
            };
            if let Err(error) = self.convert(snapshots, &batch) {
                tracing::debug!(%error, "steps' layers stay directories");
            }
        }
    }

    /// Waits a moment for more, if there is any: short steps follow each other closely, and a sync costs the same for all.
    fn gather(&self) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + GATHERING;
        let mut state = self.lock();
        while !state.waiting.is_empty() && state.waiting.len() < ENOUGH {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Those that came meanwhile are made durable together.
    fn convert(&self, snapshots: &Snapshots, batch: &VecDeque<SnapshotId>) -> Result<(), SnapshotError> {
        let opened = snapshots.open_layers()?;
        let going_on = || !self.stop.load(Ordering::Relaxed);
        let mut converted = Vec::with_capacity(batch.len());
        for id in batch {
            match snapshots.get(*id).and_then(|snapshot| snapshot.convert(Busy::Skip, &going_on)) {
                Ok(one) => converted.extend(one),
                Err(error) => tracing::debug!(%id, %error, "stays a directory"),
            }
            if !going_on() {
                return Ok(());
            }
        }
        snapshots.put_converted(Some(&opened), converted)
    }
}

/// Says that the thread has ended, however it did.
struct Ending<'a> {
    queue: &'a Queue,
    armed: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.queue.lock().working = false;
            self.queue.ended.notify_all();
        }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.users -= 1;
        if state.users > 0 {
            return;
        }
        state.waiting.clear();
        self.queue.changed.notify_all();
        self.queue.stop.store(true, Ordering::Relaxed);
        while state.working {
            state = self.queue.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.queue.stop.store(false, Ordering::Relaxed);
    }
}
