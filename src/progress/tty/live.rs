//! What the live view knows of steps that run: when they began, their last lines, what they wait for, their transfers.

use std::collections::{BTreeMap, VecDeque};

use rbuild_solver::VertexId;

use super::super::lines::Lines;

/// Lines of output kept of a running step: no frame shows more.
pub(super) const KEPT_LINES: usize = 6;

/// The moving part of a build.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Steps that run or wait.
    pub(super) steps: BTreeMap<VertexId, Running>,
    /// Transfers of no step: exports.
    pub(super) exports: BTreeMap<String, Transfer>,
    /// Steps of the plan.
    pub(super) total: usize,
    /// Steps that have ended.
    pub(super) ended: usize,
    /// Steps of them that came from the cache.
    pub(super) cached: usize,
}

/// One step that runs.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// Its name, on one line and harmless.
    pub(super) name: String,
    /// Since when, in nanoseconds of the build.
    pub(super) since: u64,
    /// For what and whom it waits.
    pub(super) waiting: Option<String>,
    /// Its last lines, the newest last.
    pub(super) last: VecDeque<String>,
    /// What it moves.
    pub(super) transfers: BTreeMap<String, Transfer>,
    rest: Lines,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub(in crate::progress) struct Transfer {
    /// Bytes when it was first heard of, and when that was.
    first: (u64, u64),
    /// Bytes so far.
    pub(super) current: u64,
    /// Bytes in all, where known.
    pub(super) total: Option<u64>,
    at: u64,
}

/// A rate is shown after so many nanoseconds: before, it says nothing.
const RATE_AFTER: u64 = 500_000_000;

impl Running {
    /// A step that begins.
    pub(super) fn new(name: String, since: u64) -> Self {
        Self { name, since, ..Self::default() }
    }

    /// Takes output; who talks does not wait.
    pub(super) fn output(&mut self, data: &[u8]) {
        self.waiting = None;
        for line in self.rest.take(data) {
            if line.trim().is_empty() {
                continue;
            }
            if self.last.len() == KEPT_LINES {
                self.last.pop_front();
            }
            self.last.push_back(line);
        }
    }
}

impl Transfer {
    /// Takes the state of a transfer into the map of them; a finished one goes.
    pub(in crate::progress) fn advance(
        known: &mut BTreeMap<String, Self>,
        item: &str,
        current: u64,
        total: Option<u64>,
        at: u64,
    ) {
        if total.is_some_and(|total| current >= total) {
            known.remove(item);
            return;
        }
        let transfer = known.entry(item.to_owned()).or_insert(Self { first: (current, at), current, total, at });
        (transfer.current, transfer.total, transfer.at) = (current, total, at);
    }

    /// Bytes in a second, on average since it began.
    pub(super) fn rate(&self) -> Option<u64> {
        let took = self.at.saturating_sub(self.first.1);
        if took < RATE_AFTER {
            return None;
        }
        let moved = u128::from(self.current.saturating_sub(self.first.0));
        u64::try_from(moved * 1_000_000_000 / u128::from(took)).ok().filter(|rate| *rate > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay() {
        let mut step = Running::new("RUN".to_owned(), 0);
        step.waiting = Some("a lock".to_owned());
        step.output(b"1\n2\n\n3\n4\n5\n6\n7\n8 is not");
        assert_eq!(step.waiting, None);
        assert_eq!(step.last, ["2", "3", "4", "5", "6", "7"]);
        step.output(b" whole\n");
        assert_eq!(step.last.back().map(String::as_str), Some("8 is not whole"));
    }

    #[test]
    fn a_rate_is_the_average() {
        let mut known = BTreeMap::new();
        Transfer::advance(&mut known, "a", 1_000, Some(9_000), 0);
        Transfer::advance(&mut known, "a", 2_000, Some(9_000), RATE_AFTER - 1);
        assert_eq!(known["a"].rate(), None);
        Transfer::advance(&mut known, "a", 5_000, Some(9_000), 2_000_000_000);
        assert_eq!(known["a"].rate(), Some(2_000));
        Transfer::advance(&mut known, "a", 9_000, Some(9_000), 3_000_000_000);
        assert!(known.is_empty());
    }
}
