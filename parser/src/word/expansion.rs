//! The scanner behind words, with BuildKit's rules to the letter: `shell.Lex` of its Dockerfile frontend. Unlike that, it is
//! bounded in size, depth and work, so that no Dockerfile can exhaust the machine by doubling values or nesting braces.

use std::collections::BTreeSet;
use std::fmt;

use super::{Escape, Lookup, pattern};
use crate::quote::Quoted;

/// How large a value may become; a longer raw text may grow by as much.
const MAX_SIZE: usize = 1 << 20;
/// How deep `${…}` may nest.
const MAX_DEPTH: usize = 16;
/// How many `$` one text may hold.
const MAX_REFERENCES: usize = 100_000;
/// How many bytes of values one text may touch.
const MAX_WORK: usize = 64 << 20;

/// Which characters of a text are special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// The escape character.
    pub escape: Escape,
    /// Quotes stay in the result; they still group.
    pub keep_quotes: bool,
    /// Escape characters stay in the result; they still escape.
    pub keep_escapes: bool,
    /// Quotes are ordinary characters.
    pub plain_quotes: bool,
    /// References to variables that are not set stay as written.
    pub keep_unset: bool,
}

impl Style {
    /// Arguments of instructions.
    pub fn word(escape: Escape) -> Self {
        Self { escape, keep_quotes: false, keep_escapes: false, plain_quotes: false, keep_unset: false }
    }

    /// Bodies of here-documents: quotes are text, and the escape character is always the backslash.
    pub fn heredoc_body() -> Self {
        Self { plain_quotes: true, ..Self::word(Escape::Backslash) }
    }

    /// Command lines shown to people: set variables are filled in, everything else stays.
    pub fn display(escape: Escape) -> Self {
        Self { keep_quotes: true, keep_unset: true, ..Self::word(escape) }
    }
}

/// A word that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {fault}", Quoted(.word))]
pub struct ExpandError {
    /// The word's raw text.
    pub word: String,
    /// What is wrong with it.
    pub fault: ExpandFault,
}

/// What makes a word impossible to expand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpandFault {
    /// A `'` without its partner.
    SingleQuote,
    /// A `"` without its partner.
    DoubleQuote,
    /// A `${` without its `}`.
    MissingBrace,
    /// `${name/pattern` without the second `/`.
    MissingSlash,
    /// `${}`, `${{`, `${:`.
    BadSubstitution,
    /// `${name` followed by something else than the known modifiers.
    UnsupportedModifier(String),
    /// `${name:?message}` and the variable is unset or empty.
    Required {
        /// The variable.
        name: String,
        /// The message.
        message: String,
    },
    /// A pattern that escapes an ordinary character.
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why it is refused.
        reason: String,
    },
    /// The result would be too large.
    TooLarge,
    /// Too many `${` inside each other.
    TooDeep,
    /// Too many references, or too much text behind them.
    TooMuchWork,
}

impl fmt::Display for ExpandFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SingleQuote => f.write_str("unexpected end of statement while looking for matching single-quote"),
            Self::DoubleQuote => f.write_str("unexpected end of statement while looking for matching double-quote"),
            Self::MissingBrace => f.write_str("syntax error: missing '}'"),
            Self::MissingSlash => f.write_str("syntax error: missing '/' in ${}"),
            Self::BadSubstitution => f.write_str("syntax error: bad substitution"),
            Self::UnsupportedModifier(modifier) => write!(f, "unsupported modifier ({modifier}) in substitution"),
            Self::Required { name, message } => write!(f, "{name}: {message}"),
            Self::Pattern { pattern, reason } => write!(f, "invalid pattern ({pattern}) in substitution: {reason}"),
            Self::TooLarge => write!(f, "the expanded text is larger than {} MiB", MAX_SIZE >> 20),
            Self::TooDeep => write!(f, "substitutions are nested deeper than {MAX_DEPTH} levels"),
            Self::TooMuchWork => f.write_str("too many substitutions"),
        }
    }
}

/// Both readings of an expanded text, and the names it asked for.
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) words: Vec<String>,
    pub(super) matched: BTreeSet<String>,
    pub(super) unmatched: BTreeSet<String>,
}

/// Expands a text.
pub(super) fn expand(text: &str, style: &Style, lookup: &dyn Lookup) -> Result<Outcome, ExpandError> {
    // A leading byte order mark is dropped, as text/scanner does.
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut scanner = Scanner {
        rest,
        style,
        lookup,
        keep_escapes: style.keep_escapes,
        limit: if text.len() < MAX_SIZE { MAX_SIZE - 1 } else { text.len() + MAX_SIZE },
        depth: 0,
        references: 0,
        work: 0,
        inner: 0,
        matched: BTreeSet::new(),
        unmatched: BTreeSet::new(),
    };
    match scanner.until(None, style.keep_escapes) {
        Ok((text, words)) => Ok(Outcome { text, words, matched: scanner.matched, unmatched: scanner.unmatched }),
        Err(fault) => Err(ExpandError { word: text.to_owned(), fault }),
    }
}

/// Builds the split reading beside the joined one.
#[derive(Default)]
struct Splitter {
    current: String,
    words: Vec<String>,
    in_word: bool,
}

impl Splitter {
    fn char(&mut self, c: char) {
        if !c.is_whitespace() {
            self.raw_char(c);
        } else if self.in_word && !self.current.is_empty() {
            self.words.push(std::mem::take(&mut self.current));
            self.in_word = false;
        }
    }

    fn raw_char(&mut self, c: char) {
        self.current.push(c);
        self.in_word = true;
    }

    fn text(&mut self, text: &str) {
        text.chars().for_each(|c| self.char(c));
    }

    fn raw_text(&mut self, text: &str) {
        self.current.push_str(text);
        self.in_word = true;
    }

    /// Drops the word that has begun when a text inside `${…}` was read in the middle of it: BuildKit's lexer has one buffer
    /// for the words of both.
    fn forget_if(&mut self, read_inside: bool) {
        if read_inside {
            self.current.clear();
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.words.push(self.current);
        }
        self.words
    }
}

struct Scanner<'a> {
    rest: &'a str,
    style: &'a Style,
    lookup: &'a dyn Lookup,
    keep_escapes: bool,
    limit: usize,
    depth: usize,
    references: usize,
    work: usize,
    /// How many texts inside `${…}` have been read.
    inner: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Reads up to and with `stop`, or to the end. Reaching the end instead of `stop` is a missing brace; the caller renames it.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<(String, Vec<String>), ExpandFault> {
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let outcome = self.until_inner(stop);
        self.keep_escapes = outer;
        outcome
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandFault> {
        let escape = self.style.escape.char();
        let mut text = String::new();
        let mut words = Splitter::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let inner = self.inner;
                    let value = self.dollar()?;
                    words.forget_if(inner != self.inner);
                    words.text(&value);
                    text.push_str(&value);
                    self.check_size(text.len())?;
                }
                '\'' if !self.style.plain_quotes => {
                    let value = self.single_quoted()?;
                    words.raw_text(&value);
                    text.push_str(&value);
                }
                '"' if !self.style.plain_quotes => {
                    let inner = self.inner;
                    let value = self.double_quoted()?;
                    words.forget_if(inner != self.inner);
                    words.raw_text(&value);
                    text.push_str(&value);
                    self.check_size(text.len())?;
                }
                '<' => {
                    let value = self.angle();
                    words.raw_text(value);
                    text.push_str(value);
                }
                c if c == escape => {
                    self.next();
                    if self.keep_escapes {
                        words.raw_char(c);
                        text.push(c);
                    }
                    let Some(escaped) = self.next() else { break };
                    words.raw_char(escaped);
                    text.push(escaped);
                }
                c => {
                    self.next();
                    words.char(c);
                    text.push(c);
                }
            }
        }
        if stop.is_some() {
            return Err(ExpandFault::MissingBrace);
        }
        Ok((text, words.finish()))
    }

    /// `<<` takes the blanks after it into its word, so that `<< EOF` can be seen as one here-document opener.
    fn angle(&mut self) -> &'a str {
        let start = self.rest;
        let length = match start.strip_prefix("<<") {
            Some(after) => 2 + after.len() - after.trim_start_matches([' ', '\t', '\r', '\n']).len(),
            None => 1,
        };
        self.rest = &start[length..];
        &start[..length]
    }

    fn single_quoted(&mut self) -> Result<String, ExpandFault> {
        let body = &self.rest[1..];
        let Some(end) = body.find('\'') else {
            self.rest = "";
            return Err(ExpandFault::SingleQuote);
        };
        self.rest = &body[end + 1..];
        Ok(if self.style.keep_quotes { format!("'{}'", &body[..end]) } else { body[..end].to_owned() })
    }

    fn double_quoted(&mut self) -> Result<String, ExpandFault> {
        let escape = self.style.escape.char();
        let mut text = String::new();
        self.next();
        if self.style.keep_quotes {
            text.push('"');
        }
        loop {
            match self.peek() {
                None => return Err(ExpandFault::DoubleQuote),
                Some('"') => {
                    self.next();
                    if self.style.keep_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    self.check_size(text.len())?;
                }
                Some(c) => {
                    self.next();
                    let mut literal = c;
                    if c == escape {
                        if self.keep_escapes {
                            text.push(c);
                        }
                        match self.peek() {
                            None => continue,
                            // Only these can be escaped here; before all others the escape character stands for itself.
                            Some(next) if next == '"' || next == '$' || next == escape => {
                                self.next();
                                literal = next;
                            }
                            Some(_) => {}
                        }
                    }
                    text.push(literal);
                }
            }
        }
    }

    /// `$…`, standing on the `$`.
    fn dollar(&mut self) -> Result<String, ExpandFault> {
        self.references += 1;
        if self.references > MAX_REFERENCES {
            return Err(ExpandFault::TooMuchWork);
        }
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.variable(name)? {
                Some(value) => value.to_owned(),
                None if self.style.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(ExpandFault::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandFault::BadSubstitution),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ExpandFault::TooDeep);
        }
        let value = self.braced();
        self.depth -= 1;
        value
    }

    /// `${name…}`, standing on the name.
    fn braced(&mut self) -> Result<String, ExpandFault> {
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.variable(name)? {
                Some(value) => value.to_owned(),
                None if self.style.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let modifier = self.next();
                let shown = format!(":{}", modifier.unwrap_or(char::REPLACEMENT_CHARACTER));
                if matches!(modifier, Some('#' | '%')) {
                    return Err(ExpandFault::UnsupportedModifier(shown));
                }
                self.modified(name, modifier, shown)
            }
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => self.modified(name, Some(modifier), modifier.to_string()),
            Some('/') => self.replaced(name),
            other => Err(ExpandFault::UnsupportedModifier(other.unwrap_or(char::REPLACEMENT_CHARACTER).to_string())),
        }
    }

    /// `${name-word}` and its relatives, standing on the word. `shown` is the modifier as written, a colon means that an empty
    /// value counts as unset.
    fn modified(&mut self, name: &str, modifier: Option<char>, shown: String) -> Result<String, ExpandFault> {
        let trims = matches!(modifier, Some('#' | '%'));
        let word = self.braced_part('}', trims, ExpandFault::MissingBrace)?;
        let value = self.variable(name)?;
        if self.style.keep_unset && value.is_none() {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let empty_is_unset = shown.starts_with(':');
        let usable = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match modifier {
            Some('-') => Ok(usable.map_or(word, str::to_owned)),
            Some('+') => Ok(if usable.is_some() { word } else { String::new() }),
            Some('?') => match usable {
                Some(value) => Ok(value.to_owned()),
                None => {
                    let fallback = if value.is_none() { "unset" } else { "empty" };
                    let message = if word.is_empty() { format!("is not allowed to be {fallback}") } else { word };
                    Err(ExpandFault::Required { name: name.to_owned(), message })
                }
            },
            Some(side @ ('#' | '%')) => {
                let value = value.unwrap_or_default();
                let (greedy, glob) = match word.strip_prefix(side) {
                    Some(glob) => (true, glob),
                    None => (false, word.as_str()),
                };
                let trimmed = if side == '#' {
                    pattern::trim_prefix(glob, value, greedy)
                } else {
                    pattern::trim_suffix(glob, value, greedy)
                };
                trimmed.map_err(|bad| ExpandFault::Pattern { pattern: bad.pattern, reason: bad.reason })
            }
            _ => Err(ExpandFault::UnsupportedModifier(shown)),
        }
    }

    /// `${name/pattern/text}` and `${name//pattern/text}`, standing after the first slash.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandFault> {
        let everywhere = self.peek() == Some('/');
        if everywhere {
            self.next();
        }
        let glob = self.braced_part('/', true, ExpandFault::MissingSlash)?;
        let replacement = self.braced_part('}', true, ExpandFault::MissingBrace)?;
        let value = self.variable(name)?;
        if self.style.keep_unset && value.is_none() {
            return Ok(format!("${{{name}/{glob}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        pattern::replace(&glob, value, &replacement, everywhere, self.limit)
            .map_err(|bad| ExpandFault::Pattern { pattern: bad.pattern, reason: bad.reason })?
            .ok_or(ExpandFault::TooLarge)
    }

    /// The text up to `stop`. Whatever goes wrong at the end of the whole text is reported as `missing`.
    fn braced_part(&mut self, stop: char, keep_escapes: bool, missing: ExpandFault) -> Result<String, ExpandFault> {
        self.inner += 1;
        match self.until(Some(stop), keep_escapes) {
            Ok((text, _)) => Ok(text),
            Err(fault @ (ExpandFault::TooLarge | ExpandFault::TooDeep | ExpandFault::TooMuchWork)) => Err(fault),
            Err(fault) => Err(if self.rest.is_empty() { missing } else { fault }),
        }
    }

    /// A name: letters, digits and `_`; or digits alone; or one special parameter. May be empty.
    fn name(&mut self) -> &'a str {
        let rest = self.rest;
        let length = match rest.chars().next() {
            Some(c) if c.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()),
        };
        self.rest = &rest[length..];
        &rest[..length]
    }

    fn variable(&mut self, name: &str) -> Result<Option<&'a str>, ExpandFault> {
        let value = self.lookup.get(name);
        let names = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        self.work += value.map_or(0, str::len);
        if self.work > MAX_WORK {
            return Err(ExpandFault::TooMuchWork);
        }
        Ok(value)
    }

    fn check_size(&self, size: usize) -> Result<(), ExpandFault> {
        if size > self.limit { Err(ExpandFault::TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
