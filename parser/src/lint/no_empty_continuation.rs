//! A blank line inside an instruction that continues.

use crate::{Diagnostic, Span};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "NoEmptyContinuation",
    description: "Empty continuation lines will become errors in a future release",
    url: "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/",
    experimental: false,
};

/// The finding; BuildKit places it on the instruction's last line.
pub(crate) fn finding(last_line: Span) -> Diagnostic {
    Diagnostic::lint(&RULE, last_line, "Empty continuation line")
        .with_help("remove the blank lines inside the instruction")
}
