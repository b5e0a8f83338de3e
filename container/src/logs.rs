//! What a container wrote, kept for `logs`.
//!
//! ```text
//! containers/ID/ID-json.log     one JSON object a line: {"log":"text\n","stream":"stdout","time":"2026-01-02T…Z"}
//!               ID-json.log.1   the one before, where `max-file` allows more than one; .2 is older than .1
//! ```
//!
//! The format is Docker's `json-file`. A line of more than 16 KiB is stored in pieces, of which only the last ends with a line
//! feed; so memory is bounded whatever a container writes. Bytes that are no UTF-8 become U+FFFD, as in Docker. The files are
//! not synced: after a power cut the last lines may be missing or torn, and readers skip what is no object.

mod options;
mod reader;
mod writer;

pub use options::{InvalidLogOption, LogDriver, LogOptions};
pub use reader::{LogEntry, LogReadError, LogReader, LogWindow};
pub(crate) use writer::LogWriter;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

/// One of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output; with a terminal all of it.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The log file in a container's directory.
pub(crate) fn log_file(directory: &Path, id: &ContainerId) -> PathBuf {
    directory.join(format!("{id}-json.log"))
}

/// The file that was rotated away so many times.
fn rotated(file: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return file.to_owned();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
