//! A shell between the container and its signals.

use crate::Diagnostic;
use crate::instruction::{CommandLine, Origin};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "JSONArgsRecommended",
    description: "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    url: "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
    experimental: false,
};

/// Looks at a `CMD` or `ENTRYPOINT`. A `SHELL` in the file or in the image's config shows that the shell is meant.
pub fn check(origin: &Origin, command: &CommandLine, shell_is_set: bool) -> Option<Diagnostic> {
    if shell_is_set || matches!(command, CommandLine::Exec(_)) {
        return None;
    }
    let keyword = &origin.keyword;
    let message =
        format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals");
    Some(
        Diagnostic::lint(&RULE, origin.span, message)
            .with_help(format!("write `{keyword} [\"program\", \"argument\"]`")),
    )
}
