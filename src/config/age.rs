//! Ages as people write them: Go's durations (`1h30m`, `48h`), and days and weeks.

use std::time::Duration;

/// A text that is no age.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration, e.g. 24h or 7d")]
pub struct InvalidAge {
    /// The text.
    pub text: String,
}

/// Parses `90s`, `10m`, `24h`, `7d`, `2w`, combined as `1h30m`.
pub fn parse_age(text: &str) -> Result<Duration, InvalidAge> {
    let wrong = || InvalidAge { text: text.to_owned() };
    let (mut seconds, mut digits) = (0_u64, String::new());
    let mut rest = text;
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(wrong()),
        };
        let number = digits.parse::<u64>().map_err(|_| wrong())?;
        digits.clear();
        seconds = number.checked_mul(unit).and_then(|add| seconds.checked_add(add)).ok_or_else(wrong)?;
    }
    if text.is_empty() || !digits.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_need_units() {
        let cases =
            [("90s", 90), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5400), ("2w", 1_209_600), ("0", 0)];
        for (text, seconds) in cases {
            assert_eq!(parse_age(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "5", "h", "5x", "99999999999999999999d", "1é"] {
            assert!(parse_age(bad).is_err(), "{bad:?}");
        }
    }
}
