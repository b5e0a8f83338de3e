//! Slots: how many threads may do what at the same time.
//!
//! Work (programs, copying, digesting) is bounded by a number of steps. Where nobody gave one (`--jobs`), measured steps
//! share the processors besides: those that kept a processor busy run as many at once as there are processors, those that
//! mostly waited run with them. Transfers have slots of their own.
//!
//! Steps that were measured to need much memory start only while what they needed fits into what is available, or alone.

use rbuild_cache::StepUsage;
use std::time::Duration;

use crate::op::{Op, Source};

/// Less memory than this is not reckoned with.
const LARGE: u64 = 64 << 20;

/// What kind of work a vertex is, and so which slots it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Runs programs, copies or digests files.
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

/// How much may go on at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps that run.
    pub jobs: usize,
    /// Processors that measured steps share; `None` where only `jobs` counts, because the user gave it.
    pub processors: Option<usize>,
    /// Sources that are fetched.
    pub transfers: usize,
}

/// What something that is about to start takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) pool: Pool,
    /// Thousandths of a processor, where that was measured.
    processor: Option<u64>,
    /// Bytes; 0 where it was not measured to be large.
    memory: u64,
}

impl Need {
    /// A slot, and nothing that was measured.
    pub(crate) fn slot(pool: Pool) -> Self {
        Self { pool, processor: None, memory: 0 }
    }

    /// What an op took the last time.
    pub(crate) fn measured(op: &Op, usage: Option<StepUsage>, took: Duration) -> Self {
        let Some(usage) = usage else { return Self::slot(Pool::of(op)) };
        let share = usage.processor.as_micros() * 1000 / took.as_micros().max(1);
        let memory = if usage.memory_peak >= LARGE { usage.memory_peak } else { 0 };
        Self { pool: Pool::of(op), processor: Some(u64::try_from(share).unwrap_or(u64::MAX)), memory }
    }
}

/// What is in use.
#[derive(Debug)]
pub(crate) struct Slots {
    limits: Limits,
    used: [usize; 2],
    /// Thousandths of processors that running steps keep busy.
    processor: u64,
    /// What large steps that run will need, in bytes.
    memory: u64,
    /// What was available when no large step ran.
    memory_at_rest: u64,
}

impl Slots {
    /// All free. There is at least one slot of each kind.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, used: [0, 0], processor: 0, memory: 0, memory_at_rest: 0 }
    }

    /// Takes what is needed if that is free; `available` tells how much memory there is. Whatever runs alone may run.
    pub(crate) fn take(&mut self, need: &Need, available: impl FnOnce() -> Option<u64>) -> bool {
        let limit = match need.pool {
            Pool::Work => self.limits.jobs,
            Pool::Network => self.limits.transfers,
        };
        let used = self.used[need.pool as usize];
        let fits = used == 0 || (used < limit && self.has_processors(need));
        if !fits || !self.has_memory(need, available) {
            return false;
        }
        self.used[need.pool as usize] += 1;
        self.processor += self.share(need);
        self.memory += need.memory;
        true
    }

    /// Whether nobody has any.
    pub(crate) fn are_free(&self) -> bool {
        self.used == [0, 0]
    }

    /// Gives back what [`Slots::take`] took.
    pub(crate) fn give_back(&mut self, need: &Need) {
        self.used[need.pool as usize] -= 1;
        self.processor -= self.share(need);
        self.memory -= need.memory;
    }

    fn has_processors(&self, need: &Need) -> bool {
        self.limits.processors.is_none_or(|processors| {
            need.pool == Pool::Network || self.processor + self.share(need) <= 1000 * processors as u64
        })
    }

    fn has_memory(&mut self, need: &Need, available: impl FnOnce() -> Option<u64>) -> bool {
        if need.memory == 0 {
            return true;
        }
        let Some(available) = available() else { return true };
        if self.memory == 0 {
            self.memory_at_rest = available;
        }
        // What runs may not have all its memory yet, so both must hold.
        let fits = need.memory <= available && self.memory + need.memory <= self.memory_at_rest;
        fits || self.used[Pool::Work as usize] == 0
    }

    /// Thousandths of a processor: what was measured, or else a slot's part of them all.
    fn share(&self, need: &Need) -> u64 {
        match (self.limits.processors, need.pool) {
            (Some(processors), Pool::Work) => {
                let all = 1000 * processors as u64;
                let slot = all / self.limits.jobs.max(1) as u64;
                need.processor.map_or(slot, |measured| measured.clamp(slot, all.max(slot)))
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::run_op;

    const MB: u64 = 1 << 20;

    fn measured(busy: u64, memory: u64) -> Need {
        let usage = StepUsage { processor: Duration::from_millis(busy), memory_peak: memory };
        Need::measured(&Op::Run(Box::new(run_op("x"))), Some(usage), Duration::from_secs(1))
    }

    fn slots(jobs: usize, processors: Option<usize>) -> Slots {
        Slots::new(Limits { jobs, processors, transfers: 3 })
    }

    /// How many of the same can start at once.
    fn at_once(mut slots: Slots, need: Need, available: Option<u64>) -> usize {
        (0..100).take_while(|_| slots.take(&need, || available)).count()
    }

    #[test]
    fn busy_steps_share_the_processors_and_waiting_ones_do_not_count() {
        let unknown = Need::slot(Pool::Work);
        let cases = [
            (slots(8, Some(2)), unknown, 8, "unknown steps fill the slots"),
            (slots(8, Some(2)), measured(1000, 0), 2, "as many busy ones as processors"),
            (slots(8, Some(2)), measured(1900, 0), 1, "one that is parallel itself"),
            (slots(8, Some(2)), measured(9000, 0), 1, "more than there is runs alone"),
            (slots(8, Some(2)), measured(10, 0), 8, "those that wait fill the slots"),
            (slots(3, None), measured(1000, 0), 3, "a number that was given is the only limit"),
            (slots(0, Some(1)), unknown, 1, "there is always one"),
            (slots(1, Some(1)), Need::slot(Pool::Network), 3, "transfers have their own"),
        ];
        for (slots, need, expected, why) in cases {
            assert_eq!(at_once(slots, need, None), expected, "{why}");
        }
    }

    #[test]
    fn large_steps_start_while_they_fit_or_alone() {
        let cases = [
            (measured(1, 400 * MB), Some(1000 * MB), 2),
            (measured(1, 600 * MB), Some(1000 * MB), 1),
            (measured(1, 5000 * MB), Some(1000 * MB), 1),
            (measured(1, 400 * MB), None, 4),
            (measured(1, MB), Some(2 * MB), 4),
        ];
        for (need, available, expected) in cases {
            assert_eq!(at_once(slots(4, None), need, available), expected, "{need:?}");
        }
        let mut busy = slots(4, None);
        assert!(busy.take(&Need::slot(Pool::Work), || None));
        let large = measured(1, 600 * MB);
        assert!(!busy.take(&large, || Some(500 * MB)), "others run, and there is too little");
        busy.give_back(&Need::slot(Pool::Work));
        assert!(busy.take(&large, || Some(500 * MB)), "alone it may try");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut slots = slots(2, Some(2));
        let need = measured(1500, 100 * MB);
        for _ in 0..3 {
            assert!(slots.take(&need, || Some(150 * MB)));
            assert!(!slots.take(&need, || Some(50 * MB)));
            slots.give_back(&need);
        }
        assert_eq!((slots.used, slots.processor, slots.memory), ([0, 0], 0, 0));
    }
}
