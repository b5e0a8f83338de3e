//! Where each vertex is in its life. One transition function keeps the counters right.

use crate::vertex::VertexId;

/// The life of a vertex during one solve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VertexState {
    /// Not part of this solve.
    Unneeded,
    /// The definition key waits for the keys of inputs, a pin, or the digest of a context.
    Unkeyed,
    /// The definition key is known and answered nothing; nobody needs the product so far.
    Missed,
    /// The product is needed; products of inputs are still missing.
    Wanted,
    /// All inputs are there; it waits for a slot.
    Ready,
    /// A vertex with the same key runs; its product will be this one's.
    Parked,
    /// A thread works on it.
    Running,
    /// It has a product that was made by this build.
    Completed,
    /// It has a product that was made before, or whose readers had theirs.
    Cached,
    /// It failed.
    Failed,
    /// It was stopped, or something it needs was.
    Cancelled,
}

impl VertexState {
    /// How many states there are.
    const COUNT: usize = Self::Cancelled as usize + 1;

    /// Whether it will not change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Unneeded | Self::Completed | Self::Cached | Self::Failed | Self::Cancelled)
    }

    /// Whether `next` may follow.
    fn can_become(self, next: Self) -> bool {
        match self {
            Self::Unneeded => next == Self::Unkeyed,
            Self::Unkeyed => matches!(
                next,
                Self::Missed | Self::Wanted | Self::Cached | Self::Completed | Self::Failed | Self::Cancelled
            ),
            Self::Missed => matches!(next, Self::Wanted | Self::Cached | Self::Cancelled),
            Self::Wanted => matches!(next, Self::Ready | Self::Cancelled),
            Self::Ready => matches!(next, Self::Running | Self::Parked | Self::Cancelled),
            Self::Parked => matches!(next, Self::Ready | Self::Cached | Self::Cancelled),
            // Back to missed: what another place promised to have was not to be had.
            Self::Running => {
                matches!(next, Self::Completed | Self::Cached | Self::Failed | Self::Cancelled | Self::Missed)
            }
            Self::Completed | Self::Cached | Self::Failed | Self::Cancelled => false,
        }
    }
}

/// The state of every vertex of a graph.
#[derive(Debug)]
pub(crate) struct States {
    of: Vec<VertexState>,
    counts: [usize; VertexState::COUNT],
}

impl States {
    /// All unneeded.
    pub(crate) fn new(len: usize) -> Self {
        let mut counts = [0; VertexState::COUNT];
        counts[VertexState::Unneeded as usize] = len;
        Self { of: vec![VertexState::Unneeded; len], counts }
    }

    /// The state of a vertex.
    pub(crate) fn get(&self, id: VertexId) -> VertexState {
        self.of[id.index()]
    }

    /// The only way a vertex changes state.
    ///
    /// # Panics
    /// When the transition makes no sense, which would be a mistake in the scheduler.
    pub(crate) fn set(&mut self, id: VertexId, next: VertexState) {
        let now = &mut self.of[id.index()];
        assert!(now.can_become(next), "vertex {} cannot go from {now:?} to {next:?}", id.index());
        self.counts[*now as usize] -= 1;
        self.counts[next as usize] += 1;
        *now = next;
    }

    /// How many vertices are in a state.
    pub(crate) fn count(&self, state: VertexState) -> usize {
        self.counts[state as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_transitions() {
        let mut states = States::new(2);
        let id = VertexId(0);
        for next in [VertexState::Unkeyed, VertexState::Missed, VertexState::Wanted, VertexState::Ready] {
            states.set(id, next);
            assert_eq!((states.count(next), states.count(VertexState::Unneeded)), (1, 1));
        }
        assert!(!states.get(id).is_final());
    }

    #[test]
    #[should_panic(expected = "from Completed to Running")]
    fn a_finished_vertex_stays_finished() {
        let mut states = States::new(1);
        for next in [VertexState::Unkeyed, VertexState::Completed, VertexState::Running] {
            states.set(VertexId(0), next);
        }
    }
}
