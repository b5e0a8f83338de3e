//! `.dockerignore`: which paths of a context do not exist for the build. The rules are those of `moby/patternmatcher`: patterns
//! are anchored at the context's root, `*` and `?` stay inside a path component, `**` does not, the last pattern that matches a
//! path or one of its parents decides, and `!` turns a match around. Paths are relative, with slashes, never start with `./`.

mod pattern;

use pattern::Pattern;

use crate::glob::{BadPattern, check, clean};

/// A list of patterns, ready to match.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// Patterns that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A `!` with nothing after it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneException,
    /// A pattern that cannot be read.
    #[error("syntax error in pattern: {pattern}")]
    BadPattern {
        /// The pattern.
        pattern: String,
    },
}

/// Which patterns match a directory, for use on its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchState {
    /// Per pattern; empty at the root.
    matched: Vec<bool>,
}

impl Ignore {
    /// Reads an ignore file.
    pub fn parse(bytes: &[u8]) -> Result<Self, IgnoreError> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Self::new(text.lines().filter_map(normalize))
    }

    /// Takes patterns as they are; blank ones are skipped.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, IgnoreError> {
        let mut compiled = Vec::new();
        for pattern in patterns {
            let trimmed = pattern.as_ref().trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean(trimmed);
            let (restores, body) = match cleaned.strip_prefix('!') {
                Some("") => return Err(IgnoreError::LoneException),
                Some(body) => (true, body),
                None => (false, cleaned.as_str()),
            };
            let bad = |BadPattern| IgnoreError::BadPattern { pattern: trimmed.to_owned() };
            check(body.as_bytes()).map_err(bad)?;
            compiled.push(Pattern::compile(body, restores).map_err(bad)?);
        }
        Ok(Self { patterns: compiled })
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern starts with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.restores)
    }

    /// Whether a pattern says that everything is ignored.
    pub fn has_everything(&self) -> bool {
        self.patterns.iter().any(|pattern| !pattern.restores && matches!(pattern.text(), "*" | "**" | "**/*"))
    }

    /// Whether a path is ignored, by itself or through one of its parents. Directories and files are treated alike.
    pub fn matches(&self, path: &str) -> bool {
        let mut ignored = false;
        for pattern in &self.patterns {
            // Only a pattern that would change the verdict need be asked.
            if pattern.restores == ignored
                && (pattern.matches(path) || parents(path).any(|parent| pattern.matches(parent)))
            {
                ignored = !pattern.restores;
            }
        }
        ignored
    }

    /// As [`Self::matches`] for an entry of a directory that has been asked before: start with the default state at the root, and
    /// give each directory's state to its entries.
    pub fn step(&self, parent: &MatchState, path: &str) -> (bool, MatchState) {
        let mut ignored = false;
        let mut matched = vec![false; self.patterns.len()];
        for (at, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.matched.get(at).copied().unwrap_or(false);
            if !inherited && pattern.restores != ignored {
                continue;
            }
            matched[at] = inherited || pattern.matches(path);
            if matched[at] {
                ignored = !pattern.restores;
            }
        }
        (ignored, MatchState { matched })
    }

    /// Whether something inside an ignored directory may have to be looked at. If not, a walk can leave out the directory whole.
    pub fn may_restore_below(&self, directory: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.restores && pattern.may_match_below(directory))
    }
}

/// A line of an ignore file as a pattern: comments and blank lines gone, cleaned, without the slash at the start.
fn normalize(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (sign, body) = match line.strip_prefix('!') {
        Some(body) => ("!", body.trim()),
        None => ("", line),
    };
    if body.is_empty() {
        return Some(sign.to_owned());
    }
    let cleaned = clean(body);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
    Some(format!("{sign}{relative}"))
}

/// The directories above a path, outermost first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests;
