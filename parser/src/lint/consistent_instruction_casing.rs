//! Keywords of one file in one case.

use crate::Diagnostic;
use crate::instruction::Origin;
use crate::stage::Stage;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "ConsistentInstructionCasing",
    description: "All commands within the Dockerfile should use the same casing (either upper or lower)",
    url: "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/",
    experimental: false,
};

/// Looks at all keywords of the stages, `FROM` included.
pub(crate) fn check(stages: &[Stage]) -> Vec<(Diagnostic, &Origin)> {
    let origins = || {
        stages.iter().flat_map(|stage| {
            std::iter::once(&stage.origin).chain(stage.instructions.iter().map(|instruction| instruction.origin()))
        })
    };
    let lower = origins().filter(|origin| is_lower(&origin.keyword)).count();
    let upper = origins().filter(|origin| !is_lower(&origin.keyword) && is_upper(&origin.keyword)).count();
    let (fits, wanted): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    let odd = origins().filter(|origin| !fits(&origin.keyword));
    odd.map(|origin| {
        let message = format!("Command '{}' should match the case of the command majority ({wanted})", origin.keyword);
        (Diagnostic::lint(&RULE, origin.span, message), origin)
    })
    .collect()
}

fn is_lower(keyword: &str) -> bool {
    !keyword.contains(|c: char| c.is_ascii_uppercase())
}

fn is_upper(keyword: &str) -> bool {
    !keyword.contains(|c: char| c.is_ascii_lowercase())
}
