//! `rbuild cache stats`.

use crate::cache_view;
use crate::cli::machine_output::Versioned;
use crate::cli::report::{self, Failure};
use crate::cli::table::size;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `cache stats`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatsArgs {
    /// Text, or JSON: one object
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    format: String,
}

/// Runs `rbuild cache stats`.
pub(in crate::cli) fn execute(args: &StatsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let stats = cache_view::stats(engine.store()?)?;
    if args.format == "json" {
        report::answer(&Versioned::of(&stats).line()?)?;
        return Ok(Exit::Success);
    }
    let all = stats.hits + stats.misses;
    let share = if all == 0 { 0.0 } else { 100.0 * stats.hits as f64 / all as f64 };
    report::answer(&format!(
        "Builds      {} in the history\n\
         Hits        {} ({share:.0}% of {all} steps)\n\
         Misses      {}\n\
         Unfinished  {}\n\
         Saved       {:.1}s, {}\n\
         Spent       {:.1}s\n\
         All time    {} hits of what is cached now\n",
        stats.builds,
        stats.hits,
        stats.misses,
        stats.unfinished,
        stats.saved_seconds,
        size(stats.saved_bytes),
        stats.spent_seconds,
        stats.hits_of_cached,
    ))?;
    Ok(Exit::Success)
}
