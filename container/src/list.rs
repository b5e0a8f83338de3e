//! What `ps` says about a container, in Docker's words.
//!
//! Pure: the time is passed in, and so is how a span of time is worded.

use jiff::Timestamp;

use crate::health::{Health, HealthStatus};
use crate::record::ContainerRecord;
use crate::status::ContainerStatus;

/// Width of the command in a list that is not told to show it whole.
const COMMAND_WIDTH: usize = 20;

/// How long text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Cut to the width of its column.
    Short,
    /// Whole (`--no-trunc`).
    Whole,
}

impl ContainerRecord {
    /// `Up 5 minutes`, `Exited (0) 3 hours ago`, `Created`. `words` puts a number of seconds into words.
    pub fn status_text(&self, now: Timestamp, words: impl Fn(i64) -> String) -> String {
        let since = |then: Option<Timestamp>| words(then.map_or(0, |then| (now.as_second() - then.as_second()).max(0)));
        let code = self.state.exit.as_ref().map_or(0, crate::exit::ContainerExit::code);
        match self.state.status {
            ContainerStatus::Created => "Created".to_owned(),
            ContainerStatus::Running => {
                let health = match &self.health {
                    None => String::new(),
                    Some(Health { status: HealthStatus::Starting, .. }) => " (health: starting)".to_owned(),
                    Some(health) => format!(" ({})", health.status.name()),
                };
                format!("Up {}{health}", since(self.state.started))
            }
            ContainerStatus::Paused => format!("Up {} (Paused)", since(self.state.started)),
            ContainerStatus::Restarting => format!("Restarting ({code}) {} ago", since(self.state.finished)),
            ContainerStatus::Removing => "Removal In Progress".to_owned(),
            ContainerStatus::Exited => format!("Exited ({code}) {} ago", since(self.state.finished)),
            ContainerStatus::Dead => "Dead".to_owned(),
        }
    }

    /// What it executes, quoted; words with blanks in single quotes.
    pub fn command_text(&self, width: Width) -> String {
        let quoted = |word: String| if word.contains(' ') { format!("'{word}'") } else { word };
        let argv: Vec<String> = self.config.argv().into_iter().map(quoted).collect();
        let line = argv.join(" ");
        let line = match width {
            Width::Short if line.chars().count() > COMMAND_WIDTH => {
                line.chars().take(COMMAND_WIDTH - 1).chain(std::iter::once('…')).collect()
            }
            _ => line,
        };
        let mut out = String::from("\"");
        for c in line.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '…' => out.push(c),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        out.push('"');
        out
    }

    /// The image as the user named it; its short identifier when it was named by that.
    pub fn image_text(&self) -> &str {
        &self.image.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ContainerExit;
    use crate::process_id::ProcessId;
    use crate::record::tests::sample;
    use crate::status::Change;

    #[test]
    fn states_are_worded_as_dockers() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let words = |seconds: i64| format!("{seconds} seconds");
        let mut record = sample("web");
        assert_eq!(record.status_text(at(100), words), "Created");
        record.state.start(ProcessId { pid: 1, started: 1 }, at(10)).unwrap();
        assert_eq!(record.status_text(at(100), words), "Up 90 seconds");
        for (status, want) in [
            (HealthStatus::Starting, "Up 90 seconds (health: starting)"),
            (HealthStatus::Healthy, "Up 90 seconds (healthy)"),
            (HealthStatus::Unhealthy, "Up 90 seconds (unhealthy)"),
        ] {
            record.health = Some(Health { status, ..Health::default() });
            assert_eq!(record.status_text(at(100), words), want);
        }
        record.state.change(Change::Pause).unwrap();
        assert_eq!(record.status_text(at(100), words), "Up 90 seconds (Paused)");
        record.state.end(ContainerExit::Code(3), at(30)).unwrap();
        assert_eq!(record.status_text(at(100), words), "Exited (3) 70 seconds ago");
        assert_eq!(record.status_text(at(5), words), "Exited (3) 0 seconds ago", "a clock that was set back");
        record.state.change(Change::BeginRemoval).unwrap();
        assert_eq!(record.status_text(at(100), words), "Removal In Progress");
    }

    #[test]
    fn commands_are_quoted_and_cut() {
        let mut record = sample("web");
        record.config.entrypoint = vec!["/bin/sh".into(), "-c".into()];
        record.config.command = vec!["echo \"hi\" \x1b[2J; sleep 1".into()];
        assert_eq!(record.command_text(Width::Short), "\"/bin/sh -c 'echo \\\"h…\"");
        assert_eq!(record.command_text(Width::Whole), "\"/bin/sh -c 'echo \\\"hi\\\" \\u{1b}[2J; sleep 1'\"");
        record.config.entrypoint = Vec::new();
        record.config.command = vec!["sh".into()];
        assert_eq!(record.command_text(Width::Short), "\"sh\"");
    }
}
