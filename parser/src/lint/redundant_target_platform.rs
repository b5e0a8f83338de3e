//! `FROM --platform=$TARGETPLATFORM`.

use crate::instruction::Origin;
use crate::{Diagnostic, Expanded, Word};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "RedundantTargetPlatform",
    description: "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    url: "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/",
    experimental: false,
};

/// Looks at a `--platform` and what became of it.
pub fn check(from: &Origin, platform: &Word, expanded: &Expanded, target_platform: Option<&str>) -> Option<Diagnostic> {
    let only_it = expanded.unmatched.is_empty()
        && expanded.matched.len() == 1
        && expanded.matched.contains("TARGETPLATFORM")
        && Some(expanded.text.as_str()) == target_platform;
    let message = || {
        let raw = platform.raw();
        format!("Setting platform to predefined {raw} in FROM is redundant as this is the default behavior")
    };
    only_it.then(|| Diagnostic::lint(&RULE, from.span, message()).with_help("remove the flag"))
}
