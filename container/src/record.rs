//! What is persisted about a container: one JSON document in its directory.
//!
//! ```text
//! containers/ID/container.json   this record, replaced whole: temporary name, sync, rename, sync of the directory
//!               hosts hostname resolv.conf   files of the container's own below /etc
//!               health.json      what its health checks said (crate::health)
//!               ID-json.log      what it wrote (crate::logs)
//!               monitor.sock     where the process that runs it is reached (crate::monitor)
//!               changes/         what it changed in its image, unless that is in its process's scratch directory
//! containers/names/NAME -> ID    which container has a name; a link to nowhere is a name that is free
//! ```
//!
//! The record says what was true when it was written. Whether a container that it calls running still has a process is
//! known from the container's lock alone (R-13): see [`crate::Containers::load`].
//!
//! Format 1. A reader refuses formats it does not know; within a format fields are only ever added, with defaults.

use std::path::PathBuf;

use jiff::Timestamp;
use rbuild_cache::SnapshotId;
use rbuild_image::Digest;
use serde::{Deserialize, Serialize};

use crate::config::ContainerConfig;
use crate::containers::AnonymousVolumes;
use crate::exit::ContainerExit;
use crate::health::Health;
use crate::id::ContainerId;
use crate::name::ContainerName;
use crate::network::NetworkState;
use crate::process_id::ProcessId;
use crate::status::{Change, ContainerStatus, InvalidChange};

/// The version of the record that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// Everything about one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Version of this document.
    pub(crate) format: u32,
    /// Its identifier.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// When it was created.
    pub created: Timestamp,
    /// The image it was made from.
    pub image: ImageOrigin,
    /// The image's files; `None` is the empty tree.
    pub snapshot: Option<SnapshotId>,
    /// What it is.
    pub config: ContainerConfig,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Whether it works, where something checks that; kept apart, since it means nothing once the container has ended.
    #[serde(skip)]
    pub health: Option<Health>,
}

/// The image a container was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOrigin {
    /// As the user named it.
    pub name: String,
    /// Its identifier, the digest of its configuration.
    pub id: Digest,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// The state.
    pub status: ContainerStatus,
    /// Its first process while it is live.
    pub process: Option<ProcessId>,
    /// How its last process ended, or why it did not start.
    pub exit: Option<ContainerExit>,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// When its last process ended.
    pub finished: Option<Timestamp>,
    /// What it is connected to while it is live.
    #[serde(default)]
    pub network: NetworkState,
    /// Why it could not be started, in words.
    #[serde(default)]
    pub error: Option<String>,
    /// How often its policy has started it again since somebody did.
    #[serde(default)]
    pub restarts: u32,
    /// What somebody wants to become of it, whatever its policy says.
    #[serde(default)]
    pub wanted: Option<Wanted>,
    /// What becomes of its anonymous volumes, once its removal has begun.
    #[serde(default)]
    pub(crate) removal: Option<AnonymousVolumes>,
}

/// What somebody wants to become of a container whose process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It was stopped or killed: it is not started again, not even with the machine if its policy says so.
    Stopped,
    /// It is started again at once (`restart`).
    Restarted,
    /// It was stopped because the machine goes down: it is started with it again, if its policy says so.
    StoppedForNow,
}

impl ContainerState {
    /// The state of a new container.
    pub(crate) fn created() -> Self {
        Self {
            status: ContainerStatus::Created,
            process: None,
            exit: None,
            started: None,
            finished: None,
            network: NetworkState::default(),
            error: None,
            restarts: 0,
            wanted: None,
            removal: None,
        }
    }

    /// Its process runs.
    pub(crate) fn start(&mut self, process: ProcessId, now: Timestamp) -> Result<(), InvalidChange> {
        self.status = self.status.after(Change::Start)?;
        *self = Self { process: Some(process), exit: None, started: Some(now), error: None, ..self.clone() };
        Ok(())
    }

    /// Its process ended.
    pub(crate) fn end(&mut self, exit: ContainerExit, now: Timestamp) -> Result<(), InvalidChange> {
        let waits = self.status == ContainerStatus::Restarting;
        self.status = self.status.after(Change::Exit)?;
        // One that waited for its restart had ended before.
        let finished = if waits { self.finished } else { Some(now) };
        *self = Self { process: None, exit: Some(exit), finished, network: NetworkState::default(), ..self.clone() };
        Ok(())
    }

    /// Its process ended, and it is about to be started again.
    pub(crate) fn await_restart(&mut self, exit: ContainerExit, now: Timestamp) -> Result<(), InvalidChange> {
        self.status = self.status.after(Change::AwaitRestart)?;
        *self = Self {
            process: None,
            exit: Some(exit),
            finished: Some(now),
            network: NetworkState::default(),
            ..self.clone()
        };
        Ok(())
    }

    /// It could not be started; as in Docker it stays in the state it was in, and shows why.
    pub(crate) fn fail_to_start(&mut self, exit: ContainerExit, error: String) {
        self.process = None;
        self.exit = Some(exit);
        self.error = Some(error);
    }

    /// Its removal begins, or is taken up again: volumes that were to go may be half gone, and go.
    pub(crate) fn begin_removal(&mut self, volumes: AnonymousVolumes) -> Result<(), InvalidChange> {
        self.status = self.status.after(Change::BeginRemoval)?;
        if self.removal != Some(AnonymousVolumes::Remove) {
            self.removal = Some(volumes);
        }
        Ok(())
    }

    /// Something that changes nothing but the status.
    pub(crate) fn change(&mut self, change: Change) -> Result<(), InvalidChange> {
        self.status = self.status.after(change)?;
        Ok(())
    }
}

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer rbuild wrote it.
    #[error("{} has format {found}, but this rbuild knows formats up to {FORMAT}: use a newer rbuild", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is no record.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl ContainerRecord {
    /// The document.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a record is plain data with text keys");
        text.push(b'\n');
        text
    }

    /// Reads a document; `path` is for the error alone.
    pub(crate) fn from_json(text: &[u8], path: &std::path::Path) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let damaged = |source| RecordError::Damaged { path: path.to_owned(), source };
        let version: Version = serde_json::from_slice(text).map_err(damaged)?;
        if version.format > FORMAT {
            return Err(RecordError::Newer { path: path.to_owned(), found: version.format });
        }
        serde_json::from_slice(text).map_err(damaged)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::create::{Surroundings, merge};
    use crate::request::RunRequest;
    use rbuild_executor::{ALL_CAPABILITIES, Capabilities};
    use rbuild_image::RuntimeConfig;
    use std::path::Path;

    /// A container of an image that only says `CMD ["true"]`.
    pub(crate) fn sample(name: &str) -> ContainerRecord {
        let id = ContainerId::random();
        let image = RuntimeConfig { cmd: Some(vec!["true".into()]), ..RuntimeConfig::default() };
        let surroundings = Surroundings {
            id: &id,
            bounding_capabilities: Capabilities::from_names(ALL_CAPABILITIES).unwrap(),
            volume_name: &mut crate::volume::VolumeName::random,
        };
        ContainerRecord {
            format: FORMAT,
            name: name.parse().unwrap(),
            created: Timestamp::UNIX_EPOCH,
            image: ImageOrigin { name: "busybox".into(), id: Digest::sha256("config") },
            snapshot: Some(SnapshotId::from_row(7)),
            config: merge(&image, &RunRequest::default(), surroundings).unwrap(),
            state: ContainerState::created(),
            health: None,
            id,
        }
    }

    #[test]
    fn a_record_reads_back() {
        let mut record = sample("web");
        let again = |record: &ContainerRecord| ContainerRecord::from_json(&record.to_json(), Path::new("x")).unwrap();
        assert_eq!(again(&record), record);
        let process = ProcessId { pid: 42, started: 99 };
        record.state.start(process, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(again(&record), record);
        record.state.end(ContainerExit::Code(3), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(again(&record), record);
        assert_eq!(record.state.process, None);
    }

    #[test]
    fn states_change_only_as_they_may() {
        let mut state = ContainerState::created();
        assert!(state.end(ContainerExit::Code(0), Timestamp::UNIX_EPOCH).is_err());
        state.fail_to_start(ContainerExit::NotFound, "no such program".into());
        assert_eq!((state.status, state.exit.as_ref().map(ContainerExit::code)), (ContainerStatus::Created, Some(127)));
        state.start(ProcessId { pid: 1, started: 1 }, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(state.exit, None, "a start forgets how the last process ended");
        assert!(state.start(ProcessId { pid: 1, started: 1 }, Timestamp::UNIX_EPOCH).is_err());
        assert!(state.change(Change::BeginRemoval).is_err());
    }

    #[test]
    fn other_formats_and_damage_are_told_apart() {
        let path = Path::new("/s/container.json");
        let error = ContainerRecord::from_json(br#"{"format":2,"shape":"unknown"}"#, path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/s/container.json has format 2, but this rbuild knows formats up to 1: use a newer rbuild"
        );
        for bad in ["", "{}", "{\"format\":1}", "[]", "\0\0\0"] {
            let error = ContainerRecord::from_json(bad.as_bytes(), path).unwrap_err();
            assert_eq!(error.to_string(), "/s/container.json is damaged", "{bad:?}");
        }
        let newer_field = String::from_utf8(sample("web").to_json()).unwrap().replacen('{', "{\"new\":1,", 1);
        assert!(ContainerRecord::from_json(newer_field.as_bytes(), path).is_ok(), "added fields are skipped");
    }
}
