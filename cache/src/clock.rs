//! The store's idea of "now": handed in, so that tests decide the time and a clock that jumps can be simulated.

use jiff::Timestamp;

/// Tells the time of day. Only used for what people see and for ages, never for ordering or liveness.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
