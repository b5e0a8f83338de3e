//! Cancellation of network waits.
//!
//! Whoever starts a transfer hands in a [`Cancel`]; every wait for a socket, a lock or a back-off asks it at least
//! every [`SLICE`], so a transfer ends within 200 ms of being cancelled. All input and output of one call happens on
//! the calling thread and pooled connections outlive calls, so the question travels in a thread-local scope.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest time that passes without asking whether to stop.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// Tells a transfer whether to stop. Cloning shares the question.
#[derive(Clone)]
pub struct Cancel(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Cancel {
    /// Never stops.
    pub fn never() -> Self {
        Self(None)
    }

    /// Stops as soon as `asked` answers true. It is asked often and must be cheap.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(asked)))
    }

    /// Stops when `self` does, or when `flag` is set.
    pub fn or_flag(&self, flag: Arc<AtomicBool>) -> Self {
        let outer = self.clone();
        Self::when(move || flag.load(Ordering::Relaxed) || outer.is_cancelled())
    }

    /// Whether to stop now.
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked())
    }

    /// Makes this the cancellation of everything that the current thread waits for, until the guard is dropped.
    pub(crate) fn enter(&self) -> Scope {
        Scope { previous: CURRENT.replace(self.clone()) }
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::never()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("ever", &self.0.is_some()).finish()
    }
}

/// The wait was ended on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

thread_local! {
    static CURRENT: RefCell<Cancel> = const { RefCell::new(Cancel(None)) };
}

/// Restores the previous cancellation of the thread when dropped.
#[must_use]
pub(crate) struct Scope {
    previous: Cancel,
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.previous));
    }
}

/// Fails when the current thread's work has been cancelled.
pub(crate) fn check() -> Result<(), Cancelled> {
    if CURRENT.with_borrow(Cancel::is_cancelled) { Err(Cancelled) } else { Ok(()) }
}

/// Sleeps, unless cancelled.
pub(super) fn sleep(duration: Duration) -> Result<(), Cancelled> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_ends_soon_after_cancellation() {
        let flag = Arc::new(AtomicBool::new(false));
        let _scope = Cancel::never().or_flag(flag.clone()).enter();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                flag.store(true, Ordering::Relaxed);
            });
            let start = Instant::now();
            assert_eq!(sleep(Duration::from_secs(20)), Err(Cancelled));
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        });
    }

    #[test]
    fn scopes_nest() {
        let _outer = Cancel::never().enter();
        {
            let _inner = Cancel::when(|| true).enter();
            assert_eq!(check(), Err(Cancelled));
        }
        assert_eq!(check(), Ok(()));
    }
}
