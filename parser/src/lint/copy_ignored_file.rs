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
    // The whole context is no path that a pattern could mean, but for those that mean everything.
    let is_root = matches!(source.as_str(), "." | "/");
    if (is_root && !ignore.has_everything()) || !ignore.matches(&source) {
        return None;
    }
    let message = format!("Attempting to {verb} file {} that is excluded by .dockerignore", Quoted(&source));
    Some(Diagnostic::lint(&RULE, instruction.span(), message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, parse};

    #[test]
    fn the_whole_context_is_ignored_by_patterns_for_everything_only() {
        let parsed = parse(&Source::new("Dockerfile", "FROM a\nCOPY x y\n"));
        let copy = &parsed.value.stages[0].instructions[0];
        for (pattern, source, found) in [
            (".*", ".", false),
            (".*", "./", false),
            (".*", ".git", true),
            ("*", ".", true),
            ("**", "/", true),
            ("**/*", "./", true),
            ("x", "./x", true),
            ("x", "y", false),
        ] {
            let ignore = Ignore::new([pattern]).expect("a pattern");
            assert_eq!(check(copy, source, &ignore).is_some(), found, "{pattern} {source}");
        }
    }
}
