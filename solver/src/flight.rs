//! Vertices with the same key run once in this process: the first leads, the others wait for its product.
//!
//! Between processes the same is done by [`crate::StepCache::claim`]; vertices that are equal in every field never
//! get here, since the graph has merged them.

use std::collections::HashMap;

use rbuild_image::Digest;

use crate::vertex::VertexId;

/// Who runs which key, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_key: HashMap<Digest, Vec<VertexId>>,
    key_of: HashMap<VertexId, Digest>,
}

/// What [`Flights::board`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Boarding {
    /// Nobody runs this key: go on.
    Leads,
    /// Somebody does: wait for the leader's [`Flights::land`].
    Waits,
}

impl Flights {
    /// Says that `vertex` is about to run under `key`.
    pub(crate) fn board(&mut self, vertex: VertexId, key: Digest) -> Boarding {
        match self.by_key.get_mut(&key) {
            Some(waiting) => {
                waiting.push(vertex);
                Boarding::Waits
            }
            None => {
                self.by_key.insert(key, Vec::new());
                self.key_of.insert(vertex, key);
                Boarding::Leads
            }
        }
    }

    /// Says that `vertex` is done, however it ended: who waited for it, in order of arrival.
    pub(crate) fn land(&mut self, vertex: VertexId) -> Vec<VertexId> {
        self.key_of.remove(&vertex).and_then(|key| self.by_key.remove(&key)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let mut flights = Flights::default();
        let key = Digest::sha256("k");
        assert_eq!(flights.board(VertexId(0), key), Boarding::Leads);
        assert_eq!(flights.board(VertexId(1), Digest::sha256("other")), Boarding::Leads);
        assert_eq!(flights.board(VertexId(2), key), Boarding::Waits);
        assert_eq!(flights.land(VertexId(0)), vec![VertexId(2)]);
        assert_eq!(flights.land(VertexId(0)), vec![]);
        assert_eq!(flights.board(VertexId(2), key), Boarding::Leads);
    }
}
