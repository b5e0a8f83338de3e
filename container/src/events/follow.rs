//! Events read, as far as there are any; asked again, what came since.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Event;
use crate::document::if_present;

/// A place in the record of events.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    /// Files that are read, the oldest first: the last one is appended to.
    files: Vec<File>,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
}

impl EventReader {
    pub(super) fn new(path: &Path, before: &Path) -> Self {
        let files = [before, path].into_iter().filter_map(|path| File::open(path).ok()).collect();
        Self { path: path.to_owned(), files, rest: Vec::new() }
    }

    pub(super) fn at_end(path: &Path) -> io::Result<Self> {
        let mut files: Vec<File> = if_present(File::open(path))?.into_iter().collect();
        for file in &mut files {
            io::Seek::seek(file, io::SeekFrom::End(0))?;
        }
        Ok(Self { path: path.to_owned(), files, rest: Vec::new() })
    }

    /// The events that were not given yet.
    pub fn next_events(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            // First who is appended to: what is written to the old one was begun before.
            let current = if_present(fs::symlink_metadata(&self.path))?;
            let opened = self.files.last().map(File::metadata).transpose()?;
            let replaced = match (&current, &opened) {
                (Some(current), Some(opened)) => current.ino() != opened.ino(),
                (Some(_), None) => true,
                (None, _) => false,
            };
            for file in &mut self.files {
                file.read_to_end(&mut self.rest)?;
                let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let lines: Vec<u8> = self.rest.drain(..end).collect();
                events.extend(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
            }
            if !replaced {
                return Ok(events);
            }
            let Some(next) = if_present(File::open(&self.path))? else { return Ok(events) };
            // The one before may still get the last line of somebody who was slow.
            let kept = self.files.len().saturating_sub(1);
            self.files.drain(..kept);
            self.files.push(next);
        }
    }
}
