//! The flags between an instruction's keyword and its arguments: words that start with `--`, quotes and escapes removed.
//!
//! BuildKit reads this part byte by byte, each byte a Latin-1 character, so that `--chown=é` names the user `Ã©`. So does this.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while_m_n, take_while1};
use nom::combinator::{peek, recognize, verify};
use nom::multi::{many0_count, many1_count};
use nom::number::complete::u8 as byte;
use nom::sequence::preceded;
use nom::{IResult, Parser};

use super::Piece;
use crate::word::Escape;

/// Splits the flags from what follows them: the flags, and the offset of the rest.
pub(crate) fn split(line: &str, escape: Escape) -> (Vec<Piece<'_>>, usize) {
    let bytes = line.as_bytes();
    let mut flags = Vec::new();
    let mut rest = bytes;
    // Most instructions have none.
    if !line.trim_start().starts_with("--") {
        return (flags, 0);
    }
    while let Ok((after, raw)) = flag(rest, escape) {
        let end = bytes.len() - after.len();
        let range = end - raw.len()..end;
        rest = after;
        let text = match line.get(range.clone()) {
            Some(plain) if is_plain(plain, escape) => Cow::Borrowed(plain),
            _ => Cow::Owned(unquoted(raw, escape)),
        };
        if text == "--" {
            break;
        }
        flags.push(Piece { text, range });
    }
    let mut at = bytes.len() - rest.len();
    // A byte that looks like a Latin-1 blank may sit inside a character.
    while !line.is_char_boundary(at) {
        at += 1;
    }
    (flags, at)
}

/// Blanks, then one word that starts with two dashes; the word as written.
fn flag(input: &[u8], escape: Escape) -> IResult<&[u8], &[u8]> {
    let word = recognize(many1_count(|input| part(input, escape)));
    preceded((take_while(is_blank), peek(tag(&b"--"[..]))), word).parse(input)
}

/// A quoted part, an escaped byte, or plain bytes: what they stand for.
fn part(input: &[u8], escape: Escape) -> IResult<&[u8], Part<'_>> {
    let escape = escape.byte();
    let plain = take_while1(move |byte| !is_blank(byte) && byte != escape && byte != b'\'' && byte != b'"');
    alt((
        plain.map(Part::Plain),
        |input| quoted(input, b'\'', escape),
        |input| quoted(input, b'"', escape),
        (|input| escaped(input, escape)).map(Part::Plain),
    ))
    .parse(input)
}

enum Part<'a> {
    Plain(&'a [u8]),
    /// What stands between quotes, escapes and all.
    Quoted(&'a [u8]),
}

/// A quoted part; a missing closing quote is forgiven.
fn quoted(input: &[u8], quote: u8, escape: u8) -> IResult<&[u8], Part<'_>> {
    let plain = take_while1(move |byte| byte != quote && byte != escape);
    let inner = recognize(many0_count(alt((plain, |input| escaped(input, escape)))));
    let (rest, inside) = preceded(verify(byte, |byte| *byte == quote), inner).parse(input)?;
    Ok((rest.strip_prefix(&[quote]).unwrap_or(rest), Part::Quoted(inside)))
}

/// The escape byte and what it escapes; at the end it stands for nothing.
fn escaped(input: &[u8], escape: u8) -> IResult<&[u8], &[u8]> {
    preceded(verify(byte, move |byte| *byte == escape), take_while_m_n(0, 1, |_| true)).parse(input)
}

/// Whether a word stands for itself.
fn is_plain(word: &str, escape: Escape) -> bool {
    word.bytes().all(|byte| byte.is_ascii() && byte != escape.byte() && byte != b'\'' && byte != b'"')
}

/// The text of a word, quotes and escapes removed, every byte a character.
fn unquoted(word: &[u8], escape: Escape) -> String {
    let mut text = String::new();
    let mut add = |bytes: &[u8]| text.extend(bytes.iter().map(|byte| char::from(*byte)));
    let mut rest = word;
    while let Ok((after, part)) = part(rest, escape) {
        rest = after;
        match part {
            Part::Plain(bytes) => add(bytes),
            Part::Quoted(mut inside) => {
                while let Some((first, after)) = inside.split_first() {
                    let skip = usize::from(*first == escape.byte());
                    let end = (skip + 1).min(inside.len());
                    add(&inside[skip.min(inside.len())..end]);
                    inside = if skip == 0 { after } else { &inside[end..] };
                }
            }
        }
    }
    text
}

fn is_blank(byte: u8) -> bool {
    char::from(byte).is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        for (line, flags, rest) in [
            ("a b", vec![], "a b"),
            ("--x a", vec!["--x"], " a"),
            ("--x=1 --y='a b' c --z", vec!["--x=1", "--y=a b"], " c --z"),
            ("--x=\"a\\\"b\" c", vec!["--x=a\"b"], " c"),
            ("--x=a\\ b c", vec!["--x=a b"], " c"),
            ("--x -- --y", vec!["--x"], " --y"),
            ("-- a", vec![], " a"),
            ("--", vec![], ""),
            ("--x", vec!["--x"], ""),
            ("--x='open", vec!["--x=open"], ""),
            ("--x\\", vec!["--x"], ""),
            ("-x --y", vec![], "-x --y"),
            ("--x=é a", vec!["--x=Ã©"], " a"),
            ("", vec![], ""),
        ] {
            let (found, at) = split(line, Escape::Backslash);
            let found: Vec<_> = found.into_iter().map(|piece| piece.text.into_owned()).collect();
            assert_eq!((found, &line[at..]), (flags.into_iter().map(str::to_owned).collect(), rest), "{line}");
        }
    }

    #[test]
    fn flags_know_their_range() {
        let (flags, _) = split("  --a  --b='x y' z", Escape::Backslash);
        assert_eq!(flags[0].range, 2..5);
        assert_eq!(flags[1].range, 7..16);
    }
}
