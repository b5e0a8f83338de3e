//! Whether a container works, by Docker's rules: what its check is, and what the results of checks make of it.
//!
//! Pure: checks are run elsewhere, and the times come along. The state is Docker's own document, so that `inspect` shows it as it
//! is kept; it belongs to the container's present run and is written to `health.json` in its directory, which needs to survive
//! no power cut.

use std::time::Duration;

use jiff::Timestamp;
use rbuild_image::Healthcheck;
use serde::{Deserialize, Serialize};

/// `--health-*` and `--no-healthcheck`, as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HealthRequest {
    /// The image's.
    #[default]
    Inherited,
    /// None.
    Disabled,
    /// These settings; what is empty or 0 is the image's.
    Given(Healthcheck),
}

/// A check that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHealthcheck {
    /// A time that no clock measures.
    #[error("{field} in Healthcheck cannot be less than 1ms")]
    TooShort {
        /// Which.
        field: &'static str,
    },
    /// Fewer than none.
    #[error("{field} in Healthcheck cannot be negative")]
    Negative {
        /// Which.
        field: &'static str,
    },
}

/// The settings of the image with those that were asked for.
pub(crate) fn merge(
    image: Option<&Healthcheck>,
    request: &HealthRequest,
) -> Result<Option<Healthcheck>, InvalidHealthcheck> {
    let merged = match request {
        HealthRequest::Inherited => image.cloned(),
        HealthRequest::Disabled => Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }),
        HealthRequest::Given(given) => {
            let base = image.cloned().unwrap_or_default();
            let or = |given: i64, base: i64| if given == 0 { base } else { given };
            Some(Healthcheck {
                test: if given.test.is_empty() { base.test } else { given.test.clone() },
                interval: or(given.interval, base.interval),
                timeout: or(given.timeout, base.timeout),
                start_period: or(given.start_period, base.start_period),
                start_interval: or(given.start_interval, base.start_interval),
                retries: or(given.retries, base.retries),
            })
        }
    };
    if let Some(check) = &merged {
        const MILLISECOND: i64 = 1_000_000;
        for (field, value) in [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
        ] {
            if value != 0 && value < MILLISECOND {
                return Err(InvalidHealthcheck::TooShort { field });
            }
        }
        if check.retries < 0 {
            return Err(InvalidHealthcheck::Negative { field: "Retries" });
        }
    }
    Ok(merged)
}

/// A check that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// What is executed.
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    /// How many failures in a row make the container unhealthy.
    pub(crate) retries: u32,
}

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

impl Probe {
    /// The check that these settings ask for; `None` when there is nothing to run. `shell` is what a line of text is given to,
    /// unless it is empty.
    pub(crate) fn of(check: Option<&Healthcheck>, shell: &[String]) -> Option<Self> {
        let check = check?;
        let (kind, words) = check.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" if shell.is_empty() => {
                ["/bin/sh", "-c"].into_iter().map(str::to_owned).chain(words.to_vec()).collect()
            }
            "CMD-SHELL" => shell.iter().chain(words).cloned().collect(),
            "NONE" => return None,
            other => {
                tracing::warn!(kind = other, "a health check of an unknown kind is not run");
                return None;
            }
        };
        if words.is_empty() {
            return None;
        }
        let or = |value: i64, default| match u64::try_from(value) {
            Ok(nanoseconds) if nanoseconds > 0 => Duration::from_nanos(nanoseconds),
            _ => default,
        };
        Some(Self {
            command,
            interval: or(check.interval, INTERVAL),
            timeout: or(check.timeout, TIMEOUT),
            start_period: or(check.start_period, Duration::ZERO),
            start_interval: or(check.start_interval, START_INTERVAL),
            retries: u32::try_from(check.retries).ok().filter(|retries| *retries > 0).unwrap_or(RETRIES),
        })
    }

    /// How long to wait for the next check.
    pub(crate) fn pause(&self, health: &Health, since_start: Duration) -> Duration {
        let starting = health.status == HealthStatus::Starting && since_start < self.start_period;
        if starting { self.start_interval } else { self.interval }
    }

    /// Whether a failure of a check that began so long after the start counts.
    fn counts(&self, health: &Health, since_start: Duration) -> bool {
        health.status != HealthStatus::Starting || since_start >= self.start_period
    }
}

/// Whether a container works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has said so yet, nor the opposite.
    #[default]
    Starting,
    /// The last check said so.
    Healthy,
    /// Too many checks said the opposite, or nobody checks any more.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of a container's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// The answer.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last checks, the newest at the end.
    pub log: Vec<HealthResult>,
}

/// One check that was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 says that the container works; -1 that the check could not be run, or not to its end.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
    /// Names its process in events.
    #[serde(rename = "ExecID", default)]
    pub exec: String,
}

/// How many results are kept.
const KEPT: usize = 5;
/// How much of a check's output is kept, in bytes.
pub(crate) const MAX_OUTPUT: usize = 4096;

impl Health {
    /// At the start of the container's process; earlier results stay to be seen.
    pub(crate) fn restarted(self) -> Self {
        Self { status: HealthStatus::Starting, failing_streak: 0, ..self }
    }

    /// A check was run; `since_start` is how long after the container's start it began.
    pub(crate) fn record(&mut self, result: HealthResult, probe: &Probe, since_start: Duration) {
        if result.exit_code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if probe.counts(self, since_start) {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= probe.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push(result);
        let surplus = self.log.len().saturating_sub(KEPT);
        self.log.drain(..surplus);
    }
}

/// What a check wrote, cut as Docker cuts it.
pub(crate) fn output_text(bytes: &[u8], truncated: bool) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if truncated {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: &[&str]) -> Healthcheck {
        Healthcheck { test: test.iter().map(|word| (*word).to_owned()).collect(), ..Healthcheck::default() }
    }

    fn probe(change: impl FnOnce(&mut Healthcheck)) -> Probe {
        let mut check = check(&["CMD", "true"]);
        change(&mut check);
        Probe::of(Some(&check), &[]).unwrap()
    }

    #[test]
    fn commands_are_words_or_a_line_for_the_shell() {
        let command = |test: &[&str], shell: &[&str]| {
            let shell: Vec<String> = shell.iter().map(|word| (*word).to_owned()).collect();
            Probe::of(Some(&check(test)), &shell).map(|probe| probe.command.join("|"))
        };
        for (test, shell, want) in [
            (&["CMD", "a", "b c"][..], &[][..], Some("a|b c")),
            (&["CMD-SHELL", "a b"], &[], Some("/bin/sh|-c|a b")),
            (&["CMD-SHELL", "a b"], &["bash", "-ec"], Some("bash|-ec|a b")),
            (&["NONE"], &[], None),
            (&["CMD"], &[], None),
            (&["CMD-SHELL"], &[], None),
            (&["ODD", "x"], &[], None),
            (&[], &[], None),
        ] {
            assert_eq!(command(test, shell).as_deref(), want, "{test:?}");
        }
        assert_eq!(Probe::of(None, &[]), None);
    }

    #[test]
    fn settings_come_from_the_flags_then_from_the_image() {
        let image = Healthcheck { interval: 7_000_000_000, retries: 2, ..check(&["CMD", "image"]) };
        let given = Healthcheck { retries: 9, ..Healthcheck::default() };
        let merged = merge(Some(&image), &HealthRequest::Given(given)).unwrap().unwrap();
        assert_eq!((merged.test[1].as_str(), merged.interval, merged.retries), ("image", 7_000_000_000, 9));
        let merged = merge(Some(&image), &HealthRequest::Given(check(&["CMD-SHELL", "mine"]))).unwrap().unwrap();
        assert_eq!((merged.test[1].as_str(), merged.retries), ("mine", 2));
        assert_eq!(merge(Some(&image), &HealthRequest::Inherited).unwrap(), Some(image.clone()));
        assert_eq!(merge(Some(&image), &HealthRequest::Disabled).unwrap(), Some(check(&["NONE"])));
        assert_eq!(merge(None, &HealthRequest::Inherited).unwrap(), None);
        let short = Healthcheck { timeout: 5, ..Healthcheck::default() };
        let error = merge(Some(&image), &HealthRequest::Given(short)).unwrap_err();
        assert_eq!(error.to_string(), "Timeout in Healthcheck cannot be less than 1ms");
        let fewer = Healthcheck { retries: -1, ..Healthcheck::default() };
        let error = merge(Some(&image), &HealthRequest::Given(fewer)).unwrap_err();
        assert_eq!(error.to_string(), "Retries in Healthcheck cannot be negative");
    }

    #[test]
    fn results_make_it_healthy_and_enough_failures_unhealthy() {
        let probe = probe(|check| (check.retries, check.start_period) = (2, 10_000_000_000));
        let at = Timestamp::UNIX_EPOCH;
        let result =
            |exit_code| HealthResult { start: at, end: at, exit_code, output: String::new(), exec: String::new() };
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(10));
        let mut health = Health::default();
        let mut seen = Vec::new();
        // In the start period failures do not count, until a success; after it they do.
        for (code, when) in [
            (1, early),
            (1, early),
            (1, late),
            (0, late),
            (1, late),
            (-1, late),
            (2, late),
            (0, early),
            (1, early),
            (1, early),
        ] {
            health.record(result(code), &probe, when);
            seen.push(format!("{} {}", health.status.name(), health.failing_streak));
        }
        assert_eq!(
            seen,
            [
                "starting 0",
                "starting 0",
                "starting 1",
                "healthy 0",
                "healthy 1",
                "unhealthy 2",
                "unhealthy 3",
                "healthy 0",
                "healthy 1",
                "unhealthy 2"
            ]
        );
        assert_eq!(health.log.iter().map(|result| result.exit_code).collect::<Vec<_>>(), [-1, 2, 0, 1, 1]);
        let again = health.restarted();
        assert_eq!((again.status, again.failing_streak, again.log.len()), (HealthStatus::Starting, 0, 5));
    }

    #[test]
    fn checks_come_more_often_while_the_container_starts() {
        let probe = probe(|check| {
            (check.interval, check.start_period, check.start_interval) = (9_000_000_000, 4_000_000_000, 1_000_000);
        });
        let mut health = Health::default();
        assert_eq!(probe.pause(&health, Duration::from_secs(3)), Duration::from_millis(1));
        assert_eq!(probe.pause(&health, Duration::from_secs(4)), Duration::from_secs(9));
        health.status = HealthStatus::Healthy;
        assert_eq!(probe.pause(&health, Duration::from_secs(3)), Duration::from_secs(9));
    }

    #[test]
    fn the_document_is_dockers() {
        let at = Timestamp::from_second(1).unwrap();
        let log = vec![HealthResult { start: at, end: at, exit_code: -1, output: "x".into(), exec: "id".into() }];
        let health = Health { status: HealthStatus::Unhealthy, failing_streak: 3, log };
        insta::assert_snapshot!(serde_json::to_string(&health).unwrap(), @r#"{"Status":"unhealthy","FailingStreak":3,"Log":[{"Start":"1970-01-01T00:00:01Z","End":"1970-01-01T00:00:01Z","ExitCode":-1,"Output":"x","ExecID":"id"}]}"#);
        assert_eq!(output_text(b"ab\xff", true), "ab\u{fffd}...");
    }
}
