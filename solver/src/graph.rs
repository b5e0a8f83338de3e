//! The build graph: vertices and what they read. Equal vertices are one.
//!
//! Invariants: inputs exist before their reader is added, so ids are a topological order and there is no cycle;
//! petgraph does the bookkeeping and appears in no signature.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::vertex::{Vertex, VertexId};

/// A directed acyclic graph of vertices; an edge goes from an input to its reader.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    inner: DiGraph<Arc<Vertex>, ()>,
    /// Ids by a hash of what makes vertices equal; buckets are compared in full.
    equal: HashMap<u64, Vec<VertexId>>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex, or finds the one that does the same to the same inputs: op, inputs and cache use count, name
    /// and origin do not (the first one's stay).
    ///
    /// # Panics
    /// When an input is not of this graph.
    pub fn add(&mut self, vertex: Vertex) -> VertexId {
        let bucket = equality_hash(&vertex);
        let known = self.equal.get(&bucket).into_iter().flatten();
        if let Some(id) = known.copied().find(|id| does_the_same(self.vertex(*id), &vertex)) {
            return id;
        }
        let inputs: Vec<VertexId> = distinct_inputs(&vertex);
        let node = self.inner.add_node(Arc::new(vertex));
        let id = id_of(node);
        for input in inputs {
            assert!(input < id, "an input is added before its reader");
            self.inner.add_edge(index_of(input), node, ());
        }
        self.equal.entry(bucket).or_default().push(id);
        id
    }

    /// A vertex of this graph.
    pub fn vertex(&self, id: VertexId) -> &Arc<Vertex> {
        &self.inner[index_of(id)]
    }

    /// What a vertex reads, without repetition, in ascending order.
    pub fn inputs(&self, id: VertexId) -> Vec<VertexId> {
        self.neighbours(id, Direction::Incoming)
    }

    /// Who reads a vertex, in ascending order.
    pub fn readers(&self, id: VertexId) -> Vec<VertexId> {
        self.neighbours(id, Direction::Outgoing)
    }

    /// All ids; inputs come before their readers.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..self.inner.node_count() as u32).map(VertexId)
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.inner.node_count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn neighbours(&self, id: VertexId, direction: Direction) -> Vec<VertexId> {
        let mut found: Vec<VertexId> = self.inner.neighbors_directed(index_of(id), direction).map(id_of).collect();
        found.sort_unstable();
        found
    }
}

fn distinct_inputs(vertex: &Vertex) -> Vec<VertexId> {
    let mut inputs: Vec<VertexId> = vertex.inputs.iter().copied().flatten().collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}

fn does_the_same(a: &Vertex, b: &Vertex) -> bool {
    a.op == b.op && a.inputs == b.inputs && a.cache_use == b.cache_use
}

fn equality_hash(vertex: &Vertex) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&vertex.op, &vertex.inputs, vertex.cache_use).hash(&mut hasher);
    hasher.finish()
}

fn index_of(id: VertexId) -> NodeIndex {
    NodeIndex::new(id.index())
}

fn id_of(node: NodeIndex) -> VertexId {
    VertexId(u32::try_from(node.index()).expect("petgraph's default index is 32 bits wide"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{run, source_context};
    use crate::vertex::CacheUse;

    #[test]
    fn equal_vertices_merge_and_different_ones_do_not() {
        let mut graph = Graph::new();
        let context = graph.add(source_context(""));
        let a = graph.add(run("make", &[Some(context)]));
        let mut renamed = run("make", &[Some(context)]);
        renamed.name = "another name".to_owned();
        assert_eq!(graph.add(renamed), a);
        let mut fresh = run("make", &[Some(context)]);
        fresh.cache_use = CacheUse::Ignored;
        let b = graph.add(fresh);
        let c = graph.add(run("make", &[None]));
        assert_eq!(graph.len(), 4);
        assert_eq!((graph.readers(context), graph.inputs(b), graph.inputs(c)), (vec![a, b], vec![context], vec![]));
    }

    #[test]
    #[should_panic(expected = "before its reader")]
    fn an_input_of_another_graph_is_refused() {
        Graph::new().add(run("x", &[Some(VertexId(7))]));
    }
}
