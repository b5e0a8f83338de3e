//! The flags between an instruction's keyword and its arguments: words that start with `--`, quotes and escapes removed.
//!
//! BuildKit reads this part byte by byte, each byte a Latin-1 character, so that `--chown=é` names the user `Ã©`. So does this.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while};
use nom::combinator::{consumed, peek, value, verify};
use nom::multi::fold_many0;
use nom::number::complete::u8 as byte;
use nom::sequence::preceded;
use nom::{IResult, Parser};

use super::Piece;
use crate::word::Escape;

/// Splits the flags from what follows them: the flags, and the offset of the rest.
pub(crate) fn split(line: &str, escape: Escape) -> (Vec<Piece>, usize) {
    let bytes = line.as_bytes();
    let mut flags = Vec::new();
    let mut rest = bytes;
    while let Ok((after, (raw, text))) = flag(rest, escape) {
        let end = bytes.len() - after.len();
        rest = after;
        if text == "--" {
            break;
        }
        flags.push(Piece { text, range: end - raw.len()..end });
    }
    let mut at = bytes.len() - rest.len();
    // A byte that looks like a Latin-1 blank may sit inside a character.
    while !line.is_char_boundary(at) {
        at += 1;
    }
    (flags, at)
}

/// Blanks, then one word that starts with two dashes.
fn flag(input: &[u8], escape: Escape) -> IResult<&[u8], (&[u8], String)> {
    let word = fold_many0(
        |input| part(input, escape),
        String::new,
        |mut text: String, part| {
            text.extend(part.iter().map(|byte| char::from(*byte)));
            text
        },
    );
    preceded((take_while(is_blank), peek(tag(&b"--"[..]))), consumed(word)).parse(input)
}

/// A quoted part, an escaped byte, or plain bytes.
fn part(input: &[u8], escape: Escape) -> IResult<&[u8], Vec<u8>> {
    let escape = escape.byte();
    let plain = verify(
        take_while(move |byte| !is_blank(byte) && byte != escape && byte != b'\'' && byte != b'"'),
        |part: &[u8]| !part.is_empty(),
    );
    alt((
        |input| quoted(input, b'\'', escape),
        |input| quoted(input, b'"', escape),
        |input| escaped(input, escape),
        plain.map(<[u8]>::to_vec),
    ))
    .parse(input)
}

/// A quoted part; a missing closing quote is forgiven.
fn quoted(input: &[u8], quote: u8, escape: u8) -> IResult<&[u8], Vec<u8>> {
    let plain = verify(take_while(move |byte| byte != quote && byte != escape), |part: &[u8]| !part.is_empty());
    let inner = alt((|input| escaped(input, escape), plain.map(<[u8]>::to_vec)));
    let body = fold_many0(inner, Vec::new, |mut text, part| {
        text.extend(part);
        text
    });
    let (rest, text) = preceded(verify(byte, |byte| *byte == quote), body).parse(input)?;
    Ok((rest.strip_prefix(&[quote]).unwrap_or(rest), text))
}

/// The escape byte and what it escapes; at the end it stands for nothing.
fn escaped(input: &[u8], escape: u8) -> IResult<&[u8], Vec<u8>> {
    let sign = || verify(byte, move |byte| *byte == escape);
    alt((preceded(sign(), byte).map(|byte| vec![byte]), value(Vec::new(), sign()))).parse(input)
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
            let found: Vec<_> = found.into_iter().map(|piece| piece.text).collect();
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
