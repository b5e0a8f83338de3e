//! What the loop makes of the reports of its threads.

use std::sync::Arc;

use super::{Loop, OnFailure};
use rbuild_cache::KeyKind;

use crate::cancel::CancelReason;
use crate::event::{Event, Outcome};
use crate::key::PinnedSource;
use crate::op::Op;
use crate::pools::{Need, Pool};
use crate::state::VertexState;
use crate::task::{How, Made, Report};
use crate::vertex::VertexId;
use crate::worker::{JobError, Product};

impl Loop<'_, '_> {
    pub(super) fn take_in(&mut self, report: Report) {
        match report {
            Report::Pinned(id, result) => {
                self.end_early(Pool::Network);
                match result {
                    Ok(pinned) => {
                        self.vertices[id.index()].pinned = Some(pinned);
                        self.to_key.push_back(id);
                    }
                    Err(error) => self.end_badly(id, error),
                }
            }
            Report::Selected(id, at, result) => {
                self.end_early(Pool::Work);
                self.end_selection(id, at);
                match result {
                    Ok(digest) => {
                        self.vertices[id.index()].selected.insert(at, digest);
                        self.one_less_unkeyed(id);
                    }
                    Err(error) => self.end_badly(id, error),
                }
            }
            Report::Waits(id) => {
                // Should it have to run after all, it does so beyond the limit: it waited long enough.
                self.give_slot_back(id);
            }
            Report::Made(id, result) => {
                self.give_slot_back(id);
                match *result {
                    Ok(made) => self.end_well(id, made),
                    Err(error) => self.end_badly(id, error),
                }
            }
            Report::Kept(id, Ok(result)) => {
                if result.is_some() {
                    let twins = std::mem::take(&mut self.vertices[id.index()].twins);
                    for twin in twins.into_iter().chain([id]) {
                        self.vertices[twin.index()].result = result;
                    }
                }
            }
            Report::Kept(id, Err(error)) => self.not_kept(id, error),
            Report::Gone(id) => {
                self.give_slot_back(id);
                self.run_after_all(id);
            }
            Report::Recorded(id, miss) => {
                self.threads -= 1;
                if let Some(miss) = miss {
                    self.shared.events.emit(Event::Missed { vertex: id, miss: (*miss).clone(), at: self.at() });
                    self.vertices[id.index()].miss = Some(*miss);
                }
            }
        }
    }

    /// What another place promised was not to be had: the vertex and those that waited for it are misses again.
    fn run_after_all(&mut self, id: VertexId) {
        self.vertices[id.index()].elsewhere = false;
        for parked in self.flights.land(id) {
            self.make_ready(parked);
        }
        self.states.set(id, VertexState::Missed);
        self.want_with_inputs(id);
    }

    fn give_slot_back(&mut self, id: VertexId) {
        if let Some(need) = self.vertices[id.index()].slot.take() {
            self.slots.give_back(&need);
        }
    }

    pub(super) fn end_early(&mut self, pool: Pool) {
        self.slots.give_back(&Need::slot(pool));
        self.threads -= 1;
    }

    pub(super) fn end_selection(&mut self, id: VertexId, at: usize) {
        let context = self.vertex(id).inputs[at].expect("only contexts are selected from before keys are known");
        let (left, _) = self.selections_left.get_mut(&context).expect("counted when the selection was queued");
        *left -= 1;
        if *left == 0 {
            self.shared.events.emit(Event::Done { vertex: context, outcome: Outcome::Completed, at: self.at() });
        }
    }

    pub(super) fn end_well(&mut self, id: VertexId, made: Made) {
        let state = match made.how {
            How::Found { result, by } => {
                self.used.push(result);
                self.vertices[id.index()].result = Some(result);
                self.vertices[id.index()].hit = Some(by);
                self.tell_cached(id);
                VertexState::Cached
            }
            How::Fetched { result } => {
                self.vertices[id.index()].result = result;
                self.vertices[id.index()].hit = Some(KeyKind::Definition);
                self.tell_cached(id);
                VertexState::Cached
            }
            How::Ran { took } => {
                self.shared.events.emit(Event::Done { vertex: id, outcome: Outcome::Completed, at: self.at() });
                self.vertices[id.index()].took = Some(took);
                VertexState::Completed
            }
        };
        self.vertices[id.index()].content = made.content;
        if let (None, Some(identity)) = (&self.of(id).definition, made.identity) {
            let vertex = Arc::clone(self.vertex(id));
            if let Op::Source(source) = &vertex.op {
                let source = self.pinned(id, source).0;
                let key = PinnedSource { source: &source, identity: identity.digest() }.definition_key();
                self.vertices[id.index()].definition = Some(key);
            }
            self.keyed(id);
        }
        self.has_product(id, state, &made.product);
        for parked in self.flights.land(id) {
            self.tell_cached(parked);
            self.vertices[parked.index()].result = self.of(id).result;
            self.vertices[parked.index()].hit = Some(KeyKind::Definition);
            self.vertices[id.index()].twins.push(parked);
            self.has_product(parked, VertexState::Cached, &made.product);
        }
    }

    pub(super) fn has_product(&mut self, id: VertexId, state: VertexState, product: &Product) {
        self.states.set(id, state);
        self.vertices[id.index()].product = Some(product.clone());
        for reader in self.readers[id.index()].clone() {
            if self.states.get(reader) == VertexState::Wanted {
                let missing = &mut self.vertices[reader.index()].missing;
                *missing -= 1;
                if *missing == 0 {
                    self.make_ready(reader);
                }
            }
        }
    }

    /// What others may have used already could not be made durable: the build has failed, whatever became of them.
    fn not_kept(&mut self, id: VertexId, error: JobError) {
        if let JobError::Failed(failure) = error {
            self.failure.get_or_insert((id, failure));
            self.shared.cancel.cancel(CancelReason::Failure);
        }
    }

    pub(super) fn end_badly(&mut self, id: VertexId, error: JobError) {
        for parked in self.flights.land(id) {
            self.states.set(parked, VertexState::Cancelled);
        }
        if self.states.get(id).is_final() {
            return; // two selections of one vertex failed
        }
        let (state, outcome) = match error {
            JobError::Cancelled => (VertexState::Cancelled, Outcome::Cancelled),
            JobError::Failed(failure) => {
                if self.failure.is_none() {
                    self.failure = Some((id, failure.clone()));
                }
                if self.on_failure == OnFailure::Cancel {
                    self.shared.cancel.cancel(CancelReason::Failure);
                }
                (VertexState::Failed, Outcome::Failed { failure })
            }
        };
        self.states.set(id, state);
        self.shared.events.emit(Event::Done { vertex: id, outcome, at: self.at() });
    }
}
