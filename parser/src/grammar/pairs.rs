//! `name=value …` and the old `name value` of `ENV` and `LABEL`.

use std::borrow::Cow;
use std::ops::Range;

use super::{Piece, words};
use crate::instruction::PairForm;
use crate::quote::Quoted;
use crate::word::Escape;

/// Pairs that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairError {
    #[error("{keyword} must have two arguments")]
    NameOnly { keyword: &'static str },
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", Quoted(.word))]
    NoEquals { word: String, range: Range<usize> },
}

/// A name and its value.
pub(crate) struct PairPieces<'a> {
    pub(crate) name: Piece<'a>,
    pub(crate) value: Piece<'a>,
    pub(crate) form: PairForm,
}

/// The pairs of a text, and the words that are none. The first word decides between the two forms.
pub(crate) fn pairs<'a>(
    text: &'a str,
    keyword: &'static str,
    escape: Escape,
) -> impl Iterator<Item = Result<PairPieces<'a>, PairError>> {
    let mut words = words::words(text, escape).peekable();
    let is_legacy = words.peek().is_some_and(|first| !first.text.contains('='));
    let lone = is_legacy.then(|| legacy(text, keyword));
    let rest = if is_legacy { None } else { Some(words.map(|word| pair(text, word.range))) };
    lone.into_iter().chain(rest.into_iter().flatten())
}

fn piece(text: &str, range: Range<usize>) -> Piece<'_> {
    Piece { text: Cow::Borrowed(&text[range.clone()]), range }
}

fn legacy<'a>(text: &'a str, keyword: &'static str) -> Result<PairPieces<'a>, PairError> {
    let (name, rest) = words::split_once(text);
    let rest = rest.ok_or(PairError::NameOnly { keyword })?;
    Ok(PairPieces { name: piece(text, 0..name.len()), value: piece(text, rest..text.len()), form: PairForm::Blank })
}

fn pair(text: &str, word: Range<usize>) -> Result<PairPieces<'_>, PairError> {
    let Some(length) = text[word.clone()].find('=') else {
        return Err(PairError::NoEquals { word: text[word.clone()].to_owned(), range: word });
    };
    let middle = word.start + length;
    let (name, value) = (piece(text, word.start..middle), piece(text, middle + 1..word.end));
    Ok(PairPieces { name, value, form: PairForm::Equals })
}
