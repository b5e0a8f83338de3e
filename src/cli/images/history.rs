//! `history` and `image history`.

use clap::ArgAction;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, ago, size};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, HistoryRow};

/// What Docker calls the rows.
const ROWS: Rows =
    Rows { row_type: "*formatter.historyContext", headings: &[("ID", "IMAGE"), ("CreatedSince", "CREATED")] };
/// Characters of an instruction in the table.
const INSTRUCTION_WIDTH: usize = 45;

/// Arguments of `image history`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// table, json, 'table TEMPLATE' or a Go template of .ID, .CreatedBy, .Size, .CreatedSince, .Comment, .Line, .Took, …
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes and dates for people; --human=false gives bytes and times
    #[arg(short = 'H', long, default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    human: bool,
    /// Whole ids and instructions
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `image history`.
pub(in crate::cli) fn history(args: &HistoryArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.as_deref().unwrap_or_default().parse()?;
    let rows = image_names::history(engine.store()?, &args.image)?;
    let now = Timestamp::now();
    let objects: Vec<Map<String, Value>> = rows.iter().map(|row| object(row, args, now)).collect();
    let out = if args.quiet {
        objects.iter().map(|object| format!("{}\n", text(object, "ID"))).collect()
    } else {
        render_as(&format, &ROWS, &objects, || table(&objects, args.human))?
    };
    report::answer(&printable(&out))?;
    Ok(Exit::Success)
}

/// Docker's columns; those of the Dockerfile only where something is known.
fn table(rows: &[Map<String, Value>], human: bool) -> String {
    let created = if human { ("CreatedSince", "CREATED") } else { ("CreatedAt", "CREATED AT") };
    let mut columns =
        vec![("ID", "IMAGE"), created, ("CreatedBy", "CREATED BY"), ("Size", "SIZE"), ("Comment", "COMMENT")];
    if rows.iter().any(|row| !text(row, "Took").is_empty()) {
        columns.extend([("Line", "LINE"), ("Took", "TOOK")]);
    }
    let mut cells = vec![columns.iter().map(|(_, heading)| (*heading).to_owned()).collect::<Vec<_>>()];
    for row in rows {
        cells.push(columns.iter().map(|(field, _)| text(row, field).to_owned()).collect());
    }
    Table::of(cells).docker().render()
}

fn text<'a>(row: &'a Map<String, Value>, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn object(row: &HistoryRow, args: &HistoryArgs, now: Timestamp) -> Map<String, Value> {
    let id = match &row.id {
        None => "<missing>".to_owned(),
        Some(id) if args.no_trunc => id.clone(),
        Some(id) => id.trim_start_matches("sha256:").chars().take(12).collect(),
    };
    let mut created_by = row.created_by.replace('\t', " ");
    if !args.no_trunc && created_by.chars().count() > INSTRUCTION_WIDTH {
        created_by = created_by.chars().take(INSTRUCTION_WIDTH - 1).chain(['…']).collect();
    }
    let bytes = match row.size {
        None => "N/A".to_owned(),
        Some(bytes) if args.human => size(bytes),
        Some(bytes) => bytes.to_string(),
    };
    let took = row
        .took
        .map(|took| if args.human { format!("{:.1}s", took.as_secs_f64()) } else { took.as_secs_f64().to_string() });
    let at = row
        .created
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let since = if args.human { ago(row.created, now) } else { at.clone() };
    [
        ("Comment", row.comment.clone()),
        ("CreatedAt", at),
        ("CreatedBy", created_by),
        ("CreatedSince", since),
        ("ID", id),
        ("Line", row.line.map(|line| line.to_string()).unwrap_or_default()),
        ("Size", bytes),
        ("Took", took.unwrap_or_default()),
    ]
    .map(|(name, value)| (name.to_owned(), json!(value)))
    .into_iter()
    .collect()
}
