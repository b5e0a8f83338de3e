//! The journal of a build: every event, one JSON object a line, after a line that says what follows.
//!
//! ```text
//! {"rbuild_events":1,"build":"0123456789abcdef0123","began":"2026-01-02T03:04:05.678Z"}
//! {"event":"planned","vertices":[…]}
//! {"event":"log","vertex":3,"stream":"stdout","data":"…","at":123456789}
//! ```
//!
//! A file whose last line is cut is what a killed build leaves; readers stop there. Events of a newer rbuild that this
//! one does not know are skipped.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rbuild_cache::BuildId;
use rbuild_solver::Event;
use serde::{Deserialize, Serialize};

/// The version of the form.
const VERSION: u32 = 1;
/// Name of the file in the build's directory.
const FILE: &str = "events.jsonl";
/// A line is never longer: a read gives at most 64 KiB of output, which escaping makes at most six times longer. Plans
/// are.
const LONGEST_LINE: u64 = 256 << 20;
/// Events are kept in memory up to this size before the file is made.
const KEPT: usize = 1 << 20;

/// Why a journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub(crate) struct JournalError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    rbuild_events: u32,
    build: String,
    began: Timestamp,
}

/// Writes a journal. What goes wrong is told at the end.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    waiting: Vec<u8>,
    file: Option<File>,
    written: u64,
    limit: u64,
    full: bool,
    error: Option<io::Error>,
}

impl Journal {
    /// A journal below `directory` of at most about `limit` bytes; when it is full, output is left out.
    pub(super) fn new(directory: PathBuf, build: &BuildId, began: Timestamp, limit: u64) -> Self {
        let heading = Heading { rbuild_events: VERSION, build: build.to_string(), began };
        let mut waiting = Vec::with_capacity(8 * 1024);
        push_line(&mut waiting, &heading);
        Self { directory, waiting, file: None, written: 0, limit, full: false, error: None }
    }

    /// Takes an event.
    pub(crate) fn append(&mut self, event: &Event) {
        if let Event::Log { vertex, stream, at, .. } = event
            && self.written + self.waiting.len() as u64 > self.limit
        {
            if !std::mem::replace(&mut self.full, true) {
                let data = b"[the build's log is full: what follows is not kept]\n".to_vec();
                push_line(&mut self.waiting, &Event::Log { vertex: *vertex, stream: *stream, data, at: *at });
            }
            return;
        }
        push_line(&mut self.waiting, event);
        // Once something runs, others may want to see it, and it may be killed.
        let telling = matches!(event, Event::Started { .. } | Event::Log { .. } | Event::Done { .. });
        if telling || self.waiting.len() > KEPT {
            self.flush();
        }
    }

    /// Writes what is left; how large the journal is.
    pub(super) fn close(mut self) -> Result<u64, JournalError> {
        self.flush();
        match self.error.take() {
            Some(source) => Err(JournalError { path: self.directory, source }),
            None => Ok(self.written),
        }
    }

    fn flush(&mut self) {
        let result = match (&self.error, &self.file) {
            (Some(_), _) => Ok(()),
            (None, Some(_)) => Ok(()),
            (None, None) => self.create(),
        };
        let result = result.and_then(|()| match (&self.error, &mut self.file) {
            (None, Some(file)) => file.write_all(&self.waiting),
            _ => Ok(()),
        });
        match result {
            Ok(()) => self.written += self.waiting.len() as u64,
            Err(error) => self.error = Some(error),
        }
        self.waiting.clear();
    }

    fn create(&mut self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = self.directory.join(FILE);
        self.file = Some(OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?);
        Ok(())
    }
}

fn push_line(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line).expect("strings and numbers become JSON");
    out.push(b'\n');
}

/// A journal that is read from its beginning.
#[derive(Debug)]
pub(crate) struct Replay {
    path: PathBuf,
    lines: io::Take<BufReader<File>>,
}

/// Opens the journal below `directory`; `None` when there is none.
pub(crate) fn replay(directory: &Path) -> Result<Option<Replay>, JournalError> {
    let path = directory.join(FILE);
    let failed = |source| JournalError { path: path.clone(), source };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut replay = Replay { path: path.clone(), lines: BufReader::new(file).take(LONGEST_LINE) };
    let Some(first) = replay.line()? else { return Ok(None) };
    let heading: Heading = serde_json::from_slice(&first).map_err(|error| failed(error.into()))?;
    if heading.rbuild_events > VERSION {
        let text = format!("it has form {}, this rbuild knows {VERSION}", heading.rbuild_events);
        return Err(failed(io::Error::other(text)));
    }
    Ok(Some(replay))
}

impl Replay {
    /// The next event.
    pub(crate) fn event(&mut self) -> Result<Option<Event>, JournalError> {
        while let Some(line) = self.line()? {
            if let Ok(event) = serde_json::from_slice(&line) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The next whole line; nothing where it is cut.
    fn line(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        let mut line = Vec::new();
        self.lines.set_limit(LONGEST_LINE);
        self.lines.read_until(b'\n', &mut line).map_err(|source| JournalError { path: self.path.clone(), source })?;
        Ok((line.pop() == Some(b'\n')).then_some(line))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rbuild_solver::LogStream;

    use super::*;
    use crate::progress::view_tests::{planned, vertex};

    fn log(text: &str, at: u64) -> Event {
        Event::Log { vertex: vertex(0), stream: LogStream::Stdout, data: text.into(), at }
    }

    fn events(directory: &Path) -> Vec<Event> {
        let mut replay = replay(directory).unwrap().unwrap();
        std::iter::from_fn(|| replay.event().unwrap()).collect()
    }

    #[test]
    fn what_was_written_is_read_again_up_to_a_cut() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("b");
        let mut journal = Journal::new(directory.clone(), &BuildId::random().unwrap(), Timestamp::UNIX_EPOCH, 1 << 20);
        let (plan, ids) = planned(&[("[1/1] RUN x", &[])]);
        journal.append(&plan);
        assert!(replay(&directory).unwrap().is_none(), "nothing ran so far");
        let all = [plan, Event::Started { vertex: ids[0], at: 1 }, log("a\n", 2), log("\u{1b}[0m", 3)];
        all[1..].iter().for_each(|event| journal.append(event));
        assert_eq!(events(&directory), all, "before the build has ended");
        let size = journal.close().unwrap();
        let path = directory.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().len(), size);
        File::options().write(true).open(&path).unwrap().set_len(size - 3).unwrap();
        assert_eq!(events(&directory), all[..3]);
    }

    #[test]
    fn a_full_journal_leaves_output_out_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("b");
        let mut journal = Journal::new(directory.clone(), &BuildId::random().unwrap(), Timestamp::UNIX_EPOCH, 300);
        journal.append(&log(&"x".repeat(300), 1));
        journal.append(&log("y", 2));
        journal.append(&log("z", 3));
        journal.append(&Event::Cached { vertex: vertex(0), at: 4 });
        journal.close().unwrap();
        let found = events(&directory);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(matches!(&found[1], Event::Log { data, .. } if data.starts_with(b"[the build's log is full")));
    }
}
