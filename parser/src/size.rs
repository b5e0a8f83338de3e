//! Sizes as people write them (`64m`, `1.5GiB`), read as `go-units` reads them: all units are powers of 1024.

/// The number of bytes, or `None` if it is no size.
pub(crate) fn parse(text: &str) -> Option<i64> {
    // The number ends at the last digit, dot or blank; what follows is the unit.
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')? + 1;
    let (number, unit) = text.split_at(split);
    let number = number.strip_suffix(' ').unwrap_or(number);
    if number.is_empty() || number.starts_with('+') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    if number < 0.0 || !number.is_finite() {
        return None;
    }
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1_048_576.0,
        "g" | "gb" | "gib" => 1_073_741_824.0,
        "t" | "tb" | "tib" => 1_099_511_627_776.0,
        "p" | "pb" | "pib" => 1_125_899_906_842_624.0,
        _ => return None,
    };
    Some((number * factor) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_go_units_does() {
        for (text, size) in [
            ("32", Some(32)),
            ("32b", Some(32)),
            ("32kb", Some(32 << 10)),
            ("32 KiB", Some(32 << 10)),
            ("1.5g", Some(3 << 29)),
            ("2T", Some(2 << 40)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1 2 m", None),
        ] {
            assert_eq!(parse(text), size, "{text}");
        }
    }
}
