//! `events`: what happened to containers, images, volumes and networks, and what happens.
//!
//! Whoever changes something appends it to the store's record, which is bounded in size; this command reads that, and goes on
//! reading. No daemon is needed for it, and nothing that was recorded is missed, however quickly one change follows another.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rbuild_container::{Event, EventKind};
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
    /// Only those that fit: container=, event=, image=, label=, network=, scope=local, type=container|image|network|volume, volume=
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Begin with what was recorded since a time (2026-01-02T13:23:37Z, seconds since 1970, or an age as 10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at a time; with one that has passed, what was recorded until then is shown
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// json, or what a Go template makes of each: '{{.Action}} {{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// How often it is looked for news.
const PAUSE: Duration = Duration::from_millis(100);
const ROWS: Rows = Rows { row_type: "events.Message", headings: &[] };
const FILTERS: [&str; 8] = ["container", "event", "image", "label", "network", "scope", "type", "volume"];

/// Runs `events`.
pub(in crate::cli) fn events(args: &EventsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let filters = parse_filters(&args.filter)?;
    let format: Option<Format> = args.format.as_deref().map(str::parse).transpose()?;
    let begin = Timestamp::now();
    let time = |text: Option<&str>| text.map(|text| parse_time(text, begin)).transpose();
    let (since, until) = (time(args.since.as_deref())?, time(args.until.as_deref())?);
    let log = containers_of(engine)?.event_log();
    let past = since.is_some() || until.is_some_and(|until| until <= begin);
    let mut reader = if past { log.read() } else { log.read_new()? };
    loop {
        // What was recorded by now is there when it is read after the clock.
        let over = until.is_some_and(|until| Timestamp::now() >= until);
        let wanted = |event: &Event| {
            since.is_none_or(|since| event.time >= since)
                && until.is_none_or(|until| event.time <= until)
                && fits(event, &filters)
        };
        for event in reader.next_events()?.iter().filter(|event| wanted(event)) {
            let line = match &format {
                None => line(event),
                Some(format) => render_as(format, &ROWS, &[object(event)], String::new)?,
            };
            report::answer(&printable(&line))?;
        }
        if over {
            return Ok(Exit::Success);
        }
        std::thread::sleep(PAUSE);
    }
}

fn line(event: &Event) -> String {
    let attributes: Vec<String> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (kind, action, id) = (event.kind.name(), &event.action, &event.id);
    format!("{:.9} {kind} {action} {id} ({})\n", event.time, attributes.join(", "))
}

fn object(event: &Event) -> Map<String, Value> {
    let mut object = json!({
        "Type": event.kind.name(),
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time.as_second(),
        "timeNano": i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    });
    if matches!(event.kind, EventKind::Container | EventKind::Image) {
        object["status"] = json!(event.action);
        object["id"] = json!(event.id);
    }
    if event.kind == EventKind::Container {
        object["from"] = json!(event.attributes.get("image"));
    }
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
        if !FILTERS.contains(&name) {
            return Err(Failure::new(format!("invalid filter '{name}'"))
                .with_help(format!("filters are {}", FILTERS.join(", "))));
        }
        filters.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Ok(filters)
}

fn fits(event: &Event, filters: &BTreeMap<String, Vec<String>>) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    // What happens to networks and volumes says whose container it was for.
    let of = |kind: EventKind, other: &str, value: &str| {
        let own = event.kind == kind && (event.id.starts_with(value) || attribute("name") == Some(value));
        own || attribute(other).is_some_and(|id| id.starts_with(value))
    };
    filters.iter().all(|(name, values)| {
        let any = |fits: &dyn Fn(&str) -> bool| values.iter().any(|value| fits(value));
        match name.as_str() {
            "container" => any(&|value| of(EventKind::Container, "container", value)),
            "network" => any(&|value| of(EventKind::Network, "network", value)),
            "volume" => any(&|value| of(EventKind::Volume, "volume", value)),
            // `health_status` means all of that kind, as in Docker.
            "event" => any(&|value| event.action == value || event.action.split(':').next() == Some(value)),
            // The identifier of an image's own events is the image's, or the name that was pulled or pushed.
            "image" if event.kind == EventKind::Image => any(&|value| {
                let digits = event.id.strip_prefix("sha256:").unwrap_or(&event.id);
                event.id.starts_with(value)
                    || digits.starts_with(value)
                    || attribute("name").is_some_and(|name| names_image(name, value))
            }),
            "image" => any(&|value| attribute("image").is_some_and(|image| names_image(image, value))),
            "label" => values.iter().all(|value| match value.split_once('=') {
                Some((key, value)) => attribute(key) == Some(value),
                None => attribute(value).is_some(),
            }),
            "scope" => any(&|value| value == "local"),
            _ => any(&|value| value == event.kind.name()),
        }
    })
}

/// Whether an image's name is `value`, with or without its tag.
fn names_image(image: &str, value: &str) -> bool {
    image == value || image.rsplit_once(':').is_some_and(|(name, tag)| name == value && !tag.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_kind_are_alternatives() {
        let event = |kind, action: &str, id: &str, attributes: &[(&str, &str)]| Event {
            time: Timestamp::from_second(5).unwrap(),
            kind,
            action: action.into(),
            id: id.into(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let died =
            event(EventKind::Container, "die", "abc123", &[("name", "web"), ("image", "nginx:1"), ("tier", "a")]);
        let joined = event(EventKind::Network, "connect", "def456", &[("name", "app"), ("container", "abc123")]);
        for (typed, container, network) in [
            (&[][..], true, true),
            (&["type=container"], true, false),
            (&["container=web"], true, false),
            (&["container=abc"], true, true),
            (&["network=app"], false, true),
            (&["event=die", "event=connect"], true, true),
            (&["event=die", "container=db"], false, false),
            (&["image=nginx"], true, false),
            (&["label=tier=a"], true, false),
            (&["label=tier=a", "label=other"], false, false),
        ] {
            let typed: Vec<String> = typed.iter().map(|&text| text.to_owned()).collect();
            let filters = parse_filters(&typed).unwrap();
            assert_eq!((fits(&died, &filters), fits(&joined, &filters)), (container, network), "{typed:?}");
        }
        assert_eq!(parse_filters(&["colour=red".into()]).unwrap_err().message(), "invalid filter 'colour'");
        assert_eq!(
            line(&died),
            "1970-01-01T00:00:05.000000000Z container die abc123 (image=nginx:1, name=web, tier=a)\n"
        );
    }
}
