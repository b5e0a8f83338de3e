//! `images` and `image ls`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::cli::table::{Table, ago, rounded_size, size};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names::{self, FilterUse, ImageFilter, Row};

/// What Docker calls the rows.
const ROWS: Rows =
    Rows { row_type: "*formatter.imageContext", headings: &[("ID", "IMAGE ID"), ("CreatedSince", "CREATED")] };

/// Arguments of `images`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArgs {
    /// Only images of this name, or name:tag; may have wildcards
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Also images without a name (they are always shown)
    #[arg(short, long)]
    all: bool,
    /// Also show the digests that images were pulled by
    #[arg(long)]
    digests: bool,
    /// Only what matches: dangling=true, label=KEY[=VALUE], before=IMAGE, since=IMAGE, reference=PATTERN, until=TIME
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, json, 'table TEMPLATE' or a Go template of .ID, .Repository, .Tag, .Digest, .Size, .CreatedSince, …
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show the platforms of each name below it
    #[arg(long, conflicts_with_all = ["quiet", "digests", "format"])]
    tree: bool,
}

/// Runs `images`.
pub(in crate::cli) fn list(args: &ListArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.as_deref().unwrap_or_default().parse()?;
    let (store, now) = (engine.store()?, Timestamp::now());
    let filter = ImageFilter::parse(store, &args.filter, args.name.as_deref(), FilterUse::List, now)?;
    let rows = image_names::list(store, &filter)?;
    let id = |row: &Row| if args.no_trunc { row.id.to_string() } else { row.id.short() };
    let out = if args.tree {
        tree(&rows, &users(engine)?, &id)
    } else if args.quiet {
        rows.iter().map(|row| id(row) + "\n").collect()
    } else {
        let objects: Vec<_> = rows.iter().map(|row| object(row, id(row), now)).collect();
        let own = || if args.digests { with_digests(&rows, &id, now) } else { table(&rows, &id, now) };
        render_as(&format, &ROWS, &objects, own)?
    };
    report::answer(&out)?;
    Ok(Exit::Success)
}

fn table(rows: &[Row], id: &dyn Fn(&Row) -> String, now: Timestamp) -> String {
    let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]).docker();
    for row in rows {
        table.row([row.repository.clone(), row.tag.clone(), id(row), ago(row.created, now), size(row.size)]);
    }
    table.render()
}

fn with_digests(rows: &[Row], id: &dyn Fn(&Row) -> String, now: Timestamp) -> String {
    let mut table = Table::new(["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]).docker();
    for row in rows {
        let digest = row.digest_text();
        table.row([row.repository.clone(), row.tag.clone(), digest, id(row), ago(row.created, now), size(row.size)]);
    }
    table.render()
}

/// Docker's fields, and the platform.
fn object(row: &Row, id: String, now: Timestamp) -> Map<String, Value> {
    let created =
        row.created.map_or_else(|| "N/A".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
    [
        ("Containers", json!("N/A")),
        ("CreatedAt", json!(created)),
        ("CreatedSince", json!(ago(row.created, now))),
        ("Digest", json!(row.digest_text())),
        ("ID", json!(id)),
        ("Platform", json!(row.platform.to_string())),
        ("Repository", json!(row.repository)),
        ("SharedSize", json!("N/A")),
        ("Size", json!(size(row.size))),
        ("Tag", json!(row.tag)),
        ("UniqueSize", json!("N/A")),
        ("VirtualSize", json!(rounded_size(row.size, 4))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

/// How many containers were made from each image.
fn users(engine: &Engine) -> Result<BTreeMap<rbuild_image::Digest, usize>, Failure> {
    let mut users = BTreeMap::new();
    for container in containers_of(engine)?.list()?.containers {
        *users.entry(container.image.id).or_default() += 1;
    }
    Ok(users)
}

/// Names, and below each the images that it leads to, one for each platform.
fn tree(rows: &[Row], users: &BTreeMap<rbuild_image::Digest, usize>, id: &dyn Fn(&Row) -> String) -> String {
    let mut names: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let name = match row.tag.as_str() {
            "<none>" if row.repository == "<none>" => "<untagged>".to_owned(),
            tag => format!("{}:{tag}", row.repository),
        };
        match names.iter_mut().find(|(known, _)| *known == name && name != "<untagged>") {
            Some((_, images)) => images.push(row),
            None => names.push((name, vec![row])),
        }
    }
    let mut table = Table::new(["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"]).docker();
    for (name, images) in &names {
        let disk: u64 = images.iter().map(|row| row.size).sum();
        let content: u64 = images.iter().map(|row| row.content_size).sum();
        let used: usize = images.iter().map(|row| users.get(&row.id).copied().unwrap_or(0)).sum();
        let whole = if let [only] = images.as_slice() { id(only) } else { String::new() };
        table.row([name.clone(), whole, size(disk), size(content), used_by(used)]);
        for (position, row) in images.iter().enumerate() {
            let branch = if position + 1 == images.len() { "└─" } else { "├─" };
            let used = users.get(&row.id).copied().unwrap_or(0);
            table.row([
                format!("{branch} {}", row.platform),
                id(row),
                size(row.size),
                size(row.content_size),
                used_by(used),
            ]);
        }
    }
    table.render()
}

fn used_by(containers: usize) -> String {
    match containers {
        0 => String::new(),
        1 => "1 container".to_owned(),
        count => format!("{count} containers"),
    }
}
