//! The log of a container is read: a window of it, then what is added.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Stream, rotated};
use crate::document::if_present;

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LogEntry {
    /// What was written; ends with a line feed unless it is a piece of a line.
    pub log: String,
    /// Where.
    pub stream: Stream,
    /// When.
    pub time: Timestamp,
}

/// Which part of a log is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogWindow {
    /// Not what is older.
    pub since: Option<Timestamp>,
    /// Not what is younger.
    pub until: Option<Timestamp>,
    /// Only the last so many of these.
    pub tail: Option<usize>,
}

/// A log that cannot be read, or whose reader does not want more.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct LogReadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// More files than any log has.
const MOST_FILES: u32 = 1000;
/// No entry is longer; a longer line is damage.
const LONGEST_LINE: u64 = 1 << 20;

/// Reads one log.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    window: LogWindow,
    file: Option<BufReader<File>>,
    /// The beginning of a line that is not complete yet.
    partial: Vec<u8>,
    first: bool,
}

impl LogReader {
    /// Reads the log with this file; one that is not there is empty.
    pub fn open(path: PathBuf, window: LogWindow) -> Result<Self, LogReadError> {
        Ok(Self { path, window, file: None, partial: Vec::new(), first: true })
    }

    /// Gives each entry that was not given yet. Whether there were any.
    pub fn read(&mut self, each: &mut dyn FnMut(&LogEntry) -> io::Result<()>) -> Result<bool, LogReadError> {
        let path = self.path.clone();
        let result = if self.first { self.read_first(each) } else { self.read_added(each) };
        result.map_err(|source| LogReadError { path, source })
    }

    fn read_first(&mut self, each: &mut dyn FnMut(&LogEntry) -> io::Result<()>) -> io::Result<bool> {
        self.first = false;
        let tail = self.window.tail.unwrap_or(usize::MAX);
        let mut last = VecDeque::new();
        let mut any = false;
        let mut keep = |entry: &LogEntry| {
            if tail == usize::MAX {
                any = true;
                return each(entry);
            }
            last.push_back(entry.clone());
            if last.len() > tail {
                last.pop_front();
            }
            Ok(())
        };
        let oldest = (1..MOST_FILES).take_while(|number| rotated(&self.path, *number).exists()).last().unwrap_or(0);
        for number in (1..=oldest).rev() {
            if let Some(file) = if_present(File::open(rotated(&self.path, number)))? {
                self.file = Some(BufReader::new(file));
                self.read_file(&mut keep)?;
            }
        }
        self.file = if_present(File::open(&self.path))?.map(BufReader::new);
        self.read_file(&mut keep)?;
        for entry in &last {
            any = true;
            each(entry)?;
        }
        Ok(any)
    }

    fn read_added(&mut self, each: &mut dyn FnMut(&LogEntry) -> io::Result<()>) -> io::Result<bool> {
        let mut any = false;
        let mut note = |entry: &LogEntry| {
            any = true;
            each(entry)
        };
        // Asked before the rest of the old file is read: what is written to it later is nothing.
        let new = if_present(File::open(&self.path))?;
        self.read_file(&mut note)?;
        let identity = |file: &File| file.metadata().map(|stat| (stat.dev(), stat.ino()));
        if let Some(new) = new {
            let same = match &self.file {
                Some(old) => identity(old.get_ref())? == identity(&new)?,
                None => false,
            };
            if !same {
                self.partial.clear();
                self.file = Some(BufReader::new(new));
                self.read_file(&mut note)?;
            }
        }
        Ok(any)
    }

    /// Reads the rest of the file that is open.
    fn read_file(&mut self, each: &mut dyn FnMut(&LogEntry) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        // At the end of a file a buffered reader looks again only when it is told to.
        file.stream_position()?;
        loop {
            let room = LONGEST_LINE.saturating_sub(self.partial.len() as u64);
            let read = io::Read::take(&mut *file, room).read_until(b'\n', &mut self.partial)?;
            if self.partial.ends_with(b"\n") || self.partial.len() as u64 >= LONGEST_LINE {
                let line = std::mem::take(&mut self.partial);
                // Torn by a power cut, or not ours.
                let Ok(entry) = serde_json::from_slice::<LogEntry>(&line) else { continue };
                let early = self.window.since.is_some_and(|since| entry.time < since);
                let late = self.window.until.is_some_and(|until| entry.time > until);
                if !early && !late {
                    each(&entry)?;
                }
            } else if read == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn line(text: &str, second: i64) -> String {
        let time = Timestamp::from_second(second).unwrap();
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
    }

    fn texts(reader: &mut LogReader) -> Vec<String> {
        let mut texts = Vec::new();
        let mut keep = |entry: &LogEntry| {
            texts.push(entry.log.trim().to_owned());
            Ok(())
        };
        reader.read(&mut keep).unwrap();
        texts
    }

    #[test]
    fn a_window_is_cut_out_of_all_files() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        fs::write(rotated(&path, 2), line("a", 1)).unwrap();
        fs::write(rotated(&path, 1), line("b", 2) + "{\"log\": torn\n" + &line("c", 3)).unwrap();
        fs::write(&path, line("d", 4) + &line("e", 5) + "{\"log\":\"unfinished").unwrap();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        for (window, want) in [
            (LogWindow::default(), "abcde"),
            (LogWindow { tail: Some(2), ..LogWindow::default() }, "de"),
            (LogWindow { tail: Some(0), ..LogWindow::default() }, ""),
            (LogWindow { since: at(2), until: at(4), ..LogWindow::default() }, "bcd"),
            (LogWindow { until: at(4), tail: Some(1), ..LogWindow::default() }, "d"),
        ] {
            let mut reader = LogReader::open(path.clone(), window).unwrap();
            assert_eq!(texts(&mut reader).concat(), want, "{window:?}");
        }
    }

    #[test]
    fn what_is_added_is_read_over_a_rotation() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut reader = LogReader::open(path.clone(), LogWindow::default()).unwrap();
        assert!(texts(&mut reader).is_empty());
        let mut file = File::create(&path).unwrap();
        let second = line("b", 2);
        file.write_all((line("a", 1) + &second[..10]).as_bytes()).unwrap();
        assert_eq!(texts(&mut reader), ["a"]);
        file.write_all(&second.as_bytes()[10..]).unwrap();
        file.write_all(line("c", 3).as_bytes()).unwrap();
        fs::rename(&path, rotated(&path, 1)).unwrap();
        fs::write(&path, line("d", 4)).unwrap();
        assert_eq!(texts(&mut reader), ["b", "c", "d"]);
        assert!(texts(&mut reader).is_empty());
    }
}
