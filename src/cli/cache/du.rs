//! `rbuild cache du`: what takes how much, and with `--verbose` whose it is.

use super::ls::{filtered, shown};
use crate::cache_view;
use crate::cli::machine_output::Versioned;
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, ago, duration, size};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `cache du`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DuArgs {
    /// table, or json: one object
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
    /// With --verbose only steps for which this holds, as in `cache ls`
    #[arg(long, value_name = "FIELD=VALUE", requires = "verbose")]
    filter: Vec<String>,
    /// Every cached step with its image, stage and line, the largest first
    #[arg(short, long)]
    verbose: bool,
}

/// Runs `rbuild cache du`.
pub(in crate::cli) fn execute(args: &DuArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let usage = cache_view::usage(store)?;
    let now = jiff::Timestamp::now();
    let mut steps = if args.verbose { filtered(store, &args.filter)? } else { Vec::new() };
    steps.sort_by_key(|step| std::cmp::Reverse(step.size));
    if args.format.as_deref() == Some("json") {
        let mut object = serde_json::to_value(&usage)?;
        if args.verbose {
            object["steps"] = serde_json::to_value(&steps)?;
        }
        report::answer(&Versioned::of(&object).line()?)?;
        return Ok(Exit::Success);
    }
    let mut out = String::new();
    if args.verbose {
        let mut table =
            Table::new(["ID", "IMAGE", "STAGE", "LINE", "PRIVATE", "SHARED", "RECLAIMABLE", "LAST USED", "STEP"]);
        for step in &steps {
            let (private, shared) = if step.shared { (0, step.size) } else { (step.size, 0) };
            let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            table.row([
                step.id.to_string(),
                or_none(printable(&step.images.join(","))),
                or_none(printable(&step.stage)),
                if step.line == 0 { "-".to_owned() } else { step.line.to_string() },
                size(private),
                size(shared),
                (!step.shared && !step.in_use).to_string(),
                ago(Some(step.last_used), now),
                shown(&step.name, false),
            ]);
        }
        out.push_str(&table.render());
        out.push('\n');
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
    out.push_str(&table.render());
    out.push_str(&format!(
        "\nShared: {}\nPrivate: {}\nReclaimable: {}\nTotal: {} (on disk, below {})\n",
        size(usage.shared),
        size(usage.private),
        size(usage.reclaimable),
        size(usage.total),
        engine.settings().root.display()
    ));
    if let Some(oldest) = usage.oldest {
        let age = duration(now.as_second() - oldest.as_second());
        out.push_str(&format!("Oldest: {age} ago\n"));
    }
    report::answer(&out)?;
    Ok(Exit::Success)
}
