//! Here-documents: the words that open them, and their bodies.

use std::borrow::Cow;

use crate::Span;
use crate::word::{Escape, NoVariables, Style, split_text};

/// A here-document with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// What opened it.
    pub opener: Opener,
    /// The lines up to the delimiter, as they are, line ends included.
    pub content: String,
    /// The place of those lines.
    pub span: Span,
}

/// A word like `3<<-"EOF"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    /// The delimiter without quotes.
    pub name: String,
    /// The file descriptor before `<<`; 0 when none is given.
    pub descriptor: u64,
    /// Whether variables in the body are expanded: the delimiter is not quoted.
    pub expands: bool,
    /// `<<-`: tabs at the start of lines do not count.
    pub strips_tabs: bool,
}

impl Heredoc {
    /// The content as it is meant, without leading tabs for `<<-`.
    pub fn text(&self) -> Cow<'_, str> {
        if self.opener.strips_tabs { Cow::Owned(strip_tabs(&self.content)) } else { Cow::Borrowed(&self.content) }
    }
}

/// Removes tabs at the start of every line.
pub(crate) fn strip_tabs(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

impl Opener {
    /// Reads a word as an opener; `None` if it is an ordinary one. A word that cannot be read at all is an ordinary one too.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &word[..word.len() - rest.len()];
        let rest = rest.strip_prefix("<<")?;
        let stripped = rest.strip_prefix('-');
        let delimiter = stripped.unwrap_or(rest).trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
        if delimiter.is_empty() || delimiter.contains('<') {
            return None;
        }
        let style = Style { keep_unset: true, ..Style::word(Escape::Backslash) };
        let [name] = <[String; 1]>::try_from(split_text(delimiter, &style, &NoVariables).ok()?).ok()?;
        // Quotes that only show up when they are kept were quotes; those that show up in both readings were escaped.
        let raw = split_text(delimiter, &Style { keep_quotes: true, ..style }, &NoVariables).ok()?;
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        let expands = raw.first().is_some_and(|raw| quotes(raw) == quotes(&name));
        let descriptor = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u64::MAX) };
        Some(Self { name, descriptor, expands, strips_tabs: stripped.is_some() })
    }

    /// Whether a line (its end included) closes the body.
    pub(crate) fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.strips_tabs { line.trim_start_matches('\t') } else { line };
        line == self.name
    }
}

/// The here-documents that an instruction's joined line opens, in order.
pub(crate) fn openers(line: &str) -> Vec<Opener> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let style = Style { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Style::word(Escape::Backslash) };
    // A line that is not well quoted opens none; whoever runs it will complain.
    let words = split_text(line, &style, &NoVariables).unwrap_or_default();
    words.iter().filter_map(|word| Opener::parse(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openers_are_recognised() {
        for (word, name, descriptor, expands, strips_tabs) in [
            ("<<EOF", "EOF", 0, true, false),
            ("<<-EOF", "EOF", 0, true, true),
            ("<<\"EOF\"", "EOF", 0, false, false),
            ("<<'EOF'", "EOF", 0, false, false),
            ("<<E'O'F", "EOF", 0, false, false),
            ("<<eo\\'f", "eo'f", 0, true, false),
            ("<<'e'o\\'f", "eo'f", 0, false, false),
            ("<<'one two'", "one two", 0, false, false),
            ("<<$EOF", "$EOF", 0, true, false),
            ("<< EOF", "EOF", 0, true, false),
            ("3<<-'EOF'", "EOF", 3, false, true),
        ] {
            let opener = Opener { name: name.to_owned(), descriptor, expands, strips_tabs };
            assert_eq!(Opener::parse(word), Some(opener), "{word}");
        }
        for word in ["<<", "<<-", "<EOF", "a<<EOF", "<<<EOF", "<<a b", "<<'open", "\"<<EOF\"", "1<4"] {
            assert_eq!(Opener::parse(word), None, "{word}");
        }
    }

    #[test]
    fn lines_open_documents_outside_quotes() {
        let names = |line| openers(line).into_iter().map(|opener| opener.name).collect::<Vec<_>>();
        assert_eq!(names("RUN <<A cat <<-B 3<< C"), ["A", "B", "C"]);
        assert_eq!(names("RUN echo '<<A' \"<<B\" \\<<C $((1<<4))"), [""; 0]);
        assert_eq!(names("RUN echo $((1 << 4)) >> /out"), ["4))"]);
        assert_eq!(names("RUN echo \"open <<A"), [""; 0]);
    }
}
