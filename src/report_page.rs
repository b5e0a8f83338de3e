//! The report of a recorded build: one HTML page that needs nothing else, no network, no fonts, no libraries; and its
//! timeline in Chrome's trace format.
//!
//! What the page shows comes as JSON inside it (`docs/report.md` tells the fields) and is only ever put into text nodes; a
//! content security policy allows the page's own script and nothing more. Logs are cut so that a page of a hundred steps
//! stays below 300 KB.

mod data;
mod trace;

use base64::Engine as _;
use rbuild_image::Digest;

use crate::cli::report::Failure;
use crate::graph_view::GraphView;

pub(crate) use data::{Report, Subject};
pub(crate) use trace::trace;

const PAGE: &str = include_str!("report_page/page.html");
const STYLE: &str = include_str!("report_page/page.css");
const SCRIPT: &str = include_str!("report_page/page.js");

/// The page.
pub(crate) fn page(report: &Report, graph: &GraphView) -> Result<String, Failure> {
    let data = serde_json::to_string(report).map_err(Failure::from)?;
    // Inside a script element only `<` could end it, and JSON can write it otherwise.
    let data = data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let hash = base64::engine::general_purpose::STANDARD.encode(Digest::sha256(SCRIPT).as_bytes());
    let title = text(&format!("{} – rbuild", graph.title));
    let drawn = graph.svg();
    let parts = [
        ("hash", format!("sha256-{hash}")),
        ("title", title),
        ("style", STYLE.to_owned()),
        ("graph", drawn),
        ("data", data),
        ("script", SCRIPT.to_owned()),
    ];
    Ok(filled(PAGE, &parts))
}

/// Replaces each `{{name}}` once, from left to right: what was put in is never looked at again.
fn filled(template: &str, parts: &[(&str, String)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("the page's template is well formed");
        let (_, part) = parts.iter().find(|(known, _)| *known == name).expect("the page's template names known parts");
        out.push_str(before);
        out.push_str(part);
        rest = after;
    }
    out + rest
}

fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_looked_into() {
        let parts = [("a", "{{b}}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(filled("1{{a}}2{{b}}3", &parts), "1{{b}}2x3");
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for part in [PAGE, STYLE, SCRIPT] {
            let names = part.replace("http://www.w3.org/", "");
            assert!(!names.contains("http://") && !names.contains("https://") && !names.contains("url("), "{names}");
        }
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("innerHTML"));
    }
}
