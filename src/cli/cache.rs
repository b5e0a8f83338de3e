//! `rbuild cache …`: what builds left for later ones.

use clap::Subcommand;

use super::build::spec::size as parse_size;
use super::report::{self, Failure};
use super::table::{Table, ago, duration, size};
use crate::cache_view::{self, PruneRequest};
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
    Prune(PruneArgs),
    /// Check that everything stored is whole
    Verify(VerifyArgs),
}

/// Runs `rbuild cache …`.
pub(super) fn execute(command: &CacheCommand, engine: &Engine) -> Result<Exit, Failure> {
    match command {
        CacheCommand::Ls(args) => ls(args, engine),
        CacheCommand::Du(args) => du(args, engine),
        CacheCommand::Prune(args) => prune(args, engine),
        CacheCommand::Verify(args) => verify(args, engine),
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

/// Arguments of `cache prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Every cached step, also those whose layers an image or container shares
    #[arg(short, long)]
    all: bool,
    /// Only what was not used for this long, e.g. 24h or 7d
    #[arg(long, value_name = "DURATION")]
    until: Option<String>,
    /// Keep this much, the most recently used, e.g. 10g
    #[arg(long, visible_alias = "reserved-space", value_name = "BYTES")]
    keep_storage: Option<String>,
    /// Show what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask (rbuild never asks; for scripts written for Docker)
    #[arg(short, long)]
    force: bool,
}

fn prune(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
    let request = PruneRequest {
        all: args.all,
        unused_for: args.until.as_deref().map(parse_duration).transpose()?,
        keep_bytes: args.keep_storage.as_deref().map(|text| parse_size("--keep-storage", text)).transpose()?,
        dry_run: args.dry_run,
    };
    let pruned = cache_view::prune(engine.store()?, &request)?;
    let mut out = String::new();
    for name in &pruned.steps {
        out.push_str(&format!("{}\n", report::printable(&name.replace('\n', " "))));
    }
    let (verb, size) = (if args.dry_run { "Would reclaim" } else { "Total reclaimed space:" }, size(pruned.bytes));
    out.push_str(&format!("{verb} {size}\n"));
    report::answer(&out)?;
    Ok(Exit::Success)
}

/// Parses `90s`, `10m`, `24h`, `7d` (Go's durations, and days), combined as `1h30m`.
fn parse_duration(text: &str) -> Result<std::time::Duration, Failure> {
    let wrong = || Failure::usage(format!("{text:?} is not a duration"), "e.g. 24h or 7d");
    let (mut seconds, mut digits) = (0_u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number = digits.parse::<u64>().map_err(|_| wrong())?;
        digits.clear();
        seconds = number.checked_mul(unit).and_then(|add| seconds.checked_add(add)).ok_or_else(wrong)?;
    }
    if text.is_empty() || !digits.is_empty() { Err(wrong()) } else { Ok(std::time::Duration::from_secs(seconds)) }
}

/// Arguments of `cache verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Remove garbage, and records of what is damaged
    #[arg(long)]
    repair: bool,
}

fn verify(args: &VerifyArgs, engine: &Engine) -> Result<Exit, Failure> {
    let found = cache_view::verify(engine.store()?, args.repair)?;
    let mut out = String::new();
    for problem in &found.problems {
        out.push_str(&format!("{}\n", report::printable(problem)));
    }
    out.push_str(&format!(
        "{} checked, {} problems, {} leftovers\n",
        found.checked,
        found.problems.len(),
        found.leftovers
    ));
    report::answer(&out)?;
    Ok(if found.problems.is_empty() || found.repaired { Exit::Success } else { Exit::Failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5400)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "5", "h", "5x", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
