//! Ctrl-C: the first signal asks everything to stop and clean up, the second kills: steps at once, and rbuild itself when it
//! does not end by that. What a killed rbuild leaves in the store is garbage that the next one removes.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rbuild_solver::{CancelReason, CancelToken};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

use crate::cli::report::Failure;

/// How long what was killed may take to end in an orderly way.
const LAST_CHANCE: Duration = Duration::from_millis(300);

/// Turns signals into cancellation while it lives.
pub(crate) struct Interrupts {
    handle: Handle,
    /// Its end tells a thread that is about to kill that nothing is left to be killed.
    _alive: Sender<()>,
}

impl Interrupts {
    /// Starts to listen.
    pub(crate) fn cancelling(cancel: &CancelToken) -> Result<Self, Failure> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let cancel = cancel.clone();
        let (alive, ended) = channel::<()>();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let again = cancel.reason().is_some_and(|reason| reason >= CancelReason::Interrupt);
                cancel.cancel(if again { CancelReason::Kill } else { CancelReason::Interrupt });
                if again && ended.recv_timeout(LAST_CHANCE) == Err(RecvTimeoutError::Timeout) {
                    // As if nobody had listened: the sandboxes die with us.
                    if let Err(error) = emulate_default_handler(signal) {
                        tracing::error!(%error, "cannot end");
                    }
                }
            }
        })?;
        Ok(Self { handle, _alive: alive })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.handle.close();
    }
}
