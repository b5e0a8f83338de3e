//! A stage name with capitals reads as if case mattered; it does not.

use crate::{Diagnostic, Span};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "StageNameCasing",
    description: "Stage names should be lowercase",
    url: "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
    experimental: false,
};

/// Looks at a stage name as written.
pub(crate) fn check(span: Span, name: &str) -> Option<Diagnostic> {
    let upper = name != name.to_lowercase();
    upper.then(|| Diagnostic::lint(&RULE, span, format!("Stage name '{name}' should be lowercase")))
}
