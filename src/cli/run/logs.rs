//! `logs`.

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use rbuild_container::{ContainerId, Containers, LogDriver, LogEntry, LogReader, LogWindow, Stream};

use super::containers_of;
use crate::cli::report::Failure;
use crate::cli::time::parse_time;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LogsArgs {
    /// Go on with what the container writes, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines: a number, or all
    #[arg(short = 'n', long, visible_alias = "tail", value_name = "NUMBER", default_value = "all")]
    lines: String,
    /// Not what is older than a time (2026-01-02T13:23:37Z) or an age (42m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not what is younger than a time or an age
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show further attributes of the lines (there are none)
    #[arg(long)]
    details: bool,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `logs`.
pub(in crate::cli) fn logs(args: &LogsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let record = containers.find(&args.container)?;
    if record.config.log.driver == LogDriver::None {
        return Err(Failure::new("configured logging driver does not support reading")
            .with_help("the container was created with --log-driver none"));
    }
    let now = Timestamp::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| parse_time(text, now)).transpose();
    // As in Docker, what is no number means all.
    let tail = args.lines.parse().ok();
    let window = LogWindow { since: time(&args.since)?, until: time(&args.until)?, tail };
    let mut reader = LogReader::open(containers.log_file(&record.id), window)?;
    let shown = if args.follow {
        follow(args, &containers, &record.id, &mut reader, window.until)
    } else {
        reader.read(&mut |entry| show(args, entry)).map(drop).map_err(Failure::from)
    };
    // A reader that has seen enough (`| head`) is no failure.
    match shown {
        Err(failure) if failure.message().contains("Broken pipe") => Ok(Exit::Success),
        other => other.map(|()| Exit::Success),
    }
}

fn follow(
    args: &LogsArgs,
    containers: &Containers,
    id: &ContainerId,
    reader: &mut LogReader,
    until: Option<Timestamp>,
) -> Result<(), Failure> {
    loop {
        // Asked before the log is read: what it wrote before it ended is in it then.
        let runs = containers.load(id)?.is_some_and(|record| record.state.status.can_stop());
        let over = until.is_some_and(|until| Timestamp::now() > until);
        let any = reader.read(&mut |entry| show(args, entry))?;
        if over || (!any && !runs) {
            return Ok(());
        }
        if !any {
            std::thread::sleep(PAUSE);
        }
    }
}

fn show(args: &LogsArgs, entry: &LogEntry) -> io::Result<()> {
    let mut line = String::new();
    if args.timestamps {
        line.push_str(&format!("{:.9} ", entry.time));
    }
    if args.details {
        line.push(' ');
    }
    line.push_str(&entry.log);
    match entry.stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(line.as_bytes()).and_then(|()| out.flush())
        }
        Stream::Stderr => io::stderr().lock().write_all(line.as_bytes()),
    }
}
