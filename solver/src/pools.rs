//! Slots: how many threads may do what at the same time.

use crate::op::{Op, Source};

/// What kind of work a vertex is, and so which slots it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Runs programs, copies or digests files: bounded by `--jobs`.
    Work,
    /// Mostly waits for other machines.
    Network,
}

impl Pool {
    /// The pool that an op takes its slot from.
    pub(crate) fn of(op: &Op) -> Self {
        match op {
            Op::Source(Source::Image(_) | Source::Http(_) | Source::Git(_)) => Self::Network,
            Op::Source(Source::Context(_)) | Op::Run(_) | Op::File(_) => Self::Work,
        }
    }
}

/// Counts slots in use.
#[derive(Debug)]
pub(crate) struct Slots {
    limits: [usize; 2],
    used: [usize; 2],
}

impl Slots {
    /// At most `work` and `network` at once; at least one of each.
    pub(crate) fn new(work: usize, network: usize) -> Self {
        Self { limits: [work.max(1), network.max(1)], used: [0, 0] }
    }

    /// Takes a slot if one is free.
    pub(crate) fn take(&mut self, pool: Pool) -> bool {
        let free = self.used[pool as usize] < self.limits[pool as usize];
        self.used[pool as usize] += usize::from(free);
        free
    }

    /// Gives a slot back.
    pub(crate) fn give_back(&mut self, pool: Pool) {
        self.used[pool as usize] -= 1;
    }
}
