//! `FROM x as y` mixes cases.

use crate::{Diagnostic, Span};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "FromAsCasing",
    description: "The 'as' keyword should match the case of the 'from' keyword",
    url: "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
    experimental: false,
};

/// Looks at both keywords as written. A `FROM` that is itself of mixed case is another check's business.
pub(crate) fn check(span: Span, from: &str, keyword: &str) -> Option<Diagnostic> {
    let wanted = if from == from.to_lowercase() {
        keyword.to_lowercase()
    } else if from == from.to_uppercase() {
        keyword.to_uppercase()
    } else {
        return None;
    };
    let message = || format!("'{keyword}' and '{from}' keywords' casing do not match");
    (keyword != wanted).then(|| Diagnostic::lint(&RULE, span, message()))
}
