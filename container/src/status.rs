//! The states of a container and the one function that changes them.
//!
//! The names are Docker's, as `ps` and `inspect` print them. What a command may do in a state is asked through the
//! `can_*` questions; nobody compares states elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerStatus {
    /// It exists and has never run.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process ended and its restart policy will start it again.
    Restarting,
    /// Its files are being removed.
    Removing,
    /// Its process ended.
    Exited,
    /// Its removal failed half-way; only another removal is possible.
    Dead,
}

/// Something that happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its process was started.
    Start,
    /// Its process ended, or was found to have ended.
    Exit,
    /// Its processes were frozen.
    Pause,
    /// Its processes go on.
    Unpause,
    /// Its process ended and is to be started again.
    AwaitRestart,
    /// Its removal begins.
    BeginRemoval,
    /// Its removal could not be completed.
    FailRemoval,
}

/// A change that does not fit the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {status} cannot {change}")]
pub struct InvalidChange {
    /// The state it is in.
    pub status: ContainerStatus,
    /// What was to happen.
    pub change: Change,
}

impl ContainerStatus {
    /// The state after `change`, or why that cannot happen. The only place where states follow each other.
    pub fn after(self, change: Change) -> Result<Self, InvalidChange> {
        use Change as C;
        match (self, change) {
            (Self::Created | Self::Exited | Self::Restarting, C::Start) | (Self::Paused, C::Unpause) => {
                Ok(Self::Running)
            }
            (Self::Running | Self::Paused | Self::Restarting, C::Exit) => Ok(Self::Exited),
            (Self::Running, C::Pause) => Ok(Self::Paused),
            (Self::Running | Self::Paused, C::AwaitRestart) => Ok(Self::Restarting),
            (Self::Created | Self::Exited | Self::Dead | Self::Removing, C::BeginRemoval) => Ok(Self::Removing),
            (Self::Removing, C::FailRemoval) => Ok(Self::Dead),
            (status, change) => Err(InvalidChange { status, change }),
        }
    }

    /// Whether there are processes: running, or frozen.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether `ps` leaves it out unless it is asked for all.
    pub fn is_at_rest(self) -> bool {
        !matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Whether `start` may start it.
    pub fn can_start(self) -> bool {
        self.after(Change::Start).is_ok()
    }

    /// Whether `stop` has something to end.
    pub fn can_stop(self) -> bool {
        self.after(Change::Exit).is_ok()
    }

    /// Whether it may be sent a signal.
    pub fn can_signal(self) -> bool {
        self.is_live()
    }

    /// Whether `rm` may remove it without stopping it first.
    pub fn can_remove(self) -> bool {
        self.after(Change::BeginRemoval).is_ok()
    }

    /// The name as `ps` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for ContainerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "be started",
            Self::Exit => "end",
            Self::Pause => "be paused",
            Self::Unpause => "be unpaused",
            Self::AwaitRestart => "wait for a restart",
            Self::BeginRemoval => "be removed",
            Self::FailRemoval => "fail to be removed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::*;
    use ContainerStatus as S;

    const ALL: [S; 7] = [S::Created, S::Running, S::Paused, S::Restarting, S::Removing, S::Exited, S::Dead];
    const CHANGES: [Change; 7] = [Start, Exit, Pause, Unpause, AwaitRestart, BeginRemoval, FailRemoval];

    #[test]
    fn every_pair_of_state_and_change_is_decided() {
        let mut table = String::new();
        for status in ALL {
            for change in CHANGES {
                if let Ok(next) = status.after(change) {
                    table.push_str(&format!("{status} + {change:?} = {next}\n"));
                }
            }
        }
        insta::assert_snapshot!(table, @r"
        created + Start = running
        created + BeginRemoval = removing
        running + Exit = exited
        running + Pause = paused
        running + AwaitRestart = restarting
        paused + Exit = exited
        paused + Unpause = running
        paused + AwaitRestart = restarting
        restarting + Start = running
        restarting + Exit = exited
        removing + BeginRemoval = removing
        removing + FailRemoval = dead
        exited + Start = running
        exited + BeginRemoval = removing
        dead + BeginRemoval = removing
        ");
    }

    #[test]
    fn a_running_container_is_stopped_before_it_is_removed() {
        assert!(!S::Running.can_remove() && S::Running.can_stop() && S::Running.can_signal());
        assert!(S::Exited.can_remove() && S::Exited.can_start() && !S::Exited.can_signal());
        assert!(!S::Dead.can_start() && S::Dead.can_remove());
        assert_eq!(
            S::Running.after(BeginRemoval).unwrap_err().to_string(),
            "a container that is running cannot be removed"
        );
    }
}
