//! Points in time as people type them: `--since`, `--until`, filters.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::report::Failure;

/// A time (`2026-01-02T13:23:37Z`, `2026-01-02T13:23:37`, `2026-01-02`, seconds since 1970 with or without a fraction) or an age
/// (`42m`, `1h30m`), which counts from `now`. Times without a zone are in this machine's.
pub(super) fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let unknown = || {
        Failure::new(format!("invalid time: {text:?}"))
            .with_help("times are 2026-01-02T13:23:37Z or seconds since 1970, ages are 42m or 1h30m")
    };
    if let Some(age) = parse_duration(text) {
        let age = SignedDuration::try_from(age).map_err(|_| unknown())?;
        return now.checked_sub(age).map_err(|_| unknown());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Some((seconds, fraction)) = unix_time(text) {
        return Timestamp::new(seconds, fraction).map_err(|_| unknown());
    }
    let local: jiff::civil::DateTime = text.parse().map_err(|_| unknown())?;
    let zoned = local.to_zoned(TimeZone::system()).map_err(|_| unknown())?;
    Ok(zoned.timestamp())
}

fn unix_time(text: &str) -> Option<(i64, i32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some((seconds.parse().ok()?, nanoseconds))
}

/// A span as Go writes it: `1h30m`, `1.5s`, `300ms`; none of less than nothing.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let nanoseconds = rbuild_parser::parse_duration(text).ok()?;
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_dockers() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, want) in [
            ("10m", Some(999_400)),
            ("1h30m", Some(994_600)),
            ("1.5s", Some(999_998)),
            ("1970-01-02T00:00:00Z", Some(86_400)),
            ("1970-01-02T01:00:00+01:00", Some(86_400)),
            ("86400", Some(86_400)),
            ("86400.000000001", Some(86_400)),
            ("yesterday", None),
            ("", None),
            ("5x", None),
        ] {
            assert_eq!(parse_time(text, now).ok().map(Timestamp::as_second), want, "{text}");
        }
        assert!(parse_time("1970-01-03", now).is_ok() && parse_time("1970-01-03T10:00:00", now).is_ok());
        assert_eq!(parse_duration("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(parse_duration("2h3"), None);
        assert_eq!(parse_duration("-5s"), None);
    }
}
