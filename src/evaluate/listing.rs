//! What can be given to a build, and what can be built.

use rbuild_parser::{Source, Span};
use rbuild_solver::{Outline, OutlineInput, Target};
use serde_json::{Map, Value, json};

use super::columns::aligned;
use super::location::location;
use super::{json_text, source_data};
use crate::cli::report::printable;

/// `--call=outline`.
pub(super) fn outline(source: &Source, outline: &Outline, as_json: bool) -> String {
    if as_json {
        return json_text(&outline_document(source, outline));
    }
    let mut out = String::new();
    let description = outline.description.as_deref().unwrap_or_default();
    if !outline.name.is_empty() || !description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        let mut rows = vec![["TARGET:".to_owned(), name.to_owned()]];
        if !description.is_empty() {
            rows.push(["DESCRIPTION:".to_owned(), printable(description)]);
        }
        out.push_str(&(aligned(&rows, 1) + "\n"));
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
        rows.extend(outline.args.iter().map(|arg| {
            [arg.name.as_str(), arg.value.as_str(), arg.description.as_deref().unwrap_or_default()].map(printable)
        }));
        out.push_str(&(aligned(&rows, 3) + "\n"));
    }
    for (heading, inputs) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
        if !inputs.is_empty() {
            let mut rows = vec![[heading, "REQUIRED"].map(str::to_owned)];
            let required = |input: &OutlineInput| if input.required { "true" } else { "" };
            rows.extend(inputs.iter().map(|input| [printable(&input.name), required(input).to_owned()]));
            out.push_str(&(aligned(&rows, 3) + "\n"));
        }
    }
    out
}

/// `--call=targets`.
pub(super) fn targets(source: &Source, targets: &[Target], as_json: bool) -> String {
    if as_json {
        let targets: Vec<Value> = targets.iter().map(|target| target_document(source, target)).collect();
        return json_text(&json!({"targets": targets, "sources": [source_data(source)]}));
    }
    let mut rows = vec![["TARGET", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(targets.iter().map(|target| {
        let name = match (target.name.as_str(), target.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        [name, printable(target.description.as_deref().unwrap_or_default())]
    }));
    aligned(&rows, 1)
}

/// A document of which empty fields are left out, as in Go's `omitempty`.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn text(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.insert(name.to_owned(), json!(value));
        }
        self
    }

    fn flag(mut self, name: &str, on: bool) -> Self {
        if on {
            self.0.insert(name.to_owned(), json!(true));
        }
        self
    }

    fn list(mut self, name: &str, values: Vec<Value>) -> Self {
        if !values.is_empty() {
            self.0.insert(name.to_owned(), Value::Array(values));
        }
        self
    }

    fn at(mut self, source: &Source, span: Span) -> Value {
        self.0.insert("location".to_owned(), location(source, Some(span)));
        Value::Object(self.0)
    }
}

fn outline_document(source: &Source, outline: &Outline) -> Value {
    let args = outline.args.iter().map(|arg| {
        let fields = Fields::default().text("name", Some(&arg.name)).text("description", arg.description.as_deref());
        fields.text("value", Some(&arg.value)).at(source, arg.span)
    });
    let input = |input: &OutlineInput| {
        Fields::default().text("name", Some(&input.name)).flag("required", input.required).at(source, input.span)
    };
    let fields = Fields::default()
        .text("name", Some(&outline.name))
        .text("description", outline.description.as_deref())
        .list("args", args.collect())
        .list("secrets", outline.secrets.iter().map(input).collect())
        .list("ssh", outline.agents.iter().map(input).collect())
        .list("sources", vec![json!(source_data(source))]);
    Value::Object(fields.0)
}

fn target_document(source: &Source, target: &Target) -> Value {
    Fields::default()
        .text("name", Some(&target.name))
        .flag("default", target.is_default)
        .text("description", target.description.as_deref())
        .text("base", Some(&target.base))
        .text("platform", target.platform.as_deref())
        .at(source, target.span)
}
