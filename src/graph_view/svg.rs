//! A graph as one SVG file: no scripts, no fonts or files from elsewhere, light and dark by the reader's setting. Each
//! node has a title for screen readers and pointers.

use std::fmt::Write as _;

use super::layout::{Layout, NODE_HEIGHT, NODE_WIDTH, Place, layout};
use super::{GraphView, Node, NodeState};

const MARGIN: f64 = 24.0;
const HEADING: f64 = 52.0;
/// Characters of a name that fit into a node.
const FITTING: usize = 38;

const STYLE: &str = "\
svg{font:13px ui-sans-serif,system-ui,'DejaVu Sans',sans-serif;background:#fff}
.paper{fill:#fff}.ink{fill:#1c2128}.pale{fill:#57606a}
.node rect{stroke-width:1.2;stroke:#8c959f;fill:#f6f8fa}
.hit rect{fill:#d3f2dc;stroke:#4ca866}.ran rect{fill:#d6e6fb;stroke:#4c86d0}
.miss rect{fill:#eaf1fb;stroke:#4c86d0;stroke-dasharray:5 3}.failed rect{fill:#fbd9d7;stroke:#cf4039}
.cancelled rect{fill:#eef0f2;stroke:#9aa3ad}.running rect{fill:#fff1c9;stroke:#c08a00}
.critical rect{stroke:#bc4c00;stroke-width:3}
.edge{fill:none;stroke:#8c959f;stroke-width:1.2}.edge.critical{stroke:#bc4c00;stroke-width:3}
@media (prefers-color-scheme: dark){
svg{background:#0d1117}.paper{fill:#0d1117}.ink{fill:#e6edf3}.pale{fill:#9aa4af}
.node rect{fill:#161b22;stroke:#57606a}
.hit rect{fill:#12361f;stroke:#3fb95f}.ran rect{fill:#12294a;stroke:#4c86d0}
.miss rect{fill:#0f1d33;stroke:#4c86d0}.failed rect{fill:#4a1513;stroke:#f0655d}
.cancelled rect{fill:#1c2128;stroke:#6e7781}.running rect{fill:#3d2f00;stroke:#d8a31a}
.critical rect{stroke:#f0883e}.edge{stroke:#6e7781}.edge.critical{stroke:#f0883e}
}";

/// Draws a graph.
pub(super) fn render(view: &GraphView) -> String {
    let laid = layout(view);
    let summary = view.summary();
    // The heading needs its room even above a small graph.
    let heading = view.title.chars().count().max(summary.chars().count()) as f64 * 8.0;
    let (width, height) = (laid.width.max(heading) + 2.0 * MARGIN, laid.height + HEADING + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-labelledby=\"title desc\">\n\
         <title id=\"title\">{}</title>\n<desc id=\"desc\">{}</desc>\n<style>\n{STYLE}\n</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"ink\" x=\"{MARGIN}\" y=\"{:.0}\" font-weight=\"600\">{}</text>\n\
         <text class=\"pale\" x=\"{MARGIN}\" y=\"{:.0}\">{}</text>\n",
        escaped(&view.title),
        escaped(&summary),
        MARGIN + 12.0,
        escaped(&view.title),
        MARGIN + 32.0,
        escaped(&summary),
    );
    let _infallible = writeln!(out, "<g transform=\"translate({MARGIN} {})\">", MARGIN + HEADING);
    edges(view, &laid, &mut out);
    for (node, place) in view.nodes.iter().zip(&laid.nodes) {
        draw(node, *place, &mut out);
    }
    out.push_str("</g>\n</svg>\n");
    out
}

fn edges(view: &GraphView, laid: &Layout, out: &mut String) {
    for (at, input, bends) in &laid.edges {
        let critical = view.nodes[*at].critical && view.nodes[*input].critical;
        let (from, to) = (laid.nodes[*input], laid.nodes[*at]);
        let mut last = Place { y: from.y + NODE_HEIGHT, ..from };
        let mut path = format!("M{:.1} {:.1}", last.x, last.y);
        for bend in bends {
            curve(&mut path, last, *bend);
            last = Place { y: bend.y + NODE_HEIGHT, ..*bend };
            let _infallible = write!(path, " L{:.1} {:.1}", last.x, last.y);
        }
        curve(&mut path, last, to);
        let class = if critical { "edge critical" } else { "edge" };
        let _infallible = writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

fn curve(path: &mut String, from: Place, to: Place) {
    let middle = f64::midpoint(from.y, to.y);
    let _infallible = write!(path, " C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}", from.x, to.x, to.x, to.y);
}

fn draw(node: &Node, place: Place, out: &mut String) {
    let class = match node.state {
        NodeState::Hit => "hit",
        NodeState::Ran => "ran",
        NodeState::Miss => "miss",
        NodeState::Failed => "failed",
        NodeState::Cancelled => "cancelled",
        NodeState::Running => "running",
    };
    let critical = if node.critical { " critical" } else { "" };
    let label = node.label();
    let shown = match label.chars().count() > FITTING {
        true => format!("{}…", label.chars().take(FITTING - 1).collect::<String>()),
        false => label.clone(),
    };
    let line = if node.line > 0 { format!(", line {}", node.line) } else { String::new() };
    let path = if node.critical { ", on the critical path" } else { "" };
    let _infallible = writeln!(
        out,
        "<g class=\"node {class}{critical}\" role=\"group\" transform=\"translate({:.1} {:.1})\">\
         <title>{}: {}{line}{path}</title>\
         <rect width=\"{NODE_WIDTH}\" height=\"{NODE_HEIGHT}\" rx=\"7\"/>\
         <text class=\"ink\" x=\"10\" y=\"18\">{}</text><text class=\"pale\" x=\"10\" y=\"35\" font-size=\"11\">{}</text></g>",
        place.x - NODE_WIDTH / 2.0,
        place.y,
        escaped(&label),
        escaped(&node.caption()),
        escaped(&shown),
        escaped(&node.caption()),
    );
}

/// Text between tags or in attributes; what XML cannot carry at all is replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
