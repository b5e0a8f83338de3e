//! `search`: images on Docker Hub, or what another registry has.

use serde_json::{Map, Value, json};

use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::Table;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::transfer::{self, Found, FoundRepository, HubFilter, HubImage};

const HUB_ROWS: Rows = Rows {
    row_type: "*formatter.searchContext",
    headings: &[("StarCount", "STARS"), ("IsOfficial", "OFFICIAL"), ("IsAutomated", "AUTOMATED")],
};
/// Characters of a description in the table.
const DESCRIPTION_WIDTH: usize = 45;
/// Tags of a repository in the table.
const SHOWN_TAGS: usize = 5;

/// Arguments of `search`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SearchArgs {
    /// What to look for; REGISTRY/ or REGISTRY/NAME looks into that registry
    #[arg(value_name = "TERM")]
    term: String,
    /// Only what matches: is-official=true, stars=NUMBER
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, json, 'table TEMPLATE' or a Go template of .Name, .Description, .StarCount, .IsOfficial (.Tags of a registry)
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Whole descriptions, and all tags
    #[arg(long)]
    no_trunc: bool,
}

/// Runs `search`.
pub(in crate::cli) fn search(args: &SearchArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.as_deref().unwrap_or_default().parse()?;
    let filters = args.filter.iter().map(|filter| HubFilter::parse(filter)).collect::<Result<Vec<_>, _>>()?;
    let out = match transfer::search(engine, &args.term, args.limit as usize, &filters)? {
        Found::Hub(images) => {
            let objects: Vec<_> = images.iter().map(|image| hub_object(image, args.no_trunc)).collect();
            render_as(&format, &HUB_ROWS, &objects, || hub_table(&objects))?
        }
        Found::Registry(repositories) => {
            let objects: Vec<_> = repositories.iter().map(|found| object(found, args.no_trunc)).collect();
            render_as(&format, &HUB_ROWS, &objects, || table(&objects))?
        }
    };
    report::answer(&printable(&out))?;
    Ok(Exit::Success)
}

fn hub_object(image: &HubImage, whole: bool) -> Map<String, Value> {
    let mut description = image.description.replace(['\n', '\r'], " ");
    if !whole && description.chars().count() > DESCRIPTION_WIDTH {
        description = description.chars().take(DESCRIPTION_WIDTH - 1).chain(['…']).collect();
    }
    let mark = |is: bool| if is { "[OK]" } else { "" };
    Map::from_iter([
        ("Description".to_owned(), json!(description)),
        ("IsAutomated".to_owned(), json!(mark(image.is_automated))),
        ("IsOfficial".to_owned(), json!(mark(image.is_official))),
        ("Name".to_owned(), json!(image.name)),
        ("StarCount".to_owned(), json!(image.stars.to_string())),
    ])
}

fn text(row: &Map<String, Value>, field: &str) -> String {
    row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn hub_table(rows: &[Map<String, Value>]) -> String {
    let mut table = Table::new(["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]).docker();
    for row in rows {
        table.row(["Name", "Description", "StarCount", "IsOfficial"].map(|field| text(row, field)));
    }
    table.render()
}

fn object(found: &FoundRepository, whole: bool) -> Map<String, Value> {
    let most = if whole { usize::MAX } else { SHOWN_TAGS };
    let mut tags = found.tags.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    if found.tags.len() > most {
        tags.push_str(&format!(", … ({} tags)", found.tags.len()));
    }
    Map::from_iter([("Name".to_owned(), json!(found.name)), ("Tags".to_owned(), json!(tags))])
}

fn table(rows: &[Map<String, Value>]) -> String {
    let mut table = Table::new(["NAME", "TAGS"]).docker();
    for row in rows {
        table.row(["Name", "Tags"].map(|field| text(row, field)));
    }
    table.render()
}
