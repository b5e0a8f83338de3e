//! `rbuild cache prune`.

use crate::cache_view::{self, PruneRequest};
use crate::cli::build::spec::size as parse_size;
use crate::cli::report::{self, Failure};
use crate::cli::table::size;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `cache prune`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneArgs {
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

/// Runs `rbuild cache prune`.
pub(in crate::cli) fn execute(args: &PruneArgs, engine: &Engine) -> Result<Exit, Failure> {
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
