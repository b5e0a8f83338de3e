//! Places as BuildKit names them: by lines, one range for each.

use rbuild_parser::{Source, Span};
use serde_json::{Value, json};

use crate::cli::report::printable;

/// The lines of a place, first and last.
pub(super) fn lines(source: &Source, span: Span) -> (u32, u32) {
    let first = source.position(span.start()).line;
    (first, source.position(span.end()).line.max(first))
}

/// A place as JSON.
pub(super) fn location(source: &Source, span: Option<Span>) -> Value {
    let Some(span) = span else { return json!({}) };
    let (first, last) = lines(source, span);
    let range = |line: u32| json!({"start": {"line": line}, "end": {"line": line}});
    json!({"ranges": (first..=last).map(range).collect::<Vec<_>>()})
}

/// The text around a place, its lines marked, as BuildKit prints it.
pub(super) fn excerpt(source: &Source, span: Span) -> String {
    let (first, last) = lines(source, span);
    let (mut start, mut end) = (first, last.min(source.lines()));
    let pad = if start == end { 4 } else { 2 };
    let mut padded = 0;
    while padded < pad {
        if start > 1 {
            start -= 1;
            padded += 1;
        }
        if end != source.lines() {
            end += 1;
            padded += 1;
        }
        padded += 1;
    }
    let mut out = format!("{}:{first}\n--------------------\n", source.name());
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line = printable(source.line(number).unwrap_or_default());
        out.push_str(&format!(" {number:3} | {mark} {line}\n"));
    }
    out + "--------------------\n"
}
