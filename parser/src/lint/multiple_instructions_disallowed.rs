//! `CMD`, `ENTRYPOINT` or `HEALTHCHECK` twice in a stage.

use crate::instruction::Instruction;
use crate::{Diagnostic, Span};

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "MultipleInstructionsDisallowed",
    description: "Multiple instructions of the same type should not be used in the same stage",
    url: "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/",
    experimental: false,
};

/// Which of the instructions a stage has had. A stage starts anew, whatever its base stage had.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

impl Seen {
    /// Takes the next instruction of the stage (triggers included). A finding is placed on the earlier instruction, which has
    /// no effect.
    pub fn check(&mut self, instruction: &Instruction) -> Option<Diagnostic> {
        let slot = match instruction {
            Instruction::Cmd(_) => &mut self.cmd,
            Instruction::Entrypoint(_) => &mut self.entrypoint,
            Instruction::Healthcheck(_) => &mut self.healthcheck,
            _ => return None,
        };
        let origin = instruction.origin();
        let earlier = slot.replace(origin.span)?;
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            origin.keyword
        );
        Some(Diagnostic::lint(&RULE, earlier, message).with_label(origin.head, "this one is used"))
    }
}
