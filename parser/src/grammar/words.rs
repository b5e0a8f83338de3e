//! Splitting at blanks: with quotes and escapes kept inside words (`ARG`, `ENV`, `LABEL`), and without any regard for them
//! (`COPY`, `EXPOSE`, …).

use std::borrow::Cow;
use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{take_till1, take_while};
use nom::character::complete::{anychar, char};
use nom::combinator::{opt, recognize};
use nom::multi::{many0_count, many1_count};
use nom::sequence::preceded;
use nom::{IResult, Parser};

use super::{Piece, offset};
use crate::word::Escape;

/// Words in which quotes and escapes count; both stay in the text.
pub(crate) fn words(text: &str, escape: Escape) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (after, word) =
                preceded(take_while(char::is_whitespace), |input| word(input, escape)).parse(rest).ok()?;
            rest = after;
            let start = offset(text, word);
            let word = if after.is_empty() { without_dangling_escape(word, escape) } else { word };
            if !word.is_empty() {
                return Some(Piece { text: Cow::Borrowed(word), range: start..start + word.len() });
            }
        }
    })
}

fn word(input: &str, escape: Escape) -> IResult<&str, &str> {
    let sign = escape.char();
    let plain = take_till1(move |c: char| c.is_whitespace() || c == sign || c == '\'' || c == '"');
    let single = (char('\''), take_while(|c| c != '\''), opt(char('\'')));
    let double = (
        char('"'),
        many0_count(alt((
            recognize(take_till1(move |c| c == '"' || c == sign)),
            recognize((char(sign), opt(anychar))),
        ))),
        opt(char('"')),
    );
    let escaped = (char(sign), opt(anychar));
    recognize(many1_count(alt((plain, recognize(single), recognize(double), recognize(escaped))))).parse(input)
}

/// An escape character at the very end escapes nothing and is dropped, unless single quotes make it an ordinary one.
fn without_dangling_escape(word: &str, escape: Escape) -> &str {
    let sign = escape.char();
    let mut chars = word.char_indices();
    let mut quote = None;
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, c) if c == sign && chars.next().is_none() => return &word[..at],
            (None, '\'' | '"') => quote = Some(c),
            _ => {}
        }
    }
    word
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\x0b' | b'\x0c' | b'\r' | b' ')
}

/// The first field and the offset of what follows the blanks after it.
pub(crate) fn split_once(text: &str) -> (&str, Option<usize>) {
    let bytes = text.as_bytes();
    let Some(end) = bytes.iter().position(|byte| is_blank(*byte)) else { return (text, None) };
    let blanks = bytes[end..].iter().position(|byte| !is_blank(*byte)).unwrap_or(bytes.len() - end);
    (&text[..end], Some(end + blanks))
}

/// Fields between runs of blanks.
pub(crate) fn fields(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut next = if text.is_empty() { None } else { Some(0) };
    std::iter::from_fn(move || {
        let start = next?;
        let (field, rest) = split_once(&text[start..]);
        next = rest.map(|offset| start + offset);
        Some(start..start + field.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_quotes_and_escapes() {
        for (text, expected) in [
            ("a=b c=d", vec!["a=b", "c=d"]),
            ("a='b c' d", vec!["a='b c'", "d"]),
            ("a=\"b \\\" c\" d", vec!["a=\"b \\\" c\"", "d"]),
            ("a=b\\ c d", vec!["a=b\\ c", "d"]),
            ("a='b\\' c'", vec!["a='b\\'", "c'"]),
            ("a\\", vec!["a"]),
            ("\\", vec![]),
            ("\"a\\", vec!["\"a"]),
            ("'a\\", vec!["'a\\"]),
            ("'a b", vec!["'a b"]),
            ("''", vec!["''"]),
            ("a\u{a0}b", vec!["a", "b"]),
            ("", vec![]),
        ] {
            let found: Vec<_> = words(text, Escape::Backslash).map(|piece| piece.text).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn fields_ignore_quotes() {
        let text = "a  'b c'\t\td";
        let found: Vec<_> = fields(text).map(|range| &text[range]).collect();
        assert_eq!(found, ["a", "'b", "c'", "d"]);
    }
}
