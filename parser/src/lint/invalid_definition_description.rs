//! A comment above an `ARG` or a stage that does not start with its name.

use crate::{Diagnostic, Span};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    url: "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/",
    experimental: true,
};

/// Looks at the last comment above an `ARG` or `FROM` that declares `names`.
pub(crate) fn check(keyword: &str, names: &[&str], comments: &[String], span: Span) -> Option<Diagnostic> {
    let first = comments.last()?.split(' ').next().unwrap_or_default();
    let example = match names {
        [] => return None,
        _ if names.contains(&first) => return None,
        [name] => name,
        _ => "<arg_key>",
    };
    let message = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    Some(Diagnostic::lint(&RULE, span, message))
}
