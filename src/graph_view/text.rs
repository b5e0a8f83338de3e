//! A graph as a table: one row a step, with the numbers of those that it reads.

use super::GraphView;
use crate::cli::table::Table;
use crate::progress::time;

/// Writes the table.
pub(super) fn render(view: &GraphView) -> String {
    let mark = if view.critical_ns > 0 { " (*)" } else { "" };
    let title = crate::cli::report::printable(&view.title);
    let mut table = Table::new(["", "STEP", "STATE", "TIME", "READS", "NAME"]);
    for node in &view.nodes {
        let reads = node.inputs.iter().filter_map(|input| view.nodes.get(*input));
        table.row([
            if node.critical { "*" } else { "" }.to_owned(),
            node.number.to_string(),
            node.state.word().to_owned(),
            node.took_ns.map(time).unwrap_or_default(),
            reads.map(|input| input.number.to_string()).collect::<Vec<_>>().join(" "),
            node.label(),
        ]);
    }
    format!("{title}: {}{mark}\n\n{}", view.summary(), table.render())
}
