//! Build checks: what all of them find, and what would stop a build beside.

use rbuild_parser::{Diagnostic, Dockerfile, Parsed, Source};
use rbuild_solver::{Goal, StageChoice};
use serde_json::{Value, json};

use super::location::{excerpt, location};
use super::{Answer, Call, json_text, source_data};
use crate::annotation::Annotation;
use crate::build::violations;
use crate::cli::report::{Failure, printable};
use crate::dockerfile;
use crate::request::BuildRequest;
use crate::resolve::Outside;

/// Runs the checks on all stages, or on those that a target needs.
pub(super) fn answer(
    source: &Source,
    parsed: &Parsed<Dockerfile>,
    goal: Goal,
    outside: &Outside<'_>,
    request: &BuildRequest,
    call: Call,
) -> Answer {
    let stages = if goal.target.is_none() { StageChoice::All } else { StageChoice::Needed };
    let goal = Goal { stages, ..goal };
    // What stops a build does not hide what the checks found.
    let (lowered, mut errors) = match dockerfile::plan(source, parsed, &goal, outside, request) {
        Ok(plan) => (plan.warnings, Vec::new()),
        Err(found) => found.into_iter().partition(|one| !one.is_error()),
    };
    let mut found: Vec<&Diagnostic> =
        parsed.diagnostics.iter().chain(&lowered).filter(|one| one.rule.is_some()).collect();
    found.sort_by_key(|one| one.span.map(|span| span.start()));
    found.dedup();
    if errors.is_empty() {
        errors.extend(violations(&parsed.value, &found));
    }
    let text = if call.json { as_json(source, &found, &errors) } else { as_text(source, &found, errors.is_empty()) };
    let clean = call.ignore_status || (found.is_empty() && errors.is_empty());
    let annotations = found.iter().copied().chain(&errors).map(|one| Annotation::of(source, one)).collect();
    Answer { text, clean, annotations, error: (!errors.is_empty()).then(|| Failure::diagnostics(source, &errors)) }
}

fn as_text(source: &Source, found: &[&Diagnostic], alone: bool) -> String {
    let mut out = match found.len() {
        0 if alone => return "Check complete, no warnings found.\n".to_owned(),
        0 => return String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        several => format!("Check complete, {several} warnings have been found!\n"),
    };
    for one in found {
        let Some(rule) = one.rule else { continue };
        out.push_str(&format!("\nWARNING: {}", rule.name));
        if !rule.url.is_empty() {
            out.push_str(&format!(" - {}", rule.url));
        }
        out.push_str(&format!("\n{}\n", printable(&one.message)));
        if let Some(span) = one.span {
            out.push_str(&excerpt(source, span));
        }
    }
    out
}

fn as_json(source: &Source, found: &[&Diagnostic], errors: &[Diagnostic]) -> String {
    let warning = |one: &&Diagnostic| -> Option<Value> {
        let rule = one.rule?;
        let mut document = json!({"ruleName": rule.name, "description": rule.description});
        if !rule.url.is_empty() {
            document["url"] = json!(rule.url);
        }
        document["detail"] = json!(one.message);
        document["location"] = location(source, one.span);
        Some(document)
    };
    let warnings: Vec<Value> = found.iter().filter_map(warning).collect();
    let mut document = json!({
        // Go prints a list that nothing was put into as null.
        "warnings": if warnings.is_empty() { Value::Null } else { Value::Array(warnings) },
        "sources": [{"filename": source.name(), "data": source_data(source), "language": "Dockerfile"}],
    });
    if let Some(first) = errors.first() {
        document["buildError"] = json!({"message": first.message, "location": location(source, first.span)});
    }
    json_text(&document)
}
