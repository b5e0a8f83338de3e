//! Shell patterns in `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`: `*` and `?` only, no brackets. As in
//! BuildKit they become regular expressions, so that greediness, newlines and `$1` in replacements agree with it.

use regex::{NoExpand, Regex, RegexBuilder};

/// A pattern that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadPattern {
    pub(super) pattern: String,
    pub(super) reason: String,
}

/// Removes the shortest or longest match at the start.
pub(super) fn trim_prefix(pattern: &str, value: &str, greedy: bool) -> Result<String, BadPattern> {
    let regex = compile(pattern, greedy, true)?;
    Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
}

/// Removes the shortest or longest match at the end. Regular expressions search from the left, so both sides are reversed.
pub(super) fn trim_suffix(pattern: &str, value: &str, greedy: bool) -> Result<String, BadPattern> {
    let reversed: String = value.chars().rev().collect();
    Ok(trim_prefix(&reverse(pattern), &reversed, greedy)?.chars().rev().collect())
}

/// Replaces the first match, literally, or all of them, where `$1` and `${name}` in the text stand for (absent) groups. `None`
/// if the result would be longer than `limit`.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    everywhere: bool,
    limit: usize,
) -> Result<Option<String>, BadPattern> {
    let regex = compile(pattern, true, false)?;
    let matches = if everywhere { regex.find_iter(value).count() } else { 1 };
    if matches.saturating_mul(replacement.len()).saturating_add(value.len()) > limit {
        return Ok(None);
    }
    Ok(Some(match everywhere {
        true => regex.replace_all(value, replacement).into_owned(),
        false => regex.replace(value, NoExpand(replacement)).into_owned(),
    }))
}

fn compile(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, BadPattern> {
    let bad = |reason: String| BadPattern { pattern: pattern.to_owned(), reason };
    let mut source = String::with_capacity(pattern.len() + 4);
    if anchored {
        source.push('^');
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => source.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => source.push('.'),
            // These had to be escaped to get past the braces; the escape is not part of the pattern.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\')) => {
                    source.push('\\');
                    source.push(escaped);
                }
                other => {
                    let other = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(bad(format!("invalid escape '\\{other}'")));
                }
            },
            c => source.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    RegexBuilder::new(&source).size_limit(1 << 20).build().map_err(|error| bad(error.to_string()))
}

/// Reverses a pattern, keeping each escape before what it escapes.
fn reverse(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let escaped = if c == '\\' { rest[1..].chars().next().map_or(0, char::len_utf8) } else { 0 };
        let (piece, after) = rest.split_at(c.len_utf8() + escaped);
        pieces.push(piece);
        rest = after;
    }
    pieces.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reversing_keeps_escapes_in_front() {
        for (pattern, reversed) in [
            ("a\\*c", "c\\*a"),
            ("\\\\\\ab", "b\\a\\\\"),
            ("ab\\", "\\ba"),
            ("👽\\🚀🖖", "🖖\\🚀👽"),
            ("\\\\b", "b\\\\"),
        ] {
            assert_eq!(reverse(pattern), reversed);
        }
    }

    #[test]
    fn a_dot_does_not_cross_lines() {
        assert_eq!(trim_prefix("*c", "a\nbc", true).unwrap(), "a\nbc");
        assert_eq!(replace("*", "a\nb", "x", true, 99).unwrap().unwrap(), "x\nx");
    }
}
