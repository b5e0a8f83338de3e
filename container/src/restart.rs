//! When a container whose process has ended is started again, and after how long.
//!
//! Docker's policies and its pauses: 100 ms, doubled with each restart up to a minute, from the beginning again once the
//! process has run for ten seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::ContainerExit;

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it failed; at most so many times, where a number is given.
    OnFailure(Option<u32>),
    /// Whenever it ends, unless somebody stopped it; after a restart of the machine also then.
    Always,
    /// Whenever it ends, unless somebody stopped it.
    UnlessStopped,
}

/// Text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRestartPolicy {
    /// An unknown name.
    #[error("invalid restart policy '{text}': it is no, always, unless-stopped or on-failure[:MAX]")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// A number of attempts for a policy that has none.
    #[error("maximum retry count cannot be used with restart policy '{name}'")]
    Count {
        /// The policy.
        name: String,
    },
    /// Not a number.
    #[error("maximum retry count must be a number: {text:?}")]
    NotANumber {
        /// What was given.
        text: String,
    },
}

/// The pause before the first restart.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a process has to run for the pauses to begin anew.
const STABLE: Duration = Duration::from_secs(10);

impl RestartPolicy {
    /// The name without the count, as `inspect` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How many restarts there are at most; 0 where nothing limits them.
    pub fn maximum(self) -> u32 {
        match self {
            Self::OnFailure(Some(maximum)) => maximum,
            _ => 0,
        }
    }

    /// Whether a container that ended like this is started again, after so many restarts.
    pub fn restarts(self, exit: &ContainerExit, restarted: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(maximum) => exit.code() != 0 && maximum.is_none_or(|maximum| restarted < maximum),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Whether a container that was started before comes up with the machine; `stopped` says that somebody had stopped it.
    pub fn starts_with_machine(self, stopped: bool, exit: Option<&ContainerExit>) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(_) => !stopped && exit.is_some_and(|exit| exit.code() != 0),
            Self::Always => true,
            Self::UnlessStopped => !stopped,
        }
    }
}

/// The pauses between restarts.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    last: Option<Duration>,
}

impl BackOff {
    /// The pause before the next start, when the last process ran for so long.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        let next = match self.last {
            Some(last) if ran < STABLE => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some(next);
        next
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnFailure(Some(maximum)) => write!(f, "on-failure:{maximum}"),
            other => f.write_str(other.name()),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = InvalidRestartPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        let policy = match name {
            "no" | "" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => Self::OnFailure(None),
            _ => return Err(InvalidRestartPolicy::Unknown { text: text.to_owned() }),
        };
        match (policy, count) {
            (policy, None) => Ok(policy),
            (Self::OnFailure(_), Some(count)) => {
                let number: u32 =
                    count.parse().map_err(|_| InvalidRestartPolicy::NotANumber { text: count.to_owned() })?;
                Ok(Self::OnFailure(Some(number).filter(|number| *number > 0)))
            }
            (_, Some(_)) => Err(InvalidRestartPolicy::Count { name: name.to_owned() }),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = InvalidRestartPolicy;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_dockers() {
        for (text, want) in [
            ("no", Ok(RestartPolicy::No)),
            ("always", Ok(RestartPolicy::Always)),
            ("unless-stopped", Ok(RestartPolicy::UnlessStopped)),
            ("on-failure", Ok(RestartPolicy::OnFailure(None))),
            ("on-failure:0", Ok(RestartPolicy::OnFailure(None))),
            ("on-failure:3", Ok(RestartPolicy::OnFailure(Some(3)))),
            ("always:3", Err(InvalidRestartPolicy::Count { name: "always".into() })),
            ("on-failure:x", Err(InvalidRestartPolicy::NotANumber { text: "x".into() })),
            ("sometimes", Err(InvalidRestartPolicy::Unknown { text: "sometimes".into() })),
        ] {
            assert_eq!(text.parse(), want, "{text}");
        }
        assert_eq!(RestartPolicy::OnFailure(Some(3)).to_string(), "on-failure:3");
    }

    #[test]
    fn who_is_started_again() {
        let (good, bad) = (ContainerExit::Code(0), ContainerExit::Code(1));
        for (policy, exit, restarted, want) in [
            (RestartPolicy::No, &bad, 0, false),
            (RestartPolicy::Always, &good, 100, true),
            (RestartPolicy::UnlessStopped, &good, 0, true),
            (RestartPolicy::OnFailure(None), &good, 0, false),
            (RestartPolicy::OnFailure(None), &bad, 1000, true),
            (RestartPolicy::OnFailure(Some(2)), &bad, 1, true),
            (RestartPolicy::OnFailure(Some(2)), &bad, 2, false),
        ] {
            assert_eq!(policy.restarts(exit, restarted), want, "{policy} {exit:?} {restarted}");
        }
        assert!(RestartPolicy::Always.starts_with_machine(true, None));
        assert!(!RestartPolicy::UnlessStopped.starts_with_machine(true, None));
    }

    #[test]
    fn pauses_double_and_begin_anew() {
        let mut pauses = BackOff::default();
        let quick = Duration::from_millis(5);
        let got: Vec<u128> = (0..11).map(|_| pauses.after(quick).as_millis()).collect();
        assert_eq!(got, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000]);
        assert_eq!(pauses.after(Duration::from_secs(11)).as_millis(), 100);
    }
}
