//! Go's literals: quoted strings, characters, numbers.

use super::node::Term;

/// The value of a quoted or raw string.
pub(super) fn string(written: &str) -> Option<String> {
    if let Some(raw) = written.strip_prefix('`') {
        return Some(raw.strip_suffix('`')?.replace('\r', ""));
    }
    unescaped(written.strip_prefix('"')?.strip_suffix('"')?, '"')
}

/// The value of a number or a character constant.
pub(super) fn number(written: &str) -> Option<Term> {
    if let Some(rest) = written.strip_prefix('\'') {
        let text = unescaped(rest.strip_suffix('\'')?, '\'')?;
        let mut chars = text.chars();
        let (Some(c), None) = (chars.next(), chars.next()) else { return None };
        return Some(Term::Integer(i64::from(u32::from(c)), written.to_owned()));
    }
    let (sign, digits) = match written.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, written.strip_prefix('+').unwrap_or(written)),
    };
    let plain = digits.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let based = |digits: &str, radix| i64::from_str_radix(digits, radix).ok();
    let integer = if let Some(hex) = lower.strip_prefix("0x") {
        based(hex, 16)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        based(binary, 2)
    } else if let Some(octal) = lower.strip_prefix("0o").or_else(|| lower.strip_prefix('0').filter(|o| !o.is_empty())) {
        based(octal, 8)
    } else {
        based(&lower, 10)
    };
    if let Some(integer) = integer {
        return Some(Term::Integer(sign * integer, written.to_owned()));
    }
    let fine = lower.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && lower.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '+' | '-'));
    let float: f64 = if fine { lower.parse().ok()? } else { return None };
    Some(Term::Float(f64::from(i8::try_from(sign).ok()?) * float, written.to_owned()))
}

fn unescaped(text: &str, quote: char) -> Option<String> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    let mut push = |c: char| out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
    while let Some(c) = chars.next() {
        if c != '\\' {
            push(c);
            continue;
        }
        match chars.next()? {
            'a' => push('\u{7}'),
            'b' => push('\u{8}'),
            'f' => push('\u{c}'),
            'n' => push('\n'),
            'r' => push('\r'),
            't' => push('\t'),
            'v' => push('\u{b}'),
            '\\' => push('\\'),
            c if c == quote => push(c),
            'x' => push(char::from_u32(digits(&mut chars, 2, 16)?)?),
            'u' => push(char::from_u32(digits(&mut chars, 4, 16)?)?),
            'U' => push(char::from_u32(digits(&mut chars, 8, 16)?)?),
            first @ '0'..='7' => {
                let rest = digits(&mut chars, 2, 8)?;
                push(char::from_u32(first.to_digit(8)? * 64 + rest)?);
            }
            _ => return None,
        }
    }
    String::from_utf8(out).ok()
}

fn digits(chars: &mut std::str::Chars<'_>, count: usize, radix: u32) -> Option<u32> {
    (0..count).try_fold(0_u32, |value, _| Some(value * radix + chars.next()?.to_digit(radix)?))
}
