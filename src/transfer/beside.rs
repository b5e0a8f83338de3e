//! Layers of one image that are taken in beside each other, while the lowest of them get their place.
//!
//! Who does a layer's work holds its lock, also across processes. Several are held at once here, so nobody waits for one
//! while he holds others: a layer that somebody else has in hand is left alone, and whoever has to wait for it
//! [yields](Beside::yielding) the locks of all layers that are not in place yet. That may do work twice, never block.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rbuild_cache::snapshot::Received;
use rbuild_cache::{Lease, LockGuard, LockMode, LockName, Store};
use rbuild_image::DiffId;
use rbuild_image::layer::Decoder;

use super::arrival::Arrivals;
use super::unpack::LayerBlob;
use crate::cli::report::Failure;

/// The most layers in work: each has two threads.
const AT_ONCE: usize = 4;
/// How often who waits asks whether to stop.
const SLICE: Duration = Duration::from_millis(50);

/// The layers of an image that are being taken in.
pub(super) struct Beside<'a> {
    store: &'a Store,
    lease: &'a Lease,
    /// Each layer once, lowest first.
    layers: Vec<LayerBlob>,
    arrivals: Option<&'a Arrivals<'a>>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    next: AtomicUsize,
    ended: AtomicBool,
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    slots: BTreeMap<DiffId, Slot>,
    /// Held until a layer has its place, or somebody yields.
    locks: BTreeMap<DiffId, LockGuard>,
    /// Nobody takes locks: somebody waits for one.
    yields: bool,
}

enum Slot {
    There(Received),
    /// To be done by who puts it in place, in one go: somebody else does it, it needs what is below it, or it failed.
    Left,
}

impl<'a> Beside<'a> {
    pub(super) fn new(
        store: &'a Store,
        lease: &'a Lease,
        layers: &[LayerBlob],
        arrivals: Option<&'a Arrivals<'a>>,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Self {
        let mut seen = BTreeSet::new();
        let mut once: Vec<LayerBlob> = Vec::new();
        // A single layer gains nothing.
        if layers.len() > 1 {
            once.extend(layers.iter().filter(|layer| seen.insert(layer.diff_id)));
        }
        Self {
            store,
            lease,
            layers: once,
            arrivals,
            cancelled,
            next: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            table: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Puts layers in place with `place` while others are taken in.
    pub(super) fn run<T>(&self, place: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(self.layers.len());
        std::thread::scope(|threads| {
            for _ in 0..workers {
                threads.spawn(|| self.work());
            }
            let placed = place();
            self.ended.store(true, Ordering::Relaxed);
            placed
        })
    }

    /// A layer that was taken in, with its lock if that was not yielded; waits for it if it is in work.
    pub(super) fn take(&self, diff_id: &DiffId) -> Option<(Received, Option<LockGuard>)> {
        if !self.layers.iter().any(|layer| layer.diff_id == *diff_id) {
            return None;
        }
        let mut table = self.table();
        loop {
            if (self.cancelled)() {
                return None;
            }
            // The same layer may be in the image again.
            match table.slots.get_mut(diff_id).map(|slot| std::mem::replace(slot, Slot::Left)) {
                Some(Slot::There(received)) => return Some((received, table.locks.remove(diff_id))),
                Some(Slot::Left) => return None,
                None => {}
            }
            table = self.changed.wait_timeout(table, SLICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says that a layer is in place, so that it is not taken in any more.
    pub(super) fn done(&self, diff_id: &DiffId) {
        let mut table = self.table();
        table.slots.insert(*diff_id, Slot::Left);
        table.locks.remove(diff_id);
        drop(table);
        self.changed.notify_all();
    }

    /// Waits with `wait` for a lock, while nobody here holds another one.
    pub(super) fn yielding<T>(&self, wait: impl FnOnce() -> T) -> T {
        let mut table = self.table();
        table.yields = true;
        table.locks.clear();
        drop(table);
        let got = wait();
        self.table().yields = false;
        got
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || (self.cancelled)()
    }

    fn work(&self) {
        while let Some(layer) = self.layers.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stops() {
                return;
            }
            let slot = match self.receive(layer) {
                Ok(Some(received)) => Slot::There(received),
                Ok(None) => Slot::Left,
                Err(failure) => {
                    // It needs those below it; or its bytes are wrong, and only the whole blob tells whose fault that is.
                    tracing::debug!(failure = failure.message(), "a layer is not taken in ahead");
                    Slot::Left
                }
            };
            let mut table = self.table();
            if matches!(slot, Slot::Left) {
                table.locks.remove(&layer.diff_id);
            }
            // It may be in place already, since it is in the image more than once.
            table.slots.entry(layer.diff_id).or_insert(slot);
            drop(table);
            self.changed.notify_all();
        }
    }

    fn receive(&self, layer: &LayerBlob) -> Result<Option<Received>, Failure> {
        let snapshots = self.store.snapshots();
        if snapshots.has_free_layer(&layer.diff_id)? || !self.lock(&layer.diff_id)? {
            return Ok(None);
        }
        let stops = || self.stops();
        let blob: Box<dyn Read + Send> = match self.arrivals {
            Some(arrivals) => arrivals.open(&layer.blob, &stops)?,
            None => Box::new(self.store.blobs().open_file(&layer.blob)?),
        };
        let mut tar = Decoder::new(Stoppable { blob, stops: &stops })?;
        Ok(Some(snapshots.receive(&mut tar, layer.diff_id, self.lease)?))
    }

    /// Takes the lock of a layer if it is free and may be taken.
    fn lock(&self, diff_id: &DiffId) -> Result<bool, Failure> {
        let mut table = self.table();
        if table.yields || table.slots.contains_key(diff_id) {
            return Ok(false);
        }
        let give_up = |_: &rbuild_cache::Waiting<'_>| ControlFlow::Break(());
        match self.store.lock(&LockName::layer(diff_id), LockMode::Exclusive, &give_up) {
            Ok(lock) => {
                table.locks.insert(*diff_id, lock);
                Ok(true)
            }
            Err(rbuild_cache::LockError::Stopped { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// A blob whose reading may be given up.
struct Stoppable<'a> {
    blob: Box<dyn Read + Send + 'a>,
    stops: &'a (dyn Fn() -> bool + Sync),
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.stops)() {
            true => Err(io::Error::other("it was given up")),
            false => self.blob.read(buffer),
        }
    }
}
