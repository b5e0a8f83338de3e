//! `MAINTAINER`.

use crate::{Diagnostic, Span};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "MaintainerDeprecated",
    description: "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    url: "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
    experimental: false,
};

/// The finding.
pub(crate) fn finding(span: Span) -> Diagnostic {
    let message = "Maintainer instruction is deprecated in favor of using label";
    Diagnostic::lint(&RULE, span, message).with_help("write `LABEL org.opencontainers.image.authors=\"…\"`")
}
