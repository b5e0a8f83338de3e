//! A `FROM` that makes no image name without build arguments.

use crate::Diagnostic;
use crate::stage::Stage;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "InvalidDefaultArgInFrom",
    description: "Default value for global ARG results in an empty or invalid base image name",
    url: "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/",
    experimental: false,
};

/// The finding, for a `FROM` whose image, expanded with the defaults of the global `ARG`s alone, is no image reference.
pub fn finding(stage: &Stage) -> Diagnostic {
    let message = format!("Default value for ARG {} results in empty or invalid base image name", stage.image.raw());
    Diagnostic::lint(&RULE, stage.origin.span, message)
}
