//! `rbuild cache verify`.

use crate::cache_view;
use crate::cli::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `cache verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Remove garbage, and records of what is damaged
    #[arg(long)]
    repair: bool,
}

/// Runs `rbuild cache verify`.
pub(in crate::cli) fn execute(args: &VerifyArgs, engine: &Engine) -> Result<Exit, Failure> {
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
