//! "Did you mean …?": the nearest of the names that would have been right, if any is near enough.

/// Edits up to which a name counts as near.
const NEAR: usize = 2;

/// The option nearest to `value`. Of equally near ones the first in byte order wins, so that messages never change between
/// runs. Nothing is suggested when the value itself is an option: then something else was wrong.
pub fn suggestion<'a>(value: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        if option == value {
            return None;
        }
        // The difference in length bounds the distance from below, so most names need no work.
        let difference = value.chars().count().abs_diff(option.chars().count());
        if difference > NEAR {
            continue;
        }
        let found = (distance(value, option), option);
        if found.0 <= NEAR && best.is_none_or(|best| found < best) {
            best = Some(found);
        }
    }
    best.map(|(_, option)| option.to_owned())
}

/// ` (did you mean …?)`, or nothing.
pub fn did_you_mean<'a>(value: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    suggestion(value, options).map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// As [`suggestion`], for names whose case does not matter; the answer takes the case of `value` where that is uniform.
/// `options` must be lower case.
pub(crate) fn suggestion_any_case<'a>(value: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = value.to_lowercase();
    let found = suggestion(&lower, options)?;
    Some(if value == value.to_uppercase() && value != lower { found.to_uppercase() } else { found })
}

/// Edits between two words: letters added, left out, changed, or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut above): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut edits = (above[j] + usize::from(a[i] != b[j])).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                edits = edits.min(before[j - 1] + 1);
            }
            row.push(edits);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested() {
        let names = ["chmod", "chown", "from", "link"];
        assert_eq!(suggestion("chmd", names).as_deref(), Some("chmod"));
        assert_eq!(suggestion("form", names).as_deref(), Some("from"));
        assert_eq!(suggestion("chwod", names).as_deref(), Some("chmod"), "ties go to the first name");
        assert_eq!(suggestion("chwon", names).as_deref(), Some("chown"), "swapped letters are one edit");
        assert_eq!(suggestion("link", names), None);
        assert_eq!(suggestion("platform", names), None);
        assert_eq!(suggestion_any_case("FORM", names).as_deref(), Some("FROM"));
        assert_eq!(suggestion_any_case("Form", names).as_deref(), Some("from"));
    }
}
