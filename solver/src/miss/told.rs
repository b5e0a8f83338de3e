//! Explanations in words. One place, so that `--explain` and `cache why` say the same.

use std::fmt::{self, Write as _};

use super::{Change, Earlier, FieldChange, FileChange, MissReason, VariableSource};

/// Longer values are cut here, in characters.
const LONGEST: usize = 200;

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored => f.write_str("the cache was to be ignored"),
            Self::TooOld { made } => write!(f, "its result of {} is older than results may be", time(*made)),
            Self::ImageStore => f.write_str("images come from the image store"),
            Self::NothingRecorded => f.write_str("nothing comparable was recorded before"),
            Self::Evicted { rule, at } => write!(f, "it was evicted at {} by: {rule}", time(*at)),
            Self::Lost => f.write_str("its result is gone without a trace (power cut, or a store that was rebuilt)"),
            Self::Changed { earlier, .. } => write!(f, "it differs from {earlier}"),
            Self::InputsDiffer { .. } => f.write_str("what it reads ran again and came out differently"),
        }
    }
}

impl MissReason {
    /// What differs, a line each.
    pub fn changes(&self) -> &[Change] {
        match self {
            Self::Changed { changes, .. } | Self::InputsDiffer { changes } => changes,
            _ => &[],
        }
    }

    /// The reason and what differs, a line each, the latter indented.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.to_string()];
        for change in self.changes() {
            lines.extend(change.lines().into_iter().map(|line| format!("  {line}")));
        }
        lines
    }
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(&self.step))?;
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        write!(f, " of {}", time(self.at))
    }
}

impl Change {
    /// In words: one line, and more for files and causes, indented.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Command { before, after } => command(before, after),
            Self::Variable { source, name, hidden: true, .. } => {
                vec![format!("{} {name}: another value (not shown: its name says that it is secret)", keyword(*source))]
            }
            Self::Variable { source, name, before, after, hidden: false } => {
                vec![format!("{} {name}: {}", keyword(*source), arrow(before.as_deref(), after.as_deref()))]
            }
            Self::Setting { name, before, after } => {
                vec![format!("{name}: {}", arrow(before.as_deref(), after.as_deref()))]
            }
            Self::Mount { before, after } => vec![format!("mount: {}", arrow(before.as_deref(), after.as_deref()))],
            Self::Files { from, files, more } => {
                let mut lines = vec![match (files.len() + more, files.is_empty()) {
                    (_, true) => format!("files of the {from} differ (which is not known any more)"),
                    (1, _) => format!("1 file of the {from} differs:"),
                    (count, _) => format!("{count} files of the {from} differ:"),
                }];
                lines.extend(files.iter().map(|file| format!("  {file}")));
                if *more > 0 {
                    lines.push(format!("  … and {more} more"));
                }
                lines
            }
            Self::Source { role, before, after, fields } => source(role, before.as_deref(), after.as_deref(), fields),
            Self::Input { role, before, after, ran, because, via } => {
                let name = after.as_deref().map_or_else(|| "(nothing)".to_owned(), short);
                let mut lines = vec![match (ran, before == after) {
                    (Some(_), _) => format!("{role} {name}: ran again"),
                    (None, true) => format!("{role} {name}: made differently"),
                    (None, false) => {
                        format!("{role}: {} → {name}", before.as_deref().map_or_else(|| "(nothing)".to_owned(), short))
                    }
                }];
                lines.extend(via.iter().map(|name| format!("  from {}", short(name))));
                lines.extend(because.iter().flat_map(|change| change.lines()).map(|line| format!("  {line}")));
                lines
            }
        }
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", short(&self.path))?;
        let (before, after) = match (&self.before, &self.after) {
            (None, Some(new)) if new.kind == "file" => return write!(f, "added ({} bytes)", new.size),
            (None, Some(new)) => return write!(f, "added ({})", new.kind),
            (Some(before), Some(after)) => (before, after),
            (Some(_) | None, None) => return f.write_str("removed"),
        };
        let mut parts = Vec::new();
        if before.kind != after.kind {
            parts.push(format!("{} → {}", before.kind, after.kind));
        } else if self.content && before.size == after.size {
            parts.push(format!("content ({} bytes)", after.size));
        } else if self.content {
            parts.push(format!("content ({} → {} bytes)", before.size, after.size));
        }
        if before.mode != after.mode {
            parts.push(format!("mode {} → {}", before.mode, after.mode));
        }
        if before.owner != after.owner {
            parts.push(format!("owner {} → {}", before.owner, after.owner));
        }
        if self.attributes {
            parts.push("extended attributes".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

fn keyword(source: VariableSource) -> &'static str {
    match source {
        VariableSource::Argument => "ARG",
        VariableSource::Environment => "ENV",
    }
}

fn source(role: &str, before: Option<&str>, after: Option<&str>, fields: &[FieldChange]) -> Vec<String> {
    if before != after {
        return vec![format!("{role}: {}", arrow(before, after))];
    }
    let name = after.map_or_else(String::new, |name| format!(" {}", short(name)));
    if fields.is_empty() {
        return vec![format!("{role}{name}: gives something else")];
    }
    let field = |change: &FieldChange| {
        format!("{role}{name}: {} {}", change.field, arrow(change.before.as_deref(), change.after.as_deref()))
    };
    fields.iter().map(field).collect()
}

/// Commands of one line are shown whole; of longer ones the lines that differ.
fn command(before: &str, after: &str) -> Vec<String> {
    if !before.contains('\n') && !after.contains('\n') {
        return vec![format!("command: {}", arrow(Some(before), Some(after)))];
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut lines = vec![format!("command, from its line {}:", same + 1)];
    for (mark, text) in [('-', &old), ('+', &new)] {
        let differing = &text[same..text.len() - tail];
        lines.extend(differing.iter().take(5).map(|line| format!("  {mark} {}", short(line))));
        if differing.len() > 5 {
            lines.push(format!("  {mark} … and {} more lines", differing.len() - 5));
        }
    }
    lines
}

fn arrow(before: Option<&str>, after: Option<&str>) -> String {
    let shown = |value: &str| if value.is_empty() { "\"\"".to_owned() } else { short(value) };
    match (before, after) {
        (Some(before), Some(after)) => format!("{} → {}", shown(before), shown(after)),
        (None, Some(after)) => format!("new: {}", shown(after)),
        (Some(before), None) => format!("gone: {}", shown(before)),
        (None, None) => "differs".to_owned(),
    }
}

/// One line, not too long.
fn short(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            _ if at == LONGEST => {
                out.push('…');
                break;
            }
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

/// Seconds are enough.
fn time(at: jiff::Timestamp) -> String {
    let mut text = String::new();
    let whole = jiff::Timestamp::from_second(at.as_second()).unwrap_or(at);
    let _infallible = write!(text, "{whole}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_show_the_lines_that_differ() {
        let lines = command("set -e\nmake\nmake test\n", "set -e\nmake -j4\nmake lint\nmake test\n");
        assert_eq!(lines, ["command, from its line 2:", "  - make", "  + make -j4", "  + make lint"]);
        assert_eq!(command("a", "b"), ["command: a → b"]);
        assert_eq!(command("a\nb", "a"), ["command, from its line 2:", "  - b"]);
    }

    #[test]
    fn values_are_one_short_line() {
        assert_eq!(short("a\nb"), "a\\nb");
        assert_eq!(short(&"x".repeat(500)).chars().count(), LONGEST + 1);
        assert_eq!(arrow(Some(""), Some("1")), "\"\" → 1");
        assert_eq!(arrow(None, Some("1")), "new: 1");
        assert_eq!(arrow(Some("1"), None), "gone: 1");
    }
}
