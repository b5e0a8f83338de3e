//! Errors of the machine as failures of a vertex.

use std::error::Error;

use rbuild_solver::{Control, JobError, VertexFailure};

use crate::cli::report::{Failure, append_causes};
use crate::failure_help;

/// A failure that may still get a hint.
pub(super) fn failed(message: impl Into<String>) -> Hinted {
    Hinted { message: message.into() }
}

/// See [`failed`].
#[derive(Debug)]
pub(super) struct Hinted {
    message: String,
}

impl Hinted {
    /// Says what to do about it.
    pub(super) fn help(self, help: &str) -> JobError {
        JobError::Failed(VertexFailure { message: self.message, help: Some(help.to_owned()), exit_code: None })
    }
}

impl From<Hinted> for JobError {
    fn from(hinted: Hinted) -> Self {
        Self::Failed(VertexFailure { message: hinted.message, help: None, exit_code: None })
    }
}

/// Turns errors into failures of a vertex.
pub(super) trait FailJob<T> {
    /// Says what could not be done; the error and its causes follow.
    fn or_fail(self, doing: &str) -> Result<T, JobError>;
}

impl<T, E: Error + 'static> FailJob<T> for Result<T, E> {
    fn or_fail(self, doing: &str) -> Result<T, JobError> {
        self.map_err(|error| of_error(doing, &error))
    }
}

/// An error as a failure, with what its type says to do.
pub(super) fn of_error(doing: &str, error: &(dyn Error + 'static)) -> JobError {
    let failed = failed(chain(doing, error));
    match failure_help::of_error(error) {
        Some(help) => failed.help(&help),
        None => failed.into(),
    }
}

/// A sentence, then an error and its causes, each once.
pub(super) fn chain(doing: &str, error: &dyn Error) -> String {
    let mut message = if doing.is_empty() { error.to_string() } else { format!("{doing}: {error}") };
    append_causes(&mut message, error);
    message
}

/// A failure of another part of rbuild as one of a vertex.
pub(super) fn of_failure(failure: &Failure, control: Control<'_>) -> JobError {
    if control.cancel.is_cancelled() {
        return JobError::Cancelled;
    }
    JobError::Failed(VertexFailure {
        message: failure.message().to_owned(),
        help: failure.help().map(str::to_owned),
        exit_code: None,
    })
}
