//! A stage called `scratch` or `context`.

use crate::Diagnostic;
use crate::quote::Quoted;
use crate::stage::Stage;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "ReservedStageName",
    description: "Reserved words should not be used as stage names",
    url: "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/",
    experimental: false,
};

/// Looks at a stage.
pub(crate) fn check(stage: &Stage) -> Option<Diagnostic> {
    let name = stage.name.as_deref().filter(|name| matches!(*name, "scratch" | "context"))?;
    let message = format!("Stage name should not use the same name as reserved stage {}", Quoted(name));
    Some(Diagnostic::lint(&RULE, stage.origin.span, message))
}
