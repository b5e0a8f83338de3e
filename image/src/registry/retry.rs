//! When to try again: exponential back-off with jitter, `Retry-After`, and a budget that only progress refills.

use std::time::{Duration, Instant};

use super::cancel::{self, Cancelled};

/// How often and how long to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts without progress.
    pub attempts: u32,
    /// The first pause; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// The longest `Retry-After` that is obeyed; a longer one ends in an error that says so.
    pub longest_retry_after: Duration,
    /// Time without progress, pauses that the server asked for not counted.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            longest_retry_after: Duration::from_secs(60),
            patience: Duration::from_secs(60),
        }
    }
}

/// What a failure says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It will fail in the same way.
    Never,
    /// After a pause of our choice.
    Pause,
    /// After the pause that the server named.
    After(Duration),
}

/// Whether the caller may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The pause is over: try again.
    Retry,
    /// The budget is spent or the failure is final.
    GiveUp,
    /// The server asked for a longer pause than we grant.
    TooLong(Duration),
}

/// The state of one piece of work that is tried several times.
#[derive(Debug)]
pub(super) struct Retry {
    policy: RetryPolicy,
    fruitless: u32,
    total: u32,
    patience_from: Instant,
}

impl Retry {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self { policy, fruitless: 0, total: 0, patience_from: Instant::now() }
    }

    /// Counts the beginning of an attempt.
    pub(super) fn begin(&mut self) {
        self.total += 1;
        self.fruitless += 1;
    }

    /// How many attempts were begun.
    pub(super) fn attempts(&self) -> u32 {
        self.total
    }

    /// Something lasting was reached: the budget is full again.
    pub(super) fn progressed(&mut self) {
        self.fruitless = 0;
        self.patience_from = Instant::now();
    }

    /// Bytes have moved, but it is not known to what end: the waiting begins anew, the attempts are still counted.
    pub(super) fn moved(&mut self) {
        self.patience_from = Instant::now();
    }

    /// Pauses before the next attempt, or says that there is none.
    pub(super) fn failed(&mut self, again: Again) -> Result<Verdict, Cancelled> {
        let pause = match again {
            Again::Never => return Ok(Verdict::GiveUp),
            Again::After(asked) if asked > self.policy.longest_retry_after => return Ok(Verdict::TooLong(asked)),
            _ if self.fruitless >= self.policy.attempts => return Ok(Verdict::GiveUp),
            _ if self.patience_from.elapsed() >= self.policy.patience => return Ok(Verdict::GiveUp),
            Again::After(asked) => {
                self.patience_from += asked;
                asked
            }
            Again::Pause => jittered(self.pause(), jitter()),
        };
        cancel::sleep(pause)?;
        Ok(Verdict::Retry)
    }

    fn pause(&self) -> Duration {
        let doublings = self.fruitless.saturating_sub(1).min(16);
        self.policy.first_pause.saturating_mul(1 << doublings).min(self.policy.longest_pause)
    }
}

/// Spreads a pause over 75 % to 125 % of itself, so that many clients do not come back at once.
fn jittered(pause: Duration, random: u32) -> Duration {
    pause.mul_f64(0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

fn jitter() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds, or a date relative to the answer's own `Date`.
pub(super) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = http_date(value)?;
    let now = date.and_then(http_date).unwrap_or_else(jiff::Timestamp::now);
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn http_date(text: &str) -> Option<jiff::Timestamp> {
    let text = text.trim().strip_suffix("GMT")?;
    let civil = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S ", text).ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r30_pauses_double_up_to_a_ceiling() {
        let mut retry = Retry::new(RetryPolicy::default());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            retry.begin();
            pauses.push(retry.pause().as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        let (least, most) = (jittered(Duration::from_secs(4), 0), jittered(Duration::from_secs(4), u32::MAX));
        assert_eq!((least, most), (Duration::from_secs(3), Duration::from_secs(5)));
    }

    #[test]
    fn r30_only_progress_refills_the_budget() {
        let policy = RetryPolicy { attempts: 3, first_pause: Duration::ZERO, ..RetryPolicy::default() };
        let mut retry = Retry::new(policy);
        let mut verdicts = Vec::new();
        for attempt in 0..5 {
            retry.begin();
            if attempt == 1 {
                retry.progressed();
            }
            verdicts.push(retry.failed(Again::Pause).unwrap());
        }
        let retry_four_times = [Verdict::Retry, Verdict::Retry, Verdict::Retry, Verdict::Retry, Verdict::GiveUp];
        assert_eq!(verdicts, retry_four_times);
        assert_eq!(retry.attempts(), 5);
    }

    #[test]
    fn r30_final_failures_and_long_pauses_end_it() {
        let mut retry = Retry::new(RetryPolicy::default());
        retry.begin();
        assert_eq!(retry.failed(Again::Never), Ok(Verdict::GiveUp));
        let year = Duration::from_secs(999_999_999);
        assert_eq!(retry.failed(Again::After(year)), Ok(Verdict::TooLong(year)));
        assert_eq!(retry.failed(Again::After(Duration::ZERO)), Ok(Verdict::Retry));
        let policy = RetryPolicy { patience: Duration::ZERO, ..RetryPolicy::default() };
        assert_eq!(Retry::new(policy).failed(Again::Pause), Ok(Verdict::GiveUp));
        let policy = RetryPolicy { patience: Duration::from_millis(50), first_pause: Duration::ZERO, ..policy };
        let mut slow = Retry::new(policy);
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(slow.failed(Again::Pause), Ok(Verdict::GiveUp));
        slow.moved();
        assert_eq!(slow.failed(Again::Pause), Ok(Verdict::Retry));
    }

    #[test]
    fn r30_retry_after_is_seconds_or_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (value, want) in [
            ("1", Some(1)),
            (" 120 ", Some(120)),
            ("999999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, Some(date)), want.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", None), Some(Duration::ZERO));
    }

    proptest::proptest! {
        #[test]
        fn any_retry_after_is_read_or_ignored(value in "\\PC{0,60}", date in "\\PC{0,60}") {
            let _ = retry_after(&value, Some(&date));
        }
    }
}
