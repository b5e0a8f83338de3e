//! The record of what happens to containers, images, volumes and networks, for `events`.
//!
//! ```text
//! events.log      one JSON object a line, appended by whoever changes something
//! events.1.log    what was it before, once it had grown to a megabyte
//! ```
//!
//! - A line is one write to the end of the file, so that processes need no lock for it. One that a power cut left half written
//!   is passed over; nothing else depends on this record, and a change does not fail because it cannot be told.
//! - What is told of a container follows from two states of its record, in the moment in which the second replaces the first.

mod executed;
mod follow;
mod told;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use executed::Executed;
pub use follow::EventReader;
pub(crate) use told::{changes, check};

/// How large the record grows until a new one is begun; twice as much is kept.
const LARGEST: u64 = 1 << 20;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To what.
    pub kind: EventKind,
    /// What: Docker's words.
    pub action: String,
    /// Identifier of what it happened to; a volume's name.
    pub id: String,
    /// Name, labels and more.
    pub attributes: BTreeMap<String, String>,
}

/// What things happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl EventKind {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// Where events are kept.
#[derive(Clone, Debug)]
pub struct EventLog {
    path: PathBuf,
    before: PathBuf,
}

impl EventLog {
    /// That of the store at `root`.
    pub fn of_store(root: &Path) -> Self {
        Self { path: root.join("events.log"), before: root.join("events.1.log") }
    }

    /// Notes events.
    pub fn tell(&self, events: &[Event]) {
        if !events.is_empty()
            && let Err(error) = self.append(events)
        {
            tracing::warn!(%error, "what happened is not recorded");
        }
    }

    fn append(&self, events: &[Event]) -> io::Result<()> {
        let mut lines = Vec::new();
        for event in events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(&lines)?;
        if file.metadata()?.len() > LARGEST { self.begin_anew(&file) } else { Ok(()) }
    }

    /// Only one does so; what others append meanwhile goes to the end of the old one.
    fn begin_anew(&self, file: &File) -> io::Result<()> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let own = file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) if there.ino() == own.ino() => fs::rename(&self.path, &self.before),
            _ => Ok(()),
        }
    }

    /// All that is known, then what comes.
    pub fn read(&self) -> EventReader {
        EventReader::new(&self.path, &self.before)
    }

    /// What comes from now on.
    pub fn read_new(&self) -> io::Result<EventReader> {
        EventReader::at_end(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: i64) -> Event {
        Event {
            time: Timestamp::from_second(number).unwrap(),
            kind: EventKind::Volume,
            action: "create".into(),
            id: format!("v{number}"),
            attributes: BTreeMap::from([("driver".to_owned(), "x".repeat(500))]),
        }
    }

    #[test]
    fn the_record_is_bounded_and_read_across_its_files() {
        let home = tempfile::tempdir().unwrap();
        let log = EventLog::of_store(home.path());
        let mut follower = log.read_new().unwrap();
        for number in 0..10_000 {
            log.tell(&[event(number)]);
            if number % 500 == 0 {
                assert!(!follower.next_events().unwrap().is_empty(), "{number}");
            }
        }
        let kept = log.read().next_events().unwrap();
        assert_eq!(kept.last().unwrap().id, "v9999");
        let seconds: Vec<i64> = kept.iter().map(|event| event.time.as_second()).collect();
        assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "in order, without gaps");
        let size: u64 = fs::read_dir(home.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 3 * LARGEST && seconds.len() > 1000, "{size}");
    }

    #[test]
    fn a_half_written_line_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let log = EventLog::of_store(home.path());
        log.tell(&[event(1)]);
        OpenOptions::new()
            .append(true)
            .open(home.path().join("events.log"))
            .unwrap()
            .write_all(b"{\"time\":\n")
            .unwrap();
        log.tell(&[event(2)]);
        let ids: Vec<String> = log.read().next_events().unwrap().into_iter().map(|event| event.id).collect();
        assert_eq!(ids, ["v1", "v2"]);
    }
}
