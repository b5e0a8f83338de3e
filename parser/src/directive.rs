//! Parser directives: `# syntax=`, `# escape=` and `# check=` before everything else, each once.
//!
//! BuildKit reads them twice, with slightly different eyes, and so does this: the parser itself (for `escape`) forgives blanks
//! before the `#` but stops at a shebang; the search for `syntax` and `check` skips a shebang but forgives no blanks, and takes
//! a value only up to its first blank.

use crate::word::Escape;
use crate::{Diagnostic, Span};

/// A directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The value.
    pub value: String,
    /// The place of the whole directive.
    pub span: Span,
}

/// The directives of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend wanted.
    pub syntax: Option<Directive>,
    /// `# check=`: which build checks run.
    pub check: Option<Directive>,
    /// `# escape=`.
    pub escape: Escape,
}

/// The frontends that this crate replaces, tags and digests aside.
const BUILT_IN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Whether a frontend reference is one that this crate stands in for, so that it need not be fetched.
pub fn is_built_in(frontend: &str) -> bool {
    let name = frontend.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let name = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"]
        .iter()
        .find_map(|host| name.strip_prefix(host))
        .unwrap_or(name);
    BUILT_IN.contains(&name)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Syntax,
    Escape,
    Check,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }
}

/// `name = value` after the comment sign; blanks are free, names have no case.
fn split(line: &str) -> Option<(Name, &str)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let name = [Name::Syntax, Name::Escape, Name::Check]
        .into_iter()
        .find(|known| name.eq_ignore_ascii_case(known.as_str()))?;
    let value = rest.trim_start_matches(BLANK).strip_prefix('=')?;
    let trimmed = value.trim_matches(BLANK);
    if trimmed.is_empty() {
        // A value of blanks alone is its last blank.
        let last = value.len().checked_sub(1)?;
        return Some((name, &value[last..]));
    }
    Some((name, trimmed))
}

/// Blanks as regular expressions know them.
const BLANK: [char; 5] = ['\t', '\n', '\u{c}', '\r', ' '];

/// The `check=` among the comments above an instruction, up to its first blank.
pub(crate) fn check_among<'a>(comments: &[&'a str]) -> Option<&'a str> {
    comments.iter().find_map(|comment| match split(comment) {
        Some((Name::Check, value)) => Some(first_word(value)),
        _ => None,
    })
}

fn first_word(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

/// Follows the leading lines as the parser meets them.
#[derive(Debug, Default)]
pub(crate) struct Header {
    done: bool,
    seen: Vec<Name>,
    pub(crate) escape: Escape,
}

impl Header {
    /// Whether no further line can be a directive.
    pub(crate) fn is_over(&self) -> bool {
        self.done
    }

    /// Takes the next line (without line end and leading blanks), which may be a directive. `span` is its place, `previous` the
    /// place of the line before it.
    pub(crate) fn line(&mut self, line: &str, span: Span, previous: Span) -> Result<bool, Diagnostic> {
        if self.done {
            return Ok(false);
        }
        let Some((name, value)) = line.strip_prefix('#').and_then(split) else {
            self.done = true;
            return Ok(false);
        };
        if self.seen.contains(&name) {
            let name = name.as_str();
            // BuildKit counts this line one short; the excerpt shows both.
            let message = format!("only one {name} parser directive can be used");
            return Err(Diagnostic::error(previous.to(span), message).with_label(span, "given again here"));
        }
        self.seen.push(name);
        if name == Name::Escape {
            self.escape = match value {
                "\\" => Escape::Backslash,
                "`" => Escape::Backtick,
                other => {
                    let message = format!("invalid escape token '{other}' does not match ` or \\");
                    return Err(Diagnostic::error(span, message));
                }
            };
        }
        Ok(true)
    }
}

/// Finds `syntax` and `check`, wherever BuildKit would.
pub(crate) fn find(text: &str) -> Directives {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let body = match body.strip_prefix("#!") {
        Some(rest) => rest.split_once('\n').map_or("", |(_, rest)| rest),
        None => body,
    };
    let mut directives = leading(text, body, "#");
    if directives.syntax.is_none() {
        directives.syntax = leading(text, body, "//").syntax.or_else(|| from_json(text, body));
    }
    directives
}

fn leading(text: &str, body: &str, comment: &str) -> Directives {
    let mut found = Directives::default();
    let mut seen = Vec::new();
    for line in body.lines() {
        let Some((name, value)) = line.strip_prefix(comment).and_then(split) else { break };
        if seen.contains(&name) {
            break;
        }
        seen.push(name);
        let start = line.as_ptr() as usize - text.as_ptr() as usize;
        let span = Span::new(start, start + line.trim_end().len());
        let directive = Directive { value: first_word(value).to_owned(), span };
        match name {
            Name::Syntax => found.syntax = Some(directive),
            Name::Check => found.check = Some(directive),
            Name::Escape => {}
        }
    }
    found
}

/// A file that is one JSON object may name its frontend too.
fn from_json(text: &str, body: &str) -> Option<Directive> {
    if !body.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Value = serde_json::from_str(body).ok()?;
    let value = object.get("syntax")?.as_str()?.to_owned();
    Some(Directive { value, span: Span::new(0, text.lines().next().map_or(0, str::len)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (Option<String>, Option<String>) {
        let directives = find(text);
        (directives.syntax.map(|found| found.value), directives.check.map(|found| found.value))
    }

    #[test]
    fn syntax_and_check_are_found() {
        for (text, syntax, check) in [
            ("# syntax=docker/dockerfile:1\n# check=skip=all\nFROM a", Some("docker/dockerfile:1"), Some("skip=all")),
            ("#  SynTax =  a/b   c \n", Some("a/b"), None),
            ("\u{feff}#syntax=x\n", Some("x"), None),
            ("#!/usr/bin/x\n# syntax=x\r\n", Some("x"), None),
            ("// syntax=x\n", Some("x"), None),
            ("{\"syntax\": \"x\"}", Some("x"), None),
            (" # check=error=true\n", None, None),
            ("# a comment\n# check=error=true\n", None, None),
            ("\n# check=error=true\n", None, None),
            ("# syntax=a\n# syntax=b\n# check=x\n", Some("a"), None),
            ("# check=skip=A, B;error=true\n", None, Some("skip=A,")),
        ] {
            assert_eq!(found(text), (syntax.map(str::to_owned), check.map(str::to_owned)), "{text:?}");
        }
    }

    #[test]
    fn the_usual_frontends_are_built_in() {
        for frontend in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.7-labs",
            "docker/dockerfile-upstream:master",
            "docker/dockerfile:1@sha256:0123",
        ] {
            assert!(is_built_in(frontend), "{frontend}");
        }
        for frontend in ["r.j3ss.co/x", "docker/dockerfilex", "localhost:5000/docker/dockerfile", "dockerfile"] {
            assert!(!is_built_in(frontend), "{frontend}");
        }
    }
}
