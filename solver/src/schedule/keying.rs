//! Definition keys: what they wait for, how they are made and looked up.

use std::sync::Arc;

use rbuild_cache::KeyKind;
use rbuild_image::Digest;

use super::{Early, Loop};
use crate::key::{Describe, Described, Fields, InputIdentity, Key, PinnedSource, Text};
use crate::op::{Op, Source};
use crate::records::Found;
use crate::state::VertexState;
use crate::task::Definition;
use crate::vertex::{CacheUse, Vertex, VertexId};
use crate::worker::Product;

impl Loop<'_, '_> {
    /// Counts what each vertex waits for, completes contexts, and queues pins and selections.
    pub(super) fn begin(&mut self) {
        let mut contexts = Vec::new();
        for id in self.needed.clone() {
            let vertex = Arc::clone(self.vertex(id));
            let mut unkeyed = self.graph.inputs(id).len();
            for (at, input) in vertex.inputs.iter().enumerate() {
                let Some(input) = input.filter(|input| self.context_name(*input).is_some()) else { continue };
                self.early.push_back(Early::Select(id, at));
                self.selections_left.entry(input).or_default().0 += 1;
                unkeyed += 1;
            }
            let trusted = vertex.cache_use != CacheUse::Ignored;
            self.vertices[id.index()].trusted = trusted && self.graph.inputs(id).iter().all(|id| self.of(*id).trusted);
            self.vertices[id.index()].unkeyed = unkeyed;
            match &vertex.op {
                Op::Source(Source::Context(context)) => {
                    self.vertices[id.index()].product = Some(Product::Context(context.name.clone()));
                    self.states.set(id, VertexState::Completed);
                    contexts.push(id);
                }
                Op::Source(Source::Http(_) | Source::Git(_)) => self.early.push_back(Early::Pin(id)),
                _ if unkeyed == 0 => self.to_key.push_back(id),
                _ => {}
            }
        }
        for context in contexts {
            self.keyed(context);
        }
    }

    /// Computes definition keys for all vertices that can have one, then looks them up together.
    pub(super) fn key(&mut self) {
        let mut keyed = Vec::new();
        while let Some(id) = self.to_key.pop_front() {
            let vertex = Arc::clone(self.vertex(id));
            let key = match &vertex.op {
                Op::Source(source) => match self.pinned(id, source) {
                    (source, Some(identity)) => PinnedSource { source: &source, identity: &identity }.definition_key(),
                    (_, None) => {
                        self.fetch_for_key(id);
                        continue;
                    }
                },
                op => Described { op, inputs: &self.input_identities(id, &vertex) }.definition_key(),
            };
            keyed.push((id, key));
            self.vertices[id.index()].definition = Some(key);
            self.keyed(id);
        }
        let answerable = |(id, _): &&(VertexId, Key)| {
            self.of(*id).trusted && !matches!(self.vertex(*id).op, Op::Source(Source::Image(_)))
        };
        let keys: Vec<Key> = keyed.iter().filter(answerable).map(|(_, key)| *key).collect();
        let mut found = self.shared.lookup_all(&keys).into_iter();
        let found: Vec<_> =
            keyed.iter().map(|entry| answerable(&entry).then(|| found.next()).flatten().flatten()).collect();
        for ((id, _), found) in keyed.into_iter().zip(found) {
            // Inputs are keyed before their readers, so theirs is decided.
            self.settle_trust(id, found.as_ref());
            match found.filter(|_| self.of(id).trusted) {
                Some(found) => {
                    self.used.push(found.result);
                    self.tell_cached(id);
                    self.states.set(id, VertexState::Cached);
                    let progress = &mut self.vertices[id.index()];
                    progress.product = Some(Product::Snapshot(found.snapshot));
                    progress.result = Some(found.result);
                    progress.hit = Some(KeyKind::Definition);
                }
                None => {
                    self.states.set(id, VertexState::Missed);
                    self.fresh.push(id);
                }
            }
        }
    }

    /// Whether another place has the product of a wanted vertex. Asked once: what it did not give then it does not have.
    /// How old its results are nobody knows, so where that matters it is not asked.
    pub(super) fn is_promised(&mut self, id: VertexId) -> bool {
        let vertex = self.vertex(id);
        let asks = vertex.cache_use == CacheUse::Allowed && !matches!(vertex.op, Op::Source(Source::Image(_)));
        let progress = &mut self.vertices[id.index()];
        let Some(key) = progress.definition.filter(|_| progress.trusted && asks && !progress.asked) else {
            return false;
        };
        progress.asked = true;
        progress.elsewhere = self.shared.cache.elsewhere(&[key]).contains(&true);
        progress.elsewhere
    }

    /// A result that is too old does not answer, and makes all downstream of it suspect: what is recorded for them may
    /// have been made from it.
    fn settle_trust(&mut self, id: VertexId, found: Option<&Found>) {
        let accepted = found.is_none_or(|found| self.vertex(id).cache_use.accepts(found.made));
        self.distrust |= !accepted && self.of(id).trusted;
        if self.distrust {
            let inputs = self.graph.inputs(id);
            let trusted = accepted && inputs.into_iter().all(|input| self.of(input).trusted);
            self.vertices[id.index()].trusted &= trusted;
        }
    }

    /// The key of `id` is known: its readers wait for one thing less.
    pub(super) fn keyed(&mut self, id: VertexId) {
        for reader in self.readers[id.index()].clone() {
            self.one_less_unkeyed(reader);
        }
    }

    pub(super) fn one_less_unkeyed(&mut self, id: VertexId) {
        let unkeyed = &mut self.vertices[id.index()].unkeyed;
        *unkeyed -= 1;
        if *unkeyed == 0 && self.states.get(id) == VertexState::Unkeyed {
            self.to_key.push_back(id);
        }
    }

    pub(super) fn pinned(&self, id: VertexId, source: &Source) -> (Source, Option<Digest>) {
        match (source, &self.of(id).pinned) {
            (Source::Image(image), _) => (source.clone(), Some(image.digest)),
            (_, Some(pinned)) => (pinned.source.clone(), pinned.identity),
            (_, None) => (source.clone(), None),
        }
    }

    /// A source that only its content can identify: it is fetched so that its readers can be keyed.
    pub(super) fn fetch_for_key(&mut self, id: VertexId) {
        self.keys_are_slow = true;
        self.fresh.append(&mut self.undecided);
        self.states.set(id, VertexState::Wanted);
        self.make_ready(id);
    }

    pub(super) fn input_identities(&self, id: VertexId, vertex: &Vertex) -> Vec<InputIdentity> {
        let identity = |(at, input): (usize, &Option<VertexId>)| match input {
            None => InputIdentity::Empty,
            Some(input) => match (self.of(id).selected.get(&at), &self.of(*input).definition) {
                (Some(selected), _) => InputIdentity::Content(*selected),
                (None, Some(definition)) => InputIdentity::Definition(definition.digest),
                (None, None) => unreachable!("a vertex is keyed after its inputs"),
            },
        };
        vertex.inputs.iter().enumerate().map(identity).collect()
    }

    /// The key of a vertex with the text it was made of, which only misses need.
    pub(super) fn definition(&self, id: VertexId, op: &Op) -> Option<Definition> {
        let key = self.of(id).definition?;
        let text = match (op, self.pinned_identity(id, op)) {
            (Op::Source(source), Some(identity)) => Text::of(&PinnedSource { source, identity: &identity }),
            _ => {
                let inputs = self.input_identities(id, self.vertex(id));
                Text::with_notes(&Described { op, inputs: &inputs }, &|to| self.note_inputs(id, to))
            }
        };
        Some(Definition { key, text })
    }

    fn pinned_identity(&self, id: VertexId, op: &Op) -> Option<Digest> {
        match op {
            Op::Source(source) => self.pinned(id, source).1,
            Op::Run(_) | Op::File(_) => None,
        }
    }

    /// What people know the inputs by: the fields of a source, the name of a step.
    fn note_inputs(&self, id: VertexId, to: &mut dyn Fields) {
        for (at, input) in self.vertex(id).inputs.iter().enumerate() {
            let Some(input) = *input else { continue };
            let mut to = Noted { to: &mut *to, prefix: format!("input.{at}.") };
            match &self.vertex(input).op {
                Op::Source(source) => self.pinned(input, source).0.describe(&mut to),
                Op::Run(_) | Op::File(_) => to.field("step", self.vertex(input).name.as_bytes()),
            }
        }
    }
}

/// Fields of something else, as notes.
struct Noted<'a> {
    to: &'a mut dyn Fields,
    prefix: String,
}

impl Fields for Noted<'_> {
    fn field(&mut self, name: &str, value: &[u8]) {
        self.to.note(&format!("{}{name}", self.prefix), value);
    }

    fn note(&mut self, name: &str, value: &[u8]) {
        self.field(name, value);
    }
}
