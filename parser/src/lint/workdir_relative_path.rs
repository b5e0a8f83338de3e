//! A relative `WORKDIR` that hangs on what the base image says.

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::quote::Quoted;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "WorkdirRelativePath",
    description: "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    url: "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/",
    experimental: false,
};

/// Looks at a `WORKDIR` with its path expanded; `set_before` tells whether the file (the stages below included) had one already.
pub fn check(origin: &Origin, path: &str, set_before: bool) -> Option<Diagnostic> {
    if set_before || path.starts_with('/') {
        return None;
    }
    let message = format!("Relative workdir {} can have unexpected results if the base image changes", Quoted(path));
    Some(Diagnostic::lint(&RULE, origin.span, message))
}
