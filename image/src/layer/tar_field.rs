//! The small grammars inside tar: numeric header fields, PAX records, PAX times.

use super::entry::Timestamp;

/// Parses a numeric header field as every tar reader must: octal digits between spaces and NULs, or base 256.
/// `None` when it is neither, or does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let padding = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !padding(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(padding).unwrap_or(digits.len())];
    if !field[start + digits.len()..].iter().all(padding) {
        return None;
    }
    digits.iter().try_fold(0i64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit.into())
    })
}

/// Two's complement, big endian; the first bit is a mark and the second the sign.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] | 0x80 } else { field[0] & 0x7f };
    let (high, low) = field.split_at(field.len().saturating_sub(8));
    let fill = if negative { 0xff } else { 0 };
    let mut bytes = [fill; 8];
    bytes[8 - low.len()..].copy_from_slice(low);
    if high.is_empty() {
        bytes[8 - low.len()] = first;
    } else if first != fill || high[1..].iter().any(|b| *b != fill) {
        return None;
    }
    let value = i64::from_be_bytes(bytes);
    (value.is_negative() == negative).then_some(value)
}

/// Splits the content of a PAX header into its `key=value` records. `None` when a length, a separator or a key is
/// wrong. Values may hold newlines and NULs: the length decides.
pub(super) fn pax_records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut out = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|b| *b == b' ')?;
        let length = usize::try_from(decimal(&data[..space])?).ok()?;
        let record = data.get(space + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return None;
        }
        out.push((key, value));
        data = &data[length..];
    }
    Some(out)
}

/// Parses digits, and only digits, into a number.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Parses `[-]seconds[.fraction]`; digits past nanoseconds are cut off.
pub(super) fn pax_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(if whole.is_empty() && !fraction.is_empty() { 0 } else { decimal(whole)? }).ok()?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Writes a time as PAX does, without zeros at the end.
pub(super) fn format_pax_time(time: Timestamp) -> String {
    let Timestamp { seconds, nanoseconds } = time;
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, seconds, nanoseconds) = match seconds {
        0.. => ("", seconds.unsigned_abs(), nanoseconds),
        _ => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    };
    format!("{sign}{seconds}.{nanoseconds:09}").trim_end_matches('0').to_owned()
}

/// Writes one PAX record: its own length counts itself.
pub(super) fn push_pax_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let payload = key.len() + value.len() + 3;
    let mut length = payload + 1;
    while payload + length.to_string().len() != length {
        length = payload + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"644\0junk", None),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"77777777777\0", Some(0o77777777777)),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(2 << 32)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xfe", None),
        ] {
            assert_eq!(number(field), want, "{field:?}");
        }
    }

    #[test]
    fn pax_records_are_counted_not_split() {
        assert_eq!(pax_records(b"7 a=\nb\n6 c=d\n"), Some(vec![(&b"a"[..], &b"\nb"[..]), (b"c", b"d")]));
        for bad in [
            &b"5 a=b"[..],
            b"6 a=b ",
            b"7 a=b\n",
            b"6 abc\n",
            b"5 =b\n",
            b" a=b\n",
            b"-6 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"3 \n",
            b"2 ",
        ] {
            assert_eq!(pax_records(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_have_nanoseconds_and_signs() {
        for (text, seconds, nanoseconds) in [
            ("1", 1, 0),
            ("1.5", 1, 500_000_000),
            ("-1.25", -2, 750_000_000),
            ("-3", -3, 0),
            ("0.000000001", 0, 1),
            ("-0.5", -1, 500_000_000),
        ] {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(pax_time(text.as_bytes()), Some(time), "{text}");
            assert_eq!(format_pax_time(time), text);
        }
        assert_eq!(pax_time(b"1.0123456789999"), Some(Timestamp { seconds: 1, nanoseconds: 12_345_678 }));
        for bad in ["", "-", "x", "1.x", "1e3", "9223372036854775808"] {
            assert_eq!(pax_time(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn records_survive_a_round_trip(key in "[a-z.]{1,120}", value in proptest::collection::vec(0u8.., 0..1200)) {
            let mut data = Vec::new();
            push_pax_record(&mut data, key.as_bytes(), &value);
            proptest::prop_assert_eq!(pax_records(&data), Some(vec![(key.as_bytes(), &value[..])]));
        }

        #[test]
        fn times_survive_a_round_trip(seconds in -1i64 << 62..1 << 62, nanoseconds in 0u32..1_000_000_000) {
            let time = Timestamp { seconds, nanoseconds };
            proptest::prop_assert_eq!(pax_time(format_pax_time(time).as_bytes()), Some(time));
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(0u8.., 0..40)) {
            drop((number(&bytes), pax_records(&bytes), pax_time(&bytes)));
        }
    }
}
