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
    let origins = stages.iter().flat_map(|stage| {
        std::iter::once(&stage.origin).chain(stage.instructions.iter().map(|instruction| instruction.origin()))
    });
    let (mut lower, mut upper) = (0, 0);
    let mut cased = Vec::new();
    for origin in origins {
        let casing = Casing::of(&origin.keyword);
        match casing {
            Casing::Lower => lower += 1,
            Casing::Upper => upper += 1,
            Casing::Mixed => {}
        }
        cased.push((casing, origin));
    }
    let (fits, wanted) = if lower > upper { (Casing::Lower, "lowercase") } else { (Casing::Upper, "uppercase") };
    let odd = cased.into_iter().filter(|(casing, _)| *casing != fits).map(|(_, origin)| origin);
    odd.map(|origin| {
        let message = format!("Command '{}' should match the case of the command majority ({wanted})", origin.keyword);
        (Diagnostic::lint(&RULE, origin.span, message), origin)
    })
    .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
    Mixed,
}

impl Casing {
    fn of(keyword: &str) -> Self {
        match (
            keyword.bytes().any(|byte| byte.is_ascii_uppercase()),
            keyword.bytes().any(|byte| byte.is_ascii_lowercase()),
        ) {
            (false, _) => Self::Lower,
            (true, false) => Self::Upper,
            (true, true) => Self::Mixed,
        }
    }
}
