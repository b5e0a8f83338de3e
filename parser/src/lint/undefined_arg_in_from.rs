//! A variable in `FROM` that no `ARG` declares.

use std::collections::BTreeSet;

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::suggest::suggestion;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "UndefinedArgInFrom",
    description: "FROM command must use declared ARGs",
    url: "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/",
    experimental: false,
};

/// Looks at what a `FROM` asked for and did not get. `declared` are the global `ARG`s and the automatic platform ones.
pub fn check(from: &Origin, unmatched: &BTreeSet<String>, declared: &BTreeSet<&str>) -> Vec<Diagnostic> {
    let unknown = unmatched.iter().filter(|name| !declared.contains(name.as_str()));
    unknown
        .map(|name| {
            let mut message = format!("FROM argument '{name}' is not declared");
            if let Some(near) = suggestion(name, declared.iter().copied()) {
                message.push_str(&format!(" (did you mean {near}?)"));
            }
            Diagnostic::lint(&RULE, from.span, message)
        })
        .collect()
}
