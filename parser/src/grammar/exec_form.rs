//! The exec form: a JSON array of strings, read as Go's `encoding/json` reads it. What is no valid JSON array is no exec form at
//! all; an array with something else than strings in it is a mistake.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while_m_n, take_while1};
use nom::character::complete::{char, one_of};
use nom::combinator::{all_consuming, consumed, cut, map, opt, recognize, value, verify};
use nom::multi::{fold_many0, separated_list0};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use super::{Piece, offset};

/// What a text is when read as an exec form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExecForm {
    /// An array of strings.
    Strings(Vec<Piece<'static>>),
    /// An array with other things in it.
    Mixed,
    /// No JSON array.
    No,
}

/// How deep arrays and objects may nest before they count as invalid; only strings are of use anyway.
const MAX_DEPTH: usize = 64;

/// Reads a text.
pub(crate) fn exec_form(text: &str) -> ExecForm {
    let body = text.trim_start();
    if !body.starts_with('[') {
        return ExecForm::No;
    }
    let elements = delimited((char('['), blank), separated_list0(comma, |input| element(input)), (blank, char(']')));
    let Ok((_, elements)) = all_consuming((elements, blank)).parse(body).map(|(rest, (elements, ()))| (rest, elements))
    else {
        return ExecForm::No;
    };
    let mut strings = Vec::with_capacity(elements.len());
    for (raw, element) in elements {
        let Some(string) = element else { return ExecForm::Mixed };
        let start = offset(text, raw);
        strings.push(Piece { text: Cow::Owned(string), range: start..start + raw.len() });
    }
    ExecForm::Strings(strings)
}

type Element<'a> = (&'a str, Option<String>);

fn element(input: &str) -> IResult<&str, Element<'_>> {
    consumed(alt((map(string, Some), value(None, |input| other(input, 0))))).parse(input)
}

fn blank(input: &str) -> IResult<&str, ()> {
    value((), take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'))).parse(input)
}

fn comma(input: &str) -> IResult<&str, ()> {
    value((), (blank, char(','), blank)).parse(input)
}

/// Any value but a string at the top.
fn other(input: &str, depth: usize) -> IResult<&str, ()> {
    if depth > MAX_DEPTH {
        return nom::combinator::fail().parse(input);
    }
    let any = move |input| alt((value((), string), |input| other(input, depth + 1))).parse(input);
    let array = delimited((char('['), blank), separated_list0(comma, any), (blank, char(']')));
    let member = (string, blank, char(':'), blank, any);
    let object = delimited((char('{'), blank), separated_list0(comma, member), (blank, char('}')));
    alt((
        value((), tag("null")),
        value((), tag("true")),
        value((), tag("false")),
        value((), number),
        value((), array),
        value((), object),
    ))
    .parse(input)
}

fn number(input: &str) -> IResult<&str, &str> {
    let digits = || take_while1(|c: char| c.is_ascii_digit());
    let whole = alt((recognize(char('0')), recognize((one_of("123456789"), take_while(|c: char| c.is_ascii_digit())))));
    let fraction = opt((char('.'), digits()));
    let exponent = opt((one_of("eE"), opt(one_of("+-")), digits()));
    // Go refuses numbers that no float can hold.
    verify(recognize((opt(char('-')), whole, fraction, exponent)), |text: &str| {
        text.parse::<f64>().is_ok_and(f64::is_finite)
    })
    .parse(input)
}

fn string(input: &str) -> IResult<&str, String> {
    let plain = map(take_while1(|c: char| c >= ' ' && c != '"' && c != '\\'), Part::Text);
    let body = fold_many0(alt((plain, escape)), Decoder::default, Decoder::add);
    map(delimited(char('"'), body, char('"')), Decoder::finish).parse(input)
}

enum Part<'a> {
    Text(&'a str),
    Char(char),
    Unit(u16),
}

fn escape(input: &str) -> IResult<&str, Part<'_>> {
    let hex = take_while_m_n(4, 4, |c: char| c.is_ascii_hexdigit());
    let unit = map(preceded(char('u'), hex), |hex| Part::Unit(u16::from_str_radix(hex, 16).unwrap_or(0xfffd)));
    let simple = map(one_of("\"\\/bfnrt"), |c| {
        Part::Char(match c {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            other => other,
        })
    });
    preceded(char('\\'), cut(alt((simple, unit)))).parse(input)
}

/// Puts surrogate pairs together; a lone half becomes U+FFFD.
#[derive(Default, Clone)]
struct Decoder {
    text: String,
    high: Option<u16>,
}

impl Decoder {
    fn add(mut self, part: Part<'_>) -> Self {
        if let Part::Unit(unit) = part {
            if let Some(high) = self.high.take() {
                if let Some(Ok(pair)) = char::decode_utf16([high, unit]).next() {
                    self.text.push(pair);
                    return self;
                }
                self.text.push(char::REPLACEMENT_CHARACTER);
            }
            match char::from_u32(u32::from(unit)) {
                Some(c) => self.text.push(c),
                None if unit < 0xdc00 => self.high = Some(unit),
                None => self.text.push(char::REPLACEMENT_CHARACTER),
            }
            return self;
        }
        self.flush();
        match part {
            Part::Text(text) => self.text.push_str(text),
            Part::Char(c) => self.text.push(c),
            Part::Unit(_) => {}
        }
        self
    }

    fn flush(&mut self) {
        if self.high.take().is_some() {
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn finish(mut self) -> String {
        self.flush();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Option<Vec<String>> {
        match exec_form(text) {
            ExecForm::Strings(pieces) => Some(pieces.into_iter().map(|piece| piece.text.into_owned()).collect()),
            ExecForm::Mixed | ExecForm::No => None,
        }
    }

    #[test]
    fn arrays_of_strings_are_read() {
        for (text, expected) in [
            ("[]", vec![]),
            (" [ \"a\" , \"b\"\t]", vec!["a", "b"]),
            (r#"["a\tb","\"\\\/","\u0041\u00e9"]"#, vec!["a\tb", "\"\\/", "Aé"]),
            (r#"["\ud83d\ude00","\ud83d","\ude00x","\ud83d\u0041"]"#, vec!["😀", "\u{fffd}", "\u{fffd}x", "\u{fffd}A"]),
            ("[\"é\"]", vec!["é"]),
        ] {
            assert_eq!(strings(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn other_arrays_are_mistakes_and_other_texts_are_none() {
        for text in ["[1]", "[\"a\", null]", "[true]", "[[\"a\"]]", "[{\"a\": [1.5e3]}]", "[-0.1]"] {
            assert_eq!(exec_form(text), ExecForm::Mixed, "{text}");
        }
        for text in [
            "",
            "a",
            "[",
            "['a']",
            "[\"a\"",
            "[\"a\",]",
            "[\"a\"] x",
            "[\"a\tb\"]",
            "[\"\\x\"]",
            "[01]",
            "[1e999]",
            "[a]",
            "[\"a\" \"b\"]",
        ] {
            assert_eq!(exec_form(text), ExecForm::No, "{text}");
        }
        assert_eq!(exec_form(&"[".repeat(100_000)), ExecForm::No);
    }

    #[test]
    fn elements_know_their_range() {
        let ExecForm::Strings(pieces) = exec_form("[\"ab\", \"c\"]") else { panic!("no strings") };
        assert_eq!((pieces[0].range.clone(), pieces[1].range.clone()), (1..5, 7..10));
    }
}
