//! One pattern. `moby/patternmatcher` turns patterns into regular expressions of Go's, so odd ones (brackets around stars, escaped
//! letters) mean whatever that expression means. The same text is built here, then rewritten for the `regex` crate.

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

use crate::glob::BadPattern;

/// A pattern without its `!`.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Whether it began with `!`.
    pub(super) restores: bool,
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// No wildcards.
    Exact,
    /// `text/**`.
    Prefix,
    /// `**text`.
    Suffix,
    Regex(Regex),
}

#[derive(PartialEq)]
enum Detected {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

impl Pattern {
    pub(super) fn compile(text: &str, restores: bool) -> Result<Self, BadPattern> {
        let (detected, source) = to_go_regex(text);
        let kind = match detected {
            Detected::Exact => Kind::Exact,
            Detected::Prefix => Kind::Prefix,
            Detected::Suffix => Kind::Suffix,
            Detected::Regex => Kind::Regex(Regex::new(&to_rust_regex(&source)?).map_err(|_| BadPattern)?),
        };
        Ok(Self { restores, text: text.to_owned(), kind })
    }

    /// The pattern as cleaned.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Exact => path == self.text,
            Kind::Prefix => path.starts_with(&self.text[..self.text.len() - 2]),
            Kind::Suffix => {
                let suffix = &self.text[2..];
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Kind::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether a path below a directory may match: compares what comes before the first component with a wildcard.
    pub(super) fn may_match_below(&self, directory: &str) -> bool {
        let fixed = match self.text.find(['*', '?', '[', '\\']) {
            None => self.text.as_str(),
            Some(at) => &self.text[..self.text[..at].rfind('/').unwrap_or(0)],
        };
        let mut wanted = fixed.split('/').filter(|part| !part.is_empty());
        let mut given = directory.split('/').filter(|part| !part.is_empty());
        loop {
            match (wanted.next(), given.next()) {
                (Some(wanted), Some(given)) if wanted == given => {}
                (Some(_), Some(_)) => return false,
                _ => return true,
            }
        }
    }
}

/// The expression that patternmatcher builds, and which of its shortcuts it would take instead.
fn to_go_regex(pattern: &str) -> (Detected, String) {
    let mut detected = Detected::Exact;
    let mut source = String::from("^");
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                // `**/` is `**`.
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    source.push_str("(.*/)?");
                    detected = Detected::Regex;
                } else if detected == Detected::Exact {
                    detected = Detected::Prefix;
                } else {
                    source.push_str(".*");
                    detected = Detected::Regex;
                }
                if first {
                    detected = Detected::Suffix;
                }
            }
            '*' => {
                source.push_str("[^/]*");
                detected = Detected::Regex;
            }
            '?' => {
                source.push_str("[^/]");
                detected = Detected::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => source.extend(['\\', c]),
            '\\' => {
                source.push('\\');
                if let Some(escaped) = chars.next() {
                    source.push(escaped);
                    detected = Detected::Regex;
                }
            }
            '[' | ']' => {
                source.push(c);
                detected = Detected::Regex;
            }
            c => source.push(c),
        }
        first = false;
    }
    source.push('$');
    (detected, source)
}

/// Rewrites an expression of the above kind. The two dialects differ in classes and in escapes.
fn to_rust_regex(source: &str) -> Result<String, BadPattern> {
    let mut out = String::with_capacity(source.len() + 8);
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '[' => class(&mut chars, &mut out)?,
            '\\' => match chars.next().ok_or(BadPattern)? {
                'd' => out.push_str("[0-9]"),
                'D' => out.push_str("[^0-9]"),
                'w' => out.push_str("[0-9A-Za-z_]"),
                'W' => out.push_str("[^0-9A-Za-z_]"),
                's' => out.push_str("[\\t\\n\\x0c\\r ]"),
                'S' => out.push_str("[^\\t\\n\\x0c\\r ]"),
                'b' => out.push_str("(?-u:\\b)"),
                'B' => out.push_str("(?-u:\\B)"),
                'A' => out.push_str("\\A"),
                'z' => out.push_str("\\z"),
                escaped => literal(control(escaped)?, &mut out),
            },
            '^' | '$' | '.' | '*' | '?' | '(' | ')' => out.push(c),
            c => literal(c, &mut out),
        }
    }
    Ok(out)
}

/// What an escaped character stands for, alone or in a class. Go knows no escapes of other letters and digits.
fn control(c: char) -> Result<char, BadPattern> {
    Ok(match c {
        'a' => '\u{7}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        c if c.is_ascii_alphanumeric() || !c.is_ascii() => return Err(BadPattern),
        c => c,
    })
}

fn literal(c: char, out: &mut String) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// A class, standing after its `[`: in Go a bracket or an operator inside a class is an ordinary character.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), BadPattern> {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while first || chars.peek() != Some(&']') {
        first = false;
        let low = class_char(chars)?;
        let mut high = low;
        // A dash before the closing bracket is itself.
        let mut ahead = chars.clone();
        if ahead.next() == Some('-') && ahead.peek().is_some_and(|next| *next != ']') {
            chars.next();
            high = class_char(chars)?;
        }
        if high < low {
            return Err(BadPattern);
        }
        out.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", low as u32, high as u32));
    }
    chars.next();
    out.push(']');
    Ok(())
}

fn class_char(chars: &mut Peekable<Chars<'_>>) -> Result<char, BadPattern> {
    match chars.next().ok_or(BadPattern)? {
        '\\' => control(chars.next().ok_or(BadPattern)?),
        c => Ok(c),
    }
}
