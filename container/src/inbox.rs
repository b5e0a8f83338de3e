//! Signals that arrive at a process which runs a container in the foreground, to be passed on.
//!
//! From [`SignalInbox::open`] on the signals no longer end the process; they wait until the container takes them, so
//! that one which arrives while the container is still being set up is not lost. Signals that the process was started
//! to ignore (`nohup`, a shell's `&`) stay ignored.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::signal::Signal;

/// What reaches a container's process.
const FORWARDED: [Signal; 7] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::TERM, Signal::WINCH];

/// Collects signals until they are asked for. One per process at a time.
pub struct SignalInbox(SignalDelivery<UnixStream, SignalOnly>);

impl std::fmt::Debug for SignalInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalInbox")
    }
}

impl SignalInbox {
    /// Begins to collect.
    pub fn open() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let ignored = ignored_signals()?;
        let wanted = FORWARDED.iter().map(|signal| signal.number()).filter(|number| ignored >> (number - 1) & 1 == 0);
        let wanted: Vec<i32> = wanted.collect();
        Ok(Self(SignalDelivery::with_pipe(read, write, SignalOnly, wanted)?))
    }

    /// The signals that arrived since the last call. Each counts once, as with the kernel's own.
    pub(crate) fn take(&mut self) -> Vec<Signal> {
        self.0.pending().filter_map(Signal::from_number).collect()
    }

    /// Readable when signals have arrived.
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}

/// The signals this process ignores, as the bit mask that the kernel shows.
fn ignored_signals() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no SigIgn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_wait_until_they_are_taken() {
        let mut inbox = SignalInbox::open().unwrap();
        assert_eq!(inbox.take(), []);
        let own = rustix::process::getpid();
        for signal in [rustix::process::Signal::USR1, rustix::process::Signal::WINCH, rustix::process::Signal::USR1] {
            rustix::process::kill_process(own, signal).unwrap();
        }
        let readiness = rustix::event::PollFd::from_borrowed_fd(inbox.readiness(), rustix::event::PollFlags::IN);
        rustix::event::poll(&mut [readiness], None).unwrap();
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend(inbox.take());
        }
        got.sort();
        got.dedup();
        assert_eq!(got, [Signal::USR1, Signal::WINCH]);
    }
}
