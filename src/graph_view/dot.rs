//! A graph for Graphviz.

use std::fmt::Write as _;

use super::{GraphView, NodeState};

/// Writes the graph in DOT.
pub(super) fn render(view: &GraphView) -> String {
    let mut out = String::from(
        "digraph build {\n  rankdir=TB; node [shape=box style=\"rounded,filled\" fontname=\"sans-serif\"];\n",
    );
    let title = crate::cli::report::printable(&view.title);
    let _infallible = writeln!(out, "  label={};", quoted(&format!("{title}: {}", view.summary())));
    for (at, node) in view.nodes.iter().enumerate() {
        let colour = match node.state {
            NodeState::Hit => "#d3f2dc",
            NodeState::Ran => "#d6e6fb",
            NodeState::Miss => "#eaf1fb",
            NodeState::Failed => "#fbd9d7",
            NodeState::Cancelled => "#eef0f2",
            NodeState::Running => "#fff1c9",
        };
        let label = quoted(&format!("{}\n{}", node.label(), node.caption()));
        let width = if node.critical { " penwidth=3" } else { "" };
        let _infallible = writeln!(out, "  n{} [label={label} fillcolor=\"{colour}\"{width}];", at + 1);
    }
    for (at, node) in view.nodes.iter().enumerate() {
        for input in &node.inputs {
            let critical = node.critical && view.nodes[*input].critical;
            let width = if critical { " [penwidth=3]" } else { "" };
            let _infallible = writeln!(out, "  n{} -> n{}{width};", input + 1, at + 1);
        }
    }
    out.push_str("}\n");
    out
}

/// A quoted string, in which DOT knows escapes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
