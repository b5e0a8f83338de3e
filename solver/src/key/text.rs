//! The writer for people: a line for each field, `name: value`; notes have a `~` before the name.
//!
//! Values are escaped so that each is one line, and cut when they are long. What a variable holds whose name says that
//! it is secret is not written: four bytes of its digest tell whether it changed.

use rbuild_image::Digest;
use rbuild_parser::lint::secrets_used_in_arg_or_env::names_secret;

use super::{Describe, Fields};

/// Longer values are cut here, in bytes.
const LONGEST: usize = 8 * 1024;

/// A description as text.
pub(crate) struct Text(String);

impl Text {
    /// What `what` is made of.
    pub(crate) fn of(what: &dyn Describe) -> String {
        let mut text = Self(String::new());
        what.describe(&mut text);
        text.0
    }

    /// The same, followed by notes.
    pub(crate) fn with_notes(what: &dyn Describe, notes: &dyn Fn(&mut dyn Fields)) -> String {
        let mut text = Self(String::new());
        what.describe(&mut text);
        notes(&mut text);
        text.0
    }

    fn line(&mut self, mark: &str, name: &str, value: &[u8]) {
        let whole = String::from_utf8_lossy(value);
        let mut end = whole.len().min(LONGEST);
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        for part in [mark, name, ": "] {
            self.0.push_str(part);
        }
        self.0.extend(whole[..end].chars().flat_map(|c| {
            let escaped = c.is_control() || c == '\\';
            escaped.then(|| c.escape_default()).into_iter().flatten().chain((!escaped).then_some(c))
        }));
        if end < whole.len() {
            self.0.push_str(&format!("… ({} bytes, {})", value.len(), Digest::sha256(value)));
        }
        self.0.push('\n');
    }
}

impl Fields for Text {
    fn field(&mut self, name: &str, value: &[u8]) {
        self.line("", name, value);
    }

    fn variable(&mut self, name: &str, pair: &str) {
        match pair.split_once('=') {
            Some((variable, value)) if names_secret(variable) => {
                let digest = Digest::sha256(format!("rbuild.hidden\n{value}")).to_string();
                let start = digest.split(':').next_back().unwrap_or_default();
                self.line("", name, format!("{variable}={HIDDEN}{}", &start[..8]).as_bytes());
            }
            _ => self.field(name, pair.as_bytes()),
        }
    }

    fn note(&mut self, name: &str, value: &[u8]) {
        self.line("~", name, value);
    }
}

/// What stands for a hidden value, followed by the start of its digest.
pub(crate) const HIDDEN: &str = "****";

/// The value behind an escaped one.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('u') => {
                let code: String = chars.by_ref().skip_while(|c| *c == '{').take_while(|c| *c != '}').collect();
                out.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair<'a>(&'a str);

    impl Describe for Pair<'_> {
        fn describe(&self, to: &mut dyn Fields) {
            to.variable("env.0", self.0);
        }
    }

    #[test]
    fn secret_values_are_told_apart_and_not_told() {
        let (one, two) = (Text::of(&Pair("NPM_TOKEN=hunter2")), Text::of(&Pair("NPM_TOKEN=hunter3")));
        assert!(one != two && !one.contains("hunter"), "{one}");
        assert_eq!(one, Text::of(&Pair("NPM_TOKEN=hunter2")));
        assert_eq!(Text::of(&Pair("TOKENS=3")), "env.0: TOKENS=3\n");
    }

    #[test]
    fn values_are_one_line_and_come_back() {
        for value in ["plain", "a\nb\tc\r\\ \u{1b}[0m é", ""] {
            let text = Text::of(&Pair(&format!("A={value}")));
            assert_eq!(text.lines().count(), 1);
            assert_eq!(unescape(text.trim_end_matches('\n')), format!("env.0: A={value}"));
        }
        assert!(Text::of(&Pair(&format!("A={}", "x".repeat(100_000)))).len() < LONGEST + 200);
    }
}
