//! Target → the vertices it needs; everything else is never planned, shown or run.

use crate::graph::Graph;
use crate::vertex::VertexId;

/// The vertices that `targets` need, themselves included, in graph order (inputs first).
pub fn needed(graph: &Graph, targets: &[VertexId]) -> Vec<VertexId> {
    let mut keep = vec![false; graph.len()];
    for target in targets {
        keep[target.index()] = true;
    }
    for id in graph.ids().rev() {
        if keep[id.index()] {
            for input in graph.vertex(id).inputs.iter().flatten() {
                keep[input.index()] = true;
            }
        }
    }
    graph.ids().filter(|id| keep[id.index()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{run, source_context};

    #[test]
    fn only_what_a_target_reads_is_needed() {
        let mut graph = Graph::new();
        let context = graph.add(source_context(""));
        let a = graph.add(run("a", &[Some(context)]));
        let unused = graph.add(run("unused", &[Some(context)]));
        let b = graph.add(run("b", &[Some(a), Some(a)]));
        assert_eq!(needed(&graph, &[b]), vec![context, a, b]);
        assert_eq!(needed(&graph, &[unused]), vec![context, unused]);
        assert_eq!(needed(&graph, &[]), vec![]);
    }
}
