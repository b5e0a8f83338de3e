//! Two stages of one name; the later one hides the earlier.

use std::collections::BTreeMap;

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::quote::Quoted;
use crate::stage::Stage;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "DuplicateStageName",
    description: "Stage names should be unique",
    url: "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/",
    experimental: false,
};

/// Looks at all stages.
pub(crate) fn check(stages: &[Stage]) -> Vec<(Diagnostic, &Origin)> {
    let mut seen: BTreeMap<&str, &Stage> = BTreeMap::new();
    let mut found = Vec::new();
    for stage in stages {
        let Some(name) = stage.name.as_deref() else { continue };
        if let Some(earlier) = seen.insert(name, stage) {
            let message = format!("Duplicate stage name {}, stage names should be unique", Quoted(name));
            let diagnostic = Diagnostic::lint(&RULE, stage.origin.span, message);
            found.push((diagnostic.with_label(earlier.origin.head, "used before here"), &stage.origin));
        }
    }
    found
}
