//! The ignore file of a context: its patterns, and which line of it a path owes its absence to.

use rbuild_image::ContainerPath;
use rbuild_parser::{Ignore, IgnoreError, MatchState};

/// An ignore file; the default one ignores nothing.
#[derive(Clone, Debug, Default)]
pub struct IgnoreFile {
    /// What is invisible.
    pub patterns: Ignore,
    /// The file's name, without directories.
    name: String,
    text: String,
}

impl IgnoreFile {
    /// Reads one that is called `name`.
    pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Self, IgnoreError> {
        let patterns = Ignore::parse(bytes)?;
        Ok(Self { patterns, name: name.to_owned(), text: String::from_utf8_lossy(bytes).into_owned() })
    }

    /// Why a path is invisible, as a sentence for people; `None` where it is not.
    pub fn reason(&self, path: &ContainerPath) -> Option<String> {
        if !is_ignored(&self.patterns, path) {
            return None;
        }
        // The last pattern decides; one that takes back did not.
        let decides = |line: &str| {
            let pattern = line.trim();
            !pattern.starts_with('!') && Ignore::parse(line.as_bytes()).is_ok_and(|one| is_ignored(&one, path))
        };
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().rposition(|line| decides(line))?;
        let pattern = lines[at].trim();
        Some(format!("it is excluded by the pattern {pattern:?} in {}, line {}", self.name, at + 1))
    }
}

/// Whether a path, or a directory above it, is invisible.
fn is_ignored(patterns: &Ignore, path: &ContainerPath) -> bool {
    let (mut state, mut so_far, mut ignored) = (MatchState::default(), ContainerPath::root(), false);
    for name in path.components() {
        so_far = so_far.join(name);
        (ignored, state) = patterns.step(&state, &String::from_utf8_lossy(&so_far.as_bytes()[1..]));
    }
    ignored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_decides_is_named() {
        let text = "\u{feff}# comment\n*.log\n!keep.log\n\ndir\n!dir/in\n*.tmp\n";
        let file = IgnoreFile::parse(".dockerignore", text.as_bytes()).unwrap();
        for (path, want) in [
            ("/a.log", Some("it is excluded by the pattern \"*.log\" in .dockerignore, line 2")),
            ("/keep.log", None),
            ("/dir/f", Some("it is excluded by the pattern \"dir\" in .dockerignore, line 5")),
            ("/dir/in", None),
            ("/x.tmp", Some("it is excluded by the pattern \"*.tmp\" in .dockerignore, line 7")),
            ("/other", None),
        ] {
            assert_eq!(file.reason(&ContainerPath::new(path)).as_deref(), want, "{path}");
        }
        assert_eq!(IgnoreFile::default().reason(&ContainerPath::new("/a")), None);
    }
}
