//! What the history says of an instruction (`created_by`), in BuildKit's words.

use std::fmt::Write as _;

use rbuild_image::{Healthcheck, History, ImageConfig};
use rbuild_parser::Lookup;

use super::scope::Variables;

/// Which tool wrote an entry. Others look for this text, so it stays BuildKit's.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// Whether an instruction made a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It did.
    Layer,
    /// It only changed the configuration.
    Metadata,
}

/// Adds an entry.
pub(super) fn commit(image: &mut ImageConfig, created_by: String, effect: Effect, created: Option<&String>) {
    image.history.push(History {
        created: created.cloned(),
        created_by,
        comment: COMMENT.to_owned(),
        empty_layer: effect == Effect::Metadata,
        ..History::default()
    });
}

/// `RUN |2 A=1 B=2 /bin/sh -c make # buildkit`: the declared arguments as the step saw them, then its words.
pub(super) fn run(argv: &[String], args: &[(String, Option<String>)], variables: &Variables) -> String {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (name, value) in args {
        let value = variables.get(name).or(value.as_deref()).unwrap_or_default();
        match seen.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => seen.push((name, value)),
        }
    }
    let mut text = String::from("RUN ");
    if !seen.is_empty() {
        let _infallible = write!(text, "|{} ", seen.len());
        for (name, value) in seen {
            let _infallible = write!(text, "{name}={value} ");
        }
    }
    text + &argv.join(" ") + " # buildkit"
}

/// `["a" "b"]`: Go's `%q` of a list.
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `[a b]`: Go's `%v` of a list.
pub(super) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Go's `%+v` of a health check.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Go's `strconv.Quote`.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => {
                let _infallible = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                let _infallible = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Go's `time.Duration` as text: `1m30s`, `500ms`, `0s`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64, name: &str| {
        let mut digits = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        digits.truncate(digits.trim_end_matches('0').len());
        let dot = if digits.is_empty() { "" } else { "." };
        format!("{}{dot}{digits}{name}", value / unit)
    };
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => fraction(total, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(total, 1_000_000, "ms"),
        _ => {
            let seconds = total / 1_000_000_000;
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            let rest = fraction(total % 60_000_000_000, 1_000_000_000, "s");
            match (hours, minutes) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (nanoseconds, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_010_000_000, "1.01s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(duration(nanoseconds), want);
        }
    }

    #[test]
    fn words_are_quoted_as_in_go() {
        assert_eq!(quote("a \"b\"\\\n\té\u{1}"), r#""a \"b\"\\\n\té\x01""#);
        assert_eq!(quoted_list(&["sh".to_owned(), String::new()]), r#"["sh" ""]"#);
    }

    #[test]
    fn a_run_names_each_argument_once_as_the_step_saw_it() {
        let mut variables = Variables::default();
        variables.set("A", "env");
        let args = [("A", Some("1")), ("B", None), ("A", Some("2"))];
        let args = args.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(run(&["make".to_owned()], &args, &variables), "RUN |2 A=env B= make # buildkit");
        assert_eq!(run(&["make".to_owned()], &[], &variables), "RUN make # buildkit");
    }
}
