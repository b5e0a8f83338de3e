//! `rbuild report` and `rbuild history open`: a recorded build as a page, or as a trace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::inspect;
use crate::cli::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::output;
use crate::report_page::{self, Report, Subject};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rbuild report -o report.html                the newest build as a page
  rbuild report --with ^1 -o report.html      beside the build before it
  rbuild report --format trace -o trace.json  for Perfetto or chrome://tracing")]
pub(in crate::cli) struct ReportArgs {
    /// Build: an id or its beginning, ^0 for the newest one [default: the newest one]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Another build to compare it with
    #[arg(long, value_name = "BUILD")]
    with: Option<String>,
    /// html, or trace (Chrome's trace format)
    #[arg(long, value_enum, default_value = "html")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Html,
    Trace,
}

/// Arguments of `history open`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct OpenArgs {
    /// Build: an id or its beginning, ^0 for the newest one [default: the newest one]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
}

/// Runs `rbuild report`.
pub(in crate::cli) fn execute(args: &ReportArgs, engine: &Engine) -> Result<Exit, Failure> {
    if args.format == Format::Trace && args.with.is_some() {
        return Err(Failure::usage("a trace shows one build", "leave --with out"));
    }
    let subject = Subject::find(engine.store()?, args.build.as_deref().unwrap_or_default())?;
    let text = match args.format {
        Format::Html => page(engine, &subject, args.with.as_deref())?,
        Format::Trace => format!("{}\n", report_page::trace(&subject)),
    };
    match &args.output {
        Some(file) => output::write_whole_file(&engine.settings().absolute(file), text.as_bytes())?,
        None => report::answer(&text)?,
    }
    Ok(Exit::Success)
}

/// Runs `rbuild history open`: the page is written beside the build's log, and shown where there is something to show it.
pub(super) fn open(args: &OpenArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let subject = Subject::find(store, args.build.as_deref().unwrap_or_default())?;
    let directory = store.builds().files(&subject.build.id);
    let failed = |error| Failure::new(format!("cannot make {}: {error}", directory.display()));
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let file = directory.join("report.html");
    output::write_whole_file(&file, page(engine, &subject, None)?.as_bytes())?;
    if !shown(&file) {
        report::story("no browser could be opened (xdg-open); the page is here:\n");
    }
    report::answer(&format!("{}\n", file.display()))?;
    Ok(Exit::Success)
}

fn page(engine: &Engine, subject: &Subject, with: Option<&str>) -> Result<String, Failure> {
    let store = engine.store()?;
    let other = with.map(|other| Subject::find(store, other)).transpose()?;
    let (report, graph) = Report::gather(store, subject, other.as_ref(), inspect::object)?;
    report_page::page(&report, &graph)
}

fn shown(file: &Path) -> bool {
    let mut viewer = Command::new("xdg-open");
    viewer.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    viewer.status().is_ok_and(|status| status.success())
}
