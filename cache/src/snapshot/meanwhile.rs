//! Turning what steps wrote into tars while other steps run.
//!
//! A step's changes are a directory when it ends, so that the next step need not wait. One thread, which is there only while
//! there is work, turns these into tars: all that came within a moment, or while it was busy with those before, together. What
//! needs a layer's digests earlier writes the tar itself, which then waits for the thread: the digests are known in this process
//! when it is written, and the row tells them when it is durable. At the end of the build what is not written stays a directory,
//! and what is half written is given up, which costs the time of a write.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::convert::{Busy, Converted};
use super::diff::LayerDiff;
use super::remembered::Remembered;
use super::seen::Seen;
use super::store::{SnapshotError, Snapshots};
use crate::id::{LayerId, SnapshotId};

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
    /// Written as tars, neither durable nor named.
    made: Vec<Converted>,
    /// What those are known by, and those that are just being named.
    known: BTreeMap<LayerId, LayerDiff>,
    /// How often the directory of layers was opened.
    opened: u64,
    /// Whether there is a thread.
    working: bool,
}

impl State {
    fn insert(&mut self, mut one: Converted) {
        self.known.insert(one.layer(), one.diff());
        one.unlock();
        self.made.push(one);
    }
}

/// The directory of layers, opened before a layer is written: a sync through it tells of all that could not be written since.
#[derive(Debug)]
pub(super) struct Opened {
    /// Smaller for what was opened earlier.
    pub(super) order: u64,
    pub(super) directory: File,
}

/// While this lives, layers that steps of this process wrote become tars, and what is found out about layers and snapshots is
/// remembered. At its end nothing goes on.
#[derive(Debug)]
pub struct Meanwhile {
    queue: Arc<Queue>,
    seen: Arc<Seen>,
    remembered: Arc<Remembered>,
}

impl Snapshots {
    /// Turns what steps write into tars while other steps run, where layers are kept so.
    pub fn convert_meanwhile(&self) -> Meanwhile {
        let queue = Arc::clone(self.store.snapshotting().queue());
        queue.lock().users += 1;
        let seen = Arc::clone(self.store.snapshotting().seen());
        seen.begin();
        let remembered = Arc::clone(self.store.snapshotting().remembered());
        remembered.begin();
        Meanwhile { queue, seen, remembered }
    }

    /// To be done for the topmost layer of a snapshot that a step wrote.
    pub(super) fn convert_later(&self, id: SnapshotId) {
        let queue = self.store.snapshotting().queue();
        let mut state = queue.lock();
        if state.users == 0 {
            return;
        }
        state.waiting.push_back(id);
        // Without a thread they stay directories.
        self.work_on(&mut state);
    }

    /// What this layer is known by can be told from now on; it becomes durable soon where a thread does that, else at once.
    pub(super) fn put_later(&self, converted: Converted) -> Result<(), SnapshotError> {
        let layer = converted.layer();
        let queue = self.store.snapshotting().queue();
        let mut state = queue.lock();
        state.insert(converted);
        if state.users > 0 && self.work_on(&mut state) {
            return Ok(());
        }
        drop(state);
        self.put_made([layer])
    }

    /// Makes all that is written durable and names it; waits for those of `layers` which somebody else is naming.
    pub(super) fn put_made(&self, layers: impl IntoIterator<Item = LayerId>) -> Result<(), SnapshotError> {
        let queue = self.store.snapshotting().queue();
        let made = std::mem::take(&mut queue.lock().made);
        let naming = Naming { queue, made: &made };
        let done = self.put_converted(naming.made);
        drop(naming);
        let mut state = queue.lock();
        for layer in layers {
            while state.known.contains_key(&layer) {
                state = queue.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(state);
        done
    }

    /// Sees to it that there is a thread; whether there is.
    fn work_on(&self, state: &mut State) -> bool {
        let queue = self.store.snapshotting().queue();
        queue.changed.notify_all();
        if !state.working {
            let (snapshots, own) = (self.clone(), Arc::clone(queue));
            let work = move || own.work(&snapshots);
            state.working = std::thread::Builder::new().name("layers-to-tars".to_owned()).spawn(work).is_ok();
        }
        state.working
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of layers, for a layer that is about to be written.
    pub(super) fn open(&self, layers: &Path) -> io::Result<Opened> {
        let mut state = self.lock();
        let directory = File::open(layers)?;
        state.opened += 1;
        Ok(Opened { order: state.opened, directory })
    }

    /// What a layer is known by that is written as a tar, but not durable yet.
    pub(super) fn known(&self, layer: LayerId) -> Option<LayerDiff> {
        self.lock().known.get(&layer).copied()
    }

    /// To be made durable by whoever does that next.
    pub(super) fn add(&self, one: Converted) {
        self.lock().insert(one);
    }

    fn work(&self, snapshots: &Snapshots) {
        let mut ending = Ending { queue: self, armed: true };
        loop {
            let batch = {
                let mut state = self.gather();
                if state.waiting.is_empty() && state.made.is_empty() {
                    state.working = false;
                    ending.armed = false;
                    self.ended.notify_all();
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            self.convert(snapshots, &batch);
            if let Err(error) = snapshots.put_made([]) {
                tracing::debug!(%error, "steps' layers stay directories");
            }
        }
    }

    /// Waits a moment for more, if there is any: short steps follow each other closely, and a sync costs the same for all.
    fn gather(&self) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + GATHERING;
        let mut state = self.lock();
        while (1..ENOUGH).contains(&(state.waiting.len() + state.made.len())) && !self.stop.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn convert(&self, snapshots: &Snapshots, batch: &VecDeque<SnapshotId>) {
        let going_on = || !self.stop.load(Ordering::Relaxed);
        for id in batch.iter().take_while(|_| going_on()) {
            match snapshots.get(*id).and_then(|snapshot| snapshot.convert(Busy::Skip, &going_on)) {
                Ok(one) => one.into_iter().for_each(|one| self.add(one)),
                Err(error) => tracing::debug!(%id, %error, "stays a directory"),
            }
        }
    }
}

/// Tars that are being named; their rows tell what they are known by when this ends, or they are still directories.
struct Naming<'a> {
    queue: &'a Queue,
    made: &'a [Converted],
}

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        for one in self.made {
            state.known.remove(&one.layer());
        }
        self.queue.ended.notify_all();
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
        self.seen.end();
        self.remembered.end();
        let mut state = self.queue.lock();
        state.users -= 1;
        if state.users > 0 {
            return;
        }
        state.waiting.clear();
        self.queue.stop.store(true, Ordering::Relaxed);
        self.queue.changed.notify_all();
        while state.working {
            state = self.queue.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.queue.stop.store(false, Ordering::Relaxed);
    }
}
