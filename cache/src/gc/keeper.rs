//! Keeps the cache below its ceiling while this process makes things, not only afterwards.
//!
//! Whoever is about to name a layer or to bring in a blob says how large it will be. As long as a cheap upper bound of
//! the cache's size stays below the ceiling, that costs one query. Otherwise the thread that brings the news makes room
//! before it goes on, while the other steps of the build run: a collection takes nothing that a live lease holds, so it
//! may come up short, and then the build goes on above the ceiling. What it held is collected when it ends.
//!
//! Policies that only look at age have no ceiling to pass; a build that adds something applies them in the background,
//! once an hour.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::policy::GcPolicy;
use super::{PruneControl, PruneError, PruneMode};
use crate::db::{DbError, Micros};
use crate::lock::Waiting;
use crate::store::Store;

/// How often policies are applied though no ceiling is passed.
const INTERVAL: Duration = Duration::from_secs(3600);
/// For how long a step waits for another process's collection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asked whether to stop.
type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Keeps a store below its ceiling until dropped.
#[derive(Debug)]
pub struct Keeper {
    store: Store,
    growth: Arc<Growth>,
}

/// What a store knows of its keeper.
pub(crate) struct Growth {
    policies: Vec<GcPolicy>,
    stop: Stop,
    ended: Arc<AtomicBool>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Growth").field("policies", &self.policies).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    /// Whether anything was added.
    grown: bool,
    /// Bytes that are not the cache's, when last looked at closely: images have them.
    elsewhere: u64,
    /// A collection did not get below the ceiling; no other one is tried before there are more bytes than this.
    futile: u64,
    background: Option<JoinHandle<()>>,
}

impl Store {
    /// Keeps this store below what `policies` say while this process adds to it. `stop` ends a collection early.
    pub fn keep_within(&self, policies: Vec<GcPolicy>, stop: Stop) -> Keeper {
        let growth = Arc::new(Growth { policies, stop, ended: Arc::default(), state: Mutex::default() });
        self.set_growth(Some(growth.clone()));
        Keeper { store: self.clone(), growth }
    }

    /// Says that so many bytes are about to be added; returns when there is room, or none can be made.
    pub(crate) fn grows_by(&self, bytes: u64) {
        if let Some(growth) = self.growth() {
            growth.before(self, bytes);
        }
    }

    /// When a collection last ran to its end.
    pub fn last_collection(&self) -> Result<Option<Timestamp>, DbError> {
        let sql = "SELECT ran_at FROM collections ORDER BY id DESC LIMIT 1";
        self.db().read(|tx| tx.first(sql, [], |row| row.get::<_, Micros>(0).map(|Micros(time)| time)))
    }

    /// Whether all that is stored, images included, passes a ceiling of `policies`, or leaves the disk less room than they want.
    pub fn is_above(&self, policies: &[GcPolicy]) -> Result<bool, PruneError> {
        let (stored, disk) = (self.stored_bytes()?, self.disk_space()?);
        let ceilings = policies.iter().filter(|policy| policy.is_ceiling());
        Ok(ceilings.filter_map(|policy| policy.keep(disk, stored, 0)).any(|keep| stored > keep))
    }

    /// Bytes of all layers, merged indexes, blobs and cache mounts, these as last measured.
    fn stored_bytes(&self) -> Result<u64, DbError> {
        let sql =
            "SELECT (SELECT coalesce(sum(bytes), 0) FROM layer_bytes) + (SELECT coalesce(sum(size), 0) FROM blobs)
                       + (SELECT coalesce(sum(size), 0) FROM cache_mounts)
                       + (SELECT coalesce(sum(size), 0) FROM merged)";
        self.db().read(|tx| tx.one(sql, [], |row| row.get(0)))
    }
}

impl Keeper {
    /// Collects what this process held above the ceiling. Call it when its leases have ended.
    pub fn finish(self) {
        self.growth.end();
        if self.growth.lock().grown {
            self.growth.lock().futile = 0;
            self.growth.make_room(&self.store, &mut self.growth.lock(), 0);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.growth.end();
        self.store.set_growth(None);
    }
}

impl Growth {
    fn before(&self, store: &Store, bytes: u64) {
        let mut state = self.lock();
        if !state.grown {
            state.grown = true;
            self.apply_hourly(store, &mut state);
        }
        self.make_room(store, &mut state, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        let background = self.lock().background.take();
        if let Some(thread) = background
            && thread.join().is_err()
        {
            tracing::warn!("the background collection panicked");
        }
        self.ended.store(false, Ordering::Relaxed);
    }

    /// Makes room, when there is too little. What goes wrong here is no reason to fail a build.
    fn make_room(&self, store: &Store, state: &mut State, bytes: u64) {
        if let Err(error) = self.try_to_make_room(store, state, bytes) {
            tracing::debug!(%error, "no room was made");
        }
    }

    fn try_to_make_room(&self, store: &Store, state: &mut State, bytes: u64) -> Result<(), PruneError> {
        let stored = store.stored_bytes()?;
        let used = stored.saturating_sub(state.elsewhere);
        if !self.is_above(store, used, bytes)? || used.saturating_add(bytes) <= state.futile {
            return Ok(());
        }
        let on_wait = |waiting: &Waiting<'_>| match waiting.waited > PATIENCE || (self.stop)() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let interrupt = || if (self.stop)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let control = PruneControl { on_wait: &on_wait, interrupt: &interrupt };
        let report = store.make_room(&self.policies, bytes, control)?;
        tracing::debug!(evicted = report.records.len(), freed = report.freed, used = report.used, "made room");
        let used = report.used;
        state.elsewhere = store.stored_bytes()?.saturating_sub(used);
        state.futile = match self.is_above(store, used, bytes)? {
            true => used.saturating_add(bytes).saturating_add(used / 20),
            false => 0,
        };
        Ok(())
    }

    /// Whether a cache of `used` bytes passes a ceiling when so many are added.
    fn is_above(&self, store: &Store, used: u64, bytes: u64) -> Result<bool, PruneError> {
        let disk = store.disk_space()?;
        let ceilings = self.policies.iter().filter(|policy| policy.is_ceiling());
        Ok(ceilings.filter_map(|policy| policy.keep(disk, used, bytes)).any(|keep| used > keep))
    }

    fn apply_hourly(&self, store: &Store, state: &mut State) {
        let due = match store.last_collection() {
            Ok(Some(time)) => store.now().duration_since(time).unsigned_abs() >= INTERVAL,
            Ok(None) => true,
            Err(_) => false,
        };
        if !due || self.policies.is_empty() {
            return;
        }
        let (store, policies) = (store.clone(), self.policies.clone());
        let (stop, ended) = (self.stop.clone(), self.ended.clone());
        let collect = move || {
            let over = || ended.load(Ordering::Relaxed) || stop();
            let flow = || if over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let control = PruneControl { on_wait: &|_| flow(), interrupt: &flow };
            if let Err(error) = store.collect(&policies, PruneMode::Apply, control) {
                tracing::debug!(%error, "not collected");
            }
        };
        match std::thread::Builder::new().name("collect".to_owned()).spawn(collect) {
            Ok(thread) => state.background = Some(thread),
            Err(error) => tracing::debug!(%error, "no thread to collect in"),
        }
    }
}
