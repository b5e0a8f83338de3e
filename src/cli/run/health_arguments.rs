//! The flags of `run` and `create` that speak of health checks.

use rbuild_container::HealthRequest;
use rbuild_image::Healthcheck;
use rbuild_parser::parse_duration;

use crate::cli::report::Failure;

/// Names are Docker's. What is not given is the image's.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Health checks")]
pub(super) struct HealthArgs {
    /// Command that says whether the container works: its exit code is 0 then
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks, e.g. 30s [default: 30s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_interval: Option<String>,
    /// How long one check may take [default: 30s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_timeout: Option<String>,
    /// Failures in a row that make the container unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    health_retries: Option<i64>,
    /// How long after the start failures do not count
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_start_period: Option<String>,
    /// Time between two checks in the start period [default: 5s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_start_interval: Option<String>,
    /// Do not run the image's health check
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// What is asked for.
    pub(super) fn request(&self) -> Result<HealthRequest, Failure> {
        let times = [
            nanoseconds("--health-interval", self.health_interval.as_deref())?,
            nanoseconds("--health-timeout", self.health_timeout.as_deref())?,
            nanoseconds("--health-start-period", self.health_start_period.as_deref())?,
            nanoseconds("--health-start-interval", self.health_start_interval.as_deref())?,
        ];
        let retries = self.health_retries.unwrap_or(0);
        if retries < 0 {
            return Err(Failure::new("--health-retries cannot be negative"));
        }
        let command = self.health_cmd.as_deref().filter(|command| !command.is_empty());
        let given = command.is_some() || retries != 0 || times.iter().any(|time| *time != 0);
        if self.no_healthcheck {
            return if given {
                Err(Failure::new("--no-healthcheck conflicts with --health-* options"))
            } else {
                Ok(HealthRequest::Disabled)
            };
        }
        if !given {
            return Ok(HealthRequest::Inherited);
        }
        let [interval, timeout, start_period, start_interval] = times;
        let test = command.map(|command| vec!["CMD-SHELL".to_owned(), command.to_owned()]).unwrap_or_default();
        Ok(HealthRequest::Given(Healthcheck { test, interval, timeout, start_period, start_interval, retries }))
    }
}

fn nanoseconds(flag: &str, text: Option<&str>) -> Result<i64, Failure> {
    let Some(text) = text else { return Ok(0) };
    match parse_duration(text) {
        Ok(time) if time < 0 => Err(Failure::new(format!("{flag} cannot be negative"))),
        Ok(time) => Ok(time),
        Err(_) => Err(Failure::new(format!("{flag}: {text:?} is no time such as 30s, 1m30s or 500ms"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn request(words: &[&str]) -> Result<HealthRequest, String> {
        let command = HealthArgs::augment_args(clap::Command::new("run").no_binary_name(true));
        let matches = command.try_get_matches_from(words).unwrap();
        let args = HealthArgs::from_arg_matches(&matches).unwrap();
        args.request().map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn settings_are_read_and_told_from_none() {
        let given = |check: Healthcheck| Ok(HealthRequest::Given(check));
        let test = vec!["CMD-SHELL".to_owned(), "curl -f x".to_owned()];
        for (words, want) in [
            (&[][..], Ok(HealthRequest::Inherited)),
            (&["--health-cmd="], Ok(HealthRequest::Inherited)),
            (&["--no-healthcheck"], Ok(HealthRequest::Disabled)),
            (&["--health-cmd", "curl -f x"], given(Healthcheck { test, ..Healthcheck::default() })),
            (
                &["--health-interval=1m30s", "--health-timeout=500ms", "--health-retries=2"],
                given(Healthcheck {
                    interval: 90_000_000_000,
                    timeout: 500_000_000,
                    retries: 2,
                    ..Healthcheck::default()
                }),
            ),
            (
                &["--health-start-period=1s", "--health-start-interval=2s"],
                given(Healthcheck {
                    start_period: 1_000_000_000,
                    start_interval: 2_000_000_000,
                    ..Healthcheck::default()
                }),
            ),
        ] {
            assert_eq!(request(words), want, "{words:?}");
        }
        for (words, want) in [
            (&["--no-healthcheck", "--health-retries=1"][..], "--no-healthcheck conflicts with --health-* options"),
            (&["--health-interval=-1s"], "--health-interval cannot be negative"),
            (&["--health-retries=-1"], "--health-retries cannot be negative"),
            (&["--health-timeout=soon"], "--health-timeout: \"soon\" is no time such as 30s, 1m30s or 500ms"),
        ] {
            assert_eq!(request(words).unwrap_err(), want, "{words:?}");
        }
    }
}
