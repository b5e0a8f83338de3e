//! Words: text in which `$name`, `${name…}`, quotes and escapes have a meaning once the values of variables are known. A word
//! keeps its raw text; expanding asks a [`Lookup`] that the caller brings, and says which names it asked for.

mod expansion;
mod pattern;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use expansion::{ExpandError, ExpandFault, Style};

use crate::Span;

/// The character that escapes and that continues lines; chosen by `# escape=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escape {
    /// `\`, the default.
    #[default]
    Backslash,
    /// `` ` ``, for files full of Windows paths.
    Backtick,
}

impl Escape {
    /// The character.
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }

    /// The character, which is ASCII.
    pub fn byte(self) -> u8 {
        match self {
            Self::Backslash => b'\\',
            Self::Backtick => b'`',
        }
    }
}

/// Where the values of variables come from.
pub trait Lookup {
    /// The value of a variable, if it is set. An empty value is set.
    fn get(&self, name: &str) -> Option<&str>;
}

impl<T: Lookup + ?Sized> Lookup for &T {
    fn get(&self, name: &str) -> Option<&str> {
        (**self).get(name)
    }
}

impl Lookup for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        Self::get(self, name).map(String::as_str)
    }
}

impl Lookup for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        Self::get(self, name).map(String::as_str)
    }
}

/// Nothing is set.
#[derive(Clone, Copy, Debug)]
pub struct NoVariables;

impl Lookup for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// A word as written, to be expanded later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    raw: String,
    span: Span,
    escape: Escape,
}

/// What a word became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Names asked for that were set.
    pub matched: BTreeSet<String>,
    /// Names asked for that were not set, those with a default included.
    pub unmatched: BTreeSet<String>,
}

/// What a word became when blanks outside quotes separate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandedWords {
    /// The texts; none is empty.
    pub words: Vec<String>,
    /// Names asked for that were set.
    pub matched: BTreeSet<String>,
    /// Names asked for that were not set, those with a default included.
    pub unmatched: BTreeSet<String>,
}

impl Word {
    /// Makes a word from its raw text.
    pub fn new(raw: impl Into<String>, span: Span, escape: Escape) -> Self {
        Self { raw: raw.into(), span, escape }
    }

    /// The text as written (JSON escapes resolved), quotes and variables untouched.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Its place.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The escape character that holds in it.
    pub fn escape(&self) -> Escape {
        self.escape
    }

    /// Replaces variables and removes quotes and escapes.
    pub fn expand(&self, lookup: &dyn Lookup) -> Result<Expanded, ExpandError> {
        // Most words are plain; they need no scanner.
        if !self.raw.contains(['$', '\'', '"', self.escape.char(), '\u{feff}']) {
            return Ok(Expanded { text: self.raw.clone(), ..Expanded::default() });
        }
        let outcome = expansion::expand(&self.raw, &Style::word(self.escape), lookup)?;
        Ok(Expanded { text: outcome.text, matched: outcome.matched, unmatched: outcome.unmatched })
    }

    /// As [`Self::expand`], then splits at blanks that are not quoted. A variable's value is split too.
    pub fn expand_words(&self, lookup: &dyn Lookup) -> Result<ExpandedWords, ExpandError> {
        let outcome = expansion::expand(&self.raw, &Style::word(self.escape), lookup)?;
        Ok(ExpandedWords { words: outcome.words, matched: outcome.matched, unmatched: outcome.unmatched })
    }
}

/// Expands any text in a given style: here-document bodies, command lines for display.
pub fn expand_text(text: &str, style: &Style, lookup: &dyn Lookup) -> Result<Expanded, ExpandError> {
    let outcome = expansion::expand(text, style, lookup)?;
    Ok(Expanded { text: outcome.text, matched: outcome.matched, unmatched: outcome.unmatched })
}

/// As [`expand_text`], split at blanks that are not quoted.
pub fn split_text(text: &str, style: &Style, lookup: &dyn Lookup) -> Result<Vec<String>, ExpandError> {
    Ok(expansion::expand(text, style, lookup)?.words)
}
