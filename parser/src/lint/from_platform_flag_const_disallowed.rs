//! A stage that can only be built for one platform.

use crate::quote::Quoted;
use crate::stage::Stage;
use crate::{Diagnostic, Expanded};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "FromPlatformFlagConstDisallowed",
    description: "FROM --platform flag should not use a constant value",
    url: "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/",
    experimental: false,
};

/// Looks at a `--platform` and what became of it. `os` and `architecture` are the parts of that platform; a stage name that tells
/// one of them shows that the constant is meant.
pub fn check(stage: &Stage, expanded: &Expanded, os: &str, architecture: &str) -> Option<Diagnostic> {
    let constant = expanded.matched.is_empty() && expanded.unmatched.is_empty();
    let name = stage.name.as_deref().unwrap_or_default();
    if !constant || name.contains(os) || name.contains(architecture) {
        return None;
    }
    let message = format!("FROM --platform flag should not use constant value {}", Quoted(&expanded.text));
    Some(Diagnostic::lint(&RULE, stage.origin.span, message))
}
