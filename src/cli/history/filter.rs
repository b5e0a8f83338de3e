//! `--filter` of `rbuild history ls`: buildx's keys and comparisons.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rbuild_cache::BuildStatus;

use crate::build_record::BuildInfo;
use crate::cli::report::Failure;
use crate::cli::time::parse_duration;

/// A condition.
#[derive(Debug)]
pub(super) enum Filter {
    Ref(bool, String),
    Repository(bool, String),
    Status(bool, BuildStatus),
    Started(Compare, Timestamp),
    Completed(Compare, Timestamp),
    Duration(Compare, Duration),
}

/// An ordering that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Operators, the longer ones first.
const OPERATORS: [&str; 6] = ["!=", "<=", ">=", "=", "<", ">"];

impl Filter {
    /// Parses `KEY OPERATOR VALUE`; times may be given as ages, seen from `now`.
    pub(super) fn parse(text: &str, now: Timestamp) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::usage(format!("--filter {text:?}: {why}"), "e.g. --filter status=error");
        let at = text.find(['!', '<', '>', '=']).ok_or_else(|| wrong("not KEY=VALUE"))?;
        let (key, rest) = text.split_at(at);
        let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
        let operator = operator.ok_or_else(|| wrong("not KEY=VALUE"))?;
        let value = &rest[operator.len()..];
        let equal = || match operator {
            "=" => Ok(true),
            "!=" => Ok(false),
            _ => Err(wrong("this key is compared with = or !=")),
        };
        let compare = || match operator {
            "<" => Ok(Compare::Less),
            "<=" => Ok(Compare::LessOrEqual),
            ">" => Ok(Compare::Greater),
            ">=" => Ok(Compare::GreaterOrEqual),
            _ => Err(wrong("this key is compared with <, <=, > or >=")),
        };
        let time = || {
            let age = parse_duration(value).and_then(|age| SignedDuration::try_from(age).ok());
            let since = age.and_then(|age| now.checked_sub(age).ok());
            since.or_else(|| value.parse().ok()).ok_or_else(|| wrong("neither an age (24h) nor a time (RFC 3339)"))
        };
        Ok(match key {
            "ref" => Self::Ref(equal()?, value.to_owned()),
            "repository" => Self::Repository(equal()?, value.to_owned()),
            "status" => {
                let status = match value {
                    "running" => BuildStatus::Running,
                    "completed" => BuildStatus::Succeeded,
                    "error" => BuildStatus::Failed,
                    "canceled" | "cancelled" => BuildStatus::Cancelled,
                    "aborted" => BuildStatus::Aborted,
                    _ => return Err(wrong("a status is running, completed, error, canceled or aborted")),
                };
                Self::Status(equal()?, status)
            }
            "startedAt" => Self::Started(compare()?, time()?),
            "completedAt" => Self::Completed(compare()?, time()?),
            "duration" => {
                Self::Duration(compare()?, parse_duration(value).ok_or_else(|| wrong("not a duration such as 90s"))?)
            }
            _ => return Err(wrong("keys are ref, repository, status, startedAt, completedAt and duration")),
        })
    }

    /// Whether a build meets the condition.
    pub(super) fn takes(&self, build: &BuildInfo, now: Timestamp) -> bool {
        let named = |equal: bool, found: &str, wanted: &str| match equal {
            true => found.contains(wanted),
            false => found != wanted,
        };
        match self {
            Self::Ref(equal, wanted) => named(*equal, build.id.as_str(), wanted),
            Self::Repository(equal, wanted) => {
                let remote = build.inputs.context.contains("://").then_some(build.inputs.context.as_str());
                named(*equal, build.inputs.vcs_source.as_deref().or(remote).unwrap_or_default(), wanted)
            }
            Self::Status(equal, wanted) => (build.status == *wanted) == *equal,
            Self::Started(compare, time) => compare.holds(&build.started, time),
            Self::Completed(compare, time) => build.finished.is_some_and(|finished| compare.holds(&finished, time)),
            Self::Duration(compare, time) => build.duration(now).is_some_and(|took| compare.holds(&took, time)),
        }
    }
}

impl Compare {
    fn holds<T: Ord>(self, found: &T, wanted: &T) -> bool {
        match self {
            Self::Less => found < wanted,
            Self::LessOrEqual => found <= wanted,
            Self::Greater => found > wanted,
            Self::GreaterOrEqual => found >= wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_record::BuildInputs;

    fn build() -> BuildInfo {
        BuildInfo {
            id: "0123456789abcdef0123".parse().unwrap(),
            status: BuildStatus::Failed,
            started: Timestamp::from_second(1000).unwrap(),
            finished: Some(Timestamp::from_second(1090).unwrap()),
            inputs: BuildInputs { vcs_source: Some("https://x/app.git".to_owned()), ..BuildInputs::default() },
            arguments: Vec::new(),
            image: None,
            error: None,
            steps: 0,
            cached: 0,
            completed: 0,
        }
    }

    #[test]
    fn builds_are_chosen_as_buildx_chooses_them() {
        let now = Timestamp::from_second(4600).unwrap();
        for (filter, takes) in [
            ("status=error", true),
            ("status!=error", false),
            ("status=completed", false),
            ("ref=0123", true),
            ("ref=f", true),
            ("ref=999", false),
            ("repository=app", true),
            ("repository!=https://x/app.git", false),
            ("duration>1m", true),
            ("duration>=1m30s", true),
            ("duration<1.5m", false),
            ("startedAt<30m", true),
            ("startedAt>30m", false),
            ("completedAt>=1970-01-01T00:18:00Z", true),
        ] {
            assert_eq!(Filter::parse(filter, now).unwrap().takes(&build(), now), takes, "{filter}");
        }
        for bad in
            ["status", "status>error", "duration=5s", "duration>x", "colour=red", "status=nice", "startedAt>soon"]
        {
            assert!(Filter::parse(bad, now).is_err(), "{bad}");
        }
    }
}
