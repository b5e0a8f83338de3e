//! Ctrl-C: the first signal asks everything to stop and clean up, the second kills.

use rbuild_solver::{CancelReason, CancelToken};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::cli::report::Failure;

/// Turns signals into cancellation while it lives.
pub(crate) struct Interrupts(Handle);

impl Interrupts {
    /// Starts to listen.
    pub(crate) fn cancelling(cancel: &CancelToken) -> Result<Self, Failure> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let cancel = cancel.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for _ in signals.forever() {
                let again = cancel.reason().is_some_and(|reason| reason >= CancelReason::Interrupt);
                cancel.cancel(if again { CancelReason::Kill } else { CancelReason::Interrupt });
            }
        })?;
        Ok(Self(handle))
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.0.close();
    }
}
