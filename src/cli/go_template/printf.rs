//! `printf`, with the verbs of Go's `fmt` that templates use, and its way of saying what is wrong.

use super::value::Value;

/// Nothing is padded further than this.
const WIDEST: usize = 4096;

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats as `fmt.Sprintf`.
pub(super) fn format(pattern: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
            match flag {
                '-' => (flags.minus, flags.zero) = (true, false),
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                _ => flags.zero = !flags.minus,
            }
        }
        let number = |out: &mut String, next: &mut usize, chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.next_if_eq(&'*').is_some() {
                let given = arguments.get(*next);
                *next += 1;
                return match given {
                    Some(Value::Integer(width)) => Some(width.unsigned_abs().min(WIDEST as u64) as usize),
                    _ => {
                        out.push_str("%!(BADWIDTH)");
                        None
                    }
                };
            }
            let mut value = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                value = Some((value.unwrap_or(0) * 10 + digit as usize).min(WIDEST));
                chars.next();
            }
            value
        };
        flags.width = number(&mut out, &mut next, &mut chars);
        if chars.next_if_eq(&'.').is_some() {
            flags.precision = Some(number(&mut out, &mut next, &mut chars).unwrap_or(0));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match arguments.get(next) {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => {
                    next += 1;
                    out.push_str(&verb_of(verb, value, flags));
                }
            },
        }
    }
    if next < arguments.len() {
        let extra: Vec<String> = arguments[next..].iter().map(with_type).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn with_type(value: &Value) -> String {
    match value {
        Value::Missing => "<nil>".to_owned(),
        _ => format!("{}={}", value.type_name(), value.print()),
    }
}

fn verb_of(verb: char, value: &Value, flags: Flags) -> String {
    match (verb, value) {
        ('T', _) => pad(value.type_name().to_owned(), flags),
        ('v', Value::Text(text)) if flags.sharp => pad(quoted(text), flags),
        ('v', Value::Float(number)) => numeric(sign(*number >= 0.0, shortest(*number), flags), flags),
        ('v', Value::Integer(number)) => integer(*number, 10, false, flags),
        ('v', Value::Text(_)) => cut_and_pad(value.print(), flags),
        ('v', _) if flags.plus => pad(value.print_named(), flags),
        ('v', _) | ('s', Value::Time(_)) => pad(value.print(), flags),
        (_, Value::Missing) => format!("%!{verb}(<nil>)"),
        (_, Value::List(items)) => {
            format!("[{}]", items.iter().map(|item| verb_of(verb, item, flags)).collect::<Vec<_>>().join(" "))
        }
        (_, Value::Map(entries)) => {
            let one = |(key, value): (&String, &Value)| {
                format!("{}:{}", verb_of(verb, &Value::text(key.as_str()), flags), verb_of(verb, value, flags))
            };
            format!("map[{}]", entries.values.iter().map(one).collect::<Vec<_>>().join(" "))
        }
        (_, Value::Struct(fields)) => {
            let all = fields.fields.iter().map(|field| verb_of(verb, &field.value, flags)).collect::<Vec<_>>();
            format!("{{{}}}", all.join(" "))
        }
        ('s', Value::Text(_)) => cut_and_pad(value.print(), flags),
        ('q', Value::Text(text)) => pad(quoted(text), flags),
        ('x', Value::Text(text)) => pad(text.bytes().map(|byte| format!("{byte:02x}")).collect(), flags),
        ('X', Value::Text(text)) => pad(text.bytes().map(|byte| format!("{byte:02X}")).collect(), flags),
        ('t', Value::Bool(_)) => pad(value.print(), flags),
        ('d', Value::Integer(number) | Value::Duration(number)) => integer(*number, 10, false, flags),
        ('b', Value::Integer(number)) => integer(*number, 2, false, flags),
        ('o' | 'O', Value::Integer(number)) => integer(*number, 8, false, flags),
        ('x', Value::Integer(number)) => integer(*number, 16, false, flags),
        ('X', Value::Integer(number)) => integer(*number, 16, true, flags),
        ('c', Value::Integer(number)) => pad(character(*number).to_string(), flags),
        ('q', Value::Integer(number)) => pad(format!("{:?}", character(*number)), flags),
        ('U', Value::Integer(number)) => pad(format!("U+{number:04X}"), flags),
        ('f' | 'F', Value::Float(number)) => {
            let text = format!("{:.*}", flags.precision.unwrap_or(6), number.abs());
            numeric(sign(!number.is_sign_negative(), text, flags), flags)
        }
        ('e' | 'E' | 'g' | 'G', Value::Float(number)) => {
            let text = if matches!(verb, 'e' | 'E') {
                scientific(number.abs(), flags.precision.unwrap_or(6))
            } else {
                shortest(number.abs())
            };
            let text = if verb.is_ascii_uppercase() { text.to_uppercase() } else { text };
            numeric(sign(!number.is_sign_negative(), text, flags), flags)
        }
        _ => format!("%!{verb}({})", with_type(value)),
    }
}

fn character(number: i64) -> char {
    u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
}

fn integer(number: i64, radix: u64, upper: bool, flags: Flags) -> String {
    let magnitude = number.unsigned_abs();
    let mut text = match radix {
        2 => format!("{magnitude:b}"),
        8 => format!("{magnitude:o}"),
        16 if upper => format!("{magnitude:X}"),
        16 => format!("{magnitude:x}"),
        _ => magnitude.to_string(),
    };
    if let Some(precision) = flags.precision {
        text = format!("{}{text}", "0".repeat(precision.saturating_sub(text.len())));
    }
    if flags.sharp {
        text = match radix {
            2 => format!("0b{text}"),
            8 => format!("0{text}"),
            16 => format!("{}{text}", if upper { "0X" } else { "0x" }),
            _ => text,
        };
    }
    numeric(sign(number >= 0, text, flags), flags)
}

fn sign(positive: bool, text: String, flags: Flags) -> String {
    match (positive, flags.plus, flags.space) {
        (false, ..) if !text.starts_with('-') => format!("-{text}"),
        (true, true, _) => format!("+{text}"),
        (true, false, true) => format!(" {text}"),
        _ => text,
    }
}

/// Pads a number: zeros go between the sign and the digits.
fn numeric(text: String, flags: Flags) -> String {
    let width = flags.width.unwrap_or(0);
    if !flags.zero || text.chars().count() >= width {
        return pad(text, Flags { zero: false, ..flags });
    }
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+', ' '])));
    format!("{sign}{}{digits}", "0".repeat(width - text.len()))
}

fn cut_and_pad(text: String, flags: Flags) -> String {
    match flags.precision {
        Some(precision) => pad(text.chars().take(precision).collect(), flags),
        None => pad(text, flags),
    }
}

fn pad(text: String, flags: Flags) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    let blank = if flags.zero { "0" } else { " " }.repeat(missing);
    if flags.minus { format!("{text}{blank}") } else { format!("{blank}{text}") }
}

/// Text as `%q` quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A number as `%v` prints it: the shortest digits that give it back, with an exponent where it is large or small.
pub(super) fn shortest(number: f64) -> String {
    if !number.is_finite() {
        return match number {
            n if n.is_nan() => "NaN".to_owned(),
            n if n > 0.0 => "+Inf".to_owned(),
            _ => "-Inf".to_owned(),
        };
    }
    let exponent = if number == 0.0 { 0.0 } else { number.abs().log10().floor() };
    if (-4.0..21.0).contains(&exponent) {
        return number.to_string();
    }
    exponent_form(&format!("{number:e}"))
}

fn scientific(number: f64, precision: usize) -> String {
    exponent_form(&format!("{number:.precision$e}"))
}

/// `1.5e-7` becomes `1.5e-07`.
fn exponent_form(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// A duration as Go prints it: `1h0m3s`, `1.5s`, `20ms`.
pub(super) fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(total, 1_000_000)),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000);
            match minutes {
                0 => format!("{sign}{seconds}s"),
                1..60 => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{}h{}m{seconds}s", minutes / 60, minutes % 60),
            }
        }
    }
}
