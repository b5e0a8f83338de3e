//! The view for programs: one JSON object a line on standard error, in the form of BuildKit's `SolveStatus`
//! (docs/rawjson.md), so that what reads `docker buildx build --progress=rawjson` reads this.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rbuild_image::Digest;
use rbuild_solver::{Event, LogStream, Outcome, VertexId};
use serde::Serialize;

use super::view::{State, View};
use crate::cli::report::story;

/// The version of the form.
const VERSION: u32 = 1;

/// State of the view.
#[derive(Debug)]
pub(super) struct RawJson {
    /// The zero of the build's clock.
    began: Timestamp,
    digests: BTreeMap<VertexId, String>,
    /// When the export began, and the digest of its vertex.
    export: Option<(u64, String)>,
    pub(super) say: fn(&str),
}

/// What happened since the line before.
#[derive(Debug, Default, Serialize)]
struct Status<'a> {
    /// Of the form (docs/rawjson.md): with the plan, which comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<Transfer<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning<'a>>,
}

#[derive(Debug, Serialize)]
struct Vertex<'a> {
    digest: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Timestamp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Transfer<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    current: u64,
    timestamp: Timestamp,
    started: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Log<'a> {
    vertex: &'a str,
    stream: u8,
    /// Base64.
    data: String,
    timestamp: Timestamp,
}

#[derive(Debug, Serialize)]
struct Warning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<&'a str>,
    level: u8,
    /// Base64.
    short: String,
}

impl RawJson {
    /// An empty view of a build that began then.
    pub(super) fn new(began: Timestamp) -> Self {
        Self { began, digests: BTreeMap::new(), export: None, say: story }
    }

    /// Shows an event that `view` has taken in.
    pub(super) fn show(&mut self, view: &View, event: &Event) {
        if let Some(line) = self.line(view, event) {
            (self.say)(&line);
        }
    }

    /// Ends the view.
    pub(super) fn finish(self, view: &View) {
        if let Some((started, digest)) = &self.export {
            let mut status = Status::default();
            let (started, completed) = (Some(self.time(*started)), Some(self.time(view.last)));
            status.vertexes.push(Vertex {
                digest,
                inputs: Vec::new(),
                name: "exporting",
                started,
                completed,
                cached: false,
                error: None,
            });
            (self.say)(&json(&status));
        }
    }

    /// The line for an event.
    fn line(&mut self, view: &View, event: &Event) -> Option<String> {
        if let Event::Planned { .. } = event {
            self.digests = digests(view);
        }
        if let (Event::Export { at, .. }, None) = (event, &self.export) {
            self.export = Some((*at, Digest::sha256("exporting").to_string()));
        }
        let waits = match event {
            Event::Waiting { reason, .. } => format!("waiting for {reason}"),
            _ => String::new(),
        };
        let mut status = Status::default();
        let digest = |vertex: &VertexId| self.digests.get(vertex).map(String::as_str);
        match event {
            Event::Planned { vertices } => {
                status.version = Some(VERSION);
                status.vertexes = vertices.iter().filter_map(|planned| self.vertex(view, planned.vertex)).collect();
            }
            Event::Started { vertex, .. } | Event::Cached { vertex, .. } => {
                status.vertexes.extend(self.vertex(view, *vertex));
            }
            Event::Done { vertex, outcome, .. } => {
                let canceled = (*outcome == Outcome::Cancelled).then_some("context canceled: canceled");
                let shown = self.vertex(view, *vertex);
                status.vertexes.extend(shown.map(|shown| Vertex { error: shown.error.or(canceled), ..shown }));
            }
            Event::Log { vertex, stream, data, at } => status.logs.push(Log {
                vertex: digest(vertex)?,
                stream: if *stream == LogStream::Stdout { 1 } else { 2 },
                data: STANDARD.encode(data),
                timestamp: self.time(*at),
            }),
            Event::Bytes { vertex, item, current, total, at } => {
                let whole = total.is_some_and(|total| *current >= total);
                status.statuses.push(Transfer {
                    id: item,
                    vertex: vertex.as_ref().and_then(digest),
                    name: item,
                    total: *total,
                    current: *current,
                    timestamp: self.time(*at),
                    started: self.time(*at),
                    completed: whole.then(|| self.time(*at)),
                });
            }
            Event::Export { step, done, at } => {
                let (_, digest) = self.export.as_ref()?;
                status.statuses.push(Transfer {
                    id: step,
                    vertex: Some(digest),
                    name: step,
                    total: None,
                    current: 0,
                    timestamp: self.time(*at),
                    started: self.time(*at),
                    completed: done.then(|| self.time(*at)),
                });
            }
            Event::Waiting { vertex, at, .. } => status.statuses.push(Transfer {
                id: &waits,
                vertex: digest(vertex),
                name: &waits,
                total: None,
                current: 0,
                timestamp: self.time(*at),
                started: self.time(*at),
                completed: None,
            }),
            Event::Warning { vertex, message } => status.warnings.push(Warning {
                vertex: vertex.as_ref().and_then(digest),
                level: 1,
                short: STANDARD.encode(message),
            }),
            Event::Used { .. } | Event::Recalled { .. } | Event::Missed { .. } => return None,
        }
        Some(json(&status))
    }

    fn vertex<'a>(&'a self, view: &'a View, id: VertexId) -> Option<Vertex<'a>> {
        let step = view.step(id)?;
        Some(Vertex {
            digest: self.digests.get(&id)?,
            inputs: step.inputs.iter().filter_map(|input| self.digests.get(input)).map(String::as_str).collect(),
            name: &step.name,
            started: step.started.map(|at| self.time(at)),
            completed: step.ended.map(|at| self.time(at)),
            cached: step.state == State::Cached,
            error: step.failure.as_ref().map(|failure| failure.message.as_str()),
        })
    }

    fn time(&self, at: u64) -> Timestamp {
        let since = SignedDuration::from_nanos(i64::try_from(at).unwrap_or(i64::MAX));
        self.began.checked_add(since).unwrap_or(self.began)
    }
}

fn json(status: &Status<'_>) -> String {
    let mut line = serde_json::to_string(status).expect("strings and numbers become JSON");
    line.push('\n');
    line
}

/// A digest for each step, by what it is called and what it reads: it tells steps of one build apart, and stays when
/// the build is repeated.
fn digests(view: &View) -> BTreeMap<VertexId, String> {
    let mut digests: BTreeMap<VertexId, String> = BTreeMap::new();
    for (id, step) in view.steps() {
        let mut text = format!("{}\n{}\n{}\n", step.number, step.stage, step.name);
        for input in &step.inputs {
            text.push_str(digests.get(input).map_or("", String::as_str));
            text.push('\n');
        }
        digests.insert(*id, Digest::sha256(text).to_string());
    }
    digests
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::planned;
    use super::*;

    #[test]
    fn lines_are_buildkits() {
        let mut view = View::default();
        let mut raw = RawJson::new(Timestamp::from_second(1_700_000_000).unwrap());
        let (plan, ids) = planned(&[("[1/2] FROM a", &[]), ("[2/2] RUN \"x\"", &[0])]);
        let events = [
            plan,
            Event::Cached { vertex: ids[0], at: 1_000_000 },
            Event::Started { vertex: ids[1], at: 2_000_000 },
            Event::Log { vertex: ids[1], stream: LogStream::Stderr, data: b"hi\n".to_vec(), at: 3_000_000 },
            Event::Done { vertex: ids[1], outcome: Outcome::Completed, at: 4_000_000 },
            Event::Warning { vertex: None, message: "old".into() },
        ];
        let mut lines = String::new();
        for event in &events {
            view.fold(event);
            lines.push_str(&raw.line(&view, event).unwrap());
        }
        for (at, digest) in raw.digests.values().enumerate() {
            lines = lines.replace(digest, &format!("sha256:<{at}>"));
        }
        insta::assert_snapshot!(lines, @r#"
        {"version":1,"vertexes":[{"digest":"sha256:<0>","name":"[1/2] FROM a"},{"digest":"sha256:<1>","inputs":["sha256:<0>"],"name":"[2/2] RUN \"x\""}]}
        {"vertexes":[{"digest":"sha256:<0>","name":"[1/2] FROM a","started":"2023-11-14T22:13:20.001Z","completed":"2023-11-14T22:13:20.001Z","cached":true}]}
        {"vertexes":[{"digest":"sha256:<1>","inputs":["sha256:<0>"],"name":"[2/2] RUN \"x\"","started":"2023-11-14T22:13:20.002Z"}]}
        {"logs":[{"vertex":"sha256:<1>","stream":2,"data":"aGkK","timestamp":"2023-11-14T22:13:20.003Z"}]}
        {"vertexes":[{"digest":"sha256:<1>","inputs":["sha256:<0>"],"name":"[2/2] RUN \"x\"","started":"2023-11-14T22:13:20.002Z","completed":"2023-11-14T22:13:20.004Z"}]}
        {"warnings":[{"level":1,"short":"b2xk"}]}
        "#);
    }
}
