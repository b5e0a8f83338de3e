//! A container's output becomes lines of its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_cache::Clock;
use serde::Serialize;

use super::{LogDriver, LogOptions, Stream, rotated};
use crate::document::if_present;

/// The longest piece of a line that is stored in one entry.
const LONGEST: usize = 16 * 1024;

/// Writes the log of one container. Both streams share it.
pub(crate) struct LogWriter {
    options: LogOptions,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    file: Option<File>,
    size: u64,
    unfinished: [Vec<u8>; 2],
}

#[derive(Serialize)]
struct Line<'a> {
    log: &'a str,
    stream: Stream,
    time: String,
}

impl LogWriter {
    /// Opens the log to add to it.
    pub(crate) fn open(path: PathBuf, options: LogOptions, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let mut writer = Self { options, path, clock, file: None, size: 0, unfinished: Default::default() };
        if options.driver == LogDriver::JsonFile {
            writer.begin_file()?;
        }
        Ok(writer)
    }

    /// Takes what a stream wrote: whole lines are stored now, the rest when its line is complete.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.unfinished[stream as usize]);
        let before = rest.len();
        rest.extend_from_slice(bytes);
        let (mut begin, mut from) = (0, before);
        let mut out = Vec::new();
        while let Some(end) = rest[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at + 1) {
            self.entries(stream, &rest[begin..end], &mut out);
            (begin, from) = (end, end);
        }
        while rest.len() - begin >= LONGEST {
            let end = begin + cut(&rest[begin..]);
            self.entry(stream, &rest[begin..end], &mut out);
            begin = end;
        }
        rest.drain(..begin);
        self.unfinished[stream as usize] = rest;
        self.append(&out)
    }

    /// A stream has ended: its last line, which has no line feed, is stored.
    pub(crate) fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let rest = std::mem::take(&mut self.unfinished[stream as usize]);
        if rest.is_empty() || self.file.is_none() {
            return Ok(());
        }
        let mut out = Vec::new();
        self.entries(stream, &rest, &mut out);
        self.append(&out)
    }

    fn entries(&self, stream: Stream, mut line: &[u8], out: &mut Vec<u8>) {
        while line.len() > LONGEST {
            let end = cut(line);
            self.entry(stream, &line[..end], out);
            line = &line[end..];
        }
        self.entry(stream, line, out);
    }

    fn entry(&self, stream: Stream, piece: &[u8], out: &mut Vec<u8>) {
        let log = String::from_utf8_lossy(piece);
        let line = Line { log: &log, stream, time: self.clock.now().to_string() };
        serde_json::to_writer(&mut *out, &line).expect("text is written to memory");
        out.push(b'\n');
    }

    fn append(&mut self, mut entries: &[u8]) -> io::Result<()> {
        while !entries.is_empty() {
            // As much as fits into this file, one entry at least.
            let mut end = 0;
            for entry in entries.split_inclusive(|byte| *byte == b'\n') {
                let after = self.size + (end + entry.len()) as u64;
                if self.options.max_size.is_some_and(|limit| after > limit) && self.size + end as u64 > 0 {
                    break;
                }
                end += entry.len();
            }
            if end == 0 {
                self.rotate()?;
                continue;
            }
            if let Some(file) = &mut self.file {
                file.write_all(&entries[..end])?;
                self.size += end as u64;
            }
            entries = &entries[end..];
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if self.options.max_file > 1 {
            for number in (1..self.options.max_file).rev() {
                if_present(fs::rename(rotated(&self.path, number - 1), rotated(&self.path, number)))?;
            }
        } else {
            if_present(fs::remove_file(&self.path))?;
        }
        self.begin_file()
    }

    fn begin_file(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }
}

/// Where a piece of at most [`LONGEST`] bytes ends: not inside a character, where that can be told.
fn cut(bytes: &[u8]) -> usize {
    let limit = LONGEST.min(bytes.len());
    let continues = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (limit.saturating_sub(3)..=limit).rev().find(|at| !continues(*at) && *at > 0).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{LogEntry, LogReader, LogWindow};
    use jiff::Timestamp;
    use proptest::prelude::*;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    fn written(options: LogOptions, writes: &[(Stream, &[u8])]) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut writer = LogWriter::open(path.clone(), options, Arc::new(Still)).unwrap();
        for (stream, bytes) in writes {
            writer.write(*stream, bytes).unwrap();
        }
        writer.finish(Stream::Stdout).unwrap();
        writer.finish(Stream::Stderr).unwrap();
        (home, path)
    }

    fn read(path: &std::path::Path) -> Vec<LogEntry> {
        let mut reader = LogReader::open(path.to_owned(), LogWindow::default()).unwrap();
        let mut entries = Vec::new();
        let mut keep = |entry: &LogEntry| {
            entries.push(entry.clone());
            Ok(())
        };
        reader.read(&mut keep).unwrap();
        entries
    }

    #[test]
    fn lines_are_dockers() {
        let (_home, path) = written(
            LogOptions::default(),
            &[(Stream::Stdout, b"one\ntw"), (Stream::Stderr, b"err \x1b \"q\"\n"), (Stream::Stdout, b"o\nlast")],
        );
        insta::assert_snapshot!(fs::read_to_string(path).unwrap(), @r#"
        {"log":"one\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}
        {"log":"err \u001b \"q\"\n","stream":"stderr","time":"1970-01-01T00:00:00Z"}
        {"log":"two\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}
        {"log":"last","stream":"stdout","time":"1970-01-01T00:00:00Z"}
        "#);
    }

    #[test]
    fn output_without_lines_is_stored_in_pieces() {
        let block = vec![b'x'; 100_000];
        let (_home, path) = written(LogOptions::default(), &[(Stream::Stdout, &block), (Stream::Stdout, &block)]);
        let entries = read(&path);
        assert!(entries.iter().all(|entry| entry.log.len() <= LONGEST));
        assert_eq!(entries.iter().map(|entry| entry.log.len()).sum::<usize>(), 200_000);
    }

    #[test]
    fn files_rotate_by_size_and_the_oldest_goes() {
        let options = LogOptions { max_size: Some(200), max_file: 3, ..LogOptions::default() };
        let lines: Vec<String> = (0..20).map(|number| format!("line {number}\n")).collect();
        let writes: Vec<(Stream, &[u8])> = lines.iter().map(|line| (Stream::Stdout, line.as_bytes())).collect();
        let (home, path) = written(options, &writes);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3);
        let kept: Vec<String> = read(&path).into_iter().map(|entry| entry.log).collect();
        assert_eq!(kept.last(), lines.last());
        assert!(lines.ends_with(&kept) && kept.len() < 20, "{kept:?}");
        for file in fs::read_dir(home.path()).unwrap() {
            assert!(file.unwrap().metadata().unwrap().len() <= 200);
        }
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_wanted() {
        let options = LogOptions { driver: LogDriver::None, ..LogOptions::default() };
        let (home, _path) = written(options, &[(Stream::Stdout, b"x\n")]);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn text_comes_back_however_it_was_written(text in "(\\PC|\n){0,200}", cuts in prop::collection::vec(0usize..400, 0..8)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut writes: Vec<(Stream, &[u8])> = Vec::new();
            let mut begin = 0;
            for cut in cuts {
                writes.push((Stream::Stdout, &bytes[begin..cut]));
                begin = cut;
            }
            let (_home, path) = written(LogOptions::default(), &writes);
            let back: String = read(&path).into_iter().map(|entry| entry.log).collect();
            prop_assert_eq!(back, text);
        }
    }
}
