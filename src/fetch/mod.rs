//! Files from elsewhere: one file behind a URL, a tree of a git repository. Both become committed snapshots, whether a
//! step adds them or they are the build context.
//!
//! What was fetched is remembered in the store beside the cached steps: a memory leads from a name (a URL, a commit) to
//! a snapshot, with a note about it. It goes with its snapshot, and losing one costs a transfer and nothing else.

mod git;
mod git_command;
mod git_listing;
mod git_name;
mod git_tree;
mod http;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rbuild_cache::{CacheKey, KeyKind, Lease, NewRecord, RecordKey, SnapshotId, Store};
use rbuild_image::Digest;

use crate::cli::report::Failure;
use crate::config::Settings;
use crate::engine::Engine;
use crate::request::{BuildRequest, SecretInput, SecretSource};

pub(crate) use git::{PinnedCommit, checkout, pin};
pub(crate) use http::{Downloaded, download};

/// What fetching needs of its surroundings.
#[derive(Clone, Copy)]
pub(crate) struct Fetching<'a> {
    /// The engine: its settings, its client, its cancellation.
    pub(crate) engine: &'a Engine,
    /// Where the files go.
    pub(crate) store: &'a Store,
    /// Holds them.
    pub(crate) lease: &'a Lease,
    /// `--secret`: credentials for servers are among them, by name.
    pub(crate) secrets: &'a [SecretInput],
    /// `--ssh`, as `(id, socket)`.
    pub(crate) ssh: &'a [(String, PathBuf)],
}

impl<'a> Fetching<'a> {
    /// What a request gives.
    pub(crate) fn of(
        engine: &'a Engine,
        store: &'a Store,
        lease: &'a Lease,
        request: &'a BuildRequest,
        ssh: &'a [(String, PathBuf)],
    ) -> Self {
        Self { engine, store, lease, secrets: &request.secrets, ssh }
    }

    /// The value of a secret as text without line end; `None` when it was not given.
    fn secret(&self, id: &str) -> Result<Option<String>, Failure> {
        let Some(input) = self.secrets.iter().find(|secret| secret.id == id) else { return Ok(None) };
        let value = match &input.source {
            SecretSource::File(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::from_error(&format!("cannot read secret {id}"), &error))?,
            SecretSource::Variable(name) => match Settings::user_variable(name) {
                Some(value) => value.into_string().map_err(|_| Failure::new(format!("secret {id} is not text")))?,
                None => return Ok(None),
            },
        };
        let value = value.trim_end_matches(['\r', '\n']);
        self.engine.mask().learn(value.as_bytes());
        if value.chars().any(char::is_control) {
            return Err(Failure::new(format!("secret {id} has control characters and cannot be sent to a server")));
        }
        Ok(Some(value.to_owned()))
    }

    /// What is remembered under `name`: the snapshot, held by the lease, and the note.
    pub(crate) fn recall(&self, name: &str) -> Option<(SnapshotId, String)> {
        let (key, records) = (memory_key(name), self.store.records());
        let found = records.lookup(&key, self.lease).and_then(|found| Ok((found, records.description(&key)?)));
        match found {
            Ok((Some(record), Some(note))) => Some((record.snapshot?, note)),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "what was fetched before is not known");
                None
            }
        }
    }

    /// Remembers a snapshot under `name`, with a note.
    pub(crate) fn remember(&self, name: &str, subject: &str, snapshot: SnapshotId, note: String, took: Duration) {
        let record = NewRecord {
            keys: vec![RecordKey { key: memory_key(name), kind: KeyKind::Definition, description: note }],
            snapshot: Some(snapshot),
            content_digest: None,
            subject: subject.to_owned(),
            build: None,
            duration: took,
            description: None,
            usage: None,
        };
        if let Err(error) = self.store.records().record(&record) {
            tracing::debug!(%error, "what was fetched is not remembered");
        }
    }

    fn check_cancelled(&self) -> Result<(), Failure> {
        if self.engine.cancel().is_cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
    }
}

/// Memories have keys of their own: no step's key begins like this.
fn memory_key(name: &str) -> CacheKey {
    CacheKey::new(Digest::sha256(format!("rbuild.fetched.v1\n{name}")))
}

/// A failure to write what was fetched.
fn storing(error: &io::Error) -> Failure {
    Failure::from_error("cannot store what was fetched", error)
}
