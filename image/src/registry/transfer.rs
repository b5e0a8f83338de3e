//! Several transfers at once, and how they are watched.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::cancel::Cancel;
use super::error::RegistryError;
use crate::digest::Digest;

/// Where a blob is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferState {
    /// It was there already.
    Present,
    /// It is moving.
    Moving {
        /// Bytes that are there.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It is moving while it is made: nobody knows how long it will be.
    Flowing {
        /// Bytes that are there.
        current: u64,
    },
    /// An attempt failed; the next one follows.
    Retrying {
        /// How many attempts were begun.
        attempts: u32,
    },
    /// The registry took it from another of its repositories.
    Mounted,
    /// It is there.
    Done,
}

/// Watches transfers. Called from the threads that move bytes: it must be quick.
pub trait TransferSink: Sync {
    /// Something happened to this blob.
    fn transfer(&self, digest: &Digest, state: TransferState);
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl TransferSink for Silent {
    fn transfer(&self, _: &Digest, _: TransferState) {}
}

/// Does `work` for each item on up to `workers` threads. The first failure cancels the rest and is what is returned.
pub(crate) fn in_parallel<T: Sync>(
    items: &[T],
    workers: usize,
    cancel: &Cancel,
    work: impl Fn(&T, &Cancel) -> Result<(), RegistryError> + Sync,
) -> Result<(), RegistryError> {
    let stop = Arc::new(AtomicBool::new(false));
    let cancel = cancel.or_flag(stop.clone());
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<RegistryError>> = Mutex::new(None);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = work(item, &cancel) {
                stop.store(true, Ordering::Relaxed);
                // Whoever fails after the first does so because it was stopped.
                failure.lock().expect("no panic while held").get_or_insert(error);
                return;
            }
        }
    };
    std::thread::scope(|threads| {
        for _ in 1..workers.min(items.len()) {
            threads.spawn(run);
        }
        run();
    });
    failure.into_inner().expect("no panic while held").map_or(Ok(()), Err)
}
