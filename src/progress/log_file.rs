//! `--log-file`: the plain view of a build in a file, whatever the terminal shows; each line with the time by the clock.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::cli::report::Failure;

/// A file that takes lines. Clones write to the same one.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Why it could not be written, the first time.
    broken: Option<std::io::Error>,
}

impl LogFile {
    /// Makes a file, in place of one that is there.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path)
            .map_err(|error| Failure::from_error(&format!("cannot write the log {}", path.display()), &error))?;
        Ok(Self { inner: Arc::new(Mutex::new(Inner { file, broken: None })) })
    }

    /// Writes whole lines.
    pub(crate) fn say(&self, text: &str) {
        let text = stamped(text, Timestamp::now());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.broken.is_none()
            && let Err(error) = inner.file.write_all(text.as_bytes())
        {
            inner.broken = Some(error);
        }
    }

    /// Says whether all of it was written.
    pub(crate) fn finish(&self) -> Option<String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.broken.as_ref().map(|error| format!("WARNING: the log file is incomplete: {error}\n"))
    }
}

/// Lines with the time in front, to the millisecond; empty ones stay empty.
fn stamped(text: &str, now: Timestamp) -> String {
    let line = |line: &str| match line {
        "" => "\n".to_owned(),
        line => format!("{now:.3} {line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_time() {
        let now = Timestamp::from_millisecond(1_700_000_000_042).unwrap();
        assert_eq!(
            stamped("\n#1 RUN x\n#1 DONE\n", now),
            "\n2023-11-14T22:13:20.042Z #1 RUN x\n2023-11-14T22:13:20.042Z #1 DONE\n"
        );
    }
}
