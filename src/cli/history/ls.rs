//! `rbuild history ls`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::filter::Filter;
use super::{status_word, took};
use crate::build_record::{self, BuildInfo};
use crate::cli::list_format;
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, ago};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Builds that are listed where no filter chooses.
const LISTED: usize = 50;
/// Characters of a name in the table.
const NAME_WIDTH: usize = 36;

/// Arguments of `history ls`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only some: ref=, repository=, status= (!= too), startedAt, completedAt and duration with <, <=, > or >=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, json (one object a line), or a template of {{.Ref}}, {{.Name}}, {{.Status}}, {{.CreatedAt}}, {{.Duration}}
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Whole names
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn execute(args: &LsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let filters: Vec<Filter> = args.filter.iter().map(|text| Filter::parse(text, now)).collect::<Result<_, _>>()?;
    let most = if filters.is_empty() { LISTED } else { usize::MAX };
    let mut builds = build_record::list(engine.store()?, most)?;
    builds.retain(|build| filters.iter().all(|filter| filter.takes(build, now)));
    builds.truncate(LISTED);
    // Running ones come first, as in buildx.
    builds.sort_by_key(|build| build.finished.is_some() || build.status != rbuild_cache::BuildStatus::Running);
    let mut out = String::new();
    match args.format.as_str() {
        _ if args.quiet => builds.iter().for_each(|build| out.push_str(&format!("{}\n", build.id))),
        "json" => {
            for build in &builds {
                out.push_str(&object(build).to_string());
                out.push('\n');
            }
        }
        "table" => out = table(&builds, args.no_trunc, now),
        format => {
            let rows: Vec<_> = builds.iter().map(|build| row(build, now)).collect();
            let own = || table(&builds, args.no_trunc, now);
            out = printable(&list_format::render(&format.parse()?, &rows, own)?);
        }
    }
    report::answer(&out)?;
    Ok(Exit::Success)
}

fn table(builds: &[BuildInfo], whole: bool, now: Timestamp) -> String {
    let mut table = Table::new(["BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"]);
    for build in builds {
        let name = printable(&build.inputs.name.replace('\n', " "));
        table.row([
            build.id.to_string(),
            if whole { name } else { without_beginning(&name) },
            status_word(build.status).to_owned(),
            ago(Some(build.started), now),
            duration(build, now),
        ]);
    }
    table.render()
}

/// The end of a long name: the beginning is what names have in common.
fn without_beginning(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME_WIDTH {
        return name.to_owned();
    }
    format!("..{}", name.chars().skip(count - NAME_WIDTH + 2).collect::<String>())
}

fn duration(build: &BuildInfo, now: Timestamp) -> String {
    let plus = if build.status == rbuild_cache::BuildStatus::Running { "+" } else { "" };
    build.duration(now).map_or_else(String::new, |time| format!("{}{plus}", took(time)))
}

/// buildx's object, and the duration.
fn object(build: &BuildInfo) -> Value {
    let mut object = json!({
        "ref": build.id,
        "name": build.inputs.name,
        "status": status_word(build.status),
        "created_at": build.started,
        "total_steps": build.steps,
        "completed_steps": build.completed,
        "cached_steps": build.cached,
    });
    if let Some(finished) = build.finished {
        object["completed_at"] = json!(finished);
    }
    object
}

fn row(build: &BuildInfo, now: Timestamp) -> Map<String, Value> {
    [
        ("Ref", json!(build.id)),
        ("Name", json!(build.inputs.name)),
        ("Status", json!(status_word(build.status))),
        ("CreatedAt", json!(ago(Some(build.started), now))),
        ("Duration", json!(duration(build, now))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(without_beginning("short"), "short");
        let long = format!("{}/app (test)", "x".repeat(40));
        assert_eq!(without_beginning(&long), format!("..{}/app (test)", "x".repeat(23)));
    }
}
