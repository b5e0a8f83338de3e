//! `rbuild cache ls`.

use rbuild_cache::{PruneFilter, Store};
use serde_json::{Map, Value, json};

use super::prune::age;
use crate::cache_view::{self, CachedStep};
use crate::cli::list_format::{Format, render};
use crate::cli::machine_output::Versioned;
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, ago, size};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Longer step texts are cut in tables, in characters.
const LONGEST: usize = 60;

/// Arguments of `cache ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Fields of templates: ID, Parents, Description, Type, Size, Bytes, Shared, InUse, Mutable, Images, Dockerfile, Stage,
Line, Seconds, CreatedAt, CreatedSince, LastUsedAt, LastUsedSince, UsageCount")]
pub(in crate::cli) struct LsArgs {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// table, json (one object a line), or a template such as '{{.ID}}: {{.Description}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Only steps for which this holds, e.g. shared=false, type=regular, id=5 or until=24h (not used for so long)
    #[arg(long, value_name = "FIELD=VALUE")]
    filter: Vec<String>,
    /// Whole step texts
    #[arg(long)]
    no_trunc: bool,
}

/// Runs `rbuild cache ls`.
pub(in crate::cli) fn execute(args: &LsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.parse()?;
    let steps = filtered(engine.store()?, &args.filter)?;
    if args.quiet {
        let ids: String = steps.iter().map(|step| format!("{}\n", step.id)).collect();
        report::answer(&ids)?;
        return Ok(Exit::Success);
    }
    let now = jiff::Timestamp::now();
    let rows: Vec<Map<String, Value>> = match format {
        // Scripts read what they always could.
        Format::Json => steps.iter().map(plain).collect::<Result<_, _>>()?,
        _ => steps.iter().map(|step| fields(step, now, args.no_trunc)).collect(),
    };
    let out = render(&format, &rows, || {
        let mut table = Table::new(["ID", "STEP", "SIZE", "TOOK", "CREATED", "LAST USED", "USES"]);
        for step in &steps {
            table.row([
                step.id.to_string(),
                shown(&step.name, args.no_trunc),
                size(step.size),
                format!("{:.1}s", step.duration_seconds),
                ago(Some(step.created), now),
                ago(Some(step.last_used), now),
                step.uses.to_string(),
            ]);
        }
        table.render()
    })?;
    report::answer(&out)?;
    Ok(Exit::Success)
}

/// Cached steps for which all filters hold; `until=24h` means those not used for so long.
pub(super) fn filtered(store: &Store, filters: &[String]) -> Result<Vec<CachedStep>, Failure> {
    let mut steps = cache_view::steps(store)?;
    let now = jiff::Timestamp::now();
    for text in filters {
        if let Some(("until" | "unused-for", text)) = text.split_once('=') {
            let horizon = now.checked_sub(age(text, now)?).unwrap_or(jiff::Timestamp::MIN);
            steps.retain(|step| step.last_used < horizon);
            continue;
        }
        let help = "e.g. --filter shared=false, --filter 'description~=apt-get', --filter until=24h";
        let filter: PruneFilter = text.parse().map_err(|error| Failure::usage(format!("--filter: {error}"), help))?;
        steps.retain(|step| step.is(&filter));
    }
    Ok(steps)
}

fn plain(step: &CachedStep) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(Versioned::of(step))? {
        Value::Object(object) => Ok(object),
        _ => Ok(Map::new()),
    }
}

fn fields(step: &CachedStep, now: jiff::Timestamp, whole: bool) -> Map<String, Value> {
    let parents: Vec<String> = step.parents.iter().map(ToString::to_string).collect();
    let object = json!({
        "ID": step.id.to_string(),
        "Parents": parents.join(","),
        "Description": shown(&step.name, whole),
        "Type": step.kind.as_str(),
        "Size": size(step.size),
        "Bytes": step.size,
        "Shared": step.shared,
        "InUse": step.in_use,
        "Mutable": false,
        "Images": step.images.join(","),
        "Dockerfile": printable(&step.dockerfile),
        "Stage": printable(&step.stage),
        "Line": step.line,
        "Seconds": step.duration_seconds,
        "CreatedAt": step.created.to_string(),
        "CreatedSince": ago(Some(step.created), now),
        "LastUsedAt": step.last_used.to_string(),
        "LastUsedSince": ago(Some(step.last_used), now),
        "UsageCount": step.uses,
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// A step's text on one line, cut unless all of it is wanted.
pub(super) fn shown(name: &str, whole: bool) -> String {
    let name = printable(&name.replace('\n', " "));
    if whole || name.chars().count() <= LONGEST {
        return name;
    }
    format!("{}…", name.chars().take(LONGEST - 1).collect::<String>())
}
