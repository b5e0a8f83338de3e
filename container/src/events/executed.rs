//! What is told of a command that is executed in a container: when it is made and begun, when it is left, and when it has
//! ended.

use jiff::Timestamp;

use super::{Event, EventLog};
use crate::record::ContainerRecord;

/// A command that was told of.
pub(crate) struct Executed<'a> {
    log: EventLog,
    record: &'a ContainerRecord,
    id: String,
}

impl<'a> Executed<'a> {
    /// Tells that a command is made and begun; one that cannot be started says no more, as in Docker.
    pub(crate) fn begin(log: EventLog, record: &'a ContainerRecord, command: &[String], now: Timestamp) -> Self {
        let id = crate::id::random_hex();
        log.tell(&begun(record, &id, command, now));
        Self { log, record, id }
    }

    /// Tells that who began it with a terminal has left it running.
    pub(crate) fn detach(&self, now: Timestamp) {
        self.log.tell(&[self.record.event("exec_detach", now, &[("execID", &self.id)])]);
    }

    /// Tells that it has ended.
    pub(crate) fn end(self, code: u8, now: Timestamp) {
        self.log.tell(&[ended(self.record, &self.id, &code.to_string(), now)]);
    }
}

/// The program and, behind a space that is always there, its arguments.
pub(super) fn begun(record: &ContainerRecord, id: &str, command: &[String], now: Timestamp) -> [Event; 2] {
    let (program, arguments) = command.split_first().map_or(("", [].as_slice()), |(first, rest)| (first, rest));
    let command = format!("{program} {}", arguments.join(" "));
    ["exec_create", "exec_start"].map(|action| record.event(&format!("{action}: {command}"), now, &[("execID", id)]))
}

pub(super) fn ended(record: &ContainerRecord, id: &str, code: &str, now: Timestamp) -> Event {
    record.event("exec_die", now, &[("execID", id), ("exitCode", code)])
}
