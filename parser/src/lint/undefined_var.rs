//! A variable that is not defined where it is used.

use std::collections::BTreeSet;

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::suggest::suggestion;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "UndefinedVar",
    description: "Variables should be defined before their use",
    url: "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
    experimental: false,
};

/// Arguments that may be declared without being variables.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Looks at what a word of an instruction asked for and did not get. `declared` are the `ARG`s of the stage so far, with or
/// without value; `environment` the names that are set.
pub fn check<'a>(
    origin: &Origin,
    unmatched: &BTreeSet<String>,
    declared: impl Fn(&str) -> bool,
    environment: impl Iterator<Item = &'a str> + Clone,
) -> Vec<Diagnostic> {
    let unknown = unmatched.iter().filter(|name| !declared(name) && !NOT_VARIABLES.contains(&name.as_str()));
    unknown
        .map(|name| {
            let mut message = format!("Usage of undefined variable '${name}'");
            if let Some(near) = suggestion(name, environment.clone()) {
                message.push_str(&format!(" (did you mean ${near}?)"));
            }
            Diagnostic::lint(&RULE, origin.span, message)
        })
        .collect()
}
