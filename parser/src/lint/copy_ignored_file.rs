//! A source that the context does not hold.

use crate::Diagnostic;
use crate::glob::clean;
use crate::ignore::Ignore;
use crate::instruction::Instruction;
use crate::quote::Quoted;

use super::Rule;

/// The check.
pub const RULE: Rule = Rule {
    name: "CopyIgnoredFile",
    description: "Attempting to Copy file that is excluded by .dockerignore",
    url: "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/",
    experimental: false,
};

/// Looks at a source of a `COPY` or `ADD` from the context, expanded; neither a URL nor a repository. With `!` patterns nothing is
/// certain, so nothing is said.
pub fn check(instruction: &Instruction, source: &str, ignore: &Ignore) -> Option<Diagnostic> {
    let verb = match instruction {
        Instruction::Add(_) => "Add",
        Instruction::Copy(_) => "Copy",
        _ => return None,
    };
    if ignore.has_exceptions() {
        return None;
    }
    let source = clean(source);
    if !ignore.matches(&source) {
        return None;
    }
    let message = format!("Attempting to {verb} file {} that is excluded by .dockerignore", Quoted(&source));
    Some(Diagnostic::lint(&RULE, instruction.span(), message))
}
