//! Cancellation: one token goes down, reasons are ordered by severity, cancelled is a state and not an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Why a build is being stopped; a later reason replaces a lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelReason {
    /// A step failed.
    Failure = 1,
    /// The user asked once (Ctrl-C): stop and clean up.
    Interrupt = 2,
    /// The user asked twice: kill at once.
    Kill = 3,
}

/// Tells everybody below whether to go on. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicU8>);

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a stop; a lesser reason than one already given changes nothing.
    pub fn cancel(&self, reason: CancelReason) {
        self.0.fetch_max(reason as u8, Ordering::SeqCst);
    }

    /// Why to stop, if at all.
    pub fn reason(&self) -> Option<CancelReason> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(CancelReason::Failure),
            2 => Some(CancelReason::Interrupt),
            _ => Some(CancelReason::Kill),
        }
    }

    /// Whether to stop.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }
}
