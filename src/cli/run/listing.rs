//! `ps`.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_cache::ImageError;
use rbuild_container::{ContainerMountSource, ContainerRecord, ContainerStatus, Containers, NetworkChoice, Width};
use serde_json::{Map, Value, json};

use super::containers_of;
use crate::cli::go_template::LABELS;
use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, ago, duration, size};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PsArgs {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only the newest container, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Only this many of the newest containers, whatever their state; all with -1
    #[arg(short = 'n', long, value_name = "NUMBER", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Also how much they have written
    #[arg(short, long)]
    size: bool,
    /// Only those that fit: name=, id=, label=, status=, health=, exited=, ancestor=, before=, since=, volume=, network=,
    /// expose=, publish=
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// table, json, or what a Go template makes of each: '{{.Names}} {{.Status}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
}

const ROWS: Rows = Rows {
    row_type: "*formatter.ContainerContext",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("LocalVolumes", "LOCAL VOLUMES"),
    ],
};

/// Runs `ps`.
pub(in crate::cli) fn list(args: &PsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let filters = Filters::parse(&args.filter)?;
    let format: Format = args.format.parse()?;
    let containers = containers_of(engine)?;
    let listing = containers.list_without_leftovers(&engine.store()?.lease("ps")?)?;
    let filters = filters.resolve(&listing.containers, engine)?;
    let last = args.last.and_then(|last| usize::try_from(last).ok()).filter(|last| *last > 0);
    // As in Docker, a number says more than "the latest".
    let newest = if args.latest && args.last.is_none() { Some(1) } else { last };
    let all = args.all || newest.is_some() || filters.shows_all();
    let shown = |record: &&ContainerRecord| (all || !record.state.status.is_at_rest()) && filters.fit(record);
    let rows = listing.containers.iter().filter(shown).take(newest.unwrap_or(usize::MAX));
    let rows: Vec<&ContainerRecord> = rows.collect();
    report::answer(&printable(&rendered(args, (&format, &args.format), &rows, &containers, engine)?))?;
    for (id, error) in &listing.damaged {
        report::story(&format!("warning: container {}: {error}\n", id.short()));
    }
    Ok(Exit::Success)
}

fn rendered(
    args: &PsArgs,
    (format, typed): (&Format, &str),
    rows: &[&ContainerRecord],
    containers: &Containers,
    engine: &Engine,
) -> Result<String, Failure> {
    let id = |record: &ContainerRecord| if args.no_trunc { record.id.as_str() } else { record.id.short() }.to_owned();
    if args.quiet {
        return Ok(rows.iter().map(|record| format!("{}\n", id(record))).collect());
    }
    let now = jiff::Timestamp::now();
    let mut images = BTreeMap::new();
    let mut objects = Vec::new();
    for record in rows {
        // Measured only where it is shown: it walks all that the container has written.
        let space = if args.size || typed.contains(".Size") {
            let written = containers.written(record)?;
            let image = match (record.snapshot, record.snapshot.and_then(|snapshot| images.get(&snapshot))) {
                (None, _) => 0,
                (Some(_), Some(bytes)) => *bytes,
                (Some(snapshot), None) => {
                    let layers = engine.store()?.snapshots().layers(snapshot)?;
                    let bytes: u64 = layers.iter().map(|layer| layer.size).sum();
                    images.insert(snapshot, bytes);
                    bytes
                }
            };
            format!("{} (virtual {})", size(written), size(written + image))
        } else {
            "0B".to_owned()
        };
        let width = if args.no_trunc { Width::Whole } else { Width::Short };
        let volumes = |record: &ContainerRecord| -> Vec<String> {
            let name = |source: &ContainerMountSource| match source {
                ContainerMountSource::Volume { name, .. } => Some(name.to_string()),
                ContainerMountSource::Bind { path, .. } => Some(path.display().to_string()),
                ContainerMountSource::Tmpfs { .. } => None,
            };
            let names = record.config.mounts.iter().filter_map(|mount| name(&mount.source));
            names.map(|name| if args.no_trunc { name } else { shortened(&name, 15) }).collect()
        };
        let local = record.config.mounts.iter().filter(|m| matches!(m.source, ContainerMountSource::Volume { .. }));
        let labels: Vec<String> = record.config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let object = json!({
            "Command": record.command_text(width),
            "CreatedAt": created_at(record.created),
            "ID": id(record),
            "Image": record.image.name,
            "Labels": labels.join(","),
            LABELS: record.config.labels,
            "LocalVolumes": local.count().to_string(),
            "Mounts": volumes(record).join(","),
            "Names": record.name.as_str(),
            "Networks": networks(record).join(","),
            "Ports": record.ports_text(),
            "RunningFor": ago(Some(record.created), now),
            "Size": space,
            "State": record.state.status.name(),
            "Status": record.status_text(now, duration),
        });
        let Value::Object(object) = object else { unreachable!("written as an object just now") };
        objects.push(object);
    }
    render_as(format, &ROWS, &objects, || table(args, &objects))
}

fn table(args: &PsArgs, rows: &[Map<String, Value>]) -> String {
    let mut columns = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    let mut headings = vec!["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    if args.size {
        columns.push("Size");
        headings.push("SIZE");
    }
    let mut lines = vec![headings.into_iter().map(str::to_owned).collect::<Vec<String>>()];
    for row in rows {
        lines.push(columns.iter().map(|column| row[*column].as_str().unwrap_or_default().to_owned()).collect());
    }
    Table::of(lines).docker().render()
}

/// A text that is longer than so many characters, cut to that length.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Names of the networks of a container.
fn networks(record: &ContainerRecord) -> Vec<String> {
    let endpoints = record.config.endpoints();
    if endpoints.is_empty() && !matches!(record.config.network, NetworkChoice::Named(_) | NetworkChoice::Default) {
        return vec![record.config.network.to_string()];
    }
    endpoints.into_iter().map(|one| one.network).collect()
}

/// As Go prints a time: `2026-01-02 15:04:05 +0000 UTC`.
fn created_at(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// `--filter`, as it was typed: values of one name are alternatives, names are all asked for.
#[derive(Debug, Default)]
struct Filters(BTreeMap<String, Vec<String>>);

/// Filters whose values mean something.
#[derive(Debug, Default)]
struct Resolved {
    filters: BTreeMap<String, Vec<String>>,
    /// Images that `ancestor` names.
    images: BTreeSet<String>,
    /// Containers must be older than this one, and younger than that one.
    before: Option<(jiff::Timestamp, String)>,
    since: Option<(jiff::Timestamp, String)>,
}

const NAMES: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

impl Filters {
    fn parse(typed: &[String]) -> Result<Self, Failure> {
        let mut filters = BTreeMap::<String, Vec<String>>::new();
        for text in typed {
            let invalid =
                |message: String| Failure::new(message).with_help(format!("filters are {}", NAMES.join(", ")));
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| invalid(format!("bad format of filter (expected name=value): {text}")))?;
            let (name, value) = (name.trim().to_lowercase(), value.trim().to_owned());
            let allowed: Option<&[&str]> = match name.as_str() {
                "status" => Some(&STATES),
                "health" => Some(&HEALTH),
                "is-task" => Some(&["true", "false"]),
                _ => None,
            };
            if !NAMES.contains(&name.as_str()) {
                return Err(invalid(format!("invalid filter '{name}'")));
            }
            let ports = matches!(name.as_str(), "expose" | "publish");
            if ports && PortRange::parse(&value).is_none() {
                return Err(Failure::new(format!("invalid filter '{name}={value}'"))
                    .with_help("a port is NUMBER[-NUMBER][/tcp|udp|sctp]"));
            }
            if allowed.is_some_and(|allowed| !allowed.contains(&value.as_str()))
                || (name == "exited" && value.parse::<u8>().is_err())
            {
                return Err(Failure::new(format!("invalid filter '{name}={value}'")));
            }
            filters.entry(name).or_default().push(value);
        }
        Ok(Self(filters))
    }

    fn resolve(self, all: &[ContainerRecord], engine: &Engine) -> Result<Resolved, Failure> {
        let mut resolved = Resolved { filters: self.0, ..Resolved::default() };
        let place = |names: Option<&Vec<String>>| -> Result<Option<(jiff::Timestamp, String)>, Failure> {
            let Some(name) = names.and_then(|names| names.last()) else { return Ok(None) };
            let found =
                all.iter().find(|record| record.name.as_str() == name || record.id.as_str().starts_with(name.as_str()));
            let found = found.ok_or_else(|| Failure::new(format!("no such container: {name}")))?;
            Ok(Some((found.created, found.id.to_string())))
        };
        resolved.before = place(resolved.filters.get("before"))?;
        resolved.since = place(resolved.filters.get("since"))?;
        for name in resolved.filters.get("ancestor").into_iter().flatten() {
            let lease = engine.store()?.lease("ps")?;
            match engine.store()?.images().acquire(name, None, &lease) {
                Ok(image) => drop(resolved.images.insert(image.record.id.to_string())),
                Err(ImageError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(resolved)
    }
}

impl Resolved {
    /// Whether a filter asks for containers that do not run.
    fn shows_all(&self) -> bool {
        self.filters.contains_key("status") || self.filters.contains_key("exited")
    }

    fn fit(&self, record: &ContainerRecord) -> bool {
        let position = (record.created, record.id.to_string());
        self.before.as_ref().is_none_or(|before| position < *before)
            && self.since.as_ref().is_none_or(|since| position > *since)
            && self.filters.iter().all(|(name, values)| self.fits(record, name, values))
    }

    fn fits(&self, record: &ContainerRecord, name: &str, values: &[String]) -> bool {
        let any = |fits: &dyn Fn(&str) -> bool| values.iter().any(|value| fits(value));
        match name {
            "id" => any(&|value| record.id.as_str().starts_with(value)),
            "name" => any(&|value| {
                let own = record.name.as_str();
                matches_name(value, own) || matches_name(value, &format!("/{own}"))
            }),
            // Labels are all asked for, as in Docker.
            "label" => values.iter().all(|value| match value.split_once('=') {
                Some((key, value)) => record.config.labels.get(key).is_some_and(|own| own == value),
                None => record.config.labels.contains_key(value),
            }),
            "status" => any(&|value| record.state.status.name() == value),
            "health" => any(&|value| record.health.as_ref().map_or("none", |health| health.status.name()) == value),
            "exited" => {
                let code = record.state.exit.as_ref().map(|exit| exit.code().to_string());
                record.state.status == ContainerStatus::Exited && any(&|value| code.as_deref() == Some(value))
            }
            "ancestor" => {
                self.images.contains(&record.image.id.to_string()) || any(&|value| record.image.name == value)
            }
            "volume" => any(&|value| {
                record.config.mounts.iter().any(|mount| {
                    let source = match &mount.source {
                        ContainerMountSource::Volume { name, .. } => name.as_str() == value,
                        ContainerMountSource::Bind { path, .. } => path.as_os_str() == value,
                        ContainerMountSource::Tmpfs { .. } => false,
                    };
                    source || mount.target.to_string() == value
                })
            }),
            "network" => any(&|value| networks(record).iter().any(|name| name == value)),
            "expose" => any(&|value| {
                let has = |wanted: PortRange| {
                    let declared = record.config.exposed_ports.iter().filter_map(|port| port.split_once('/'));
                    let mut ports = declared.filter_map(|(port, protocol)| Some((port.parse().ok()?, protocol)));
                    ports.any(|(port, protocol)| wanted.has(port, protocol)) || published(record, &wanted, Side::Inside)
                };
                PortRange::parse(value).is_some_and(has)
            }),
            "publish" => {
                any(&|value| PortRange::parse(value).is_some_and(|wanted| published(record, &wanted, Side::Outside)))
            }
            // There are no services, and one kind of isolation: Docker, too, has no other on Linux.
            "is-task" => any(&|value| value == "false"),
            "isolation" => true,
            "before" | "since" => true,
            _ => unreachable!("names were checked when they were read"),
        }
    }
}

/// Which of the two numbers of a published port is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Inside,
    Outside,
}

/// Whether a port is published, or was asked to be while the container does not run.
fn published(record: &ContainerRecord, wanted: &PortRange, side: Side) -> bool {
    let now = record.state.network.ports.iter().any(|port| {
        let number = if side == Side::Inside { port.inside } else { port.host.port() };
        wanted.has(number, port.protocol.name())
    });
    now || record.config.ports.iter().any(|port| {
        let numbers = if side == Side::Inside { Some(&port.inside) } else { port.host.as_ref() };
        let mut numbers = numbers.into_iter().flat_map(Clone::clone);
        numbers.any(|number| wanted.has(number, port.protocol.name()))
    })
}

/// Ports as filters name them: `80`, `80-90/udp`.
#[derive(Debug, PartialEq, Eq)]
struct PortRange {
    numbers: std::ops::RangeInclusive<u16>,
    protocol: String,
}

impl PortRange {
    fn parse(text: &str) -> Option<Self> {
        let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && matches!(protocol, "tcp" | "udp" | "sctp"))
            .then(|| Self { numbers: first..=last, protocol: protocol.to_owned() })
    }

    fn has(&self, number: u16, protocol: &str) -> bool {
        self.numbers.contains(&number) && self.protocol == protocol
    }
}

/// Whether a name has a pattern's text in it; `^` and `$` tie it to the beginning and the end.
pub(in crate::cli) fn matches_name(pattern: &str, name: &str) -> bool {
    let (from_begin, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (to_end, text) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    match (from_begin, to_end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_a_closed_list() {
        let parse = |text: &str| {
            Filters::parse(&[text.to_owned()]).map(|filters| filters.0).map_err(|f| f.message().to_owned())
        };
        assert_eq!(parse("name=web").unwrap(), BTreeMap::from([("name".to_owned(), vec!["web".to_owned()])]));
        for (text, error) in [
            ("name", "bad format of filter (expected name=value): name"),
            ("colour=red", "invalid filter 'colour'"),
            ("status=asleep", "invalid filter 'status=asleep'"),
            ("exited=x", "invalid filter 'exited=x'"),
            ("publish=http", "invalid filter 'publish=http'"),
            ("expose=9-8", "invalid filter 'expose=9-8'"),
            ("is-task=x", "invalid filter 'is-task=x'"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn long_names_of_volumes_are_cut_as_by_docker() {
        assert_eq!(shortened("123456789012345", 15), "123456789012345");
        assert_eq!(shortened("1234567890123456", 15), "12345678901234…");
        assert_eq!(shortened("ääääääääääääääää", 15), "ääääääääääääää…");
    }

    #[test]
    fn names_are_patterns() {
        for (pattern, name, want) in [
            ("we", "web", true),
            ("^we$", "web", false),
            ("^/web$", "/web", true),
            ("b$", "web", true),
            ("^e", "web", false),
        ] {
            assert_eq!(matches_name(pattern, name), want, "{pattern} {name}");
        }
    }
}
