//! `events`: what happens to containers, as it happens.
//!
//! There is no daemon that could keep a record of events. Each line is told from two states of a container's record, so nothing
//! that has a lasting effect is missed, however quickly one change follows another; what happened before the command began is
//! not known.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_container::{ContainerId, ContainerRecord, ContainerStatus, Containers, HealthResult};
use serde_json::{Map, Value, json};

use super::containers_of;
use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure, printable};
use crate::cli::time::parse_time;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct EventsArgs {
    /// Only those that fit: container=, event=, image=, label=, type=container
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// End at a time (2026-01-02T13:23:37Z, or seconds since 1970)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// json, or what a Go template makes of each: '{{.Action}} {{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    #[arg(long, hide = true, value_name = "TIME")]
    since: Option<String>,
}

/// How often the records are looked at.
const PAUSE: Duration = Duration::from_millis(100);
const ROWS: Rows = Rows { row_type: "events.Message", headings: &[] };

/// Something that happened.
struct Event {
    action: String,
    time: Timestamp,
    attributes: BTreeMap<String, String>,
    record: ContainerRecord,
}

/// Runs `events`.
pub(in crate::cli) fn events(args: &EventsArgs, engine: &Engine) -> Result<Exit, Failure> {
    if args.since.is_some() {
        return Err(Failure::new("--since is not supported")
            .with_help("nothing keeps events: the command shows what happens while it runs"));
    }
    let filters = parse_filters(&args.filter)?;
    let format: Option<Format> = args.format.as_deref().map(str::parse).transpose()?;
    let until = args.until.as_deref().map(|text| parse_time(text, Timestamp::now())).transpose()?;
    let containers = containers_of(engine)?;
    let mut before = known(&containers)?;
    while until.is_none_or(|until| Timestamp::now() < until) {
        std::thread::sleep(PAUSE);
        let now = known(&containers)?;
        let mut happened = differences(&before, &now, Timestamp::now());
        happened.sort_by_key(|event| event.time);
        for event in happened.iter().filter(|event| fits(event, &filters)) {
            let line = match &format {
                None => line(event),
                Some(format) => render_as(format, &ROWS, &[object(event)], String::new)?,
            };
            report::answer(&printable(&line))?;
        }
        before = now;
    }
    Ok(Exit::Success)
}

fn known(containers: &Containers) -> Result<BTreeMap<ContainerId, ContainerRecord>, Failure> {
    Ok(containers.list()?.containers.into_iter().map(|record| (record.id.clone(), record)).collect())
}

fn differences(
    before: &BTreeMap<ContainerId, ContainerRecord>,
    now: &BTreeMap<ContainerId, ContainerRecord>,
    seen: Timestamp,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut add = |record: &ContainerRecord, action: &str, time: Option<Timestamp>, more: &[(&str, String)]| {
        let mut attributes = record.config.labels.clone();
        attributes.insert("image".to_owned(), record.image.name.clone());
        attributes.insert("name".to_owned(), record.name.to_string());
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        events.push(Event {
            action: action.to_owned(),
            time: time.unwrap_or(seen),
            attributes,
            record: record.clone(),
        });
    };
    for (id, record) in now {
        let old = before.get(id);
        if old.is_none() {
            add(record, "create", Some(record.created), &[]);
        }
        if let Some(old) = old.filter(|old| old.name != record.name) {
            add(record, "rename", None, &[("oldName", format!("/{}", old.name))]);
        }
        let state = &record.state;
        let (started, finished) = old.map_or((None, None), |old| (old.state.started, old.state.finished));
        if state.started != started {
            add(record, "start", state.started, &[]);
        }
        if state.finished != finished {
            let code = state.exit.as_ref().map_or(0, |exit| exit.code());
            add(record, "die", state.finished, &[("exitCode", code.to_string())]);
        }
        health_events(record, old, &mut add);
        let paused = old.is_some_and(|old| old.state.status == ContainerStatus::Paused);
        match (paused, state.status) {
            (false, ContainerStatus::Paused) => add(record, "pause", None, &[]),
            (true, ContainerStatus::Running) => add(record, "unpause", None, &[]),
            _ => {}
        }
    }
    for (id, record) in before {
        if !now.contains_key(id) {
            if record.state.status.can_stop() {
                add(record, "die", None, &[]);
            }
            add(record, "destroy", None, &[]);
        }
    }
    events
}

/// The checks that were run meanwhile, and what they changed.
fn health_events(
    record: &ContainerRecord,
    old: Option<&ContainerRecord>,
    add: &mut impl FnMut(&ContainerRecord, &str, Option<Timestamp>, &[(&str, String)]),
) {
    let Some(health) = &record.health else { return };
    let known = old.and_then(|old| old.health.as_ref());
    let seen = |exec: &str| known.is_some_and(|known| known.log.iter().any(|result| result.exec == exec));
    let last = known.and_then(|known| known.log.last()).map(|result| result.start);
    let newer = |result: &&HealthResult| last.is_none_or(|last| result.start >= last) && !seen(&result.exec);
    let mut end = None;
    for result in health.log.iter().filter(newer) {
        let command = record.config.health_command().join(" ");
        let exec = ("execID", result.exec.clone());
        add(record, &format!("exec_create: {command}"), Some(result.start), std::slice::from_ref(&exec));
        add(record, &format!("exec_start: {command}"), Some(result.start), std::slice::from_ref(&exec));
        let code = ("exitCode", result.exit_code.to_string());
        add(record, "exec_die", Some(result.end), &[exec, code]);
        end = Some(result.end);
    }
    // That nobody checks what has ended, or that checks begin again, is no news.
    if let Some(end) = end
        && known.map(|known| known.status).unwrap_or_default() != health.status
        && record.state.status.is_live()
    {
        add(record, &format!("health_status: {}", health.status.name()), Some(end), &[]);
    }
}

fn line(event: &Event) -> String {
    let attributes: Vec<String> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{:.9} container {} {} ({})\n", event.time, event.action, event.record.id, attributes.join(", "))
}

fn object(event: &Event) -> Map<String, Value> {
    let object = json!({
        "status": event.action,
        "id": event.record.id.as_str(),
        "from": event.record.image.name,
        "Type": "container",
        "Action": event.action,
        "Actor": {"ID": event.record.id.as_str(), "Attributes": event.attributes},
        "scope": "local",
        "time": event.time.as_second(),
        "timeNano": i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    });
    match object {
        Value::Object(object) => object,
        _ => unreachable!("written as an object just now"),
    }
}

fn parse_filters(typed: &[String]) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut filters = BTreeMap::<String, Vec<String>>::new();
    for text in typed {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("bad format of filter (expected name=value): {text}")))?;
        if !["container", "event", "image", "label", "type"].contains(&name) {
            return Err(Failure::new(format!("invalid filter '{name}'"))
                .with_help("filters are container, event, image, label, type"));
        }
        filters.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Ok(filters)
}

fn fits(event: &Event, filters: &BTreeMap<String, Vec<String>>) -> bool {
    filters.iter().all(|(name, values)| {
        let any = |fits: &dyn Fn(&str) -> bool| values.iter().any(|value| fits(value));
        match name.as_str() {
            "container" => {
                any(&|value| event.record.name.as_str() == value || event.record.id.as_str().starts_with(value))
            }
            // As in Docker these names stand for whatever follows them.
            "event" => any(&|value| {
                let prefix = ["health_status", "exec_create", "exec_start"].contains(&value);
                event.action == value || (prefix && event.action.starts_with(&format!("{value}: ")))
            }),
            "image" => any(&|value| event.record.image.name == value),
            "label" => any(&|value| match value.split_once('=') {
                Some((key, value)) => event.attributes.get(key).is_some_and(|own| own == value),
                None => event.record.config.labels.contains_key(value),
            }),
            _ => any(&|value| value == "container"),
        }
    })
}
