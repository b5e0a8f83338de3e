//! `name=value …` and the old `name value` of `ENV` and `LABEL`.

use super::{Piece, words};
use crate::instruction::PairForm;
use crate::quote::Quoted;
use crate::word::Escape;

/// Pairs that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairError {
    #[error("{keyword} must have two arguments")]
    NameOnly { keyword: &'static str },
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", Quoted(&.word.text))]
    NoEquals { word: Piece },
}

/// A name and its value.
pub(crate) struct PairPieces {
    pub(crate) name: Piece,
    pub(crate) value: Piece,
    pub(crate) form: PairForm,
}

/// The pairs of a text. The first word decides between the two forms.
pub(crate) fn pairs(text: &str, keyword: &'static str, escape: Escape) -> Result<Vec<PairPieces>, PairError> {
    let words = words::words(text, escape);
    match words.first() {
        Some(first) if !first.text.contains('=') => legacy(text, keyword).map(|pair| vec![pair]),
        _ => words.into_iter().map(pair).collect(),
    }
}

fn legacy(text: &str, keyword: &'static str) -> Result<PairPieces, PairError> {
    let (name, rest) = words::split_once(text);
    let rest = rest.ok_or(PairError::NameOnly { keyword })?;
    Ok(PairPieces {
        name: Piece { text: name.to_owned(), range: 0..name.len() },
        value: Piece { text: text[rest..].to_owned(), range: rest..text.len() },
        form: PairForm::Blank,
    })
}

fn pair(word: Piece) -> Result<PairPieces, PairError> {
    let Some((name, value)) = split(&word) else { return Err(PairError::NoEquals { word }) };
    Ok(PairPieces { name, value, form: PairForm::Equals })
}

/// Splits a word at its first `=`.
pub(crate) fn split(word: &Piece) -> Option<(Piece, Piece)> {
    let (name, value) = word.text.split_once('=')?;
    let middle = word.range.start + name.len();
    Some((
        Piece { text: name.to_owned(), range: word.range.start..middle },
        Piece { text: value.to_owned(), range: middle + 1..word.range.end },
    ))
}
