//! `rbuild cache …`: what builds left for later ones.

mod prune;
mod verify;

use clap::Subcommand;

use super::report::{self, Failure};
use super::table::{Table, ago, duration, size};
use crate::cache_view;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// `rbuild cache …`.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// List cached steps
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show what takes how much space
    Du(DuArgs),
    /// Remove what no image, container or running build needs
    Prune(prune::PruneArgs),
    /// Check that everything stored is whole
    Verify(verify::VerifyArgs),
}

/// Runs `rbuild cache …`.
pub(super) fn execute(command: &CacheCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        CacheCommand::Ls(args) => ls(args, engine),
        CacheCommand::Du(args) => du(args, engine),
        CacheCommand::Prune(args) => prune::execute(args, engine),
        CacheCommand::Verify(args) => verify::execute(args, engine),
    }
}

/// Arguments of `cache ls`.
#[derive(Debug, clap::Args)]
pub(super) struct LsArgs {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// One JSON object a line
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
    /// Whole step texts
    #[arg(long)]
    no_trunc: bool,
}

fn ls(args: &LsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let steps = cache_view::steps(engine.store()?)?;
    let now = jiff::Timestamp::now();
    let mut out = String::new();
    if args.quiet {
        for step in &steps {
            out.push_str(&format!("{}\n", step.id));
        }
    } else if args.format.as_deref() == Some("json") {
        for step in &steps {
            out.push_str(&serde_json::to_string(step).map_err(Failure::from)?);
            out.push('\n');
        }
    } else {
        let mut table = Table::new(["ID", "STEP", "SIZE", "TOOK", "CREATED", "LAST USED", "USES"]);
        for step in &steps {
            let name = report::printable(&step.name.replace('\n', " "));
            let shown = if args.no_trunc || name.chars().count() <= 60 {
                name
            } else {
                format!("{}…", name.chars().take(59).collect::<String>())
            };
            table.row([
                step.id.to_string(),
                shown,
                size(step.size),
                format!("{:.1}s", step.duration_seconds),
                ago(Some(step.created), now),
                ago(Some(step.last_used), now),
                step.uses.to_string(),
            ]);
        }
        out = table.render();
    }
    report::answer(&out)?;
    Ok(Exit::Success)
}

/// Arguments of `cache du`.
#[derive(Debug, clap::Args)]
pub(super) struct DuArgs {
    /// One JSON object
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
}

fn du(args: &DuArgs, engine: &Engine) -> Result<Exit, Failure> {
    let usage = cache_view::usage(engine.store()?)?;
    if args.format.as_deref() == Some("json") {
        report::answer(&format!("{}\n", serde_json::to_string(&usage).map_err(Failure::from)?))?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(["TYPE", "COUNT", "SIZE", "RECLAIMABLE"]);
    for row in &usage.rows {
        table.row([
            row.kind.to_owned(),
            row.count.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            size(row.bytes),
            size(row.reclaimable),
        ]);
    }
    let mut out = table.render();
    out.push_str(&format!("\nTotal: {} (on disk, below {})\n", size(usage.total), engine.settings().root.display()));
    if let Some(oldest) = usage.oldest {
        let age = duration(jiff::Timestamp::now().as_second() - oldest.as_second());
        out.push_str(&format!("Oldest: {age} ago\n"));
    }
    report::answer(&out)?;
    Ok(Exit::Success)
}
